"""Rounding to 8 bits inside a training step."""

from __future__ import annotations

from torch import Tensor

__all__ = ["quantize"]


def quantize(x: Tensor, levels: int = 255) -> Tensor:
    """Rounds to the values that a file can hold, with a straight-through gradient.

    Args:
        x: Pixels in [0, 1], any shape; others are clamped.
        levels: Steps between 0 and 1: 255 for 8 bits.

    Returns:
        The nearest multiples of 1/levels in [0, 1]; the gradient is that of the identity.

    Example:
        >>> import torch
        >>> (quantize(torch.tensor([-0.2, 0.5, 0.503])) * 255).tolist()
        [0.0, 128.0, 128.0]
    """
    rounded = (x.detach().clamp(0, 1) * levels).round() / levels
    if not x.requires_grad:
        return rounded
    return x + (rounded - x.detach())
