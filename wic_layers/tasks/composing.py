"""``pan``, ``stereo``, ``views``, ``layers``: samples of packing made of single photographs.

Real ones differ; what a network needs of them, images that nearly show the same, these have too.
Photographs are (B, 3, H, W) in [0, 1], results are rounded to 8 bits, and chance comes from
torch's own generator, on the device of the photographs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.layer.quantization import quantize

__all__ = ["MOST_DISPARITY", "PAN", "layers", "pan", "stereo", "views"]

PAN = 3.0
"""The most that a camera pan moves from a frame to the next, in pixels along each axis."""

MOST_DISPARITY = 24
"""The most that something near moves between the two views of a stereo pair, in pixels."""

_GROWTH = 0.01  # by how much a clip zooms from a frame to the next at most
_GRID = 5  # random numbers along a side, of which a blob is made


def pan(photograph: Tensor, frames: int, margin: int) -> tuple[Tensor, ...]:
    """Returns the frames of a camera that moves over a photograph, and slowly zooms.

    Args:
        photograph: Where it moves.
        frames: How many.
        margin: How much smaller a frame is than the photograph; at least ``2 * PAN * frames``.
    """
    count, _, height, width = photograph.shape
    size = (height - margin, width - margin)
    step, zoom = (
        2 * torch.rand(count, n, device=photograph.device, dtype=photograph.dtype) - 1
        for n in (2, 1)
    )
    half = photograph.new_tensor([width, height]) / 2
    several = []
    for index in range(frames):
        moved = index - (frames - 1) / 2
        scale = (1 + _GROWTH * zoom * moved) * (half - margin / 2) / half
        theta = torch.zeros(count, 2, 3, device=photograph.device, dtype=photograph.dtype)
        theta[:, 0, 0], theta[:, 1, 1] = scale.unbind(1)
        theta[:, :, 2] = PAN * step * moved / half
        grid = F.affine_grid(theta, [count, 3, *size], align_corners=False)
        frame = F.grid_sample(
            photograph, grid, mode="bicubic", padding_mode="reflection", align_corners=False
        )
        several.append(quantize(frame))
    return tuple(several)


def blob(like: Tensor, softness: float) -> Tensor:
    """Returns a random matte (B, 1, H, W) in [0, 1]: round shapes, about half of the picture.

    Args:
        like: A picture of its size.
        softness: Width of its border, as a fraction of the range of what it is cut from.
    """
    coarse = torch.rand(len(like), 1, _GRID, _GRID, device=like.device, dtype=like.dtype)
    smooth = F.interpolate(coarse, size=like.shape[2:], mode="bicubic", align_corners=False)
    return ((smooth - 0.5) / softness + 0.5).clamp(0, 1)


def stereo(behind: Tensor, near: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a left and a right view of one photograph in front of another.

    Both are seen from two places: what is near moves by up to :data:`MOST_DISPARITY` pixels
    between them, what is behind by up to half of that, and each hides another part of it.

    Args:
        behind: Wider than the views by ``MOST_DISPARITY``.
        near: The same size.
    """
    width = behind.shape[3] - MOST_DISPARITY
    matte = blob(near, 0.1)
    far, close = torch.rand(2, len(behind)).sort(dim=0).values * MOST_DISPARITY
    right = []
    pairs = zip((far / 2).int().tolist(), close.int().tolist(), strict=True)
    for index, shifts in enumerate(pairs):
        cut = [
            image[index, :, :, shift : shift + width]
            for image, shift in zip((behind, near, matte), (*shifts, shifts[1]), strict=True)
        ]
        right.append(cut[0] + (cut[1] - cut[0]) * cut[2])
    left = behind + (near - behind) * matte
    return quantize(left[..., :width]), quantize(torch.stack(right))


def views(photograph: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Returns a photograph made smaller, and its middle as it was: the normal and the zoomed view.

    Args:
        photograph: Sides divisible by ``factor``.
        factor: By how much the second view is zoomed in.
    """
    height, width = (side // factor for side in photograph.shape[2:])
    normal = F.interpolate(photograph, size=(height, width), mode="bicubic", antialias=True)
    top, left = (photograph.shape[2] - height) // 2, (photograph.shape[3] - width) // 2
    zoomed = photograph[..., top : top + height, left : left + width]
    return quantize(normal), quantize(zoomed)


def layers(background: Tensor, foreground: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns a composition, its background, and its foreground on black, by a soft matte.

    Args:
        background: What is behind.
        foreground: The same size.
    """
    matte = blob(foreground, 0.3)
    shown = quantize(foreground * matte)
    return quantize(shown + background * (1 - matte)), background, shown
