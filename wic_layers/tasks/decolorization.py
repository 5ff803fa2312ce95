"""Decolorization: a colour image as a grey one and back."""

from __future__ import annotations

import torch
from torch import Tensor

from wic_layers.tasks.base import Task

__all__ = ["Decolorization", "lightness"]


class Decolorization(Task):
    """A grey image with the lightness of a colour image, that gives its colours back.

    Whether a grey image holds colours cannot be told from its pixels (:meth:`doubt` has none): of
    plain photographs two in five at most were found, and a JPEG still gives many colours back.
    """

    forward_criterion = "l2"
    commands = ("wic gray", "wic color")
    picture_name = "gray"
    titles = ("grey", "coloured")
    looks_like = "its lightness"
    has_companions = True
    keeps_grey = True
    name = "decolorization"
    out_channels = 1
    preset = "decolorization-naive-small"

    def reference(self, x: Tensor) -> Tensor:
        """The lightness L* of CIELAB."""
        return lightness(x)


def lightness(x: Tensor) -> Tensor:
    """Returns the lightness L* of CIELAB of sRGB images, over 100.

    Args:
        x: (B, 3, H, W) in [0, 1].

    Returns:
        (B, 1, H, W) in [0, 1].

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Section IV-A: the grey target; IEC 61966-2-1 (sRGB), CIE 15 (L*)
    """
    linear = torch.where(x > 0.04045, ((x + 0.055) / 1.055).clamp(min=0) ** 2.4, x / 12.92)
    weights = x.new_tensor((0.2126, 0.7152, 0.0722)).view(3, 1, 1)
    y = (linear * weights).sum(1, keepdim=True)
    root = torch.where(
        y > (6 / 29) ** 3, y.clamp(min=1e-6) ** (1 / 3), y * (29 / 6) ** 2 / 3 + 4 / 29
    )
    return (1.16 * root - 0.16).clamp(0, 1)
