"""``read_source``: a picture that images come back from; what it says is read first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from wic_layers.codec.mark import Mark, Sizes
from wic_layers.codec.parts import split
from wic_layers.codec.sentences import how_to_read
from wic_layers.codec.surviving import trained_through, who_can
from wic_layers.errors import WICFileError
from wic_layers.pictures import check_pixels, read_carrier, read_carrier_head, refuse_lossy
from wic_layers.tasks.base import Task

__all__ = ["Source", "read_source"]


@dataclass(frozen=True)
class Source:
    """A picture that images come back from.

    Attributes:
        pixels: Pixels (3, H, W) or (1, H, W), uint8.
        task: The task that it names, or None.
        mark: What it says about itself, or None.
        parts: What else is in its chunk.
        is_changed: Whether it was saved with loss since it was made.
    """

    pixels: Tensor
    task: Task | None = None
    mark: Mark | None = None
    parts: dict[str, bytes] = field(default_factory=dict)
    is_changed: bool = False


def read_source(
    path: str | Path,
    tasks: Sequence[Task],
    sizes: Sizes | None,
    *,
    model: str | Path | nn.Module | None,
    max_pixels: int | None = None,
) -> Source:
    """Reads a picture that images come back from.

    Whatever can be refused is refused before its pixels are read.

    Args:
        path: The file.
        tasks: What it may have been made for.
        sizes: The (width, height) of each image that comes back, as a user says it.
        model: The network that a user says; None if none is said.
        max_pixels: How many pixels it, and each image that comes back, may have; see
            :func:`~wic_layers.pictures.read_image`.

    Raises:
        WICFileError: If it cannot be read, was changed, is a JPEG or WebP of a network that was
            not trained for it, was made for none of the tasks, or says
            nothing where a user does not either.
        WICArgumentError: If the sizes do not agree.
    """
    size, chunk, lossy = read_carrier_head(path, max_pixels=max_pixels, lossy=True)
    task = mark = None
    parts: dict[str, bytes] = {}
    if chunk is not None:
        parts = split(chunk, path)
        mark = Mark.loads(parts["mark"], path)
        task = mark.task_among(tasks, path)
        mark.check_size(size, path)
    if lossy:
        reader = model or (None if mark is None else mark.model_for(path))
        if reader is None or not trained_through(reader):
            raise WICFileError(f"{refuse_lossy(path, lossy)} {who_can(tasks)}")
    if mark is None and (model is None or sizes is None):
        raise WICFileError(how_to_read(path, size, tasks, model, sizes))
    for each in mark.sizes if mark is not None else sizes or ():
        check_pixels(each, f"What comes back from {path}", max_pixels)
    pixels, _ = read_carrier(path, max_pixels=max_pixels, lossy=bool(lossy))
    is_as_written = True
    if mark is not None and task is not None:
        is_as_written = mark.check(task, pixels, path, sizes, may_differ=bool(lossy))
    return Source(pixels, task, mark, parts, is_changed=not is_as_written)
