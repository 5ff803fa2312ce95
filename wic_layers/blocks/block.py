"""InvertibleBlock: what a block does, and says of itself; and any module seen as one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.layer.conv import WIC
from wic_layers.layer.two_way import TwoWay, has_hooks

__all__ = [
    "Gradients",
    "InvertibleBlock",
    "Named",
    "as_block",
    "check_channels",
    "check_divisible",
    "check_invertible",
    "gradient_of",
    "reach_of",
    "run_named",
    "title_of",
]

Named: TypeAlias = list[tuple[str, Any]]
"""Modules with ``forward`` and ``inverse``, with their names."""

Gradients = dict[Tensor, Tensor]
"""Gradients by their parameters, to which those of a block are added."""

_Result = TypeVar("_Result")

_PROBE = 48  # side of the image on which an unknown block is measured


class InvertibleBlock(TwoWay):
    """Base of the blocks: ``forward(x)``, ``inverse(y)`` and ``forward(y, rev=True)``.

    A subclass has ``_forward`` and ``_inverse``; that is enough, as are ``forward`` and
    ``inverse`` of any other module. What else is asked of a block has a default, which a subclass
    replaces where it knows better:

    - :attr:`keeps_shape` or :meth:`shape_after`: what it does to channels and sides. By default a
      copy without data (on the meta device) is run once.
    - :attr:`reach`: how far it sees. By default all convolutions inside are taken to stand in a
      row, which is never too little where they run at the block's own resolution.
    - :attr:`is_exact`, :meth:`can_undo` and :meth:`undo`: whether what went in can be computed
      again from what came out, and how, for :func:`~wic_layers.blocks.save_memory`.
    - :meth:`parts`: the blocks that it runs inside, which are listed and counted by themselves.
    - :attr:`networks` and :meth:`keep_one_way`: what may run in a lower precision, and what goes
      when one direction is exported. By default nothing.
    - :meth:`summary`: what ``print`` of a network says in its parentheses.

    Attributes:
        is_exact: Whether both directions give back what went into the other.
        keeps_shape: Whether channels and sides stay as they are.
        networks: Names of the submodules that need no inverse: networks inside couplings.
    """

    is_exact = False
    keeps_shape = False
    networks: tuple[str, ...] = ()

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - as IRN calls it
        """Maps ``x`` forward, or back with ``rev=True``."""
        return self._inverse(x) if rev else self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError(f"{type(self).__name__} has no _forward.")

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """Returns the channels and sides of ``forward``'s result.

        Args:
            channels: Channels of its input.
            side: Sides of its input, over those of the network's input.
        """
        if self.keeps_shape:
            return channels, side
        try:
            x = torch.empty(1, channels, _PROBE, _PROBE, device="meta")
            with torch.no_grad():
                y = copy.deepcopy(self).to("meta")(x)
            return y.shape[1], side * Fraction(y.shape[2], _PROBE)
        except Exception:  # whatever a user's code does that needs data or another input
            return channels, side

    @property
    def reach(self) -> int:
        """How many pixels of its input it sees to each side, in both directions."""
        return sum(map(reach_of, self.children()))

    def parts(
        self, channels: int, side: Fraction
    ) -> Iterator[tuple[str, nn.Module, int, Fraction]]:
        """Yields the blocks that it runs inside, by name, and the shape of what goes into each.

        They say for themselves how far they see; ``reach`` is what the block adds to that.
        """
        yield from ()

    def can_undo(self, *, rev: bool) -> bool:
        """Whether what goes into a direction can be computed from what comes out of it."""
        return self.is_exact and not has_hooks(self)

    def undo(
        self, y: Tensor, gradient: Tensor, gradients: Gradients, *, rev: bool
    ) -> tuple[Tensor, Tensor]:
        """Returns what went into a direction, and its gradient.

        Args:
            y: What came out.
            gradient: Its gradient.
            gradients: Where those of the block's parameters are added.
            rev: The direction that ran.
        """
        with torch.no_grad():
            x = self(y) if rev else self.inverse(y)
        with torch.enable_grad():
            again = x.detach().requires_grad_()
            out = self.inverse(again) if rev else self(again)
        return x, gradient_of((out,), again, (self,), (gradient,), gradients)

    def keep_one_way(self, *, rev: bool) -> None:
        """Drops what only the other direction needs, from a copy that is to be exported."""

    def summary(self) -> str:
        """Its arguments in a few characters."""
        return self.extra_repr()


class _Foreign(InvertibleBlock):
    """A module with ``forward`` and ``inverse`` that is no InvertibleBlock, seen as one."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module: Any = module

    def _forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.module(x)
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        x: Tensor = self.module.inverse(y)
        return x

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        if not hasattr(self.module, "shape_after"):
            return super().shape_after(channels, side)
        after: tuple[int, Fraction] = self.module.shape_after(channels, side)
        return after

    def extra_repr(self) -> str:
        return str(self.module.extra_repr())


class _Layer(_Foreign):
    """A WIC."""

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        return self.module.out_channels, side

    @property
    def reach(self) -> int:
        return reach_of(self.module.completion)

    def can_undo(self, *, rev: bool) -> bool:
        layer = self.module
        widens = layer.out_channels > layer.in_channels
        return (layer.bijective or (widens and not rev)) and not has_hooks(layer)

    def summary(self) -> str:
        completion = self.module.completion
        kind = "" if completion is None else f", {type(completion).__name__.lower()}"
        return f"{self.module.in_channels}, {self.module.out_channels}{kind}"


def as_block(module: nn.Module) -> InvertibleBlock:
    """Returns a block as it is, and a layer or a user's module seen as one."""
    if isinstance(module, InvertibleBlock):
        return module
    return _Layer(module) if isinstance(module, WIC) else _Foreign(module)


def reach_of(module: object) -> int:
    """Returns how far a network sees: what its ``reach`` says, or its convolutions in a row."""
    said = getattr(module, "reach", None)
    if isinstance(said, int):
        return said
    if isinstance(module, nn.Conv2d):
        steps = zip(module.dilation, module.kernel_size, strict=True)
        return max(dilation * (size - 1) // 2 for dilation, size in steps)
    return sum(map(reach_of, module.children())) if isinstance(module, nn.Module) else 0


def gradient_of(
    outs: tuple[Tensor, ...],
    x: Tensor,
    modules: tuple[nn.Module, ...],
    out_gradients: tuple[Tensor, ...],
    gradients: Gradients,
) -> Tensor:
    """Returns the gradient of ``x``, of which modules made ``outs``; adds those of parameters."""
    every = (p for module in modules for p in module.parameters() if p.requires_grad)
    parameters = list(dict.fromkeys(every))  # G and H may share some
    inputs = [x, *parameters]
    back, *others = torch.autograd.grad(outs, inputs, out_gradients, allow_unused=True)
    for parameter, new in zip(parameters, others, strict=True):
        if new is not None:
            gradients[parameter] = gradients[parameter] + new if parameter in gradients else new
    return torch.zeros_like(x) if back is None else back


def run_named(name: str, function: Callable[..., _Result], *arguments: object) -> _Result:
    """Calls a part of a module; its errors say its name."""
    if torch.compiler.is_compiling():
        return function(*arguments)
    try:
        return function(*arguments)
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
