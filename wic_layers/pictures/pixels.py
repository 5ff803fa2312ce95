"""Pixels as tensors: sizes, padding, RGB and grey, and how far two images are apart (PSNR).

Inside the library an image is a uint8 tensor (3, H, W) in sRGB, or (1, H, W) in grey. Sizes are
``(width, height)``, as in Pillow and on the command line.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wic_layers.errors import WICShapeError

__all__ = ["as_channels", "as_grey", "continued", "is_grey", "pad_to", "psnr", "size_of"]


def size_of(image: Tensor) -> tuple[int, int]:
    """Returns the (width, height) of an image tensor (..., H, W)."""
    return image.shape[-1], image.shape[-2]


def psnr(a: Tensor, b: Tensor, *, peak: float | None = None, border: int = 0) -> float:
    """Returns the PSNR in dB of two images, or of two batches as one; infinite if they are equal.

    Args:
        a: Pixels (..., H, W): of 8 bits, compared exactly, or numbers.
        b: Those of the other image, of one shape.
        peak: What counts as white: by default 255, of floating-point numbers 1.
        border: Pixels at each border that do not count.
    """
    inner = slice(border, -border or None)
    a, b = a[..., inner, inner], b[..., inner, inner]
    if a.is_floating_point():
        peak, error = peak or 1.0, float((a - b).square().mean())
    else:
        # a few rows at a time: as numbers, a photograph takes sixteen times its pixels
        rows = max(2**20 // max(a.shape[-1], 1), 1)
        parts = zip(a.split(rows, dim=-2), b.split(rows, dim=-2), strict=True)
        total = sum(int((x.int() - y.int()).square_().sum()) for x, y in parts)
        peak, error = peak or 255.0, total / max(a.numel(), 1)
    ratio = peak**2 / error if error else math.inf
    return 10 * math.log10(ratio) if ratio else -math.inf


def pad_to(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Pads an image at its right and bottom: reflected as far as it goes, then the last repeated.

    Args:
        image: Pixels (..., H, W) of any dtype.
        size: The (width, height) to reach; not less than the image's.

    Returns:
        Pixels (..., height, width). The top left is the image.

    Raises:
        WICShapeError: If the image is larger than ``size``.

    Example:
        >>> pad_to(torch.tensor([[1, 2, 3]]), (7, 1)).tolist()
        [[1, 2, 3, 2, 1, 1, 1]]
    """
    width, height = size
    if image.shape[-1] > width or image.shape[-2] > height:
        raise WICShapeError(
            f"Expected an image of at most {width}x{height}; got {image.shape[-1]}x"
            f"{image.shape[-2]}."
        )
    if size_of(image) == size:
        return image
    rows, columns = (
        continued(side, target).to(image.device)
        for side, target in zip(image.shape[-2:], (height, width), strict=True)
    )
    return image[..., rows, :][..., columns]


def continued(side: int, target: int) -> Tensor:
    """Returns which pixel of an axis stands at each place of a longer one, see :func:`pad_to`."""
    last = side - 1
    return (last - (torch.arange(target) - last).abs()).clamp(min=0)


def as_channels(pixels: Tensor, channels: int, name: str = "image") -> Tensor:
    """Returns an image as RGB or grey, where that loses nothing.

    Args:
        pixels: (1, H, W) or (3, H, W), uint8.
        channels: 3: grey becomes RGB; 1: RGB whose channels are equal becomes grey.
        name: What to call it in errors.

    Raises:
        WICShapeError: If it should become grey and holds colours.
    """
    if pixels.shape[0] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1)
    if not bool((pixels == pixels[:1]).all()):
        raise WICShapeError(f"Expected {name} to be a grey image; it holds colours.")
    return pixels[:1]


def is_grey(pixels: Tensor) -> bool:
    """Whether the channels of an image (C, H, W) are equal."""
    return all(torch.equal(pixels[0], channel) for channel in pixels[1:])


def as_grey(pixels: Tensor) -> Tensor:
    """Returns the mean of three channels as one, of what came back of a grey image.

    What a network got wrong differs from channel to channel, and the mean has less of it.

    Args:
        pixels: (3, H, W), uint8.

    Returns:
        Pixels (1, H, W), uint8.
    """
    total = pixels.sum(0, keepdim=True, dtype=torch.int16)
    return ((total + 1) // 3).to(torch.uint8)  # the nearest: thirds are never halves
