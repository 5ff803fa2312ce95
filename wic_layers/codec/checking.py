"""Written: what a file holds, and how well; ``judge`` measures it, on all of it or some tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from wic_layers.codec.history import went_through_jpeg
from wic_layers.codec.running import backward_pixels, backward_tiles, reference_pixels
from wic_layers.codec.tiles import Progress
from wic_layers.codec.work import part
from wic_layers.models import Network
from wic_layers.pictures import as_grey, psnr
from wic_layers.tasks.base import Task

__all__ = ["Check", "Written", "doubted", "judge", "runs_to_judge", "spread"]

Check: TypeAlias = Literal["all", "some", "none"]
"""How much of a forward picture is run backwards to say what comes back from it."""

WHOLE = 2**21
"""Pixels of the large picture up to which ``"some"`` is all of it: photographs up to 1920x1080."""

TILE, TILES = 240, 8
"""Side of the tiles on which a larger one is judged, divisible by all scales; and how many."""


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: The file.
        size: Its (width, height).
        source: The (width, height) of the image it was made from: cover, photo or carrier.
        weights: The first 16 hex digits of the SHA-256 of the weights that made it.
        returns: The (width, height) of each image that comes back from it; empty for what came
            back.
        psnr: PSNR in dB of the picture against what it should look like; None if not measured.
        psnr_back: PSNR in dB of each image that comes back, of all of it; empty if not measured.
        reduced_from: The (width, height) that each secret had before it was made smaller to fit;
            None for those that fitted.
        doubt: For what came back from an unmarked file, a sentence if its content looks as if
            nothing had been there to bring back; else None.
        psnr_about: The same of some tiles of it; empty if not measured.
        tiles: On how many tiles of how many ``psnr_about`` was measured, or None.
        is_stored: Whether the picture is the photograph itself, which was grey already.
        carries: What of the photograph the file carries beside its pixels: alpha, exif, dpi.
        omitted: What of that was not written to what came back.
    """

    path: Path
    size: tuple[int, int]
    source: tuple[int, int]
    weights: str | None
    returns: tuple[tuple[int, int], ...] = ()
    psnr: float | None = None
    psnr_back: tuple[float, ...] = ()
    reduced_from: tuple[tuple[int, int] | None, ...] = ()
    doubt: str | None = None
    psnr_about: tuple[float, ...] = ()
    tiles: tuple[int, int] | None = None
    is_stored: bool = False
    carries: tuple[str, ...] = ()
    omitted: tuple[str, ...] = ()


def judge(
    written: Written,
    task: Task,
    network: Network,
    x: Tensor,
    originals: Sequence[Tensor],
    picture: Tensor,
    *,
    check: Check = "some",
    tile: int | None = None,
    progress: Progress | None = None,
) -> Written:
    """Returns what was written with the figures of how good it is.

    Args:
        written: What was written.
        task: What the network is for.
        network: The network.
        x: What went into it, as :meth:`~wic_layers.tasks.Task.packed` gives it.
        originals: The images of it that come back, uint8 (3, h, w); grey ones (1, h, w).
        picture: What is in the file, uint8 (out_channels, H, W).
        check: ``"all"``: run it backwards as a whole; ``"some"``: only some tiles of a large one;
            ``"none"``: measure nothing.
        tile: See :func:`~wic_layers.codec.running.forward_pixels`.
        progress: Called after every tile.
    """
    if check == "none":
        return written
    sizes = written.returns
    # what was padded at the same size does not count
    width, height = written.source if task.scale == 1 else written.size
    with part(0.1):
        reference = reference_pixels(task, x)
    forward = psnr(picture[:, :height, :width], reference[:, :height, :width])
    if check == "all" or picture[0].numel() * task.scale**2 <= WHOLE:
        with part(0.9):
            back = backward_pixels(task, network, picture, sizes, tile=tile, progress=progress)
        pairs = zip(back, originals, strict=True)
        figures = tuple(psnr(_like(one, original), original) for one, original in pairs)
        return replace(written, psnr=forward, psnr_back=figures)
    corners = sorted({corner for size in sizes for corner in spread(size)})
    with part(0.9):
        tiles = backward_tiles(task, network, picture, corners, TILE, progress=progress)
    figures = tuple(
        _psnr_of_tiles(original, [images[3 * index : 3 * index + 3] for images in tiles], corners)
        for index, original in enumerate(originals)
    )
    total = max(-(-width // TILE) for width, _ in sizes) * max(-(-h // TILE) for _, h in sizes)
    if len(corners) == total:
        return replace(written, psnr=forward, psnr_back=figures)
    return replace(written, psnr=forward, psnr_about=figures, tiles=(len(corners), total))


def runs_to_judge(check: Check, pixels: int) -> float:
    """Returns about how many runs of the network :func:`judge` takes as long as."""
    if check == "all" or (check == "some" and pixels <= WHOLE):
        return 1.0
    if check == "some":
        return TILES * (2 * TILE) ** 2 / pixels  # with what they see around them
    return 0.0


def _like(back: Tensor, original: Tensor) -> Tensor:
    """What came back, in one channel where the original is grey."""
    return as_grey(back) if len(original) == 1 else back


def _psnr_of_tiles(
    original: Tensor, tiles: Sequence[Tensor], corners: Sequence[tuple[int, int]]
) -> float:
    """The PSNR of an image's tiles, as of one image; what is outside of it does not count."""
    pairs = []
    for (top, left), tile in zip(corners, tiles, strict=True):
        inside = original[:, top : top + TILE, left : left + TILE]
        back = _like(tile[:, : inside.shape[1], : inside.shape[2]], inside)
        pairs.append((back.flatten(1), inside.flatten(1)))
    back, inside = (torch.cat(parts, 1) for parts in zip(*pairs, strict=True))
    return psnr(back, inside)


def spread(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns (top, left) of up to :data:`TILES` tiles, spread over a (width, height).

    They are always the same ones: those that the R2 sequence meets first, whose points lie far
    from each other however many are taken.

    References:
        | Martin Roberts, The Unreasonable Effectiveness of Quasirandom Sequences (2018)
    """
    columns, rows = (-(-side // TILE) for side in size)
    cells: list[tuple[int, int]] = []
    step = 0
    while len(cells) < min(columns * rows, TILES):
        step += 1
        x, y = (0.5 + step * part for part in (0.7548776662466927, 0.5698402909980532))
        cell = int(y % 1 * rows), int(x % 1 * columns)
        if cell not in cells:
            cells.append(cell)
    return [(row * TILE, column * TILE) for row, column in cells]


def doubted(
    task: Task, picture: Tensor, images: Sequence[Tensor], *, may_be_lossy: bool = False
) -> str | None:
    """Returns a sentence if a picture looks as if it could not bring its images back, else None.

    Args:
        task: The task that it was run backwards for.
        picture: What was run backwards, uint8 (out_channels, H, W).
        images: What came back from it, each uint8 (3, h, w).
        may_be_lossy: Whether the network was trained for pictures that were JPEG files.
    """
    # at the same size, the picture of a photograph that was a JPEG file shows that one's steps
    if task.scale > 1 and not may_be_lossy and went_through_jpeg(picture):
        return (
            "The picture looks as if it had been a JPEG file, which destroys what it holds: what "
            "came back has lost details, or is something else."
        )
    return task.doubt(picture, images)
