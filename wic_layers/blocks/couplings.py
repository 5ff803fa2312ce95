"""Halves that change each other, and channels that are set aside meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.blocks.chain import InvertibleBlock, check_invertible, run_named, way_back
from wic_layers.blocks.subnets import DenseBlock
from wic_layers.errors import WICArgumentError, WICShapeError

__all__ = [
    "AffineCoupling",
    "LongTermMemory",
    "with_condition",
]


class AffineCoupling(InvertibleBlock):
    r"""IRN's coupling of two halves of the channels.

    .. math:: y_1 = x_1 + F(x_2),\quad s = c\,(2\sigma(H(y_1)) - 1),\quad y_2 = x_2 e^{s} + G(y_1)

    Under autocast only F, G and H run in the lower precision; the halves stay in the input's
    dtype.

    Args:
        channels: Channels of the input.
        split: Channels of :math:`x_1`; half of them (rounded down) when None.
        clamp: Largest :math:`|s|`: 1 in IRN and WIN, 2 in HiNet.
        condition: Channels of a condition that F, G and H see behind their input; see
            :meth:`couple`.
        subnet: Builds F, G, H from (in_channels, out_channels).

    Raises:
        WICArgumentError: If there are fewer than 2 channels or the split leaves a half empty.

    References:
        | Invertible Image Rescaling (Xiao et al., 2020), Eq. (3)-(4)
    """

    is_exact = True

    def __init__(
        self,
        channels: int,
        *,
        split: int | None = None,
        clamp: float = 1.0,
        condition: int = 0,
        subnet: Callable[[int, int], nn.Module] = DenseBlock,
    ) -> None:
        super().__init__()
        first = channels // 2 if split is None else split
        if not 0 < first < channels:
            raise WICArgumentError(
                f"Expected a split that leaves channels on both sides of {channels}; got {first}."
            )
        self.channels = channels
        self.sizes = (first, channels - first)
        self.clamp = clamp
        self.condition = condition
        self.F = subnet(channels - first + condition, first)
        self.G = subnet(first + condition, channels - first)
        self.H = subnet(first + condition, channels - first)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise WICShapeError(
                f"AffineCoupling({self.extra_repr()}): expected {self.channels} channels; got "
                f"shape {tuple(x.shape)}."
            )
        first, second = x.split(self.sizes, dim=1)
        return first, second

    def _check_condition(self, condition: Tensor | None) -> None:
        channels = 0 if condition is None else condition.shape[1]
        if channels != self.condition:
            raise WICShapeError(
                f"AffineCoupling({self.extra_repr()}): expected a condition of {self.condition} "
                f"channels; got {channels}. It is given to couple and uncouple."
            )

    def scale_and_shift(self, seen: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns s and G of what H and G see, in ``dtype``."""
        scale = self.clamp * (2 * torch.sigmoid(self.H(seen).to(dtype)) - 1)
        return scale, self.G(seen).to(dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return self.couple(x)[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.uncouple(y)[0]

    def couple(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Maps ``x`` forward and returns s with it, whose sum per sample is :math:`\log|\det J|`.

        Args:
            x: Shape (B, channels, \*spatial).
            condition: Shape (B, condition, \*spatial); None where the coupling takes none.
        """
        self._check_condition(condition)
        x1, x2 = self._halves(x)
        y1 = x1 + self.F(with_condition(x2, condition)).to(x.dtype)
        scale, shift = self.scale_and_shift(with_condition(y1, condition), x.dtype)
        y2 = x2 * scale.exp() + shift
        return torch.cat((y1, y2), dim=1), scale

    def uncouple(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps ``y`` back and returns the s of :meth:`couple` with it."""
        self._check_condition(condition)
        y1, y2 = self._halves(y)
        scale, shift = self.scale_and_shift(with_condition(y1, condition), y.dtype)
        x2 = (y2 - shift) * (-scale).exp()
        x1 = y1 - self.F(with_condition(x2, condition)).to(y.dtype)
        return torch.cat((x1, x2), dim=1), scale

    def extra_repr(self) -> str:
        parts = [f"{self.channels}, split={self.sizes[0]}, clamp={self.clamp}"]
        if self.condition:
            parts.append(f"condition={self.condition}")
        return ", ".join(parts)


def with_condition(half: Tensor, condition: Tensor | None) -> Tensor:
    """What a network inside a coupling is given."""
    return half if condition is None else torch.cat((half, condition), dim=1)


class LongTermMemory(InvertibleBlock):
    """Sets the first channels aside and sends the rest through ``inner``.

    Nested, it is WIN's long-term memory: ``[memory; rest] -> [memory; inner(rest)]``, where
    ``inner`` may hold another one. What was set aside reaches the end of the network untouched.

    Args:
        channels: How many channels are set aside.
        inner: The block (or chain) for the others.

    Raises:
        WICArgumentError: If ``inner`` has no ``inverse``.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (19)-(20)
    """

    def __init__(self, channels: int, inner: nn.Module) -> None:
        super().__init__()
        check_invertible(inner, "inner")
        self.channels = channels
        self.inner = inner

    def _forward(self, x: Tensor) -> Tensor:
        return self._around(x, self.inner)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._around(y, way_back(self.inner))

    def _around(self, x: Tensor, function: Callable[[Tensor], Any]) -> Tensor:
        if x.shape[1] <= self.channels:
            raise WICShapeError(
                f"LongTermMemory: expected more than {self.channels} channels; got shape "
                f"{tuple(x.shape)}."
            )
        rest = run_named("inner", function, x[:, self.channels :])
        return torch.cat((x[:, : self.channels], rest), dim=1)

    def extra_repr(self) -> str:
        return f"{self.channels}"
