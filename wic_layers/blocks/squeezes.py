"""Pixels into channels and back: squeeze, Haar, and a squeeze that is learned."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from wic_layers.blocks.chain import (
    InvertibleBlock,
    check_channels,
    check_divisible,
    run_named,
    way_back,
)
from wic_layers.errors import WICArgumentError
from wic_layers.layer.conv import WIC

__all__ = [
    "Haar",
    "InverseHaar",
    "LearnedSqueeze",
    "Squeeze",
    "Unsqueeze",
]


class Squeeze(InvertibleBlock):
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

    is_exact = True

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


class Unsqueeze(Squeeze):
    """Channels into pixels: :class:`Squeeze` with its two directions exchanged."""

    def _forward(self, x: Tensor) -> Tensor:
        return super()._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return super()._forward(y)


class Haar(InvertibleBlock):
    """The Haar transform: (B, C, H, W) to (B, 4C, H/2, W/2), sub-bands LL, HL, LH, HH.

    Each sub-band holds all C channels. LL is twice the mean of a square of four pixels; HL holds
    horizontal, LH vertical and HH diagonal differences. It is orthonormal: it keeps lengths, and
    its inverse is its transpose. With ``mean`` it is IRN's: LL is the mean itself, which is a
    small picture, the others are half as large too, and HL and LH have the other sign.

    Args:
        groups: How many images stand in the channels, one behind the other; the four sub-bands of
            each stay together. With as many as there are channels the order is that of
            :class:`Squeeze`.
        mean: IRN's form in place of the orthonormal one.

    References:
        | HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), Section 3.1
        | Invertible Image Rescaling (Xiao et al., 2020), Section 3.2, as its code scales it

    Raises:
        WICArgumentError: If ``groups`` is less than 1.
        WICShapeError: If H or W is odd, or the channels cannot be grouped.
    """

    is_exact = True

    def __init__(self, groups: int = 1, *, mean: bool = False) -> None:
        super().__init__()
        if groups < 1:
            raise WICArgumentError(f"Expected groups of at least 1; got {groups!r}.")
        self.groups = groups
        self.mean = mean

    def _forward(self, x: Tensor) -> Tensor:
        check_divisible(x, 2, self)
        check_channels(x, self.groups, self)
        pixels = rearrange(x, "n (g c) (h i) (w j) -> (i j) n g c h w", i=2, j=2, g=self.groups)
        a, b, c, d = pixels.unbind(0)
        if self.mean:
            bands = (a + b + c + d, a + c - b - d, a + b - c - d, a + d - b - c)
            return (torch.cat(bands, dim=2) / 4).flatten(1, 2)
        bands = (a + b + c + d, b + d - a - c, c + d - a - b, a + d - b - c)
        return (torch.cat(bands, dim=2) / 2).flatten(1, 2)

    def _inverse(self, y: Tensor) -> Tensor:
        check_channels(y, 4 * self.groups, self)
        bands = (y if self.mean else y / 2).unflatten(1, (self.groups, -1))
        low, horizontal, vertical, diagonal = bands.chunk(4, dim=2)
        if self.mean:
            horizontal, vertical = -horizontal, -vertical
        a = low - horizontal - vertical + diagonal
        b = low + horizontal - vertical - diagonal
        c = low - horizontal + vertical - diagonal
        d = low + horizontal + vertical + diagonal
        return rearrange([a, b, c, d], "(i j) n g c h w -> n (g c) (h i) (w j)", i=2, j=2)

    def extra_repr(self) -> str:
        parts = [f"{self.groups}"] if self.groups > 1 else []
        return ", ".join(parts + ["mean=True"] * self.mean)


class InverseHaar(Haar):
    """Pixels from sub-bands: :class:`Haar` with its two directions exchanged."""

    def _forward(self, x: Tensor) -> Tensor:
        return super()._inverse(x)

    def _inverse(self, y: Tensor) -> Tensor:
        return super()._forward(y)


class LearnedSqueeze(InvertibleBlock):
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

    is_exact = True

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
        squares: Tensor = run_named("wic", way_back(self.wic), bands.flatten(0, 1))
        return F.pixel_shuffle(squares.unflatten(0, bands.shape[:2]).flatten(1, 2), self.factor)

    def extra_repr(self) -> str:
        return f"{self.factor}"
