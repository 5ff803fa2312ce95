"""Squeeze, Unsqueeze and LearnedSqueeze: squares of pixels into channels and back."""

from __future__ import annotations

from fractions import Fraction

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wic_layers.blocks.block import (
    InvertibleBlock,
    check_channels,
    check_divisible,
    run_named,
)
from wic_layers.errors import WICArgumentError
from wic_layers.layer.conv import WIC

__all__ = ["LearnedSqueeze", "Squeeze", "Squeezing", "Turned", "Unsqueeze"]


class Squeezing(InvertibleBlock):
    """A block that makes one pixel of a square of them.

    Attributes:
        factor: Side of the square.
    """

    is_exact = True
    factor: int = 2

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`InvertibleBlock.shape_after`."""
        return channels * self.factor**2, side / self.factor


class Turned(Squeezing):
    """Exchanges the directions of such a block: the base before it of a class of both."""

    def _forward(self, x: Tensor) -> Tensor:
        return super()._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return super()._forward(y)

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`InvertibleBlock.shape_after`."""
        return channels // self.factor**2, side * self.factor


class Squeeze(Squeezing):
    """Pixels into channels: (B, C, H, W) to (B, C f², H/f, W/f), as pixel_unshuffle.

    Args:
        factor: Side f of the square of pixels that becomes one.
        groups: How many images stand in the channels, one behind the other; the f² pixels of each
            stay together, first those of all its channels at the first place of the square, as
            :class:`Haar` has its sub-bands. By default as many as there are channels.

    Raises:
        WICArgumentError: If ``factor`` or ``groups`` is less than 1.
        WICShapeError: If H or W is not divisible by f, or the channels cannot be grouped.
    """

    def __init__(self, factor: int = 2, groups: int | None = None) -> None:
        super().__init__()
        for name, value in (("factor", factor), ("groups", groups)):
            if value is not None and value < 1:
                raise WICArgumentError(f"Expected {name} of at least 1; got {value!r}.")
        self.factor = factor
        self.groups = groups

    def _forward(self, x: Tensor) -> Tensor:
        check_divisible(x, self.factor, self)
        if self.groups is None:
            return F.pixel_unshuffle(x, self.factor)
        check_channels(x, self.groups, self)
        f = self.factor
        return rearrange(
            x, "n (g c) (h i) (w j) -> n (g i j c) h w", g=self.groups, i=f, j=f
        ).contiguous()

    def _inverse(self, y: Tensor) -> Tensor:
        check_channels(y, self.factor**2 * (self.groups or 1), self)
        if self.groups is None:
            return F.pixel_shuffle(y, self.factor)
        f = self.factor
        return rearrange(
            y, "n (g i j c) h w -> n (g c) (h i) (w j)", g=self.groups, i=f, j=f
        ).contiguous()

    def extra_repr(self) -> str:
        return f"{self.factor}" if self.groups is None else f"{self.factor}, {self.groups}"


class Unsqueeze(Turned, Squeeze):
    """Channels into pixels: :class:`Squeeze` with its two directions exchanged."""


class LearnedSqueeze(Squeezing):
    """Pixels into sub-bands that are learned: (B, C, H, W) to (B, C f², H/f, W/f).

    Every channel's square of f x f pixels goes through one kernel, a square
    :class:`~wic_layers.WIC` that all channels share. Each sub-band holds all C channels; the first
    starts as the mean of the square, which is a small picture, the others as single pixels.

    Args:
        factor: Side f of the square of pixels that becomes one.

    References:
        | The code of Invertible Image Rescaling (Xiao et al., 2020), which rescales by 3 with it

    Raises:
        WICArgumentError: If ``factor`` is less than 2.
        WICShapeError: If H or W is not divisible by f.
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        if factor < 2:
            raise WICArgumentError(f"Expected factor of at least 2; got {factor!r}.")
        self.factor = factor
        self.wic = WIC(factor**2, factor**2)
        with torch.no_grad():
            self.wic.weight.copy_(torch.eye(factor**2))
            self.wic.weight[0] = 1 / factor**2

    def _forward(self, x: Tensor) -> Tensor:
        check_divisible(x, self.factor, self)
        squares = F.pixel_unshuffle(x, self.factor).unflatten(1, (x.shape[1], -1))
        bands: Tensor = run_named("wic", self.wic, squares.flatten(0, 1))
        return bands.unflatten(0, squares.shape[:2]).transpose(1, 2).flatten(1, 2)

    def _inverse(self, y: Tensor) -> Tensor:
        check_channels(y, self.factor**2, self)
        bands = y.unflatten(1, (self.factor**2, -1)).transpose(1, 2)
        squares: Tensor = run_named("wic", self.wic.inverse, bands.flatten(0, 1))
        return F.pixel_shuffle(squares.unflatten(0, bands.shape[:2]).flatten(1, 2), self.factor)

    def extra_repr(self) -> str:
        return f"{self.factor}"
