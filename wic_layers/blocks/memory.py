"""LongTermMemory: channels that are set aside while the others change."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.blocks.block import (
    Gradients,
    InvertibleBlock,
    as_block,
    check_invertible,
    run_named,
)
from wic_layers.errors import WICShapeError
from wic_layers.layer.two_way import has_hooks

__all__ = ["LongTermMemory"]


class LongTermMemory(InvertibleBlock):
    """Sets the first channels aside and sends the rest through ``inner``.

    Nested, it is WIN's long-term memory: ``[memory; rest] -> [memory; inner(rest)]``, where
    ``inner`` may hold another one. What was set aside reaches the end of the network untouched.

    Args:
        channels: How many channels are set aside.
        inner: The block (or chain) for the others.

    Raises:
        WICArgumentError: If ``inner`` has no ``inverse``.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (19)-(20)
    """

    reach = 0  # of its own

    def __init__(self, channels: int, inner: nn.Module) -> None:
        super().__init__()
        check_invertible(inner, "inner")
        self.channels = channels
        self.inner: Any = inner

    def _forward(self, x: Tensor) -> Tensor:
        return self._around(x, self.inner)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._around(y, self.inner.inverse)

    def _around(self, x: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        if x.shape[1] <= self.channels:
            raise WICShapeError(
                f"LongTermMemory: expected more than {self.channels} channels; got shape "
                f"{tuple(x.shape)}."
            )
        rest = run_named("inner", function, x[:, self.channels :])
        return torch.cat((x[:, : self.channels], rest), dim=1)

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`InvertibleBlock.shape_after`."""
        rest, side = as_block(self.inner).shape_after(channels - self.channels, side)
        return self.channels + rest, side

    def parts(
        self, channels: int, side: Fraction
    ) -> Iterator[tuple[str, nn.Module, int, Fraction]]:
        """See :meth:`InvertibleBlock.parts`."""
        yield "inner", self.inner, channels - self.channels, side

    def can_undo(self, *, rev: bool) -> bool:
        """Whether what is inside can be undone."""
        return not has_hooks(self) and as_block(self.inner).can_undo(rev=rev)

    def undo(
        self, y: Tensor, gradient: Tensor, gradients: Gradients, *, rev: bool
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`InvertibleBlock.undo`."""
        rest, below = y[:, self.channels :], gradient[:, self.channels :]
        rest, below = as_block(self.inner).undo(rest, below, gradients, rev=rev)
        aside, above = y[:, : self.channels], gradient[:, : self.channels]
        return torch.cat((aside, rest), 1), torch.cat((above, below), 1)

    def keep_one_way(self, *, rev: bool) -> None:
        """Drops what only the other direction needs, from what is inside."""
        as_block(self.inner).keep_one_way(rev=rev)

    def extra_repr(self) -> str:
        return f"{self.channels}"
