"""How much of the work on an image is done, told by what does it to whoever shows a bar.

Nobody passes it on: it is that of the thread, :func:`told_to`. What takes time says with
:func:`part` what share of its work comes next, and within one run of a network :func:`counted`
tells every convolution. The shares add up to 1 and never go back.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from wic_layers.blocks.pieces import number_of_pieces

__all__ = ["Told", "counted", "in_notebook", "part", "told_to"]

Told = Callable[[float], None]
"""Called with the share of the work that is done, from 0 to 1."""

_LARGE = 2**21
"""Pixels from which a notebook shows a bar by itself; smaller pictures take a few seconds."""


class _Work:
    """Where the work is: in a part that reaches from ``done`` over ``width``."""

    def __init__(self, tell: Told) -> None:
        self.tell, self.done, self.width = tell, 0.0, 1.0


_WORK: ContextVar[_Work | None] = ContextVar("work", default=None)


@contextmanager
def told_to(tell: Told) -> Iterator[None]:
    """Tells all work of this thread, from 0 to 1."""
    token = _WORK.set(_Work(tell))
    try:
        yield
    finally:
        _WORK.reset(token)


@contextmanager
def part(share: float) -> Iterator[None]:
    """Around the next share of what is being done, from 0 to 1 of it."""
    work = _WORK.get()
    if work is None:
        yield
        return
    done, width = work.done, work.width
    work.width = width * share
    yield
    work.done, work.width = done + width * share, width
    work.tell(min(work.done, 1.0))


def counted(network: nn.Module, runs: int = 1) -> AbstractContextManager[object]:
    """Around ``runs`` of a network: every convolution is told as its part of them.

    They are counted as they are called, by this thread; the network is left as it is, as another
    thread may run it, and hooks would take its dense blocks other ways.
    """
    work = _WORK.get()
    convolutions = sum(
        isinstance(each, nn.Conv2d) and each.kernel_size != (1, 1) for each in network.modules()
    )
    if work is None or not convolutions:
        return nullcontext()
    return _Counter(work, convolutions * runs)


class _Counter(TorchFunctionMode):
    def __init__(self, work: _Work, most: int) -> None:
        super().__init__()
        self.work, self.most, self.count = work, most, 0.0

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func is torch.conv2d and _weight(*args, **(kwargs or {})).shape[2:] != (1, 1):
            self.count += 1 / number_of_pieces()
            share = min(self.count / self.most, 1.0)
            self.work.tell(min(self.work.done + self.work.width * share, 1.0))
        return result


def _weight(input: Tensor, weight: Tensor, *args: object, **arguments: object) -> Tensor:
    return weight


@contextmanager
def in_notebook(what: str, pixels: int, *, enabled: bool) -> Iterator[None]:
    """A bar, where a notebook would else stand still; nowhere else, and not inside another."""
    is_wanted = enabled and _WORK.get() is None and pixels > _LARGE
    bar = _notebook_bar(what) if is_wanted else None
    if bar is None:
        yield
        return
    with bar, told_to(lambda share: bar.update(share - bar.n)):
        yield


def _notebook_bar(what: str) -> Any:
    """The bar of tqdm for notebooks; None where there is none, or no notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if type(shell).__name__ != "ZMQInteractiveShell":
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # without ipywidgets it is one of text
        try:
            from tqdm.auto import tqdm
        except ImportError:
            return None
        form = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
        return tqdm(total=1.0, desc=what, leave=False, bar_format=form)
