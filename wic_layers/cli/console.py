"""What commands print: lines, errors, progress."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["complain", "print_line", "progress_bar"]


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
                bar.total = of
                bar.update(done - bar.n)

        yield progress
