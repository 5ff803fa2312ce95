"""Chain: blocks in a row, one list that is walked forwards or backwards."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, overload

from torch import Tensor, nn

from wic_layers.blocks.block import (
    Gradients,
    InvertibleBlock,
    Named,
    as_block,
    check_invertible,
    run_named,
)
from wic_layers.layer.two_way import has_hooks

__all__ = ["Chain"]


class Chain(InvertibleBlock):
    """Blocks in a row: one list, walked forwards or backwards.

    Args:
        *blocks: Modules with ``forward`` and ``inverse``.

    Raises:
        WICArgumentError: If a block has no ``inverse``.

    Example:
        >>> import torch
        >>> from wic_layers import WIC
        >>> from wic_layers.blocks import Squeeze
        >>> chain = Chain(Squeeze(2), WIC(12, 16))
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.allclose(chain.inverse(chain(x)), x, atol=1e-5)
        True
    """

    reach = 0  # of its own
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

    def _through(self, blocks: Named, x: Tensor, *, rev: bool = False) -> Tensor:
        """Runs blocks with their names, in this order."""
        if self.runner is not None and self.runner.is_wanted():
            return self.runner(blocks, x, rev=rev)
        for name, block in blocks:
            x = run_named(name, block.inverse if rev else block, x)
        return x

    def _blocks(self) -> Named:
        # not named_children(), which leaves out the second use of a block
        return list(self._modules.items())

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`InvertibleBlock.shape_after`."""
        for block in self:
            channels, side = as_block(block).shape_after(channels, side)
        return channels, side

    def parts(
        self, channels: int, side: Fraction
    ) -> Iterator[tuple[str, nn.Module, int, Fraction]]:
        """See :meth:`InvertibleBlock.parts`."""
        for name, block in self._blocks():
            yield name, block, channels, side
            channels, side = as_block(block).shape_after(channels, side)

    def can_undo(self, *, rev: bool) -> bool:
        """Whether all blocks can be undone."""
        return not has_hooks(self) and all(as_block(block).can_undo(rev=rev) for block in self)

    def undo(
        self, y: Tensor, gradient: Tensor, gradients: Gradients, *, rev: bool
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`InvertibleBlock.undo`."""
        for block in list(self)[:: 1 if rev else -1]:
            y, gradient = as_block(block).undo(y, gradient, gradients, rev=rev)
        return y, gradient

    def keep_one_way(self, *, rev: bool) -> None:
        """Drops what only the other direction needs, from every block."""
        for block in self:
            as_block(block).keep_one_way(rev=rev)

    def __len__(self) -> int:
        return len(self._modules)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> Chain: ...
    def __getitem__(self, index: int | slice) -> Any:
        blocks = list(self)
        return Chain(*blocks[index]) if isinstance(index, slice) else blocks[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([block for _, block in self._blocks()])
