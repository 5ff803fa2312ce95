"""Shown: how a training goes, in a line on a terminal, or in lines of a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from wic_layers._text import said, width_of_bars
from wic_layers.evaluation.judging import Judgement
from wic_layers.training.objective import Losses, Objective

__all__ = ["Shown"]

_EVERY = 1.0
"""Seconds between two looks at the loss, which a GPU has to be waited for."""

# on a narrow terminal the bar itself gives way, then the end
_FORM = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} {rate_fmt}, {remaining} left{postfix}"


class Shown:
    """Speed, time left, loss and learning rate of a training, from its first step on.

    Args:
        steps: All that there are.
        objective: What is minimised.
        enabled: Whether this process shows it.
    """

    def __init__(self, steps: int, objective: Objective, *, enabled: bool) -> None:
        from tqdm import tqdm

        self.steps, self.objective = steps, objective
        self._write = tqdm.write
        self._bar = tqdm(
            total=steps, unit="step", **width_of_bars(), mininterval=_EVERY, smoothing=0.1,
            bar_format=_FORM, disable=None if enabled else True,
        )  # fmt: skip
        self._first: int | None = None
        self._began = self._looked = time.monotonic()
        self._psnr = ""

    def __enter__(self) -> Shown:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def step(self, step: int, losses: Losses, judgement: Judgement | None, rate: float) -> None:
        """Shows a step that was taken.

        Args:
            step: Its number, from 1.
            losses: Unweighted.
            judgement: What the held-out images look like after it, if it was judged.
            rate: The learning rate.
        """
        now = time.monotonic()
        if self._first is None:
            self._first = self._bar.initial = self._bar.n = step - 1
            self._bar.last_print_n = step - 1
        if judgement is not None:
            self._psnr = f", {judgement.psnr_forward:.2f}/{judgement.psnr_back:.2f} dB"
        is_first = step == self._first + 1
        if is_first or judgement is not None or now >= self._looked + _EVERY:
            self._looked = now
            loss = sum(float(each.detach()) for each in self.objective.weighted(losses).values())
            told = f"loss {loss:.4g}, lr {rate:.2e}{self._psnr}"
            if not self._bar.disable:
                self._bar.set_postfix_str(told, refresh=is_first)
            elif judgement is not None:  # no terminal: a line now and then, for the log's reader
                self._say(step, told, now)
        self._bar.update(step - self._bar.n)

    def warn(self, message: object, kind: str = "warning") -> None:
        """Prints a warning, or something of another kind, above the line."""
        self._write(said(kind, message), file=sys.stderr)

    def _say(self, step: int, told: str, now: float) -> None:
        speed = (step - (self._first or 0)) / max(now - self._began, 1e-9)
        left: Any = self._bar.format_interval((self.steps - step) / speed)
        print(f"step {step} of {self.steps}, {speed:.3g}/s, {left} left, {told}", flush=True)
