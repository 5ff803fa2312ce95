"""Large images in pieces: what a network does to a tile and the pixels around that it sees."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from wic_layers.pictures.images import size_of

__all__ = ["Progress", "map_tiles"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called after every tile with the number of tiles that are done and of all."""


def map_tiles(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    *,
    tile: int,
    overlap: int,
    scale: int = 1,
    up: bool = False,
    progress: Progress | None = None,
) -> Tensor:
    """Runs a function on overlapping tiles of an image and puts the results together.

    The result is the same as ``function(x)`` if no result depends on pixels farther away than
    ``overlap``, and the function treats the border of a tile like that of the image.

    Args:
        function: From pixels (C, h, w) to pixels (D, h / scale, w / scale), or with ``up`` to (D,
            h * scale, w * scale).
        x: Pixels (C, H, W); H and W are divisible by what the function asks for, and so are
            ``tile`` and ``overlap``.
        tile: Side of the part of ``x`` whose result is kept; an image that is no larger is run
            whole.
        overlap: How much of the image around a tile is run with it, in pixels of ``x``.
        scale: See ``function``.
        up: See ``function``.
        progress: Called after every tile.
    """

    def scaled(value: int) -> int:
        return value * scale if up else value // scale

    width, height = size_of(x)
    corners = [(top, left) for top in range(0, height, tile) for left in range(0, width, tile)]
    if len(corners) == 1:
        result = function(x)
        if progress is not None:
            progress(1, 1)
        return result
    out: Tensor | None = None
    for done, (top, left) in enumerate(corners, start=1):
        bottom, right = min(top + tile, height), min(left + tile, width)
        first, start = max(top - overlap, 0), max(left - overlap, 0)
        piece = function(x[:, first : bottom + overlap, start : right + overlap])
        if out is None:
            shape = (len(piece), scaled(height), scaled(width))
            out = torch.empty(shape, dtype=piece.dtype, device=piece.device)
        rows = slice(scaled(top - first), scaled(bottom - first))
        columns = slice(scaled(left - start), scaled(right - start))
        out[:, scaled(top) : scaled(bottom), scaled(left) : scaled(right)] = piece[
            :, rows, columns
        ]
        if progress is not None:
            progress(done, len(corners))
    assert out is not None  # noqa: S101 - for the type checker; there is at least one tile
    return out
