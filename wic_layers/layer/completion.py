r"""Completions: what stands in for the channels that a narrowing layer dropped.

A completion is any callable :math:`c` that maps the kept channels :math:`y`, shape
:math:`(B, m, *spatial)`, to the others, shape :math:`(B, M - m, *spatial)`. Five are here:
:class:`Zero`, :class:`Repeat`, :class:`Shift` (the paper's), :class:`Learned` and
:class:`Gaussian` (random numbers, the baseline). :func:`resolve` turns a name into one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError, WICShapeError

__all__ = [
    "Completion",
    "CompletionName",
    "Gaussian",
    "Learned",
    "Repeat",
    "Shift",
    "Zero",
    "check_name",
    "resolve",
]

Completion = Callable[[Tensor], Tensor]
CompletionName = Literal["zero", "repeat", "shift", "learned", "gaussian"]


class _Sized(nn.Module):
    """A completion from ``in_channels`` kept channels to ``out_channels`` missing ones."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = out_channels

    if TYPE_CHECKING:

        def __call__(self, y: Tensor) -> Tensor: ...

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}"


class Zero(_Sized):
    """Zeros.

    Args:
        in_channels: Number of kept channels.
        out_channels: Number of missing channels.
    """

    def forward(self, y: Tensor) -> Tensor:
        return y.new_zeros((y.shape[0], self.out_channels, *y.shape[2:]))


class Repeat(_Sized):
    """The kept channels again: missing channel j is kept channel j modulo ``in_channels``.

    This is IICNet's channel squeeze seen from the other side.

    Args:
        in_channels: Number of kept channels.
        out_channels: Number of missing channels.
    """

    def forward(self, y: Tensor) -> Tensor:
        times = max(-(-self.out_channels // self.in_channels), 1)
        return torch.cat([y] * times, dim=1)[:, : self.out_channels]


def _offsets(count: int, rank: int, order: str) -> list[tuple[int, ...]]:
    """The first ``count`` offsets of the neighbourhood, without the origin."""
    if rank == 0:
        return [()] * count
    groups = count + 1
    reach = max(math.ceil(groups ** (1 / rank) / 2), 1)
    if order == "nearest":
        while (2 * reach + 1) ** rank < groups:
            reach += 1
        # one ring further: a corner of the square is farther away than the next point on an axis
        reach = max(reach, math.isqrt(rank * reach * reach) + 1)
    axis = range(-reach, reach + 1)
    grid: list[tuple[int, ...]] = [()]
    for _ in range(rank):
        grid = [(*point, step) for point in grid for step in axis]
    grid = [point for point in grid if any(point)]
    if order == "nearest":
        grid.sort(key=lambda point: (sum(step * step for step in point), point))
    return grid[:count]


def mirrored(index: Tensor, size: int) -> Tensor:
    """The positions in 0..size-1 that an axis shows there, reflected with period 2(size - 1)."""
    # a tensor, as a size may be a symbol while exporting or compiling
    period = torch.full((), 2 * (size - 1), device=index.device).clamp(min=1)
    index = index % period
    return torch.minimum(index, period - index)


def _reflected(y: Tensor, dim: int, offset: int) -> Tensor:
    """``y`` read at ``i - offset`` along ``dim``."""
    size = y.shape[dim]
    return y.index_select(dim, mirrored(torch.arange(size, device=y.device) - offset, size))


class Shift(_Sized):
    r"""The kept channels, shifted by a pixel or more: the paper's completion.

    Group k of the missing channels is :math:`y` moved by the k-th offset, with borders read by
    reflection (period 2(size - 1)), so that every size works; an axis of size 1 repeats itself and
    a plain vector, which has no neighbours, gives the same as :class:`Repeat`.

    Args:
        in_channels: Number of kept channels.
        out_channels: Number of missing channels.
        order: ``"nearest"`` takes offsets by squared distance, ties in lexicographic order.
            ``"published"`` takes them row by row over a square, as the authors' code does; images
            (rank 2) only.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (13)-(14)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        order: Literal["nearest", "published"] = "nearest",
    ) -> None:
        super().__init__(in_channels, out_channels)
        if order not in ("nearest", "published"):
            raise WICArgumentError(f'Expected order "nearest" or "published"; got {order!r}.')
        self.order = order
        groups = -(-out_channels // in_channels)
        self._offsets = [_offsets(groups, rank, order) for rank in range(4)]

    @property
    def reach(self) -> int:
        """The farthest shift of an image along one axis, in pixels."""
        return max((abs(step) for offset in self._offsets[2] for step in offset), default=0)

    def forward(self, y: Tensor) -> Tensor:
        if not self.out_channels:
            return y[:, :0]
        rank = y.ndim - 2
        if self.order == "published" and rank != 2:
            raise WICShapeError(
                "Expected images (B, C, H, W): the published order of shifts is only defined for "
                f"them; got shape {tuple(y.shape)}."
            )
        shifted = []
        for offset in self._offsets[rank]:
            group = y
            for axis, step in enumerate(offset):
                if step:
                    group = _reflected(group, axis + 2, step)
            shifted.append(group)
        return torch.cat(shifted, dim=1)[:, : self.out_channels]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, order={self.order!r}"


class Learned(_Sized):
    """A small convolutional predictor of the missing channels, trained with the network.

    Three convolutions with LeakyReLU between; the last one starts at zero, so that an untrained
    predictor equals :class:`Zero`. It runs in the dtype of its own weights (or autocast's) and
    returns ``y``'s.

    Args:
        in_channels: Number of kept channels.
        out_channels: Number of missing channels.
        hidden: Width of the two hidden layers.
        kernel_size: Odd width of each convolution.
        rank: Number of spatial dimensions of ``y``: 0 (plain vectors) to 3; 2 are images.

    Raises:
        WICArgumentError: If ``rank`` or ``kernel_size`` is out of range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        hidden: int = 32,
        kernel_size: int = 3,
        rank: int = 2,
    ) -> None:
        super().__init__(in_channels, out_channels)
        if rank not in range(4):
            raise WICArgumentError(f"Expected rank in 0..3; got {rank!r}.")
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise WICArgumentError(
                f"Expected an odd kernel_size of at least 1; got {kernel_size!r}."
            )
        self.rank = rank

        def conv(inputs: int, outputs: int) -> nn.Module:
            if rank == 0:
                return nn.Linear(inputs, outputs)
            kind = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
            return kind(inputs, outputs, kernel_size, padding=kernel_size // 2)

        last = conv(hidden, out_channels)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.layers = nn.Sequential(
            conv(in_channels, hidden),
            nn.LeakyReLU(0.2),
            conv(hidden, hidden),
            nn.LeakyReLU(0.2),
            last,
        )

    def forward(self, y: Tensor) -> Tensor:
        if y.ndim - 2 != self.rank:
            raise WICShapeError(
                f"Expected input with {self.rank} spatial dimensions; got shape {tuple(y.shape)}. "
                f"Build the completion for it: Learned({self.in_channels}, {self.out_channels}, "
                f"rank={y.ndim - 2})."
            )
        weight: Any = self.layers[0].weight  # replicas of nn.DataParallel have no parameters()
        out: Tensor = self.layers(y.to(weight.dtype))
        return out.to(y.dtype)


class Gaussian(_Sized):
    """Standard normal random numbers: what IRN and HiNet put in place of the dropped channels.

    Every call draws anew, from the global generator or from ``generator``.

    Args:
        in_channels: Number of kept channels.
        out_channels: Number of missing channels.
        generator: Source of the numbers, on the device of the input; None takes the device's
            default one.
    """

    def __init__(
        self, in_channels: int, out_channels: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__(in_channels, out_channels)
        self.generator = generator

    def forward(self, y: Tensor) -> Tensor:
        shape = (y.shape[0], self.out_channels, *y.shape[2:])
        if self.generator is None:  # said so explicitly, it would not export with dynamic sizes
            return torch.randn(shape, dtype=y.dtype, device=y.device)
        return torch.randn(shape, generator=self.generator, dtype=y.dtype, device=y.device)

    def penalty(self, extra: Tensor) -> Tensor:
        """Half the square of ``extra``, its negative log-likelihood but for a constant."""
        return extra.square() / 2


_NAMED: dict[str, type[_Sized]] = {
    "zero": Zero,
    "repeat": Repeat,
    "shift": Shift,
    "learned": Learned,
    "gaussian": Gaussian,
}


def check_name(completion: str) -> None:
    """Raises WICArgumentError if a string is not the name of a completion."""
    if completion not in _NAMED:
        names = ", ".join(repr(name) for name in get_args(CompletionName))
        raise WICArgumentError(f"Expected completion {names} or a callable; got {completion!r}.")


def resolve(
    completion: CompletionName | Completion, in_channels: int, out_channels: int
) -> Completion:
    """Returns the completion of that name for these numbers of channels, or the callable as it is.

    Args:
        completion: One of ``"zero"``, ``"repeat"``, ``"shift"``, ``"learned"``, ``"gaussian"``, or
            a callable from :math:`(B, m, *spatial)` to :math:`(B, M - m, *spatial)`.
        in_channels: Number of kept channels m.
        out_channels: Number of missing channels M - m.

    Raises:
        WICArgumentError: If it is neither, or a completion for other numbers of channels.
    """
    if isinstance(completion, str):
        check_name(completion)
        return _NAMED[completion](in_channels, out_channels)
    if isinstance(completion, _Sized):
        given = (completion.in_channels, completion.out_channels)
        if given != (in_channels, out_channels):
            raise WICArgumentError(
                f"Expected a completion from {in_channels} to {out_channels} channels; got "
                f"{completion}."
            )
    if not callable(completion):
        raise WICArgumentError(f"Expected completion as a name or a callable; got {completion!r}.")
    return completion
