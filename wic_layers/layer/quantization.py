"""Rounding to 8 bits inside a training step."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["quantize", "quantize_by_noise"]


def quantize(x: Tensor, levels: int = 255) -> Tensor:
    """Clamps and rounds to the values that a file can hold; the gradient goes straight through.

    Straight through the rounding, that is: where a pixel is clamped its gradient is zero. A
    gradient that passed there too would teach a network to keep what it needs in pixels darker
    than black, which no file holds; what comes back would be far off there.

    Args:
        x: Pixels in [0, 1], any shape; others are clamped.
        levels: Steps between 0 and 1: 255 for 8 bits.

    Returns:
        The nearest multiples of 1/levels in [0, 1].

    Example:
        >>> import torch
        >>> (quantize(torch.tensor([-0.2, 0.5, 0.503])) * 255).tolist()
        [0.0, 128.0, 128.0]
    """
    clamped = x.clamp(0, 1)
    rounded = (clamped.detach() * levels).round() / levels
    return clamped + (rounded - clamped.detach()) if x.requires_grad else rounded


def quantize_by_noise(x: Tensor, levels: int = 255) -> Tensor:
    """Clamps and adds uniform noise as large as the error of rounding: its smooth stand-in.

    Args:
        x: Pixels in [0, 1], any shape; others are clamped.
        levels: Steps between 0 and 1: 255 for 8 bits.

    Returns:
        Values in [0, 1], at most half a step away from the clamped ones, drawn anew at each call.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 3.4 (quantization)
    """
    noise = (torch.rand_like(x) - 0.5) / levels
    return (x.clamp(0, 1) + noise).clamp(0, 1)
