"""What all blocks share, and blocks in a row."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.layer.conv import WIC

__all__ = [
    "Chain",
    "InvertibleBlock",
    "check_channels",
    "check_divisible",
    "check_invertible",
    "run_named",
    "title_of",
    "way_back",
]


class InvertibleBlock(nn.Module):
    """Base of the blocks: ``forward(x)``, ``inverse(y)`` and ``forward(y, rev=True)``.

    A subclass has ``_forward`` and ``_inverse``, or ``_forward`` and an ``inverse`` of its own.
    Both directions run as a call of the module, with its hooks: those of pruning, of old weight
    normalisation and of ``fully_shard`` set the weights there.

    Attributes:
        is_exact: Whether both directions give back what went into the other.
    """

    is_exact = False

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - as IRN calls it
        """Maps ``x`` forward, or back with ``rev=True``."""
        if not rev:
            return self._forward(x)
        is_own = type(self).inverse is not InvertibleBlock.inverse  # of a subclass
        return self.inverse(x) if is_own else self._inverse(x)

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        """Maps ``y`` back."""
        # not from methods of a subclass, which may call this one in place of what they replace
        is_called = type(self).inverse is InvertibleBlock.inverse and _takes_rev(self)
        result: Tensor = self(y, rev=True) if is_called else self._inverse(y)
        return result

    def _inverse(self, y: Tensor) -> Tensor:
        raise NotImplementedError


def _takes_rev(block: nn.Module) -> bool:
    """Whether a block's ``forward`` is one of this package's blocks and layers."""
    is_block = isinstance(block, (InvertibleBlock, WIC))
    return is_block and type(block).forward.__module__.startswith("wic_layers.")


def way_back(block: Any) -> Callable[..., Any]:
    """What runs a block backwards: a call of the module, or a user's own ``inverse``."""
    return partial(block, rev=True) if _takes_rev(block) else block.inverse


class Chain(InvertibleBlock):
    """Blocks in a row: one list, walked forwards or backwards.

    Args:
        *blocks: Modules with ``forward`` and ``inverse``.

    Raises:
        WICArgumentError: If a block has no ``inverse``.

    Example:
        >>> from wic_layers import WIC
        >>> from wic_layers.blocks import Squeeze
        >>> chain = Chain(Squeeze(2), WIC(12, 16))
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.allclose(chain.inverse(chain(x)), x, atol=1e-5)
        True
    """

    runner: Any = None  # what wic_layers.blocks.reversible.save_memory puts there

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        for index, block in enumerate(blocks):
            check_invertible(block, f"block {index}")
            self.add_module(str(index), block)

    def _forward(self, x: Tensor) -> Tensor:
        return self._through(self._blocks(), x)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._through(self._blocks()[::-1], y, rev=True)

    def _through(self, blocks: list[tuple[str, Any]], x: Tensor, *, rev: bool = False) -> Tensor:
        """Runs blocks with their names, in this order."""
        if self.runner is not None and self.runner.is_wanted():
            return self.runner(blocks, x, rev=rev)
        for name, block in blocks:
            x = run_named(name, way_back(block) if rev else block, x)
        return x

    def _blocks(self) -> list[tuple[str, Any]]:
        # not named_children(), which leaves out the second use of a block
        return list(self._modules.items())

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int | slice) -> Any:
        blocks = list(self)
        return Chain(*blocks[index]) if isinstance(index, slice) else blocks[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([block for _, block in self._blocks()])


def run_named(name: str, function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """Calls a part of a module; its errors say its name."""
    if torch.compiler.is_compiling():
        return function(x)
    try:
        return function(x)
    except WICError as error:
        raise error.inside(name) from None


def title_of(block: nn.Module) -> str:
    """A block as messages name it."""
    return f"{type(block).__name__}({block.extra_repr()})"


def check_invertible(block: nn.Module, name: str) -> None:
    """Raises WICArgumentError if a block has no ``inverse``."""
    if not callable(getattr(block, "inverse", None)):
        raise WICArgumentError(
            f"Expected blocks with an inverse method; {name} is {type(block).__name__}."
        )


def check_divisible(x: Tensor, factor: int, block: nn.Module) -> None:
    """Raises WICShapeError if the sides of images are not divisible by ``factor``."""
    if x.ndim != 4 or x.shape[-2] % factor or x.shape[-1] % factor:
        raise WICShapeError(
            f"{title_of(block)}: expected images (B, C, H, W) with H and W divisible by {factor}; "
            f"got {tuple(x.shape)}. Pad them first."
        )


def check_channels(y: Tensor, groups: int, block: nn.Module) -> None:
    """Raises WICShapeError if the channels of images are not divisible by ``groups``."""
    if y.ndim != 4 or y.shape[1] % groups:
        raise WICShapeError(
            f"{title_of(block)}: expected images (B, C, H, W) with C divisible by {groups}; got "
            f"{tuple(y.shape)}."
        )
