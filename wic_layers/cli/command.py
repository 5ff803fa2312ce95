"""Command: one word of ``wic``; and what all share: parser, lines, errors, progress bars."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

__all__ = ["ERROR", "Command", "Parser", "complain", "path", "print_line", "progress_bar"]

ERROR = 2


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


def complain(message: str) -> None:
    """Prints an error in one line."""
    print("wic: error:", " ".join(message.splitlines()), file=sys.stderr)


def print_line(line: str) -> None:
    """Prints a line above the progress bars."""
    try:
        from tqdm import tqdm
    except ImportError:
        print(line, flush=True)
    else:
        tqdm.write(line)
        sys.stdout.flush()


@contextmanager
def progress_bar(total: int, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on a terminal, where there is more than one of what it counts."""
    try:
        from tqdm import tqdm
    except ImportError:
        yield lambda done, total: None
        return
    hidden = None if total != 1 and sys.stderr.isatty() else True
    with tqdm(total=total, unit=unit, leave=False, disable=hidden) as bar:

        def progress(done: int, of: int) -> None:
            if unit == "file":
                bar.update(done)
            elif of > 1:
                if done == 1:  # of another picture, or of the way back
                    bar.reset(of)
                bar.update(done - bar.n)

        yield progress
