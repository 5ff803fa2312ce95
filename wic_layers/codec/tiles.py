"""Tiling: large images in pieces, each run with the pixels around that a network sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from wic_layers.blocks.pieces import runs_in_pieces
from wic_layers.codec.work import part
from wic_layers.errors import WICArgumentError, WICError
from wic_layers.models import Network
from wic_layers.models.inspection import flow, pixel_grid, receptive_field
from wic_layers.tasks.base import Task

__all__ = ["Progress", "Tiling"]

Progress: TypeAlias = Callable[[int, int], None]
"""Called after every tile with the number of tiles that are done and of all."""

_WHOLE = 2 * 3 * 2**24  # a side that no image has
_MOST_BYTES = 3 * 2**26  # of activations at once, where no tile is asked for
_MOST_WITH_GRADIENTS = 2**32  # tiles far smaller than what they have to see take for ever


@dataclass(frozen=True)
class Tiling:
    """Overlapping tiles of an image, and what a function makes of them.

    A result is the same as of the whole if none of its pixels depends on others farther away than
    ``overlap``, and the function treats the border of a tile like that of the image.

    Attributes:
        side: Side of the part of the image whose result counts; an image that is no larger is run
            whole. Divisible by what the function asks for, as the image's sides and ``overlap``.
        overlap: How much of the image around a tile is run with it, in pixels of the image.
        scale: How many times smaller the result is than the image.
        up: Whether it is larger in place of smaller.
    """

    side: int
    overlap: int
    scale: int = 1
    up: bool = False

    @classmethod
    def of(
        cls,
        task: Task,
        network: Network,
        tile: int | None,
        area: int,
        *,
        with_gradients: bool = False,
    ) -> Tiling:
        """Returns the tiles, in pixels of the large picture, in which a network runs forward.

        Args:
            task: What the network is for.
            network: The network.
            tile: The side that is asked for; by default as large as the memory allows.
            area: Pixels of the large picture.
            with_gradients: Whether all activations are stored for gradients.

        Raises:
            WICArgumentError: If ``tile`` is less than 1.
        """
        multiple = math.lcm(task.multiple, pixel_grid(network, task.channels[0]))
        overlap = _up_to(receptive_field(network, task.channels[0]), multiple)
        if tile is not None:
            if tile < 1:
                raise WICArgumentError(f"Expected a tile of at least 1 pixel a side; got {tile}.")
            return cls(_up_to(tile, multiple), overlap, task.scale)
        if with_gradients:
            most = _MOST_WITH_GRADIENTS / _bytes_with_gradients(network, task.channels[0])
        else:
            most = _MOST_BYTES / _bytes_per_pixel(network, task.channels[0])
        if area <= most:
            return cls(_WHOLE, overlap, task.scale)
        # a tile smaller than what it has to see would cost more time than it saves memory
        side = max(int(math.sqrt(most)) - 2 * overlap, overlap, 64)
        return cls(_up_to(side, multiple), overlap, task.scale)

    def reversed(self) -> Tiling:
        """Returns the same tiles for the way back, in pixels of the small picture."""
        side, overlap = self.side // self.scale, self.overlap // self.scale
        return Tiling(side, overlap, self.scale, up=True)

    def run(
        self, function: Callable[[Tensor], Tensor], x: Tensor, progress: Progress | None = None
    ) -> Tensor:
        """Runs a function on all tiles of an image, and puts the results together.

        Args:
            function: From pixels (C, h, w) to pixels (D, h / scale, w / scale), or with ``up`` to
                (D, h * scale, w * scale); it runs without gradients.
            x: Pixels (C, H, W).
            progress: Called after every tile.

        Raises:
            WICError: If there is not enough memory.
        """
        height, width = x.shape[1:]
        rows, columns = range(0, height, self.side), range(0, width, self.side)
        corners = [(top, left) for top in rows for left in columns]
        out = torch.empty(0)
        for done, corner in enumerate(corners, start=1):
            with part(1 / len(corners)):
                piece = self.run_one(function, x, corner)
            if len(corners) == 1:
                out = piece
            else:
                if done == 1:
                    out = piece.new_empty(len(piece), self.scaled(height), self.scaled(width))
                top, left = map(self.scaled, corner)
                out[:, top : top + piece.shape[1], left : left + piece.shape[2]] = piece
            if progress is not None:
                progress(done, len(corners))
        return out

    def run_one(
        self, function: Callable[[Tensor], Tensor], x: Tensor, corner: tuple[int, int]
    ) -> Tensor:
        """Returns the result of the tile of an image at (top, left); see :meth:`run`."""
        top, left = corner
        height, width = x.shape[1:]
        bottom, right = min(top + self.side, height), min(left + self.side, width)
        first, start = max(top - self.overlap, 0), max(left - self.overlap, 0)
        rows = slice(self.scaled(top - first), self.scaled(bottom - first))
        columns = slice(self.scaled(left - start), self.scaled(right - start))
        try:
            with torch.no_grad():
                piece = function(x[:, first : bottom + self.overlap, start : right + self.overlap])
        except (MemoryError, RuntimeError) as error:
            lacking = ("out of memory", "allocate memory")
            if isinstance(error, RuntimeError) and not any(word in str(error) for word in lacking):
                raise
            raise WICError(
                f"There is not enough memory for an image of {width}x{height}; take a smaller "
                f"tile, such as --tile 256 (tile=256)."
            ) from error
        return piece[:, rows, columns]

    def scaled(self, length: int) -> int:
        """Returns a length in the image as one in the result."""
        return length * self.scale if self.up else length // self.scale


def _up_to(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _bytes_per_pixel(network: Network, channels: int) -> float:
    """About what a network stores at once without gradients, for each pixel of its input."""
    most = 1.0
    for step in flow(network, channels):
        inside = [module for module in step.block.modules() if runs_in_pieces(module)]
        narrow = {id(part) for module in inside for part in module.modules()}
        wide = [
            module.in_channels
            for module in step.block.modules()
            if isinstance(module, nn.Conv2d) and id(module) not in narrow
        ]
        # a block's halves, what its networks give and what it makes of them; a convolution's
        # input, its result joined to it, and a copy in oneDNN's own layout
        areas = [float(side) ** 2 for side in step.sizes]
        whole = max(each * area for each, area in zip(step.channels, areas, strict=True))
        most = max(most, 4 * 8 * whole, 4 * 3 * max(wide, default=0) * areas[0])
    return most


def _bytes_with_gradients(network: Network, channels: int) -> float:
    """About what all of its convolutions store for gradients."""
    total = 1.0
    for step in flow(network, channels):
        widths = [m.in_channels for m in step.block.modules() if isinstance(m, nn.Conv2d)]
        total += 3 * 4 * sum([*widths, *step.channels]) * float(step.sizes[0]) ** 2
    return total
