"""``quiet``: keeps back what other libraries print or warn of while one thread uses them."""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import ModuleType

__all__ = ["mute_decoders", "quiet"]

_IS_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


class _WhereQuiet:
    """Stands for the pattern of a filter: matches every warning of a context that is quiet."""

    def match(self, text: str) -> bool:
        return _IS_QUIET.get()


_FILTER: tuple[object, ...] = ("ignore", _WhereQuiet(), Warning, None, 0)
_LOCK = threading.Lock()
_inside = 0
_muted: set[str] = set()


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


def mute_decoders(pillow: ModuleType) -> None:
    """Stops libtiff, within Pillow, and Pillow's own log from writing to stderr, for good.

    What they have to say of a file is in the error that is raised. Where libtiff is linked into
    Pillow so that it cannot be reached, as on Windows, it goes on.

    Args:
        pillow: The module ``PIL.Image``.
    """
    where = str(getattr(pillow.core, "__file__", ""))
    if where in _muted:
        return
    _muted.add(where)
    # without any handler Python prints errors; those that an application adds still get them
    logging.getLogger("PIL").addHandler(logging.NullHandler())
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(where)
        library.TIFFSetErrorHandler(None)
        library.TIFFSetWarningHandler(None)
