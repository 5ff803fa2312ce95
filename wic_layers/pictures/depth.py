"""``in_eight_bits``: images of 16 bits whose lower ones say nothing, or are not wanted."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from wic_layers.errors import WICFileError
from wic_layers.pictures import tiff
from wic_layers.pictures.colour import strips
from wic_layers.pictures.opening import opened

if TYPE_CHECKING:
    from PIL import Image, ImageFile

__all__ = ["check_depth", "in_eight_bits"]

_HEAD = 2**16  # bytes of a file, in which its description stands


def check_depth(image: Image.Image, name: str) -> None:
    """Refuses an image of more than 8 bits."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None:
        is_deep = max(tags.get(tiff.BITS, (8,))) > 8
    elif image.format == "PNG":  # Pillow would cut it to 8 bits without a word
        is_deep = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    elif image.format == "AVIF":  # and there
        is_deep = _is_deep_avif(getattr(image, "filename", "") or name)
    else:  # pillow-heif would, too
        is_deep = image.info.get("bit_depth", 8) > 8
    if is_deep or image.mode.startswith(("I", "F")):
        raise WICFileError(
            f"{name} has more than 8 bits per channel, which would be lost; take the upper 8 of "
            f"them by --reduce-depth (reduce_depth=True), or convert it first."
        )


def _is_deep_avif(path: str) -> bool:
    """Whether an AVIF file has 10 or 12 bits, by a flag in its box ``av1C``."""
    try:
        with open(path, "rb") as file:
            head = file.read(_HEAD)
    except OSError:  # such as one that was read from memory
        return False
    flags = head[head.find(b"av1C") :][6:7]
    return b"av1C" in head and bool(flags) and bool(flags[0] & 0x40)


def in_eight_bits(
    image: ImageFile.ImageFile,
    path: str | Path,
    max_pixels: int | None,
    *,
    reduce_depth: bool = False,
) -> ImageFile.ImageFile:
    """An image that was opened, in 8 bits: of 16 if its two bytes are the same everywhere.

    Programs write such files of images of 8 bits: 255 becomes 65535. With ``reduce_depth`` the
    upper byte is taken, whatever the other one is.
    """
    try:
        check_depth(image, str(path))
    except WICFileError:
        has_bytes = image.format in ("PNG", "TIFF")  # others reach Pillow with 8 bits
        is_reduced = has_bytes and _take_byte(image, is_high=True)
        if reduce_depth:
            # Pillow itself has left out the lower bytes of what it holds in such a mode
            if not is_reduced and image.mode.startswith(("I", "F")):
                raise
            if "transparency" in image.info:
                raise
            return image
        with opened(path, max_pixels) as (other, _):
            if not (is_reduced and _take_byte(other, is_high=False)):
                raise
            for (_, high), (_, low) in zip(strips(image), strips(other), strict=True):
                if high.tobytes() != low.tobytes():
                    raise
    return image


_MODES_OF_BYTES = {"I": "L", "I;16": "L", "I;16B": "L", "RGB": "RGB", "RGBA": "RGBA"}


def _layout(arguments: object) -> str:
    """Pillow's name for how numbers are stored, in the arguments of a decoder."""
    return str(arguments[0] if isinstance(arguments, tuple) else arguments)


def _take_byte(image: ImageFile.ImageFile, *, is_high: bool) -> bool:
    """Makes Pillow read one of the two bytes of each number; returns whether it can."""
    mode = _MODES_OF_BYTES.get(image.mode, "")
    layouts = {_layout(tile[3]) for tile in image.tile}
    if not mode or len(layouts) != 1 or "transparency" in image.info:
        return False
    kind, _, end = layouts.pop().partition(";16")
    is_little = sys.byteorder == "little" if end == "N" else end != "B"
    if kind != mode.replace("L", "I") or end not in ("", "L", "B", "N"):
        return False
    little = "L;16" if mode == "L" else f"{mode};16L"  # Pillow's names
    layout = little if is_little == is_high else f"{mode};16B"
    image._mode = mode
    image.tile = [
        tile._replace(args=(layout, *tile[3][1:]) if isinstance(tile[3], tuple) else layout)
        for tile in image.tile
    ]
    return True
