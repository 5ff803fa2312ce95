"""``hide``, ``reveal``, ``down``, ``up``, ``gray``, ``color``, ``pack``, ``unpack`` of images.

Each is a :class:`~wic_layers.codec.Codec` for one call: whoever has many images builds one, and
the network is loaded once. Its docstring says which images are taken, what ``**options`` are
(``model``, ``device``, ``tile``, ``fast``, ``progress``) and what is raised. The same of files
stand in :mod:`wic_layers.codec.file_verbs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from wic_layers.codec.codec import Codec, Options
from wic_layers.codec.mark import Sizes
from wic_layers.errors import WICArgumentError
from wic_layers.pictures import as_pixels, size_of
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.registry import COLORING, HIDING, PACKING, RESCALING, find_packing
from wic_layers.tasks.rescaling import Rescaling

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "color",
    "down",
    "gray",
    "hide",
    "only",
    "pack",
    "rescaling",
    "reveal",
    "unpack",
    "up",
]

T = TypeVar("T")


def hide(
    cover: T,
    secrets: Sequence[T],
    *,
    fit: bool = False,
    refine: int = 0,
    **options: Unpack[Options],
) -> T:
    """Hides one to four images in another; returns the stego image.

    Args:
        cover: What the result should look like.
        secrets: What it should hold; each at most as wide and as high as the cover.
        fit: Reduce a secret that is larger than the cover, keeping its proportions.
        refine: Steps that improve the result, see :meth:`~wic_layers.codec.Codec.encode`.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    if not isinstance(secrets, (list, tuple)):
        raise TypeError(
            f"Expected secrets as a list, such as [secret]; got {type(secrets).__name__}."
        )
    codec = Codec(Hiding(len(secrets)), **options)
    return codec.encode(cover, *secrets, refine=refine, fit=fit)


def reveal(
    stego: T,
    *,
    secrets: int | None = None,
    sizes: Sizes | None = None,
    grey: bool = False,
    **options: Unpack[Options],
) -> list[T]:
    """Brings back what :func:`hide` hid.

    Args:
        stego: The stego image, every pixel as it was made.
        secrets: How many it holds; by default as many as the model is for, or 1.
        sizes: The secrets' own (width, height); the stego's by default.
        grey: See :meth:`~wic_layers.codec.Codec.decode`.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    codec = Codec(HIDING if secrets is None else Hiding(secrets), **options)
    return codec.decode(stego, sizes, grey=grey)


def down(photo: T, *, scale: int | None = None, refine: int = 0, **options: Unpack[Options]) -> T:
    """Makes an image smaller, so that :func:`up` can bring it back.

    Args:
        photo: The image.
        scale: 2, 3 or 4; by default what the model is for, or 2.
        refine: See :meth:`~wic_layers.codec.Codec.encode`.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    return Codec(rescaling(scale), **options).encode(photo, refine=refine)


def up(
    small: T,
    *,
    scale: int | None = None,
    size: tuple[int, int] | None = None,
    grey: bool = False,
    **options: Unpack[Options],
) -> T:
    """Brings back what :func:`down` made small. This is not super-resolution of any small image.

    Args:
        small: The small image, every pixel as it was made.
        scale: As of :func:`down`.
        size: The photo's own (width, height); ``scale`` times the small image's by default.
        grey: See :meth:`~wic_layers.codec.Codec.decode`.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    return Codec(rescaling(scale), **options).decode(small, only(size), grey=grey)[0]


def gray(photo: T, *, refine: int = 0, **options: Unpack[Options]) -> T:
    """Makes a grey image of a colour image, so that :func:`color` can bring its colours back.

    Args:
        photo: The image.
        refine: See :meth:`~wic_layers.codec.Codec.encode`.
        **options: See :class:`~wic_layers.codec.Codec`.

    Returns:
        The grey image: mode L, shape (H, W) or (1, H, W). Its odd sides are one pixel longer. Of a
        photo that is grey already it is not the photo itself, as :func:`gray_file` has it: without
        a file nothing says so.
    """
    return Codec(COLORING, **options).encode(photo, refine=refine)


def color(grey: T, *, size: tuple[int, int] | None = None, **options: Unpack[Options]) -> T:
    """Brings back the colours that :func:`gray` put away. Other grey images have none to give.

    Args:
        grey: The grey image, every pixel as it was made.
        size: The photo's own (width, height); the grey image's by default.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    return Codec(COLORING, **options).decode(grey, only(size))[0]


def pack(task: str, images: Sequence[T], *, refine: int = 0, **options: Unpack[Options]) -> T:
    """Makes one image of several, from which all of them come back.

    Args:
        task: ``"stereo"`` (left and right view), ``"zoom-x2"``, ``"zoom-x4"`` or ``"zoom-x8"``
            (normal and zoomed view), ``"layers"`` (background, and foreground with transparency:
            mode RGBA, shape (H, W, 4) or (4, H, W)), ``"clip-3"``, ``"-5"``, ``"-7"`` or ``"-9"``
            (frames), ``"clip-3-x2"`` or ``"-5-x2"`` (frames into a picture of half the size).
        images: All of one size. Of a clip there may be fewer.
        refine: See :meth:`~wic_layers.codec.Codec.encode`.
        **options: See :class:`~wic_layers.codec.Codec`.

    Returns:
        The picture. It looks like the left or normal view, the composition, or the middle frame.
    """
    return Codec(find_packing(task), **options).encode(*images, refine=refine)


def unpack(
    picture: T,
    task: str | None = None,
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
    grey: bool = False,
    **options: Unpack[Options],
) -> list[T]:
    """Brings back the images that :func:`pack` made one of.

    Args:
        picture: The picture, every pixel as it was made.
        task: What :func:`pack` was called with; by default what the model was trained for.
        size: The images' own (width, height); the picture's by default, times 2 where it is half
            as large.
        frames: How many frames a clip had; by default as many as it can have.
        grey: See :meth:`~wic_layers.codec.Codec.decode`.
        **options: See :class:`~wic_layers.codec.Codec`.

    Returns:
        The images; of layers the composition, the background, and the foreground on black.
    """
    if task is None and options.get("model") is None:
        raise WICArgumentError(
            f"Expected the task, such as {PACKING[0].name!r}, or the network; got neither."
        )
    codec = Codec(PACKING if task is None else find_packing(task), **options)
    sizes = None
    if size is not None or frames is not None:
        large = tuple(
            codec.task.scale * side for side in size_of(as_pixels(picture, "the picture"))
        )
        sizes = [size or (large[0], large[1])] * (
            codec.task.restored_count if frames is None else frames
        )
    return codec.decode(picture, sizes, grey=grey)


def rescaling(scale: int | None) -> tuple[Rescaling, ...]:
    """Returns what an image may be made smaller for: by a scale, or any."""
    return RESCALING if scale is None else (Rescaling(scale),)


def only(size: tuple[int, int] | None) -> Sizes | None:
    """Returns the sizes of the only image that comes back."""
    return None if size is None else [size]
