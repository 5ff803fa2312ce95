"""Warnings that are kept back where they are raised, and nowhere else."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import Any

__all__ = ["quiet"]

_IS_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


class _WhereQuiet:
    """Stands for the pattern of a filter: matches every warning of a context that is quiet."""

    def match(self, text: str) -> bool:
        return _IS_QUIET.get()


_FILTER: Any = ("ignore", _WhereQuiet(), Warning, None, 0)
_LOCK = threading.Lock()
_inside = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back the warnings of the calling thread, and of no other one, while the body runs.

    ``warnings.catch_warnings`` would do so in every thread of the process.
    """
    global _inside
    with _LOCK:
        _inside += 1
        if warnings.filters[:1] != [_FILTER]:
            warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
    token = _IS_QUIET.set(True)
    try:
        yield
    finally:
        _IS_QUIET.reset(token)
        with _LOCK:
            _inside -= 1
            if not _inside:
                with suppress(ValueError):  # there is none any more
                    while True:
                        warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]
