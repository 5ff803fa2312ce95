"""JPEG files: ``encode_jpeg``, and what a file says of our own in segments before its pixels."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["encode_jpeg", "own_content", "segments"]

_KIND, _MARKER = "APP10", b"\xff\xea"
_NAME = b"wic-layers\0"
_HEAD = struct.Struct(">HH")  # the segment's number from 0, and how many there are
_MOST = 65533 - len(_NAME) - _HEAD.size  # bytes of content in a segment


def encode_jpeg(
    image: Image.Image, quality: int, *, has_full_chroma: bool = False, own: bytes | None = None
) -> bytes:
    """Returns an image as the bytes of a JPEG file.

    Args:
        image: RGB or grey.
        quality: From 1 to 100, as libjpeg has it.
        has_full_chroma: Store colours with as many pixels as brightness (4:4:4), in place of a
            quarter of them (4:2:0).
        own: Content of our own, see :mod:`wic_layers.codec.parts`; it changes no pixel.
    """
    buffer = io.BytesIO()
    sampling = "4:4:4" if has_full_chroma else "4:2:0"
    extra = b"" if own is None else segments(own)
    image.save(buffer, "JPEG", quality=quality, subsampling=sampling, extra=extra)
    return buffer.getvalue()


def segments(content: bytes) -> bytes:
    """Returns the segments of a JPEG file that hold a content: APP10, named ``wic-layers``."""
    pieces = [content[start : start + _MOST] for start in range(0, len(content), _MOST)] or [b""]
    return b"".join(
        _MARKER
        + struct.pack(">H", 2 + len(_NAME) + _HEAD.size + len(piece))
        + _NAME
        + _HEAD.pack(number, len(pieces))
        + piece
        for number, piece in enumerate(pieces)
    )


def own_content(image: Image.Image) -> bytes | None:
    """Returns what :func:`segments` wrote into a JPEG that Pillow has opened; None if nothing.

    Raises:
        ValueError: If a part of it is missing or there twice.
    """
    found: Sequence[tuple[str, bytes]] = getattr(image, "applist", ())
    pieces = [
        body[len(_NAME) :] for kind, body in found if kind == _KIND and body.startswith(_NAME)
    ]
    if not pieces:
        return None
    heads = [_HEAD.unpack(piece[: _HEAD.size]) for piece in pieces if len(piece) >= _HEAD.size]
    if heads != [(number, len(pieces)) for number in range(len(pieces))]:
        raise ValueError("its wic-layers segments are not those that were written")
    return b"".join(piece[_HEAD.size :] for piece in pieces)
