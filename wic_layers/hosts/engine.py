"""HostKernel: the WIC that answers for a layer of somebody else's model.

It has no parameters: its kernel is a function of the layer's.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.weight_norm import WeightNorm

from wic_layers.hosts.calls import Entry
from wic_layers.layer.cache import computed
from wic_layers.layer.conv import WIC
from wic_layers.layer.functional import from_algebra, to_algebra
from wic_layers.layer.kernel import RectangularKernel, wide_dtype
from wic_layers.layer.pointwise import autocast_is_on, convolve, outside_autocast

__all__ = ["HostKernel", "Layout", "Reading", "Spec", "tensors_of"]

# (matrix, bias or None) of a layer, both in the layer's dtype
Read = Callable[[nn.Module], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Layout:
    """Where the channels of a host's tensors stand.

    Attributes:
        kind: ``"first"``, dimension 1; ``"last"``; or ``"groups"``, as Glow-TTS has them: the
            channels of both halves, taken in groups of ``size`` that share the kernel.
        size: Channels of the kernel.
    """

    kind: Literal["first", "last", "groups"]
    size: int

    def fold(self, x: Tensor) -> Tensor:
        """The tensor with the kernel's channels in dimension 1."""
        if self.kind == "last":
            return x.movedim(-1, 1) if x.ndim > 2 else x
        if self.kind == "groups":
            batch, channels, *sizes = x.shape
            split = x.view(batch, 2, channels // self.size, self.size // 2, *sizes)
            return split.transpose(2, 3).reshape(batch, self.size, channels // self.size, *sizes)
        return x

    def unfold(self, y: Tensor) -> Tensor:
        """The way back of :meth:`fold`."""
        if self.kind == "last":
            return y.movedim(1, -1).contiguous() if y.ndim > 2 else y
        if self.kind == "groups":
            batch, _, groups, *sizes = y.shape
            split = y.view(batch, 2, self.size // 2, groups, *sizes)
            return split.transpose(2, 3).reshape(batch, groups * self.size, *sizes)
        return y


@dataclass(frozen=True)
class Spec:
    """What is known of a layer.

    Attributes:
        owner: Its own class.
        entries: The methods that are answered.
        layout: Where its channels stand.
        read: Its matrix and bias.
        turned: Whether that matrix is what its way back applies.
        sources: Tensors that they are read from, by name; none for all that the layer holds.
        volume: log|det| of the host's forward where factors say it without algebra.
    """

    owner: type[nn.Module]
    entries: tuple[Entry, ...]
    layout: Layout
    read: Read
    turned: bool = False
    sources: tuple[str, ...] = ()
    volume: Callable[[nn.Module], Tensor] | None = None


class Reading(NamedTuple):
    """What was read of a layer, for one call or for the life of a transform that it made.

    Attributes:
        entries: What was computed from the kernel before; None where nothing may be cached.
        pair: The kernel, and the bias or None.
        factor: The log-volume as the layer's factors say it; None where it has not been read.
    """

    entries: Any
    pair: tuple[Tensor, Tensor | None]
    factor: Tensor | None = None


class HostKernel(WIC):
    """A square WIC whose kernel, and bias if there is one, are those of a host's layer.

    ``forward(x)`` is :math:`Kx + b`. It stays outside of the host's modules, so that their names,
    parameters and state dict are what they were.

    Args:
        host: The layer.
        spec: What is known of it.
    """

    def __init__(self, host: nn.Module, spec: Spec) -> None:
        RectangularKernel.__init__(self)
        self.spec = spec
        self.in_channels = self.out_channels = self.rows = spec.layout.size
        self.layout: Literal["compact", "published"] = "compact"
        self.completion = None
        self.bijective = True
        self.parametrization = "free"
        self.host = host
        self._places = self._places_of_sources()
        self._parts = list(host.modules())

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The kernel, shape (n, n)."""
        self._refresh()
        return self._kernel(self._entries())

    @property
    def bias(self) -> Tensor | None:
        """What is added behind the kernel, shape (n,); None where nothing is."""
        self._refresh()
        return self._read()[1]

    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, of {self.spec.owner.__name__}"

    def run(
        self,
        x: Tensor,
        *,
        rev: bool,
        with_volume: bool = True,
        lowers: bool = True,
        reading: Reading | None = None,
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """Runs the host's forward, or its way back.

        Args:
            x: The host's tensor.
            rev: Whether to run its way back.
            with_volume: Whether the log-volume is wanted.
            lowers: Whether the result is in autocast's dtype under autocast.
            reading: What was read of the layer before; by default it is read now.

        Returns:
            The result in the host's layout and dtype; the log-volume of the host's forward, a
            scalar, or None; and the input with the channels in dimension 1.
        """
        kind = x.device.type
        if autocast_is_on(kind) and x.dtype != torch.float64:
            with torch.autocast(kind, enabled=False):
                y, volume, folded = self.run(
                    x.float(), rev=rev, with_volume=with_volume, reading=reading
                )
            return (y.to(torch.get_autocast_dtype(kind)) if lowers else y), volume, folded
        folded = self.spec.layout.fold(x)
        entries, pair, factor = reading or self.read()
        if rev != self.spec.turned:
            self._check(folded, self.out_channels, "input")
            y = self._back(folded, entries, pair)
        else:
            self._check(folded, self.in_channels, "input")
            y = self._along(folded, pair)
        volume = self._signed_volume(entries, pair[0], x, factor) if with_volume else None
        return self.spec.layout.unfold(y), volume, folded

    def volume(self, x: Tensor, *, reading: Reading | None = None) -> tuple[Tensor | None, Tensor]:
        """The log-volume alone, and the input with the channels in dimension 1, as ``run``."""
        folded = self.spec.layout.fold(x)
        entries, (kernel, _), factor = reading or self.read()
        wide = x if x.dtype == torch.float64 or not autocast_is_on(x.device.type) else x.float()
        return self._signed_volume(entries, kernel, wide, factor), folded

    def read(self, *, whole: bool = False) -> Reading:
        """Reads the layer's kernel and bias.

        Args:
            whole: Whether to read at once what the volume is computed from, too.
        """
        entries = self._entries()
        pair = self._pair(entries)
        factor = self._factor(pair[0]) if whole and entries is None else None
        return Reading(entries, pair, factor)

    def _along(self, x: Tensor, pair: tuple[Tensor, Tensor | None]) -> Tensor:
        kernel, bias = pair
        y = convolve(x, kernel)
        return y if bias is None else y + _as_channels(bias, y)

    def _back(self, y: Tensor, entries: Any, pair: tuple[Tensor, Tensor | None]) -> Tensor:
        kernel, bias = pair
        if bias is not None:
            y = y - _as_channels(bias, y)
        if entries is None:
            return convolve(y, from_algebra(self._checked_inverse(None, kernel), y))
        return convolve(y, self._inverse_kernel(y, entries))

    def _factor(self, kernel: Tensor) -> Tensor | None:
        """The log-volume of the host's forward as its factors say it; None where none does."""
        volume = self.spec.volume
        # what is assembled in half precision is rounded, and its factors are not
        if volume is None or kernel.dtype.itemsize < 4:
            return None
        factor: Tensor = outside_autocast(lambda: volume(self.host), device=kernel.device)
        return factor

    def _signed_volume(
        self, entries: Any, kernel: Tensor, x: Tensor, factor: Tensor | None = None
    ) -> Tensor:
        """The log-volume of the host's forward, in float32 at least."""

        def compute() -> Tensor:
            volume = self._factor(kernel) if factor is None else factor
            if volume is None:
                volume = torch.linalg.slogdet(to_algebra(kernel))[1]
                volume = -volume if self.spec.turned else volume
            return from_algebra(volume, kernel, wide_dtype(kernel.dtype, x.dtype))

        return computed(entries, ("log_volume of the host", x.dtype), compute)

    def _there(self, x: Tensor, entries: Any) -> Tensor:
        self._check(x, self.in_channels, "input")
        return self._along(x, self._pair(entries))

    def _inverse(self, y: Tensor) -> Tensor:
        self._check(y, self.out_channels, "input")
        entries = self._entries()
        return self._back(y, entries, self._pair(entries))

    def _pair(self, entries: Any) -> tuple[Tensor, Tensor | None]:
        return computed(entries, "kernel and bias", self._read)

    def _read(self) -> tuple[Tensor, Tensor | None]:
        pair: tuple[Tensor, Tensor | None] = outside_autocast(
            lambda: self.spec.read(self.host), device=self._sources()[0].device
        )
        return pair

    def _kernel(self, entries: Any = None) -> Tensor:
        return self._pair(entries)[0]

    def _assembled(self) -> Tensor:
        self._refresh()
        return self._read()[0]

    def _refresh(self) -> None:
        """Computes the weight that torch's older weight_norm sets before a call only."""
        for hook in self.host._forward_pre_hooks.values():
            if type(hook) is WeightNorm:
                hook(self.host, None)

    def _lu_factors(self) -> None:
        return None

    def _sources(self) -> tuple[Tensor, ...]:
        tensors = [_tensor(module, name) for module, name in self._places]
        if not tensors or any(
            tensor is None for tensor in tensors
        ):  # a parametrization may have moved some
            self._places = self._places_of_sources()
            tensors = [_tensor(module, name) for module, name in self._places]
        return tuple(tensors)  # type: ignore[arg-type]

    def _places_of_sources(self) -> list[tuple[nn.Module, str]]:
        places, names = _places_of(self.host), self.spec.sources
        some = [place for name, place in places.items() if not names or name in names]
        return some or list(places.values())

    def _maps(self) -> tuple[object, ...]:
        # a parametrization that is registered later changes a class, or the length of a list
        return tuple((type(part), len(part._modules)) for part in self._parts)

    def _is_training(self) -> bool:
        return self._modules["host"].training  # type: ignore[union-attr]


def _as_channels(bias: Tensor, y: Tensor) -> Tensor:
    return bias.to(y.dtype).view(-1, *(1,) * (y.ndim - 2))


def tensors_of(layer: nn.Module) -> dict[str, Tensor]:
    """All tensors that a layer holds, by name: parameters, buffers, and plain attributes."""
    places = _places_of(layer).items()
    return {name: _tensor(*place) for name, place in places}  # type: ignore[misc]


def _places_of(layer: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """The modules that hold a layer's tensors, and their names there."""
    return {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in layer.named_modules()
        # replicas of nn.DataParallel hold their parameters as plain attributes
        for values in (module._parameters, module._buffers, module.__dict__)
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def _tensor(module: nn.Module, name: str) -> Tensor | None:
    """A tensor of a module, from its dictionaries, which takes less time than an attribute."""
    for values in (module._parameters, module._buffers, module.__dict__):
        value: Tensor | None = values.get(name)
        if value is not None:
            return value
    return None
