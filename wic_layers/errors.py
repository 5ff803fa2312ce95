"""The errors of the library: one family, so that ``except WICError`` catches all of them."""

from __future__ import annotations

import reprlib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

__all__ = [
    "ContractError",
    "IllConditionedError",
    "WICArgumentError",
    "WICDependencyError",
    "WICError",
    "WICFileError",
    "WICShapeError",
    "WICWarning",
    "named",
    "needing",
    "quoted",
    "shortened",
    "warn",
]


class WICError(Exception):
    """Base of every error that this library raises on purpose.

    The message says what was expected, what came and what to do. Containers prepend the name of
    the part that raised (:meth:`inside`), so that a deep network names its layer.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.parts: tuple[str, ...] = ()

    def inside(self, name: str) -> WICError:
        """Notes from which part of a module it came, if not from the whole; returns itself."""
        self.parts = (name, *self.parts) if name else self.parts
        return self

    def __str__(self) -> str:
        return f"{'.'.join(self.parts)}: {self.message}" if self.parts else self.message


class WICShapeError(WICError, ValueError, RuntimeError):
    """A tensor has another shape than the operation can take.

    A ValueError as of Python's functions, and a RuntimeError as of torch's, which code around
    either catches.
    """


class WICArgumentError(WICError, ValueError):
    """An argument has a value that means nothing here."""


class IllConditionedError(WICError, ArithmeticError):
    """A kernel is singular, not finite, or too close to singular to be inverted in its dtype."""


class ContractError(WICError, AssertionError):
    """A layer does not do what :mod:`wic_layers.testing` says that layers do."""


class WICFileError(WICError, OSError):
    """A file cannot be read, written or understood."""


class WICDependencyError(WICError, ImportError):
    """An optional dependency is missing; the message holds the pip line that brings it."""


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Around an import: if a package is missing, says what needs it and how it is installed.

    Args:
        what: Such as ``"Training needs PyYAML"``; ``{name}`` in it becomes the package's name.
        extra: The extra of this library that brings it.

    Raises:
        WICDependencyError: If it is missing.
    """
    try:
        yield
    except ImportError as error:
        raise WICDependencyError(
            f"{what.replace('{name}', str(error.name))}, which is not installed. Run: pip install "
            f"'wic-layers[{extra}]'"
        ) from error


class WICWarning(UserWarning):
    """Something looks wrong and may be right."""


def warn(message: str) -> None:
    """Warns where a user's code called the package."""
    level = 1
    with suppress(ValueError):  # there is no such caller
        while sys._getframe(level).f_globals.get("__name__", "").startswith("wic_layers."):
            level += 1
    warnings.warn(message, WICWarning, stacklevel=level + 1)


class _Quoting(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring, self.maxother, self.maxlong = 3, 80, 80, 80

    def repr_int(self, x: int, level: int) -> str:
        """Python refuses to write out numbers of thousands of digits."""
        return f"a number of {x.bit_length()} bits" if abs(x) >= 10**80 else str(x)


_QUOTING = _Quoting()


def quoted(value: object) -> str:
    """Returns a value of a file as a message shows it: some characters, whatever it holds."""
    return shortened(_QUOTING.repr(value))


def shortened(text: str, most: int = 300) -> str:
    """Returns the beginning of a text, in one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else f"{line[:most]} ..."


def named(names: Iterable[object], most: int = 4) -> str:
    """Returns the first of some names, of a file's tensors or settings, with commas between."""
    every = [str(name) for name in names]
    more = ", ..." if len(every) > most else ""
    return ", ".join(shortened(name, 80) for name in every[:most]) + more
