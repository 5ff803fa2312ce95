"""Rounding to 8 bits inside a training step."""

from __future__ import annotations

from torch import Tensor

__all__ = ["quantize"]


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
