"""KernelCache: what was computed from a kernel, for as long as its sources are what they were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor

__all__ = ["Entries", "KernelCache", "computed"]

T = TypeVar("T")
Entries: TypeAlias = dict[object, Any]
_Trace: TypeAlias = Tensor | tuple[Tensor, int]


class KernelCache:
    """Entries that were computed from a kernel, and a snapshot of what that was computed from.

    ``len`` is the number of entries.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets everything."""
        self._entries: Entries = {}
        self._snapshot: tuple[object, tuple[_Trace, ...]] | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def entries(self, maps: tuple[object, ...], sources: tuple[Tensor, ...]) -> Entries:
        """The entries that hold for a kernel, none where it is not the one of the last call.

        Args:
            maps: The layer's class and its parametrizations: one that is registered later changes
                the class, or only the parametrizations.
            sources: The parameters and buffers that the kernel is computed from.
        """
        if self._snapshot is not None:
            same, traces = self._snapshot
            if (
                same == maps
                and len(traces) == len(sources)
                and all(map(_is_unchanged, traces, sources))
            ):
                return self._entries
        if any(source.is_inference() for source in sources):
            return {}
        self._entries = {}
        self._snapshot = maps, tuple(map(_trace, sources))
        return self._entries


def computed(entries: Entries | None, key: object, compute: Callable[[], T]) -> T:
    """The entry of a key, computed where there is none yet; without entries computed anew."""
    if entries is None:
        return compute()
    value: T | None = entries.get(key)
    if value is None:
        with torch.inference_mode(mode=False), torch.no_grad():
            value = entries[key] = compute()
    return value


def _trace(source: Tensor) -> _Trace:
    """What shows a later edit of a source: on a CPU a copy, elsewhere its version.

    The memory of a source off the CPU is held, so that no other tensor can come to its address.
    """
    if source.is_cpu:
        return source.detach().clone()
    return source.detach(), source._version


def _is_unchanged(trace: _Trace, source: Tensor) -> bool:
    """Whether a source is what it was when its trace was taken."""
    if isinstance(trace, Tensor):
        return source.is_cpu and trace.dtype == source.dtype and torch.equal(trace, source)
    if source.is_inference():
        return False
    before, version = trace
    return source._version == version and _place(source) == _place(before)


def _place(x: Tensor) -> tuple[object, ...]:
    return x.data_ptr(), x.device, x.dtype, x.shape, x.stride()
