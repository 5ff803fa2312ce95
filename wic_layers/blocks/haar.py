"""Haar and InverseHaar: squares of four pixels into sub-bands and back."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor

from wic_layers.blocks.block import check_channels, check_divisible
from wic_layers.blocks.squeezes import Squeezing, Turned
from wic_layers.errors import WICArgumentError

__all__ = ["Haar", "InverseHaar"]


class Haar(Squeezing):
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


class InverseHaar(Turned, Haar):
    """Pixels from sub-bands: :class:`Haar` with its two directions exchanged."""
