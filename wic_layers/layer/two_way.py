"""TwoWay: a module that runs back by its forward where it has hooks; ``has_hooks``."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook

__all__ = ["TwoWay", "has_hooks"]


class TwoWay(nn.Module):
    """Base of the layer and the blocks: ``inverse(y)`` is ``forward(y, rev=True)``.

    It is a call of the module where it has hooks: those of pruning, of old weight normalisation
    and of ``fully_shard`` set the weights there. A subclass has ``_inverse``.
    """

    _takes_rev = True

    if TYPE_CHECKING:  # of any torch module a call is Any

        def __call__(self, x: Tensor, rev: bool = False) -> Tensor: ...  # noqa: FBT001, FBT002

    def __init_subclass__(cls, **arguments: Any) -> None:
        super().__init_subclass__(**arguments)
        # a subclass may have a forward of its own that knows one direction only
        cls._takes_rev = "rev" in signature(cls.forward).parameters

    def inverse(self, y: Tensor) -> Tensor:
        """Maps ``y`` back."""
        result: Tensor = (
            self(y, rev=True) if self._takes_rev and has_hooks(self) else self._inverse(y)
        )
        return result

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _inverse.")


def has_hooks(module: nn.Module) -> bool:
    """Whether calling a module does more than its ``forward``."""
    hooks = (
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or _has_any_global_hook()
    )
    return bool(hooks)
