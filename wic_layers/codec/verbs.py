"""Hide, reveal, reduce, restore, decolorize and colour images in memory; 8 bits in and out.

Every function takes PIL images, NumPy arrays (uint8, H x W x 3) or torch tensors (uint8, 3 x H x
W), mixed at will, and returns the kind of its first image. Sizes are ``(width, height)``.

``model`` is a preset with weights in the package, the folder of weights, or a network; by default
the task's own preset. ``tile`` is the side of the tiles, in pixels of the large picture, in which
an image is run; by default as large as half a gigabyte of activations allows. Tiles overlap by
what the network sees, so that they change nothing but the memory that is needed. ``progress`` is
called after every tile with the number of tiles that are done and of all. A network that is loaded
by name runs on ``device``, the CPU by default.

``refine`` is a number of steps, such as 20, that improve the result for the very image: more comes
back, and it looks as before. Each takes the time of about three runs; the way back needs none.

A ``WICWarning`` says where what comes back looks as if nothing had been there to bring back. Files
that :mod:`wic_layers.codec.files` marked say for certain.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wic_layers.codec.running import backward_pixels, check_size, forward_pixels, load_network
from wic_layers.codec.tiles import Progress
from wic_layers.errors import WICShapeError, WICWarning
from wic_layers.pictures.images import as_kind, as_pixels, size_of
from wic_layers.tasks.base import Task
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.registry import COLORING, HIDING, RESCALING
from wic_layers.tasks.rescaling import Rescaling

__all__ = [
    "Device",
    "Model",
    "bring_back",
    "color",
    "down",
    "fit_secret",
    "gray",
    "hide",
    "reveal",
    "up",
]

T = TypeVar("T")
Model: TypeAlias = str | Path | nn.Module | None
Device: TypeAlias = str | torch.device | None


def hide(
    cover: T,
    secrets: Sequence[Any],
    *,
    model: Model = None,
    fit: bool = False,
    tile: int | None = None,
    refine: int = 0,
    device: Device = None,
    progress: Progress | None = None,
) -> T:
    """Hides one to four images in another.

    Args:
        cover: What the result should look like.
        secrets: What it should hold; each at most as wide and as high as the cover.
        model: See the module; must be for as many secrets.
        fit: Reduce a secret that is larger than the cover, keeping its proportions.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The stego image, of the cover's kind, its odd sides one pixel longer: all of its pixels are
        needed.

    Raises:
        WICArgumentError: If there are no or more than four secrets, or ``model`` is of another
            task or unknown.
        WICShapeError: If an image has no shape of an image, or a secret is too large.
        TypeError: If an image is of no kind that is taken.

    Example:
        >>> from wic_layers.models import WINNaive
        >>> model = WINNaive.from_preset("hiding-1-naive-small")
        >>> hide(torch.zeros(3, 5, 8, dtype=torch.uint8), [torch.zeros(3, 4, 4).byte()],
        ...      model=model).shape
        torch.Size([3, 6, 8])
    """
    covered = as_pixels(cover, "cover")
    tasks = (Hiding(_listed(secrets)),)
    hidden = [
        fit_secret(as_pixels(secret, f"secret {index}"), size_of(covered), fit=fit)
        for index, secret in enumerate(secrets, start=1)
    ]
    task, network = load_network(tasks, model, device)
    return as_kind(
        forward_pixels(
            task, network, covered, *hidden, tile=tile, progress=progress, refine=refine
        ),
        cover,
    )


def _listed(secrets: Any) -> int:
    if not isinstance(secrets, (list, tuple)):
        raise TypeError(
            f"Expected secrets as a list, such as [secret]; got {type(secrets).__name__}."
        )
    return len(secrets)


def reveal(
    stego: T,
    *,
    secrets: int | None = None,
    sizes: Sequence[tuple[int, int]] | None = None,
    model: Model = None,
    tile: int | None = None,
    device: Device = None,
    progress: Progress | None = None,
) -> list[T]:
    """Brings back what :func:`hide` hid.

    Args:
        stego: The stego image, every pixel as it was made.
        secrets: How many it holds; by default as many as ``model`` is for, or 1.
        sizes: The secrets' own (width, height); the stego's by default.
        model: What :func:`hide` was called with.
        tile: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The secrets, of the stego's kind.

    Raises:
        WICArgumentError: If ``model`` is of another task, or unknown.
        WICShapeError: If the stego has an odd side, or ``sizes`` cannot have been hidden in it.
        TypeError: If the image is of no kind that is taken.
    """
    tasks = HIDING if secrets is None else (Hiding(secrets),)
    return bring_back(tasks, stego, "stego", sizes, model, tile, device, progress)


def down(
    photo: T,
    *,
    scale: int | None = None,
    model: Model = None,
    tile: int | None = None,
    refine: int = 0,
    device: Device = None,
    progress: Progress | None = None,
) -> T:
    """Makes an image half or a quarter as wide and high, so that :func:`up` can bring it back.

    Args:
        photo: The image.
        scale: 2, 3 or 4; by default what ``model`` is for, or 2.
        model: See the module.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The small image, of the photo's kind; its sides are the photo's over ``scale``, rounded up.

    Raises:
        WICArgumentError: If ``scale`` is another number, or ``model`` is of another task or
            unknown.
        WICShapeError: If the image has no shape of an image.
        TypeError: If the image is of no kind that is taken.
    """
    pixels = as_pixels(photo, "photo")
    tasks = RESCALING if scale is None else (Rescaling(scale),)
    task, network = load_network(tasks, model, device)
    small = forward_pixels(task, network, pixels, tile=tile, progress=progress, refine=refine)
    return as_kind(small, photo)


def up(
    small: T,
    *,
    scale: int | None = None,
    size: tuple[int, int] | None = None,
    model: Model = None,
    tile: int | None = None,
    device: Device = None,
    progress: Progress | None = None,
) -> T:
    """Brings back what :func:`down` made small. This is not super-resolution of any small image.

    Args:
        small: The small image, every pixel as it was made.
        scale: 2, 3 or 4; by default what ``model`` is for, or 2.
        size: The photo's own (width, height); ``scale`` times the small image's by default.
        model: What :func:`down` was called with.
        tile: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The photo, of the small image's kind.

    Raises:
        WICArgumentError: If ``scale`` is another number, or ``model`` is of another task or
            unknown.
        WICShapeError: If the small image cannot have come from one of ``size``.
        TypeError: If the image is of no kind that is taken.
    """
    sizes = None if size is None else [size]
    tasks = RESCALING if scale is None else (Rescaling(scale),)
    return bring_back(tasks, small, "small", sizes, model, tile, device, progress)[0]


def gray(
    photo: T,
    *,
    model: Model = None,
    tile: int | None = None,
    refine: int = 0,
    device: Device = None,
    progress: Progress | None = None,
) -> T:
    """Makes a grey image of a colour image, so that :func:`color` can bring its colours back.

    Args:
        photo: The image.
        model: See the module.
        tile: See the module.
        refine: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The grey image, of the photo's kind: mode L, shape (H, W) or (1, H, W). Its odd sides are
        one pixel longer: all of its pixels are needed.

    Raises:
        WICArgumentError: If ``model`` is of another task or unknown.
        WICShapeError: If the image has no shape of an image.
        TypeError: If the image is of no kind that is taken.
    """
    pixels = as_pixels(photo, "photo")
    task, network = load_network(COLORING, model, device)
    small = forward_pixels(task, network, pixels, tile=tile, progress=progress, refine=refine)
    return as_kind(small, photo)


def color(
    grey: T,
    *,
    size: tuple[int, int] | None = None,
    model: Model = None,
    tile: int | None = None,
    device: Device = None,
    progress: Progress | None = None,
) -> T:
    """Brings back the colours that :func:`gray` put away. Other grey images have none to give.

    Args:
        grey: The grey image, every pixel as it was made.
        size: The photo's own (width, height); the grey image's by default.
        model: What :func:`gray` was called with.
        tile: See the module.
        device: See the module.
        progress: See the module.

    Returns:
        The photo, of the grey image's kind.

    Raises:
        WICArgumentError: If ``model`` is of another task or unknown.
        WICShapeError: If the image holds colours or has an odd side, or cannot have come from one
            of ``size``.
        TypeError: If the image is of no kind that is taken.
    """
    sizes = None if size is None else [size]
    return bring_back(COLORING, grey, "grey", sizes, model, tile, device, progress)[0]


def bring_back(
    tasks: Sequence[Task],
    carrier: T,
    name: str,
    sizes: Sequence[tuple[int, int]] | None,
    model: Model,
    tile: int | None,
    device: Device,
    progress: Progress | None,
) -> list[T]:
    """Runs backwards what one of ``tasks`` made; see :func:`reveal` for the arguments."""
    pixels = as_pixels(carrier, name, carrier=True, channels=tasks[0].out_channels)
    task, network = load_network(tasks, model, device)
    width, height = size_of(pixels)
    if sizes is None:
        sizes = [(width * task.scale, height * task.scale)] * task.returned
    check_size(task, pixels, sizes, name)
    images = backward_pixels(task, network, pixels, sizes, tile=tile, progress=progress)
    doubt = task.doubt(pixels, images)
    if doubt is not None:
        warnings.warn(doubt, WICWarning, stacklevel=3)
    return [as_kind(image, carrier) for image in images]


def fit_secret(secret: Tensor, room: tuple[int, int], *, fit: bool) -> Tensor:
    """Returns the secret as it can be hidden in a cover of the size ``room``.

    Args:
        secret: Pixels (3, h, w), uint8.
        room: The cover's (width, height).
        fit: Reduce a larger secret with antialiased bicubic interpolation, keeping its
            proportions.

    Raises:
        WICShapeError: If it is larger, and ``fit`` is false.
    """
    width, height = size_of(secret)
    if width <= room[0] and height <= room[1]:
        return secret
    if not fit:
        raise WICShapeError(
            f"Expected a secret of at most the cover's {room[0]}x{room[1]}; got {width}x{height}. "
            f"Reduce it with --fit (fit=True), or take a larger cover."
        )
    factor = min(room[0] / width, room[1] / height)
    new = tuple(
        min(max(round(side * factor), 1), limit)
        for side, limit in zip((height, width), room[::-1], strict=True)
    )
    x = F.interpolate(secret[None].float(), size=new, mode="bicubic", antialias=True)
    return x[0].round().clamp(0, 255).to(torch.uint8)
