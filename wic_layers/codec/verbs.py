"""``hide``, ``reveal``, ``down``, ``up``, ``gray``, ``color``, ``pack``, ``unpack``; and of files.

Each is a :class:`~wic_layers.codec.Codec` for one call: whoever has many images builds one, and
the network is loaded once. Its docstring says which images are taken, what ``**options`` are
(``model``, ``device``, ``tile``, ``fast``, ``progress``) and what is raised;
:meth:`~wic_layers.codec.Codec.encode_files` says what functions on files take beside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from wic_layers.codec.checking import Check, Written
from wic_layers.codec.codec import Codec, Options, PathLike
from wic_layers.codec.mark import Sizes
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures import as_pixels, check_output, find_images, names_file, size_of
from wic_layers.pictures.video import read_frames
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.packing import Clip
from wic_layers.tasks.registry import COLORING, HIDING, PACKING, RESCALING, find_packing
from wic_layers.tasks.rescaling import Rescaling

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "color",
    "color_file",
    "down",
    "down_file",
    "gray",
    "gray_file",
    "hide",
    "hide_file",
    "pack",
    "pack_clip",
    "pack_file",
    "reveal",
    "reveal_file",
    "unpack",
    "unpack_file",
    "up",
    "up_file",
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
    **options: Unpack[Options],
) -> list[T]:
    """Brings back what :func:`hide` hid.

    Args:
        stego: The stego image, every pixel as it was made.
        secrets: How many it holds; by default as many as the model is for, or 1.
        sizes: The secrets' own (width, height); the stego's by default.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    codec = Codec(HIDING if secrets is None else Hiding(secrets), **options)
    return codec.decode(stego, sizes)


def down(photo: T, *, scale: int | None = None, refine: int = 0, **options: Unpack[Options]) -> T:
    """Makes an image smaller, so that :func:`up` can bring it back.

    Args:
        photo: The image.
        scale: 2, 3 or 4; by default what the model is for, or 2.
        refine: See :meth:`~wic_layers.codec.Codec.encode`.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    return Codec(_rescaling(scale), **options).encode(photo, refine=refine)


def up(
    small: T,
    *,
    scale: int | None = None,
    size: tuple[int, int] | None = None,
    **options: Unpack[Options],
) -> T:
    """Brings back what :func:`down` made small. This is not super-resolution of any small image.

    Args:
        small: The small image, every pixel as it was made.
        scale: As of :func:`down`.
        size: The photo's own (width, height); ``scale`` times the small image's by default.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    return Codec(_rescaling(scale), **options).decode(small, _only(size))[0]


def gray(photo: T, *, refine: int = 0, **options: Unpack[Options]) -> T:
    """Makes a grey image of a colour image, so that :func:`color` can bring its colours back.

    Args:
        photo: The image.
        refine: See :meth:`~wic_layers.codec.Codec.encode`.
        **options: See :class:`~wic_layers.codec.Codec`.

    Returns:
        The grey image: mode L, shape (H, W) or (1, H, W). Its odd sides are one pixel longer.
    """
    return Codec(COLORING, **options).encode(photo, refine=refine)


def color(grey: T, *, size: tuple[int, int] | None = None, **options: Unpack[Options]) -> T:
    """Brings back the colours that :func:`gray` put away. Other grey images have none to give.

    Args:
        grey: The grey image, every pixel as it was made.
        size: The photo's own (width, height); the grey image's by default.
        **options: See :class:`~wic_layers.codec.Codec`.
    """
    return Codec(COLORING, **options).decode(grey, _only(size))[0]


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
    **options: Unpack[Options],
) -> list[T]:
    """Brings back the images that :func:`pack` made one of.

    Args:
        picture: The picture, every pixel as it was made.
        task: What :func:`pack` was called with; by default what the model was trained for.
        size: The images' own (width, height); the picture's by default, times 2 where it is half
            as large.
        frames: How many frames a clip had; by default as many as it can have.
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
    return codec.decode(picture, sizes)


def hide_file(
    cover: PathLike,
    secrets: Sequence[PathLike],
    out: PathLike,
    *,
    fit: bool = False,
    refine: int = 0,
    marked: bool = True,
    force: bool = False,
    check: Check = "some",
    **options: Unpack[Options],
) -> Written:
    """Hides one to four image files in another one; see :func:`hide`."""
    if isinstance(secrets, (str, Path)):
        raise TypeError("Expected secrets as a list of files, such as [secret]; got one path.")
    return Codec(Hiding(len(secrets)), **options).encode_files(
        [cover, *secrets], out, refine=refine, fit=fit, marked=marked, force=force, check=check
    )


def reveal_file(
    stego: PathLike,
    out: PathLike,
    *,
    sizes: Sizes | None = None,
    force: bool = False,
    **options: Unpack[Options],
) -> list[Written]:
    """Brings back the images that :func:`hide_file` hid; of several, names end in -1, -2, ..."""
    return Codec(HIDING, **options).decode_file(stego, out, sizes=sizes, force=force)


def down_file(
    photo: PathLike,
    out: PathLike,
    *,
    scale: int | None = None,
    refine: int = 0,
    force: bool = False,
    check: Check = "some",
    **options: Unpack[Options],
) -> Written:
    """Makes an image file smaller, so that :func:`up_file` can bring it back; see :func:`down`."""
    return Codec(_rescaling(scale), **options).encode_files(
        [photo], out, refine=refine, force=force, check=check
    )


def up_file(
    small: PathLike,
    out: PathLike,
    *,
    size: tuple[int, int] | None = None,
    force: bool = False,
    **options: Unpack[Options],
) -> Written:
    """Brings back the image that :func:`down_file` made small."""
    codec = Codec(RESCALING, **options)
    return codec.decode_file(small, out, sizes=_only(size), force=force)[0]


def gray_file(
    photo: PathLike,
    out: PathLike,
    *,
    refine: int = 0,
    force: bool = False,
    check: Check = "some",
    **options: Unpack[Options],
) -> Written:
    """Makes a grey image file, so that :func:`color_file` can bring its colours back."""
    return Codec(COLORING, **options).encode_files(
        [photo], out, refine=refine, force=force, check=check
    )


def color_file(
    grey: PathLike,
    out: PathLike,
    *,
    size: tuple[int, int] | None = None,
    force: bool = False,
    **options: Unpack[Options],
) -> Written:
    """Brings back the image that :func:`gray_file` made grey."""
    codec = Codec(COLORING, **options)
    return codec.decode_file(grey, out, sizes=_only(size), force=force)[0]


def pack_file(
    task: str,
    images: Sequence[PathLike],
    out: PathLike,
    *,
    refine: int = 0,
    force: bool = False,
    check: Check = "some",
    **options: Unpack[Options],
) -> Written:
    """Makes one image file of several; see :func:`pack`."""
    return Codec(find_packing(task), **options).encode_files(
        images, out, refine=refine, force=force, check=check
    )


def pack_clip(
    task: str,
    clip: PathLike,
    out: PathLike,
    *,
    refine: int = 0,
    force: bool = False,
    check: Check = "some",
    skip_existing: bool = False,
    **options: Unpack[Options],
) -> Iterator[Written]:
    """Makes image files of a video file, or of a folder of frames, N frames at a time.

    Args:
        task: One of the clips, see :func:`pack`.
        clip: The video file, or the folder.
        out: A folder, made if there is none, for PNG files with the clip's name and a number; or
            a PNG to write, if the clip has no more frames than the task takes.
        refine: See :meth:`~wic_layers.codec.Codec.encode`.
        force: Replace outputs that exist.
        check: See :meth:`~wic_layers.codec.Codec.encode_files`.
        skip_existing: Leave out files that exist, as after a stop.
        **options: See :class:`~wic_layers.codec.Codec`.

    Yields:
        What was written, file after file; the last one may hold fewer frames.

    Raises:
        WICFileError: If the clip cannot be read, a file cannot be written, or one is asked for
            where there are more frames.
        WICArgumentError: As :func:`pack`.
        WICShapeError: If the frames' sizes differ.
    """
    packing, folder = find_packing(task), Path(out)
    if not isinstance(packing, Clip):
        raise WICArgumentError(
            f"Expected {len(packing.parts)} images for {task} ({', '.join(packing.parts)}); got "
            f"the clip {clip}."
        )
    inputs = find_images(clip) if Path(clip).is_dir() else [Path(clip)]
    is_single = names_file(folder)
    if is_single and not (skip_existing and folder.is_file()):
        check_output(folder, inputs=inputs, force=force)
    stream = read_frames(clip)
    frames = list(islice(stream, packing.images))
    following = list(islice(stream, packing.images))
    if is_single and following:
        raise WICFileError(
            f"{clip} holds more than {packing.images} frames; expected a folder to write several "
            f"files to; got {out}, the name of one."
        )
    if not is_single:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WICFileError(f"{out} cannot be made: {error.strerror or error}.") from error
    codec = Codec(packing, **options)
    index = 1
    while frames:
        name = folder if is_single else folder / f"{Path(clip).stem}-{index:04d}.png"
        if not (skip_existing and name.is_file()) or name in inputs:
            target = check_output(name, inputs=inputs, force=force)
            yield codec.encode_files(frames, target, refine=refine, force=force, check=check)
        frames, following = following, list(islice(stream, packing.images))
        index += 1


def unpack_file(
    picture: PathLike,
    out: PathLike,
    *,
    sizes: Sizes | None = None,
    force: bool = False,
    **options: Unpack[Options],
) -> list[Written]:
    """Brings back the images that :func:`pack_file` or :func:`pack_clip` made one of."""
    return Codec(PACKING, **options).decode_file(picture, out, sizes=sizes, force=force)


def _rescaling(scale: int | None) -> tuple[Rescaling, ...]:
    return RESCALING if scale is None else (Rescaling(scale),)


def _only(size: tuple[int, int] | None) -> Sizes | None:
    return None if size is None else [size]
