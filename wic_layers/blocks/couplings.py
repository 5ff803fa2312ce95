"""AffineCoupling: two halves of the channels that change each other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from wic_layers.blocks.block import Gradients, InvertibleBlock, gradient_of, reach_of, title_of
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import WICArgumentError, WICShapeError

__all__ = ["AffineCoupling", "Coupling", "with_condition"]


class Coupling(InvertibleBlock):
    """Base of couplings: ``channels`` in two halves, the first one of ``split`` channels."""

    is_exact = True
    keeps_shape = True

    def __init__(self, channels: int, split: int) -> None:
        super().__init__()
        if not 0 < split < channels:
            raise WICArgumentError(
                f"Expected a split that leaves channels on both sides of {channels}; got {split}."
            )
        self.channels = channels
        self.sizes = (split, channels - split)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the halves of an input."""
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise WICShapeError(
                f"{title_of(self)}: expected {self.channels} channels; got shape {tuple(x.shape)}."
            )
        first, second = x.split(self.sizes, dim=1)
        return first, second


class AffineCoupling(Coupling):
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

    networks = ("F", "G", "H")

    def __init__(
        self,
        channels: int,
        *,
        split: int | None = None,
        clamp: float = 1.0,
        condition: int = 0,
        subnet: Callable[[int, int], nn.Module] = DenseBlock,
    ) -> None:
        first = channels // 2 if split is None else split
        super().__init__(channels, first)
        self.clamp = clamp
        self.condition = condition
        self.F = subnet(channels - first + condition, first)
        self.G = subnet(first + condition, channels - first)
        self.H = subnet(first + condition, channels - first)

    def _check_condition(self, condition: Tensor | None) -> None:
        channels = 0 if condition is None else condition.shape[1]
        if channels != self.condition:
            raise WICShapeError(
                f"{title_of(self)}: expected a condition of {self.condition} "
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
        x1, x2 = self.halves(x)
        y1 = x1 + self.F(with_condition(x2, condition)).to(x.dtype)
        scale, shift = self.scale_and_shift(with_condition(y1, condition), x.dtype)
        y2 = x2 * scale.exp() + shift
        return torch.cat((y1, y2), dim=1), scale

    def uncouple(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps ``y`` back and returns the s of :meth:`couple` with it."""
        self._check_condition(condition)
        y1, y2 = self.halves(y)
        scale, shift = self.scale_and_shift(with_condition(y1, condition), y.dtype)
        x2 = (y2 - shift) * (-scale).exp()
        x1 = y1 - self.F(with_condition(x2, condition)).to(y.dtype)
        return torch.cat((x1, x2), dim=1), scale

    @property
    def reach(self) -> int:
        """F's, and then that of G or H, which see the result."""
        return reach_of(self.F) + max(reach_of(self.G), reach_of(self.H))

    def undo(
        self, y: Tensor, gradient: Tensor, gradients: Gradients, *, rev: bool
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`InvertibleBlock.undo`; here every network runs once, and not twice."""
        if type(self) is not AffineCoupling or self.condition:
            return super().undo(y, gradient, gradients, rev=rev)
        y1, y2 = y.split(self.sizes, dim=1)
        g1, g2 = gradient.split(self.sizes, dim=1)
        undo = self._undo_uncoupling if rev else self._undo_coupling
        return undo(y1, y2, g1, g2, gradients)

    def _undo_coupling(
        self, y1: Tensor, y2: Tensor, g1: Tensor, g2: Tensor, gradients: Gradients
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            seen = y1.detach().requires_grad_()
            scale, shift = self.scale_and_shift(seen, y2.dtype)
        factor = scale.detach().exp()
        x2 = (y2 - shift.detach()) / factor
        g2_scaled = g2 * factor
        outs, out_gradients = (shift, scale), (g2, g2_scaled * x2)
        g1 = g1 + gradient_of(outs, seen, (self.G, self.H), out_gradients, gradients)
        with torch.enable_grad():
            seen = x2.requires_grad_()
            first = self.F(seen).to(y1.dtype)
        g2 = g2_scaled + gradient_of((first,), seen, (self.F,), (g1,), gradients)
        x1 = y1 - first.detach()
        return torch.cat((x1, x2.detach()), dim=1), torch.cat((g1, g2), dim=1)

    def _undo_uncoupling(
        self, x1: Tensor, x2: Tensor, g1: Tensor, g2: Tensor, gradients: Gradients
    ) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            seen = x2.detach().requires_grad_()
            first = self.F(seen).to(x1.dtype)
        g2 = g2 + gradient_of((first,), seen, (self.F,), (-g1,), gradients)
        y1 = x1 + first.detach()
        with torch.enable_grad():
            seen = y1.requires_grad_()
            scale, shift = self.scale_and_shift(seen, x2.dtype)
        g2_scaled = g2 * (-scale.detach()).exp()
        outs, out_gradients = (shift, scale), (-g2_scaled, -g2 * x2)
        g1 = g1 + gradient_of(outs, seen, (self.G, self.H), out_gradients, gradients)
        y2 = x2 * scale.detach().exp() + shift.detach()
        return torch.cat((y1.detach(), y2), dim=1), torch.cat((g1, g2_scaled), dim=1)

    def summary(self) -> str:
        """The channels of the halves."""
        return " + ".join(map(str, self.sizes))

    def extra_repr(self) -> str:
        parts = [f"{self.channels}, split={self.sizes[0]}, clamp={self.clamp}"]
        if self.condition:
            parts.append(f"condition={self.condition}")
        return ", ".join(parts)


def with_condition(half: Tensor, condition: Tensor | None) -> Tensor:
    """What a network inside a coupling is given."""
    return half if condition is None else torch.cat((half, condition), dim=1)
