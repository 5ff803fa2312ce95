"""Command: one word of ``wic``; and what all share: parser, paths, lines, errors."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TextIO

from wic_layers._text import printable, said
from wic_layers.errors import WICError

__all__ = [
    "ERROR",
    "SOME_FAILED",
    "Command",
    "Output",
    "Parser",
    "complain",
    "path",
    "print_line",
    "refining_steps",
    "sentence_of",
]

SOME_FAILED, ERROR = 1, 2


class Parser(argparse.ArgumentParser):
    """A parser whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        """Prints a message and leaves."""
        complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(ERROR)


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        name: The word after ``wic``.
        summary: What it does, in the list of commands.
        add_arguments: Adds what it takes to its parser.
        run: Does it, and returns the exit code.
        more: What its own help says beside the summary.
    """

    name: str
    summary: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    more: str = ""


def path(text: str) -> Path:
    """Returns the path that a word stands for.

    Raises:
        argparse.ArgumentTypeError: If there is none.
    """
    if not text:  # such as a variable of a shell that is not set; Path("") would be this folder
        raise argparse.ArgumentTypeError("expected a path; got an empty text")
    return Path(text)


def refining_steps(text: str) -> int:
    """Returns the number of steps that a word stands for, ``best`` too.

    Raises:
        argparse.ArgumentTypeError: If it stands for none.
    """
    from wic_layers.codec.refining import BEST

    if text == "best":
        return BEST
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a number of steps, or best; got {text!r}"
        ) from None


class Output(argparse.Action):
    """Stores a path, and as ``into`` whether it is a folder by what paths lose: a last slash."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        try:
            setattr(namespace, self.dest, path(values))
        except argparse.ArgumentTypeError as error:
            raise argparse.ArgumentError(self, str(error)) from None
        namespace.into = values.endswith(tuple(filter(None, ("/", os.sep, os.altsep))))


def sentence_of(error: BaseException) -> str | None:
    """Returns what to say about an error that a user can cause, or None of another one."""
    if isinstance(error, WICError):
        return str(error)
    if isinstance(error, MemoryError):
        return "There is not enough memory for these images; take smaller ones."
    if isinstance(error, OSError) and error.strerror is not None:
        # what the system has against a name, such as its length
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}."
    return None


def complain(message: str, kind: str = "error") -> None:
    """Prints what is wrong, in one line on stderr; a stderr that is gone is no reason to end."""
    with suppress(OSError, ValueError):
        _print(said(kind, message), sys.stderr)


def print_line(*lines: str) -> None:
    """Prints lines above the progress bar."""
    for line in lines:
        _print(line, sys.stdout)


def _print(line: str, stream: TextIO) -> None:
    tqdm = sys.modules.get("tqdm")
    if tqdm is None:
        print(printable(line), file=stream, flush=True)
    else:
        tqdm.tqdm.write(printable(line), file=stream)
        stream.flush()
