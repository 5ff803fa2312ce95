"""ActNorm, HalfCoupling, ConditionalSplit and ConditionalFlow, what HCFlow is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wic_layers.blocks import Chain, InvertibleBlock
from wic_layers.blocks.block import reach_of, run_named
from wic_layers.blocks.couplings import Coupling, with_condition
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.layer import losses as auxiliary
from wic_layers.layer.conv import WIC
from wic_layers.models.features import Features

__all__ = ["ActNorm", "ConditionalFlow", "ConditionalSplit", "HalfCoupling"]

_LARGEST = 0.318  # about 1/pi: what keeps the logarithm of a scale within a half


class ActNorm(InvertibleBlock):
    """A shift and a scale for every channel.

    Both start as nothing, not from the first batch as in Glow and in HCFlow's code, as no call
    changes the state of a layer here; so the small picture is one from the start.

    Args:
        channels: Channels of the input.

    References:
        | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma and Dhariwal, 2018),
        | Section 3.1
    """

    is_exact = True
    keeps_shape = True

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.logs = nn.Parameter(torch.zeros(1, channels, 1, 1))

    def _forward(self, x: Tensor) -> Tensor:
        return (x + self.bias) * self.logs.exp()

    def _inverse(self, y: Tensor) -> Tensor:
        return y * (-self.logs).exp() - self.bias

    def extra_repr(self) -> str:
        return f"{self.bias.shape[1]}"


class HalfCoupling(Coupling):
    r"""A coupling that changes one half of the channels by a network that sees the other.

    .. math:: y_2 = (x_2 + t)\, e^{s},\quad s = \tfrac1\pi \arctan(2r),\quad [t; r] = f(x_1)

    with t and r in alternating channels; or, the other way around, :math:`y_1 = x_1 + f(x_2)`.

    Args:
        channels: Channels of the input.
        split: Channels of :math:`x_1`.
        changes_first: Whether :math:`x_1` is shifted; else :math:`x_2` is shifted and scaled.
        condition: Channels of a condition that the network sees behind the half.
        subnet: Builds the network from (in_channels, out_channels).

    References:
        | Hierarchical Conditional Flow (Liang et al., 2021), Section 3.3 and its code
    """

    def __init__(
        self,
        channels: int,
        split: int,
        *,
        changes_first: bool = False,
        condition: int = 0,
        subnet: Callable[[int, int], nn.Module] = DenseBlock,
    ) -> None:
        super().__init__(channels, split)
        self.changes_first = changes_first
        seen, changed = self.sizes[::-1] if changes_first else self.sizes
        self.f = subnet(seen + condition, changed if changes_first else 2 * changed)

    if TYPE_CHECKING:

        def __call__(
            self,
            x: Tensor,
            rev: bool = False,  # noqa: FBT001, FBT002
            condition: Tensor | None = None,
        ) -> Tensor: ...

    def forward(
        self,
        x: Tensor,
        rev: bool = False,  # noqa: FBT001, FBT002 - as IRN calls it
        condition: Tensor | None = None,
    ) -> Tensor:
        r"""Maps ``x`` forward, or back with ``rev=True``.

        Args:
            x: Shape (B, channels, \*spatial).
            rev: The way back.
            condition: Shape (B, condition, \*spatial); None where the coupling takes none.
        """
        first, second = self.halves(x)
        seen = second if self.changes_first else first
        h = self.f(with_condition(seen, condition)).to(x.dtype)
        if self.changes_first:
            first = first - h if rev else first + h
        else:
            shift, scale = _shift_and_scale(h)
            second = second * (-scale).exp() - shift if rev else (second + shift) * scale.exp()
        return torch.cat((first, second), dim=1)

    def _inverse(self, y: Tensor) -> Tensor:
        return self.forward(y, rev=True)

    def extra_repr(self) -> str:
        marks = ("*", "") if self.changes_first else ("", "*")
        return " + ".join(f"{size}{mark}" for size, mark in zip(self.sizes, marks, strict=True))


def _shift_and_scale(h: Tensor) -> tuple[Tensor, Tensor]:
    """What a network says of a half: its shift, and the logarithm of its scale."""
    return h[:, 0::2], _LARGEST * torch.atan(2 * h[:, 1::2])


class _ZeroConv(nn.Conv2d):
    """A 3x3 convolution that starts at zero, with a learned logarithm of a scale."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)
        self.logs = nn.Parameter(torch.zeros(out_channels, 1, 1))
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (3 * self.logs).exp()


class _ThreeConvs(nn.Module):
    """The network inside a conditional coupling: 3x3, 1x1 and 3x3, normalised between."""

    def __init__(self, in_channels: int, out_channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1, bias=False)
        self.norm1 = ActNorm(width)
        self.conv2 = nn.Conv2d(width, width, 1, bias=False)
        self.norm2 = ActNorm(width)
        self.conv3 = _ZeroConv(width, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        x = F.relu(self.norm2(self.conv2(x)))
        out: Tensor = self.conv3(x)
        return out


class _ConditionalStep(nn.Module):
    """A step of a conditional flow: normalise, mix by a square WIC, couple."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.norm = ActNorm(channels)
        self.wic = WIC(channels, channels)
        subnet = partial(_ThreeConvs, width=width)
        self.coupling = HalfCoupling(channels, channels // 2, condition=width, subnet=subnet)

    def forward(self, a: Tensor, features: Tensor, *, rev: bool = False) -> Tensor:
        out: Tensor
        if rev:
            uncoupled = self.coupling(a, rev=True, condition=features)
            out = self.norm(run_named("wic", self.wic.inverse, uncoupled), rev=True)
            return out
        out = self.coupling(run_named("wic", self.wic, self.norm(a)), condition=features)
        return out


class ConditionalFlow(nn.Module):
    """Turns the channels a that are dropped into z, and back, given what is kept.

    Args:
        channels: Channels of a, and of z.
        seen: Channels of what is kept, with the features of the level below.
        steps: Normalise, mix and couple so many times.
        width: Channels of the features and inside the couplings.
        depth: Residual dense blocks that make the features.

    References:
        | Hierarchical Conditional Flow (Liang et al., 2021), Section 3.2, as its code has it for
        | rescaling
    """

    def __init__(
        self, channels: int, seen: int, *, steps: int = 6, width: int = 64, depth: int = 3
    ) -> None:
        super().__init__()
        self.features = Features(seen, width, depth)
        self.steps = nn.ModuleList(_ConditionalStep(channels, width) for _ in range(steps))
        self.prior = _ZeroConv(width, 2 * channels)

    def forward(self, a: Tensor, features: Tensor, *, rev: bool = False) -> Tensor:
        """Maps a to z (B, channels, H, W), or z to a, given features (B, width, H, W)."""
        mean, scale = _shift_and_scale(self.prior(features).to(a.dtype))
        if rev:
            a = mean + scale.exp() * a
            for step in list(self.steps)[::-1]:
                a = step(a, features, rev=True)
            return a
        for step in self.steps:
            a = step(a, features)
        return (a - mean) * (-scale).exp()

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`~wic_layers.blocks.InvertibleBlock.shape_after`."""
        return channels, side

    def extra_repr(self) -> str:
        return f"{len(self.steps)} steps"


class ConditionalSplit(InvertibleBlock):
    """Keeps the first channels; the others, given those, become a z that is dropped.

    ``[y; a] = mix(x)``, ``z = flow(a)`` given y and, where more is dropped further down, the
    features from there. On the way back z is completed, and the flow gives a. On the way forward
    z is worked out only for those who record it (:func:`~wic_layers.record_wic`): the picture
    does not depend on it.

    Args:
        split: Channels of y.
        mix: The 1x1 convolution before the split: a square WIC.
        flow: Of ``channels - split`` channels.
        drop: The layer that drops z behind y, and completes it: a WIC whose kernel is fixed.
        inner: Blocks that y goes through, the last one another such split; None where y is the
            result.

    References:
        | Hierarchical Conditional Flow (Liang et al., 2021), Section 3.2 and Fig. 2
    """

    def __init__(
        self, split: int, *, mix: WIC, flow: ConditionalFlow, drop: WIC, inner: Chain | None
    ) -> None:
        super().__init__()
        self.split = split
        self.mix = mix
        self.flow = flow
        self.drop = drop
        self.inner = inner

    if TYPE_CHECKING:

        def __call__(
            self,
            x: Tensor,
            rev: bool = False,  # noqa: FBT001, FBT002
            *,
            with_features: bool = False,
        ) -> Any: ...

    def forward(
        self,
        x: Tensor,
        rev: bool = False,  # noqa: FBT001, FBT002 - as IRN calls it
        *,
        with_features: bool = False,
    ) -> Any:
        """Maps ``x`` (B, C, H, W) forward, or back, which brings the dropped channels back.

        ``with_features`` to return what :meth:`descend` and :meth:`ascend` do.
        """
        result = (self.ascend if rev else self.descend)(x)
        return result if with_features else result[0]

    def _inverse(self, y: Tensor) -> Tensor:
        return self.ascend(y)[0]

    def descend(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps ``x`` forward and returns, where z is recorded, the features that it came from."""
        mixed = run_named("mix", self.mix, x)
        y, a = mixed[:, : self.split], mixed[:, self.split :]
        picture, below = run_named("inner", self._inside, y)
        if not auxiliary.is_recording():
            return picture, None
        features = self._features(y, below)
        run_named("drop", self.drop, torch.cat((y, self.flow(a, features)), dim=1))
        return picture, features

    def ascend(self, y: Tensor) -> tuple[Tensor, Tensor]:
        """Maps ``y`` back and returns the features of this level."""
        y, below = run_named("inner", partial(self._inside, rev=True), y)
        features = self._features(y, below)
        z = self.drop.complete(y)
        mixed = torch.cat((y, self.flow(z, features, rev=True)), dim=1)
        return run_named("mix", self.mix.inverse, mixed), features

    def _inside(self, y: Tensor, *, rev: bool = False) -> tuple[Tensor, Tensor | None]:
        """Through the blocks inside, and the features of the split that they end with."""
        if self.inner is None:
            return y, None
        *blocks, (name, split) = self.inner._blocks()
        deeper = partial(split, rev=rev, with_features=True)
        if not rev:
            return run_named(name, deeper, self.inner._through(blocks, y))
        y, below = run_named(name, deeper, y)
        return self.inner._through(blocks[::-1], y, rev=True), below

    def _features(self, y: Tensor, below: Tensor | None) -> Tensor:
        seen = y
        if below is not None:
            seen = torch.cat((y, F.interpolate(below.to(y.dtype), scale_factor=2.0)), dim=1)
        features: Tensor = self.flow.features(seen)
        return features

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`~wic_layers.blocks.InvertibleBlock.shape_after`."""
        if self.inner is None:
            return self.split, side
        return self.inner.shape_after(self.split, side)

    @property
    def reach(self) -> int:
        """That of what z is completed by."""
        return reach_of(self.drop.completion)

    def parts(
        self, channels: int, side: Fraction
    ) -> Iterator[tuple[str, nn.Module, int, Fraction]]:
        """See :meth:`~wic_layers.blocks.InvertibleBlock.parts`."""
        yield "mix", self.mix, channels, side
        yield "flow", self.flow, channels - self.split, side
        if self.inner is not None:
            yield "inner", self.inner, self.split, side

    def extra_repr(self) -> str:
        return f"{self.split}"
