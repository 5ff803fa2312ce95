"""What a task's picture is as a file: written with its mark, read and checked on the way back.

``tile``, ``refine``, ``device`` and ``progress`` are those of :mod:`wic_layers.codec.verbs`; with
``force`` an output that exists is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wic_layers.codec.mark import Mark, digest
from wic_layers.codec.running import (
    backward_pixels,
    check_size,
    forward_pixels,
    load_network,
    reference_pixels,
)
from wic_layers.codec.tiles import Progress
from wic_layers.errors import WICArgumentError, WICFileError, WICShapeError
from wic_layers.models import packaged_weights
from wic_layers.pictures.images import (
    as_channels,
    check_output,
    psnr,
    read_carrier,
    size_of,
    write_png,
)
from wic_layers.tasks.base import Task

__all__ = ["Written", "write_back", "write_forward"]


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        path: The file.
        size: Its (width, height).
        source: The (width, height) of the image it was made from: cover, photo or carrier.
        returns: The (width, height) of each image that comes back from it; empty for what came
            back.
        psnr: PSNR in dB of the file against what it should look like; None for what came back.
        psnr_back: PSNR in dB of each image that comes back from the file.
        reduced_from: The (width, height) that each secret had before it was made smaller to fit;
            None for those that fitted.
        weights: The first 16 hex digits of the SHA-256 of the weights that made it.
        doubt: For what came back from an unmarked file, a sentence if its content looks as if
            nothing had been there to bring back; else None.
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


def write_forward(
    task: Task,
    network: Any,
    images: Sequence[Tensor],
    target: Path,
    force: bool,  # noqa: FBT001
    tile: int | None,
    refine: int,
    progress: Progress | None,
    *,
    marked: bool,
    count: int | None = None,
) -> Written:
    """Runs a task forward on images and writes the picture.

    Args:
        task: What the network is for.
        network: The network.
        images: Pixels (3, H, W), uint8.
        target: The PNG, which was checked.
        force: See the module.
        tile: See the module.
        refine: See the module.
        progress: See the module.
        marked: Whether the file says what made it.
        count: How many of the images that can come back do so; all when None.
    """
    picture = forward_pixels(
        task, network, *images, tile=tile, progress=progress, refine=refine, count=count
    )
    wanted = images[-task.returned :][:count]
    sizes = tuple(size_of(image) for image in wanted)
    mark = Mark(
        task.name, network.preset, network.weights_id, sizes, size_of(picture), digest(picture)
    )
    write_png(picture, target, text=mark.dumps() if marked else None, force=force)

    # judged as whoever gets the file will see it
    written = as_channels(read_carrier(target)[0], task.out_channels, str(target))
    reference = reference_pixels(task, *images)
    source = size_of(images[0])
    # what was padded at the same size does not count
    width, height = source if task.scale == 1 else size_of(written)
    back = backward_pixels(task, network, written, sizes, tile=tile, progress=progress)
    return Written(
        target,
        size_of(written),
        source,
        network.weights_id,
        sizes,
        psnr(written[:, :height, :width], reference[:, :height, :width]),
        tuple(psnr(image, original) for image, original in zip(back, wanted, strict=True)),
    )


def write_back(
    tasks: Sequence[Task],
    source: str | Path,
    out: str | Path,
    model: str | Path | None,
    sizes: Sequence[tuple[int, int]] | None,
    force: bool,  # noqa: FBT001
    tile: int | None,
    device: str | torch.device | None,
    progress: Progress | None,
) -> list[Written]:
    """Brings back what one of ``tasks`` put into a file; see :func:`reveal_file`."""
    check_output(out, inputs=(source,), force=True)
    stored, text = read_carrier(source)
    if text is not None:
        mark = _mark(text, source)
        task = _task_of(tasks, mark, source)
        model, sizes = _agree(task, source, stored, mark, model, sizes)
        task, network = load_network((task,), model, device)
        if network.weights_id != mark.weights:
            raise WICFileError(
                f"{source} was made with the weights {mark.weights!r}; those at hand ({model}) "
                f"are {network.weights_id!r}. Pass the folder of its own weights by --weights; "
                f"those of another version of wic-layers are in that version's package."
            )
    elif model is None or sizes is None:
        raise WICFileError(_unmarked(tasks, source))
    else:
        task, network = load_network(tasks, model, device)
    picture = as_channels(stored, task.out_channels, str(source))
    check_size(task, picture, sizes, str(source))
    targets = _numbered(Path(out), len(sizes))
    for target in targets:
        check_output(target, inputs=(source,), force=force)
    images = backward_pixels(task, network, picture, sizes, tile=tile, progress=progress)
    doubt = task.doubt(picture, images) if text is None else None
    for image, target in zip(images, targets, strict=True):
        write_png(image, target, force=force)
    return [
        Written(target, size_of(image), size_of(picture), network.weights_id, doubt=doubt)
        for image, target in zip(images, targets, strict=True)
    ]


def _numbered(out: Path, count: int) -> list[Path]:
    """Returns the names of ``count`` files: ``out``, or ``out`` with -1, -2, ... in its name."""
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{index}{out.suffix}") for index in range(1, count + 1)]


def _mark(text: str, source: str | Path) -> Mark:
    try:
        return Mark.loads(text)
    except WICFileError as error:
        raise WICFileError(f"{source} cannot be used: {error}") from error


def _unmarked(tasks: Sequence[Task], source: str | Path) -> str:
    task = tasks[0]
    forward, backward = task.commands
    return (
        f"{source} does not say that `{forward}` made it, so nothing can be brought back; if it "
        f"did, and its chunk was left out or lost, say so: `{backward} {source} --preset "
        f"{task.preset} --size 640x480`, with the size of what comes back."
    )


def _task_of(tasks: Sequence[Task], mark: Mark, source: str | Path) -> Task:
    for task in tasks:
        if task.name == mark.task:
            return task
    forward, backward = tasks[0].commands
    raise WICFileError(
        f"{source} was made for {mark.task!r}; `{backward}` takes what `{forward}` made."
    )


def _agree(
    task: Task,
    source: str | Path,
    stored: Tensor,
    mark: Mark,
    model: str | Path | None,
    sizes: Sequence[tuple[int, int]] | None,
) -> tuple[str | Path, Sequence[tuple[int, int]]]:
    """Checks what a file says against its pixels and the arguments; returns model and sizes."""
    if mark.pixels != size_of(stored):
        width, height = size_of(stored)
        raise WICFileError(
            f"{source} is {width}x{height} but was written as {mark.pixels[0]}x{mark.pixels[1]}: "
            f"it was resized or cropped, which destroys what it holds."
        )
    try:
        picture = as_channels(stored, task.out_channels)
    except WICShapeError:
        picture = stored
    if digest(picture) != mark.digest:
        raise WICFileError(
            f"The pixels of {source} are not those that were written: it was edited or went "
            f"through lossy compression, which destroys what it holds."
        )
    if sizes is not None and tuple(sizes) != mark.sizes:
        given, said = (" ".join(f"{w}x{h}" for w, h in found) for found in (sizes, mark.sizes))
        raise WICArgumentError(
            f"--size {given} does not agree with {source}, which says {said}; leave it out."
        )
    if model is None:
        if mark.preset not in packaged_weights():
            made = f" of {mark.preset!r}" if mark.preset else ""
            raise WICFileError(
                f"{source} was made with the weights {mark.weights!r}{made}, which are not in "
                f"this package; pass their folder by --weights."
            )
        model = str(mark.preset)
    return model, mark.sizes
