"""``warnings_in_lines``: the library's warnings, as commands show them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from wic_layers._text import said
from wic_layers.errors import WICWarning

__all__ = ["warnings_in_lines"]


@contextmanager
def warnings_in_lines() -> Iterator[None]:
    """Shows the library's own warnings in one line each, without the place in its code."""
    usual = warnings.formatwarning

    def in_a_line(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        line: str | None = None,
    ) -> str:
        if issubclass(category, WICWarning):
            return f"{said('warning', message)}\n"
        return usual(message, category, filename, lineno, line)

    warnings.formatwarning = in_a_line
    try:
        yield
    finally:
        warnings.formatwarning = usual
