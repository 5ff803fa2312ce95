"""Several images in one and back: in memory, image files, and clips from videos or folders.

``model``, ``tile``, ``refine``, ``device`` and ``progress`` are those of
:mod:`wic_layers.codec.verbs`; with ``force`` an output that exists is replaced.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from wic_layers.codec.running import forward_pixels, load_network
from wic_layers.codec.tiles import Progress
from wic_layers.codec.verbs import Device, Model, bring_back
from wic_layers.codec.writing import Written, write_back, write_forward
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures.images import (
    as_kind,
    as_layer,
    as_pixels,
    check_output,
    find_images,
    names_file,
    read_image,
    read_layer,
    size_of,
)
from wic_layers.pictures.video import read_frames
from wic_layers.tasks.packing import Clip, Layers, Packing
from wic_layers.tasks.registry import PACKING, find_packing

__all__ = ["pack", "pack_clip", "pack_file", "unpack", "unpack_file"]

T = TypeVar("T")


def pack(
    task: str,
    images: Sequence[T],
    *,
    model: Model = None,
    tile: int | None = None,
    refine: int = 0,
    device: Device = None,
    progress: Progress | None = None,
) -> T:
    """Makes one image of several, from which all of them come back.

    Args:
        task: ``"stereo"`` (left and right view), ``"zoom-x2"``, ``"zoom-x4"`` or ``"zoom-x8"``
            (normal and zoomed view), ``"layers"`` (background, and foreground with transparency:
            mode RGBA, shape (H, W, 4) or (4, H, W)), ``"clip-3"``, ``"-5"``, ``"-7"`` or ``"-9"``
            (frames), ``"clip-3-x2"`` or ``"-5-x2"`` (frames into a picture of half the size).
        images: All of one size. Of a clip there may be fewer.
        model: See the module.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The picture, of the first image's kind. It looks like the left or normal view, the
        composition, or the middle frame; its odd sides are one pixel longer.

    Raises:
        WICArgumentError: If there is no such task, there are too few or too many images, or
            ``model`` is of another task or unknown.
        WICShapeError: If an image has no shape of an image, or the sizes differ.
        TypeError: If an image is of no kind that is taken.
    """
    chosen = find_packing(task)
    given = _listed(chosen, [as_layer(image, f"image {k}") for k, image in enumerate(images, 1)])
    found, network = load_network((chosen,), model, device)
    picture = forward_pixels(found, network, *given, tile=tile, progress=progress, refine=refine)
    return as_kind(picture, images[0])


def _listed(task: Packing, images: Sequence[Tensor]) -> list[Tensor]:
    """What goes into the network; transparency belongs to the foreground of layers alone."""
    allowed = 1 if isinstance(task, Layers) else len(images)
    for index, image in enumerate(images):
        if len(image) == 4 and index != allowed:
            raise WICArgumentError(
                f"Expected image {index + 1} for {task.name} without transparency, which would be "
                "lost; flatten it onto a background first."
            )
    return task.take(*images)


def unpack(
    picture: T,
    task: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    model: Model = None,
    tile: int | None = None,
    device: Device = None,
    progress: Progress | None = None,
) -> list[T]:
    """Brings back the images that :func:`pack` made one of.

    Args:
        picture: The picture, every pixel as it was made.
        task: What :func:`pack` was called with; by default what ``model`` was trained for.
        size: The images' own (width, height); the picture's by default, times 2 where it is half
            as large.
        frames: How many frames a clip had; by default as many as it can have.
        model: What :func:`pack` was called with.
        tile: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The images, of the picture's kind; of layers the composition, the background, and the
        foreground on black.

    Raises:
        WICArgumentError: If there is no such task, neither it nor ``model`` is given, or ``model``
            is of another task or unknown.
        WICShapeError: If the picture cannot have come from images of ``size``, or the clip not
            have had so many frames.
        TypeError: If the image is of no kind that is taken.
    """
    if task is None and model is None:
        raise WICArgumentError(
            f"Expected the task, such as {PACKING[0].name!r}, or the network; got neither."
        )
    if task is None and not isinstance(model, nn.Module):
        chosen, model = load_network(PACKING, model, device)
        device = None
    elif task is None:
        chosen, _ = load_network(PACKING, model)
    else:
        chosen = find_packing(task)
    sizes = None
    if size is not None or frames is not None:
        usual = tuple(chosen.scale * side for side in size_of(as_pixels(picture, "picture")))
        sizes = [size or usual] * (chosen.returned if frames is None else frames)
    return bring_back(
        (chosen,), picture, "the picture", sizes, model, tile, device, progress  # type: ignore[arg-type]
    )  # fmt: skip


def pack_file(
    task: str,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path | None = None,
    force: bool = False,
    tile: int | None = None,
    refine: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Written:
    """Makes one image file of several, so that :func:`unpack_file` can bring all of them back.

    Args:
        task: See :func:`pack`.
        images: The image files; the foreground of ``"layers"`` has transparency.
        out: The PNG to write.
        model: A preset with weights in the package, or the folder of weights.
        force: See the module.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        What was written, and the PSNR of the file and of what comes back from it.

    Raises:
        WICFileError: If a file cannot be read or written.
        WICArgumentError: As :func:`pack`.
        WICShapeError: If the sizes differ.
    """
    chosen = find_packing(task)
    target = check_output(out, inputs=images, force=force)
    reads = [read_image] * len(images)
    if isinstance(chosen, Layers):
        reads[1:2] = [read_layer]
    pixels = [read(path) for read, path in zip(reads, images, strict=False)]
    given = _listed(chosen, pixels)
    found, network = load_network((chosen,), model, device)
    count = len(images) if isinstance(chosen, Clip) else None
    return write_forward(
        found, network, given, target, force, tile, refine, progress, marked=True, count=count
    )


def pack_clip(
    task: str,
    clip: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    force: bool = False,
    tile: int | None = None,
    refine: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Iterator[Written]:
    """Makes image files of a video file, or of a folder of frames, N frames at a time.

    Args:
        task: One of the clips, see :func:`pack`.
        clip: The video file, or the folder.
        out: A folder, made if there is none, for PNG files with the clip's name and a number; or
            a PNG to write, if the clip has no more frames than the task takes.
        model: A preset with weights in the package, or the folder of weights.
        force: See the module.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Yields:
        What was written, file after file; the last one may hold fewer frames.

    Raises:
        WICFileError: If the clip cannot be read, a file cannot be written, or one is asked for
            where there are more frames.
        WICArgumentError: As :func:`pack`.
        WICShapeError: If the frames' sizes differ.
    """
    chosen, target = find_packing(task), Path(out)
    if not isinstance(chosen, Clip):
        raise WICArgumentError(
            f"Expected {chosen.given} images for {task} ({', '.join(chosen.parts)}); got the clip "
            f"{clip}."
        )
    inputs = find_images(clip) if Path(clip).is_dir() else [Path(clip)]
    is_single = names_file(target)
    if is_single:
        check_output(target, inputs=inputs, force=force)
    frames = read_frames(clip)
    several = list(islice(frames, chosen.images))
    following = list(islice(frames, chosen.images))
    if is_single and following:
        raise WICFileError(
            f"{clip} holds more than {chosen.images} frames; expected a folder to write several "
            f"files to; got {out}, the name of one."
        )
    found, network = load_network((chosen,), model, device)
    if not is_single:
        try:
            target.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WICFileError(f"{out} cannot be made: {error.strerror or error}.") from error
    index = 1
    while several:
        name = target if is_single else target / f"{Path(clip).stem}-{index:04d}.png"
        yield write_forward(
            found, network, _listed(chosen, several),
            check_output(name, inputs=inputs, force=force), force, tile, refine, progress,
            marked=True, count=len(several),
        )  # fmt: skip
        several, following = following, list(islice(frames, chosen.images))
        index += 1


def unpack_file(
    picture: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    force: bool = False,
    tile: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> list[Written]:
    """Brings back the images that :func:`pack_file` or :func:`pack_clip` made one of.

    -1, -2, ... is added to the name ``out``; of layers they are the composition, the background,
    and the foreground on black. See :func:`~wic_layers.tasks.reveal_file`.
    """
    return write_back(PACKING, picture, out, model, sizes, force, tile, device, progress)
