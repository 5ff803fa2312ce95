"""Training in the memory of a block or two: what went in is computed again from what came out.

Autograd keeps every activation of a network for its way back. A chain of invertible blocks need
keep none but the last: on the way back each block gives its input from its output, and is run once
more for its gradients. Memory no longer grows with depth; a step takes one more evaluation of the
networks inside couplings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.blocks import AffineCoupling, Chain, InvertibleBlock, LongTermMemory
from wic_layers.blocks.chain import run_named, way_back
from wic_layers.blocks.subnets import DenseBlock, has_hooks
from wic_layers.errors import WICError
from wic_layers.layer.conv import WIC
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


class _Runner:
    """Runs the blocks of a chain, as many of them as can be in one piece."""

    def __init__(self, *, check: bool) -> None:
        self.check = check

    def is_wanted(self) -> bool:
        """Whether autograd, and nothing else, watches."""
        return (
            torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined]
            and not is_transformed()
        )

    def __call__(self, blocks: Sequence[tuple[str, Any]], x: Tensor, *, rev: bool) -> Tensor:
        """Maps ``x`` through blocks with their names, in this order."""
        rest = list(blocks)
        while rest:
            exact = 0
            while exact < len(rest) and _is_exact(rest[exact][1], rev=rev):
                exact += 1
            if exact:
                piece = _Piece(rest[:exact], rev=rev, check=self.check)
                x = _Reversible.apply(piece, x, *piece.parameters)
            else:
                x = _step(*rest[0], x, rev=rev)
            rest = rest[max(exact, 1) :]
        return x


def _is_exact(block: nn.Module, *, rev: bool) -> bool:
    """Whether what goes into a block can be computed from what comes out."""
    if has_hooks(block):
        return False
    if isinstance(block, Chain):
        return all(_is_exact(part, rev=rev) for part in block)
    if isinstance(block, LongTermMemory):
        return _is_exact(block.inner, rev=rev)
    if isinstance(block, WIC):
        is_exact = block.bijective or (block.out_channels > block.in_channels and not rev)
    else:
        is_exact = isinstance(block, InvertibleBlock) and block.is_exact
    return is_exact and _is_repeatable(block)


def _is_repeatable(block: nn.Module) -> bool:
    """Whether a block does the same with gradients on and off, and its parameters stay its own.

    ``fully_shard`` exchanges them at every call; then the gradients would be those of others.
    """
    return all(type(parameter) in (Tensor, nn.Parameter) for parameter in block.parameters()) and (
        not any(isinstance(net, DenseBlock) and net.is_optimized() for net in block.modules())
    )


def _step(name: str, block: Any, x: Tensor, *, rev: bool) -> Tensor:
    found: Tensor = run_named(name, way_back(block) if rev else block, x)
    return found


class _Piece:
    """Exact blocks in the order in which they run, and how to undo them."""

    def __init__(self, blocks: Sequence[tuple[str, Any]], *, rev: bool, check: bool) -> None:
        self.blocks = list(blocks)
        self.rev = rev
        self.check = check
        self.weights = list(dict.fromkeys(p for _, block in blocks for p in block.parameters()))
        self.parameters = [p for p in self.weights if p.requires_grad]

    def run(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """The result, and what went into every block if that is to be compared."""
        seen = []
        for name, block in self.blocks:
            if self.check:
                seen.append(x)
            x = _step(name, block, x, rev=self.rev)
        return x, seen

    def undo(
        self, y: Tensor, gradient: Tensor, seen: Sequence[Tensor]
    ) -> tuple[Tensor, dict[Tensor, Tensor]]:
        """The gradients of what went in and of the parameters."""
        found: dict[Tensor, Tensor] = {}
        for index in range(len(self.blocks) - 1, -1, -1):
            name, block = self.blocks[index]
            y, gradient = _undo(block, y, gradient, found, rev=self.rev)
            if self.check:
                _compare(name, y, seen[index])
        return gradient, found


def _compare(name: str, found: Tensor, expected: Tensor) -> None:
    off = float((found - expected).abs().max()) if found.numel() else 0.0
    largest = float(expected.abs().max()) if found.numel() else 0.0
    if not off <= _TOLERANCE * largest:
        raise WICError(
            f"{name}: expected what went in to come back from what came out; it is off by "
            f"{off:.3g} of {largest:.3g}. Train without save_memory, or mend the block's inverse."
        )


class _Reversible(torch.autograd.Function):
    """A piece, of which only the result is kept."""

    @staticmethod
    def forward(ctx: Any, piece: _Piece, x: Tensor, *parameters: Tensor) -> Tensor:
        y, seen = piece.run(x)
        ctx.piece = piece
        ctx.autocast = _autocast_of(x.device.type)
        # with the weights, so that autograd notices if they have changed until then
        ctx.save_for_backward(*piece.weights, y, *seen)
        return y

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        y, *seen = ctx.saved_tensors[len(ctx.piece.weights) :]
        with torch.autocast(**ctx.autocast):
            back, found = ctx.piece.undo(y, gradient, seen)
        return (None, back, *(found.get(parameter) for parameter in ctx.piece.parameters))


def _autocast_of(kind: str) -> dict[str, Any]:
    return {
        "device_type": kind,
        "enabled": torch.is_autocast_enabled(kind),
        "dtype": torch.get_autocast_dtype(kind),
    }


def _undo(
    block: Any, y: Tensor, gradient: Tensor, found: dict[Tensor, Tensor], *, rev: bool
) -> tuple[Tensor, Tensor]:
    """What went into a block, and its gradient; those of parameters are added to ``found``."""
    if isinstance(block, Chain):
        parts = list(block)
        for part in parts if rev else parts[::-1]:
            y, gradient = _undo(part, y, gradient, found, rev=rev)
        return y, gradient
    if isinstance(block, LongTermMemory):
        aside, rest = y[:, : block.channels], y[:, block.channels :]
        kept, passed = gradient[:, : block.channels], gradient[:, block.channels :]
        rest, passed = _undo(block.inner, rest, passed, found, rev=rev)
        return torch.cat((aside, rest), 1), torch.cat((kept, passed), 1)
    if isinstance(block, AffineCoupling) and not block.condition:
        undo = _undo_uncoupling if rev else _undo_coupling
        return undo(block, y, gradient, found)
    there, back_again = (way_back(block), block) if rev else (block, way_back(block))
    with torch.no_grad():
        x = back_again(y)
    with torch.enable_grad():
        given = x.detach().requires_grad_()
        out = there(given)
    (back,) = _gradients((out,), given, block, (gradient,), found)
    return x, back


def _undo_coupling(
    block: AffineCoupling, y: Tensor, gradient: Tensor, found: dict[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    y1, y2 = y.split(block.sizes, dim=1)
    g1, g2 = gradient.split(block.sizes, dim=1)
    with torch.enable_grad():
        given = y1.detach().requires_grad_()
        scale, shift = block.scale_and_shift(given, y.dtype)
    factor = scale.detach().exp()
    x2 = (y2 - shift.detach()) / factor
    g2_scaled = g2 * factor
    (back,) = _gradients((shift, scale), given, (block.G, block.H), (g2, g2_scaled * x2), found)
    g1 = g1 + back
    with torch.enable_grad():
        given = x2.requires_grad_()
        first = block.F(given).to(y.dtype)
    (back,) = _gradients((first,), given, block.F, (g1,), found)
    x1 = y1 - first.detach()
    return torch.cat((x1, x2.detach()), dim=1), torch.cat((g1, g2_scaled + back), dim=1)


def _undo_uncoupling(
    block: AffineCoupling, x: Tensor, gradient: Tensor, found: dict[Tensor, Tensor]
) -> tuple[Tensor, Tensor]:
    x1, x2 = x.split(block.sizes, dim=1)
    g1, g2 = gradient.split(block.sizes, dim=1)
    with torch.enable_grad():
        given = x2.detach().requires_grad_()
        first = block.F(given).to(x.dtype)
    (back,) = _gradients((first,), given, block.F, (-g1,), found)
    g2 = g2 + back
    y1 = x1 + first.detach()
    with torch.enable_grad():
        given = y1.requires_grad_()
        scale, shift = block.scale_and_shift(given, x.dtype)
    g2_scaled = g2 * (-scale.detach()).exp()
    (back,) = _gradients((shift, scale), given, (block.G, block.H), (-g2_scaled, -g2 * x2), found)
    y2 = x2 * scale.detach().exp() + shift.detach()
    return torch.cat((y1.detach(), y2), dim=1), torch.cat((g1 + back, g2_scaled), dim=1)


def _gradients(
    outs: tuple[Tensor, ...],
    given: Tensor,
    modules: nn.Module | tuple[nn.Module, ...],
    gradients: tuple[Tensor, ...],
    found: dict[Tensor, Tensor],
) -> tuple[Tensor]:
    """The gradient of ``given``; those of the modules' parameters are added to ``found``."""
    each = modules if isinstance(modules, tuple) else (modules,)
    every = (p for module in each for p in module.parameters() if p.requires_grad)
    parameters = list(dict.fromkeys(every))  # G and H may share some
    inputs = [given, *parameters]
    back, *others = torch.autograd.grad(outs, inputs, gradients, allow_unused=True)
    for parameter, new in zip(parameters, others, strict=True):
        if new is not None:
            found[parameter] = found[parameter] + new if parameter in found else new
    return (torch.zeros_like(given) if back is None else back,)
