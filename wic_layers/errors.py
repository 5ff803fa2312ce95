"""The errors of the library: one family, so that ``except WICError`` catches all of them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
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
    "needing",
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
