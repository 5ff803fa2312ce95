"""Carrier: what a forward picture becomes before it runs back; EightBit, Lossy: by which file.

Training, evaluation and files share it: whatever a network makes goes through one of these before
anything is brought back from it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor
from torch._compile import _disable_dynamo

from wic_layers.codec.attacks import Attack, attacks
from wic_layers.codec.smooth import smoothed
from wic_layers.errors import WICArgumentError
from wic_layers.layer.quantization import quantize, quantize_by_noise

__all__ = ["CARRIER", "Carrier", "EightBit", "Lossy", "carrier_of"]


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


class Lossy(Carrier):
    """Pixels of 8 bits after JPEG, WebP, a resize or a chain of them, of which each picture draws.

    :meth:`through` has the pixels of the real codec and the gradient of a stand-in
    (:func:`~wic_layers.codec.smooth.smoothed`); ``benchmarks/carrier_gradients.py`` compares it
    with others.

    Args:
        choices: What may happen; each picture draws one, and a number where there is a range.

    Raises:
        WICArgumentError: If there is none, or one loses a part of the picture.

    Example:
        >>> Lossy(attacks(["jpeg:75-95"])).through(torch.rand(2, 3, 16, 16)).shape
        torch.Size([2, 3, 16, 16])
    """

    def __init__(self, choices: Sequence[Attack]) -> None:
        if not choices or any(attack.cuts for attack in choices):
            raise WICArgumentError(
                f"Expected what leaves a picture whole, such as jpeg:75-95; got "
                f"{', '.join(map(str, choices)) or 'none'}."
            )
        self.choices = tuple(choices)

    def pixels(self, x: Tensor) -> Tensor:
        plain = EightBit().pixels(x.detach())
        pictures = plain.reshape(-1, *plain.shape[-3:]).cpu()
        through = _attacked(pictures, self._drawn(len(pictures)))
        return through.view(plain.shape).to(plain.device)

    @_disable_dynamo  # as torch.compiler.disable, which would load the compiler here and now
    def through(self, x: Tensor) -> Tensor:
        drawn = self._drawn(len(x))
        real = _attacked(EightBit().pixels(x.detach()).cpu(), drawn).to(x) / 255
        if not x.requires_grad:
            return real
        soft = smoothed(quantize(x), drawn)
        return real + (soft - soft.detach())  # the numbers of the real one, exactly

    def _drawn(self, count: int) -> list[Attack]:
        numbers = torch.randint(len(self.choices), (count,)).tolist()
        return [self.choices[number].drawn() for number in numbers]


def _attacked(pictures: Tensor, several: Sequence[Attack]) -> Tensor:
    """The pixels of pictures (B, C, H, W), uint8, after the attack of each."""
    pairs = zip(pictures, several, strict=True)
    return torch.stack([attack(picture).pixels for picture, attack in pairs])


def carrier_of(texts: Sequence[str]) -> Carrier:
    """Returns what ``--through`` stands for: 8 bits alone where it says nothing.

    Args:
        texts: See :func:`~wic_layers.codec.attacks.attacks`.

    Raises:
        WICArgumentError: If a text stands for nothing, or loses a part of the picture.
    """
    return Lossy(attacks(texts)) if texts else CARRIER


CARRIER = EightBit()
"""What files are written, and networks trained and judged through."""
