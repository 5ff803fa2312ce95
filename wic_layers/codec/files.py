"""Image files forward and back. Whatever runs backwards needs the file alone.

``model``, ``tile``, ``refine``, ``device`` and ``progress`` are those of
:mod:`wic_layers.codec.verbs`; with ``force`` an output that exists is replaced.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from wic_layers.codec.running import load_network
from wic_layers.codec.tiles import Progress
from wic_layers.codec.verbs import fit_secret
from wic_layers.codec.writing import Written, write_back, write_forward
from wic_layers.pictures.images import check_output, read_image, size_of
from wic_layers.tasks.base import Task
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.registry import COLORING, HIDING, RESCALING
from wic_layers.tasks.rescaling import Rescaling

__all__ = [
    "Written",
    "color_file",
    "down_file",
    "gray_file",
    "hide_file",
    "reveal_file",
    "up_file",
]


def hide_file(
    cover: str | Path,
    secrets: Sequence[str | Path],
    out: str | Path,
    *,
    model: str | Path | None = None,
    marked: bool = True,
    fit: bool = False,
    force: bool = False,
    tile: int | None = None,
    refine: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Written:
    """Hides one to four image files in another one.

    Args:
        cover: What the result should look like.
        secrets: What it should hold; each at most as wide and as high as the cover.
        out: The PNG to write. Its odd sides are one pixel longer than the cover's.
        model: A preset with weights in the package, or the folder of weights.
        marked: Say in a text chunk what made the file. Without it the file holds pixels only, and
            :func:`reveal_file` needs ``model`` and ``sizes``.
        fit: Reduce secrets that are larger than the cover, keeping their proportions.
        force: See the module.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        What was written, and the PSNR of the file and of the secrets that come back from it.

    Raises:
        WICFileError: If a file cannot be read or written.
        WICShapeError: If a secret is too large.
        WICArgumentError: If there are no or more than four secrets, or ``model`` is of another
            task or unknown.
    """
    if isinstance(secrets, (str, Path)):
        raise TypeError("Expected secrets as a list of files, such as [secret]; got one path.")
    tasks = (Hiding(len(secrets)),)
    target = check_output(out, inputs=(cover, *secrets), force=force)
    covered = read_image(cover)
    given = [read_image(secret) for secret in secrets]
    hidden = [fit_secret(secret, size_of(covered), fit=fit) for secret in given]
    task, network = load_network(tasks, model, device)
    written = write_forward(
        task, network, [covered, *hidden], target, force, tile, refine, progress, marked=marked
    )
    fitted = tuple(
        None if used is secret else size_of(secret)
        for used, secret in zip(hidden, given, strict=True)
    )
    return replace(written, reduced_from=fitted)


def reveal_file(
    stego: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    force: bool = False,
    tile: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> list[Written]:
    """Brings back the images that :func:`hide_file` hid.

    Args:
        stego: The PNG, every pixel as it was written.
        out: The PNG to write; where there are several secrets, -1, -2, ... is added to its name.
        model: The preset or weights that hid them; what the file says by default.
        sizes: The secrets' own (width, height). A marked file says them; if both do, they must
            agree.
        force: See the module.
        tile: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        What was written.

    Raises:
        WICFileError: If a file cannot be read or written, or nothing can come back from it.
        WICArgumentError: If ``model`` or ``sizes`` do not agree with the file.
    """
    return write_back(HIDING, stego, out, model, sizes, force, tile, device, progress)


def down_file(
    photo: str | Path,
    out: str | Path,
    *,
    scale: int | None = None,
    model: str | Path | None = None,
    force: bool = False,
    tile: int | None = None,
    refine: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Written:
    """Makes an image file smaller, so that :func:`up_file` can bring it back.

    Args:
        photo: The image file.
        out: The PNG to write.
        scale: 2, 3 or 4; by default what ``model`` is for, or 2.
        model: A preset with weights in the package, or the folder of weights.
        force: See the module.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        What was written, and the PSNR of the file (against bicubic) and of what comes back from
        it.

    Raises:
        WICFileError: If a file cannot be read or written.
        WICArgumentError: If ``scale`` is another number, or ``model`` is of another task or
            unknown.
    """
    tasks = RESCALING if scale is None else (Rescaling(scale),)
    return _convert(tasks, photo, out, model, force, tile, refine, device, progress)


def up_file(
    small: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    size: tuple[int, int] | None = None,
    force: bool = False,
    tile: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Written:
    """Brings back the image that :func:`down_file` made small; see :func:`reveal_file`."""
    sizes = None if size is None else [size]
    return write_back(RESCALING, small, out, model, sizes, force, tile, device, progress)[0]


def gray_file(
    photo: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    force: bool = False,
    tile: int | None = None,
    refine: int = 0,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Written:
    """Makes a grey image file of an image file, so that :func:`color_file` can bring it back.

    Args and errors are those of :func:`down_file`. The PNG has one channel of 8 bits; its odd
    sides are one pixel longer than the photo's. Its PSNR is against the lightness of the photo.
    """
    return _convert(COLORING, photo, out, model, force, tile, refine, device, progress)


def color_file(
    grey: str | Path,
    out: str | Path,
    *,
    model: str | Path | None = None,
    size: tuple[int, int] | None = None,
    force: bool = False,
    tile: int | None = None,
    device: str | torch.device | None = None,
    progress: Progress | None = None,
) -> Written:
    """Brings back the image that :func:`gray_file` made grey; see :func:`reveal_file`."""
    sizes = None if size is None else [size]
    return write_back(COLORING, grey, out, model, sizes, force, tile, device, progress)[0]


def _convert(
    tasks: Sequence[Task],
    photo: str | Path,
    out: str | Path,
    model: str | Path | None,
    force: bool,  # noqa: FBT001 - private, and passed on as it came
    tile: int | None,
    refine: int,
    device: str | torch.device | None,
    progress: Progress | None,
) -> Written:
    target = check_output(out, inputs=(photo,), force=force)
    pixels = read_image(photo)
    task, network = load_network(tasks, model, device)
    return write_forward(
        task, network, [pixels], target, force, tile, refine, progress, marked=True
    )
