"""Carrier: what a forward picture becomes before it runs back; EightBit: the pixels of a file.

Training, evaluation and files share it: whatever a network makes goes through one of these before
anything is brought back from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from wic_layers.layer.quantization import quantize, quantize_by_noise

__all__ = ["CARRIER", "Carrier", "EightBit"]


class Carrier(ABC):
    """What a forward picture becomes before it runs back."""

    @abstractmethod
    def pixels(self, x: Tensor) -> Tensor:
        """Returns the pixels that a file holds, uint8, of pictures in [0, 1] of any shape."""

    @abstractmethod
    def through(self, x: Tensor) -> Tensor:
        """Returns what comes out of the carrier, in [0, 1], with a gradient for training."""


class EightBit(Carrier):
    """Pixels rounded to 8 bits, as every PNG holds them.

    Args:
        noise: Whether :meth:`through` adds uniform noise as large as the error of rounding, its
            smooth stand-in in training, in place of rounding with a straight-through gradient.

    Example:
        >>> EightBit().pixels(torch.tensor([-0.2, 0.5, 1.0])).tolist()
        [0, 128, 255]
    """

    def __init__(self, *, noise: bool = False) -> None:
        self.noise = noise

    def pixels(self, x: Tensor) -> Tensor:
        return (quantize(x) * 255).round().to(torch.uint8)

    def through(self, x: Tensor) -> Tensor:
        return quantize_by_noise(x) if self.noise else quantize(x)


CARRIER = EightBit()
"""What files are written, and networks trained and judged through."""
