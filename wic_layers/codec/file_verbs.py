"""``hide_file``, ``reveal_file``, ..., ``unpack_file``, ``pack_clip``: the verbs on files.

Each is a :class:`~wic_layers.codec.Codec` for one call; its
:meth:`~wic_layers.codec.Codec.encode_files` and :meth:`~wic_layers.codec.Codec.decode_file` say
what all of them take and raise; ``quality`` is that of a JPEG, which weights that were trained for
it write. Those on images stand in :mod:`wic_layers.codec.verbs`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from wic_layers.codec.checking import Check, Written
from wic_layers.codec.codec import Codec, Options, PathLike
from wic_layers.codec.mark import Sizes
from wic_layers.codec.verbs import only, rescaling
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures import check_output, find_images, names_file
from wic_layers.pictures.video import has_more_frames, read_frames
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.packing import Clip
from wic_layers.tasks.registry import COLORING, HIDING, PACKING, RESCALING, find_packing

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = [
    "color_file",
    "down_file",
    "gray_file",
    "hide_file",
    "pack_clip",
    "pack_file",
    "reveal_file",
    "unpack_file",
    "up_file",
]


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
    reduce_depth: bool = False,
    quality: int | None = None,
    **options: Unpack[Options],
) -> Written:
    """Hides one to four image files in another one; see :func:`hide`."""
    if isinstance(secrets, (str, Path)):
        raise TypeError("Expected secrets as a list of files, such as [secret]; got one path.")
    return Codec(Hiding(len(secrets)), **options).encode_files(
        [cover, *secrets], out, refine=refine, fit=fit, marked=marked, force=force, check=check,
        reduce_depth=reduce_depth, quality=quality,
    )  # fmt: skip


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
    keep_metadata: bool = False,
    reduce_depth: bool = False,
    quality: int | None = None,
    **options: Unpack[Options],
) -> Written:
    """Makes an image file smaller, so that :func:`up_file` can bring it back; see :func:`down`."""
    return Codec(rescaling(scale), **options).encode_files(
        [photo], out, refine=refine, force=force, check=check, keep_metadata=keep_metadata,
        reduce_depth=reduce_depth, quality=quality,
    )  # fmt: skip


def up_file(
    small: PathLike,
    out: PathLike,
    *,
    size: tuple[int, int] | None = None,
    force: bool = False,
    keep_metadata: bool = False,
    **options: Unpack[Options],
) -> Written:
    """Brings back the image that :func:`down_file` made small."""
    codec = Codec(RESCALING, **options)
    (written,) = codec.decode_file(
        small, out, sizes=only(size), force=force, keep_metadata=keep_metadata
    )
    return written


def gray_file(
    photo: PathLike,
    out: PathLike,
    *,
    refine: int = 0,
    force: bool = False,
    check: Check = "some",
    keep_metadata: bool = False,
    reduce_depth: bool = False,
    quality: int | None = None,
    **options: Unpack[Options],
) -> Written:
    """Makes a grey image file, so that :func:`color_file` can bring its colours back."""
    return Codec(COLORING, **options).encode_files(
        [photo], out, refine=refine, force=force, check=check, keep_metadata=keep_metadata,
        reduce_depth=reduce_depth, quality=quality,
    )  # fmt: skip


def color_file(
    grey: PathLike,
    out: PathLike,
    *,
    size: tuple[int, int] | None = None,
    force: bool = False,
    keep_metadata: bool = False,
    **options: Unpack[Options],
) -> Written:
    """Brings back the image that :func:`gray_file` made grey."""
    codec = Codec(COLORING, **options)
    (written,) = codec.decode_file(
        grey, out, sizes=only(size), force=force, keep_metadata=keep_metadata
    )
    return written


def pack_file(
    task: str,
    images: Sequence[PathLike],
    out: PathLike,
    *,
    refine: int = 0,
    force: bool = False,
    check: Check = "some",
    reduce_depth: bool = False,
    **options: Unpack[Options],
) -> Written:
    """Makes one image file of several; see :func:`pack`."""
    return Codec(find_packing(task), **options).encode_files(
        images, out, refine=refine, force=force, check=check, reduce_depth=reduce_depth
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
    reduce_depth: bool = False,
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
        reduce_depth: See :meth:`~wic_layers.codec.Codec.encode_files`.
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
    if is_single and has_more_frames(clip, packing.images):
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
    max_pixels = options.get("max_pixels")
    stream = read_frames(clip, reduce_depth=reduce_depth, max_pixels=max_pixels)
    frames = list(islice(stream, packing.images))
    index = 1
    while frames:
        name = folder if is_single else folder / f"{Path(clip).stem}-{index:04d}.png"
        if not (skip_existing and name.is_file()) or name in inputs:
            target = check_output(name, inputs=inputs, force=force)
            yield codec.encode_files(frames, target, refine=refine, force=force, check=check)
        frames.clear()  # before the next ones are read
        frames += islice(stream, packing.images)
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
