"""run_in_pieces: a network inside a coupling on large images, a piece at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from itertools import pairwise

from torch import Tensor, nn

__all__ = ["number_of_pieces", "run_in_pieces", "runs_in_pieces"]

_BYTES = {"cpu": 2**24}  # what stays in a processor's caches, and in memory that malloc keeps
_OTHER_BYTES = 2**28  # enough work for all of a GPU

_PIECES: ContextVar[int] = ContextVar("pieces", default=1)


def number_of_pieces() -> int:
    """In how many pieces the image is run, of which one is being run now; 1 outside of them."""
    return _PIECES.get()


def runs_in_pieces(module: nn.Module) -> bool:
    """Whether a module says by ``is_run_in_pieces`` that large images take it no more memory."""
    return bool(getattr(module, "is_run_in_pieces", False))


def run_in_pieces(
    function: Callable[[Tensor], Tensor], x: Tensor, *, reach: int, channels: int, cell: int = 1
) -> Tensor:
    """Runs a network on images, large ones in pieces with the pixels around that it sees.

    A piece fits into the caches of a processor, and its results into memory that is used again:
    it is faster, and hundreds of channels are not there for the whole image. It must run without
    gradients, which need all of them.

    Args:
        function: From (B, C, h, w) to (B, D, h, w).
        x: Images (B, C, H, W).
        reach: How many pixels it sees to each side; the border of a piece is treated like that
            of the image, and does not count.
        channels: How many it stores at once.
        cell: What sides must be divisible by.
    """
    height, width = x.shape[-2:]
    most = _BYTES.get(x.device.type, _OTHER_BYTES)
    side = max(int(math.sqrt(most / (channels * x.element_size()))), 64)
    if len(x) * height * width <= 2 * side**2:
        return function(x)
    halo = -(-reach // cell) * cell
    rows, columns = _edges(height, side, cell), _edges(width, side, cell)
    out = x.new_empty(0)
    token = _PIECES.set(len(x) * (len(rows) - 1) * (len(columns) - 1) * _PIECES.get())
    try:
        for index in range(len(x)):
            image = x[index : index + 1]
            for top, bottom in pairwise(rows):
                for left, right in pairwise(columns):
                    first, start = max(top - halo, 0), max(left - halo, 0)
                    piece = function(image[..., first : bottom + halo, start : right + halo])
                    if not out.numel():
                        shape = (len(x), height, width, piece.shape[1])
                        out = piece.new_empty(shape).permute(0, 3, 1, 2)  # channels last
                    out[index, :, top:bottom, left:right] = piece[
                        0, :, top - first : bottom - first, left - start : right - start
                    ]
    finally:
        _PIECES.reset(token)
    return out


def _edges(length: int, side: int, cell: int) -> list[int]:
    """Where pieces of nearly equal lengths begin, and the end."""
    number = max(-(-length // side), 1)
    step = -(-length // (number * cell)) * cell
    return [*range(0, length, step), length]
