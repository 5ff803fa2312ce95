"""Bar: one progress bar for a whole command, whose count is the work that is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from types import TracebackType
from typing import Any

from wic_layers._text import abridged, printable, width_of_bars
from wic_layers.codec.work import told_to

__all__ = ["Bar"]

_SOON, _EVERY = 0.4, 0.5
"""Seconds until it is shown, as most small pictures are done by then; and between two looks."""

_FORM = "{desc} {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
_ENDLESS = "{desc} {n:.0f} files, {elapsed}"


class Bar:
    """A bar on a terminal; nothing elsewhere, or without tqdm.

    It moves with the work on every file and never goes back; where a file's work cannot be told
    for a while, as while it is read, its clock goes on.

    Args:
        files: How many there are; None where that is not known.
        work: The work that all of them are, such as their pixels; the number of files when None.
    """

    def __init__(self, files: int | None, work: float | None = None) -> None:
        self.files, self.total = files, work or files
        self._done, self._started = 0.0, 0
        self._reached, self._name = 0.0, ""
        self._bar: Any = None
        self._is_wanted = False
        self._is_over, self._making = threading.Event(), threading.Lock()

    @staticmethod
    def is_seen() -> bool:
        """Whether there is a terminal that shows one."""
        try:
            import tqdm  # noqa: F401
        except ImportError:
            return False
        return sys.stderr.isatty()

    def __enter__(self) -> Bar:
        if self.is_seen():
            from tqdm.contrib import DummyTqdmFile

            self._is_wanted, self._began, self._stream = True, time.time(), sys.stderr
            # warnings of libraries, too, go above it
            self._above = redirect_stderr(DummyTqdmFile(self._stream))
            self._above.__enter__()
            self._clock = threading.Thread(target=self._tick, daemon=True)
            self._clock.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._is_wanted:
            self._is_over.set()
            self._clock.join(1)  # tqdm may keep its lock where Ctrl-C came between
            if self._bar is not None:
                self._bar.close()
            self._above.__exit__(kind, error, trace)

    @contextmanager
    def file(self, name: str, work: float = 1.0) -> Iterator[None]:
        """Around the work on a file."""
        self._started += 1
        count = f"{self._started}/{self.files} " if (self.files or 2) > 1 else ""
        self._name = count + abridged(printable(name), 24)
        if self._bar is not None:
            self._bar.set_description_str(self._name, refresh=False)
        try:
            with told_to(lambda share: self._move_to(self._done + share * work)):
                yield
        except Exception:  # after Ctrl-C it stays where it is
            self._pass(work)
            raise
        self._pass(work)

    def _pass(self, work: float) -> None:
        self._done += work
        self._move_to(self._done)

    def _move_to(self, done: float) -> None:
        self._reached = max(self._reached, done)
        if self._is_there():
            self._bar.update(self._reached - self._bar.n)

    def _is_there(self) -> bool:
        """Whether there is a bar by now; it is made here, once it is time for it."""
        if self._bar is None and self._is_wanted and time.time() >= self._began + _SOON:
            from tqdm import tqdm

            with self._making:
                if self._bar is None:
                    bar = tqdm(
                        file=self._stream, total=self.total, leave=False,
                        bar_format=_FORM if self.total else _ENDLESS, smoothing=0.05,
                        miniters=0, mininterval=0.1, **width_of_bars(),
                    )  # fmt: skip
                    bar.start_t = self._began
                    bar.set_description_str(self._name)
                    self._bar = bar
        return self._bar is not None

    def _tick(self) -> None:
        while not self._is_over.wait(_EVERY):
            if self._is_there():
                self._bar.refresh()
