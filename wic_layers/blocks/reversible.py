"""save_memory: training in the memory of a block or two, by inputs computed again from outputs.

Autograd keeps every activation of a network for its way back. A chain of invertible blocks need
keep none but the last: on the way back each block gives its input from its output, and is run once
more for its gradients. Memory no longer grows with depth; a step takes one more evaluation of the
networks inside couplings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.blocks.block import Gradients, Named, as_block, run_named
from wic_layers.blocks.chain import Chain
from wic_layers.blocks.coupling_net import CouplingNet
from wic_layers.errors import WICError
from wic_layers.layer.pointwise import is_transformed

__all__ = ["save_memory"]

_TOLERANCE = 1e-3  # of the largest absolute value


def save_memory(model: nn.Module, *, enabled: bool = True, check: bool = False) -> None:
    """Makes the chains of a model compute activations again on the way back, or keep them.

    All blocks of a chain that lose nothing take part: couplings, squeezes, memories, square WIC
    layers and, on the way forward, widening ones. The others are run as before. Gradients are
    those of plain autograd to the rounding of the inverses. They are of first order only, and
    compiled code and function transforms (``torch.func``) run as before. Networks inside couplings
    must give the same twice: no dropout. They run twice a step, so a batch norm in them would
    count every batch twice. Blocks that have hooks or sharded parameters (``fully_shard``), or
    that :meth:`~wic_layers.models.Network.optimize` set, keep their activations.

    Args:
        model: A network of :mod:`wic_layers.models`, or any module with a
            :class:`~wic_layers.blocks.Chain` in it.
        enabled: False to go back to plain autograd.
        check: Keep what goes in after all, and compare it with what was computed again: for
            finding a block whose inverse is not exact enough. Saves no memory.

    Raises:
        WICError: On the way back, with ``check``, if an input that was computed again is off by
            more than 1e-3 of its largest absolute value; names the block.

    References:
        | The Reversible Residual Network: Backpropagation Without Storing Activations (Gomez et
        | al., 2017)

    Example:
        >>> from wic_layers.models import WINNaive
        >>> model = WINNaive(3, 3, scale=2, couplings=2, growth=4)
        >>> save_memory(model)
        >>> model(torch.rand(1, 3, 8, 8)).sum().backward()
    """
    for module in model.modules():
        if isinstance(module, Chain):
            module.runner = _Runner(check=check) if enabled else None


@dataclass
class _Runner:
    """Runs the blocks of a chain, as many of them as can be in one piece."""

    check: bool

    def is_wanted(self) -> bool:
        """Whether autograd, and nothing else, watches."""
        return (
            torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined]
            and not is_transformed()
        )

    def __call__(self, blocks: Named, x: Tensor, *, rev: bool) -> Tensor:
        """Maps ``x`` through blocks with their names, in this order."""
        rest = list(blocks)
        while rest:
            count = 0
            while count < len(rest) and _can_take_part(rest[count][1], rev=rev):
                count += 1
            if count:
                piece = _Piece(rest[:count], rev, self.check)
                x = _Reversible.apply(piece, x, *piece.parameters)
            else:
                name, block = rest[0]
                x = run_named(name, block.inverse if rev else block, x)
            rest = rest[max(count, 1) :]
        return x


def _can_take_part(block: nn.Module, *, rev: bool) -> bool:
    """Whether a block can be undone and does the same again, with parameters that stay its own.

    ``fully_shard`` exchanges them at every call; then the gradients would be those of others.
    """
    return (
        as_block(block).can_undo(rev=rev)
        and all(type(parameter) in (Tensor, nn.Parameter) for parameter in block.parameters())
        and not any(isinstance(net, CouplingNet) and net.is_optimized() for net in block.modules())
    )


@dataclass
class _Piece:
    """Exact blocks in the order in which they run, and how to undo them."""

    blocks: Named
    rev: bool
    check: bool

    def __post_init__(self) -> None:
        self.weights = list(dict.fromkeys(p for _, b in self.blocks for p in b.parameters()))
        self.parameters = [weight for weight in self.weights if weight.requires_grad]


def _compare(name: str, x: Tensor, expected: Tensor) -> None:
    off = float((x - expected).abs().max()) if x.numel() else 0.0
    largest = float(expected.abs().max()) if x.numel() else 0.0
    if not off <= _TOLERANCE * largest:
        raise WICError(
            f"{name}: expected what went in to come back from what came out; it is off by "
            f"{off:.3g} of {largest:.3g}. Train without save_memory, or mend the block's inverse."
        )


class _Reversible(torch.autograd.Function):
    """A piece, of which only the result is kept."""

    @staticmethod
    def forward(ctx: Any, piece: _Piece, x: Tensor, *parameters: Tensor) -> Tensor:
        inputs = []  # of every block, if they are to be compared
        for name, block in piece.blocks:
            if piece.check:
                inputs.append(x)
            x = run_named(name, block.inverse if piece.rev else block, x)
        ctx.piece = piece
        ctx.autocast = _autocast_of(x.device.type)
        # with the weights, so that autograd notices if they have changed until then
        ctx.save_for_backward(*piece.weights, x, *inputs)
        return x

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        piece, gradients = ctx.piece, Gradients()
        y, *inputs = ctx.saved_tensors[len(piece.weights) :]
        with torch.autocast(**ctx.autocast):
            for name, block in reversed(piece.blocks):
                y, gradient = as_block(block).undo(y, gradient, gradients, rev=piece.rev)
                if piece.check:
                    _compare(name, y, inputs.pop())
        return (None, gradient, *map(gradients.get, piece.parameters))


def _autocast_of(kind: str) -> dict[str, Any]:
    return {
        "device_type": kind,
        "enabled": torch.is_autocast_enabled(kind),
        "dtype": torch.get_autocast_dtype(kind),
    }
