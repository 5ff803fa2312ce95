"""PNG's chunks: what a file says beside its pixels, read without inflating more than that."""

from __future__ import annotations

import io
import struct
import zlib
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

__all__ = ["CHUNK", "MAX_PROFILE", "SIGNATURE", "Chunks", "Spliced", "read_chunks"]

CHUNK = b"wiCl"
"""Type of the PNG chunk that says what made a file, see :mod:`wic_layers.codec.parts`."""

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
_TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_TURNED = frozenset({b"Raw profile type exif", b"XML:com.adobe.xmp"})  # may say what is up
_MAX_TEXT = 2**20
MAX_PROFILE = 2**25
"""Bytes of an ICC profile that are read."""

_DEFLATE = 1032
"""Bytes that one byte of deflated data can stand for."""


@dataclass
class Chunks:
    """What a PNG file says beside its pixels.

    Attributes:
        size: The (width, height); 0 if the header is missing.
        own: The content of the chunk of our own, or None.
        cicp: The four numbers of the cICP chunk, or None.
        profile: The ICC profile; empty if it is there and damaged, None if it is not there.
        spans: The (start, stop) of what is handed on to a decoder: all but profiles and texts,
            whose length says nothing of what they inflate to.
        least: Bytes that the pixels take, at least, in the file.
        pixels: Bytes that the file has for them.
    """

    size: tuple[int, int] = (0, 0)
    own: bytes | None = None
    cicp: bytes | None = None
    profile: bytes | None = None
    spans: list[tuple[int, int]] = field(default_factory=list)
    least: int = 0
    pixels: int = 0


def read_chunks(file: IO[bytes]) -> Chunks:
    """Reads what a PNG file says beside its pixels.

    Where the file is damaged it stops; whoever decodes the pixels will say so.

    Args:
        file: The file, which can seek.

    Raises:
        ValueError: If the chunk of our own is damaged, or there are several.
    """
    chunks = Chunks(spans=[(0, len(SIGNATURE))])
    is_before_pixels, count = True, 0
    for kind, start, length in _heads(file):
        stop = start + length + 12
        is_before_pixels = is_before_pixels and kind != b"IDAT"
        if kind == b"IHDR":
            _read_header(chunks, _body(file, start, length))
        elif kind == b"IDAT" or kind == b"fdAT":
            chunks.pixels += length
        elif kind == b"cICP" and is_before_pixels:
            chunks.cicp = _body(file, start, length)
        elif kind == b"iCCP" and is_before_pixels:
            chunks.profile = _profile(_body(file, start, length))
        elif kind == CHUNK and is_before_pixels:
            count += 1
            chunks.own = _body(file, start, length)
            if length and not chunks.own:
                raise ValueError("the checksum of its wic-layers chunk is another one")
        is_left_out = kind in (b"iCCP", CHUNK) or (
            kind in _TEXTS and not _says_what_is_up(kind, file, start, length)
        )
        if not is_left_out:
            _append(chunks.spans, start, stop)
    if count > 1:
        raise ValueError(f"it has {count} wic-layers chunks")
    return chunks


def _heads(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yields kind, start and length of each chunk."""
    file.seek(0, io.SEEK_END)
    end, start = file.tell(), len(SIGNATURE)
    while start + 8 <= end:
        file.seek(start)
        length, kind = struct.unpack(">I4s", file.read(8))
        yield kind, start, min(length, end)
        if kind == b"IEND":
            return
        start += length + 12


def _append(spans: list[tuple[int, int]], start: int, stop: int) -> None:
    if spans[-1][1] == start:
        start = spans.pop()[0]
    spans.append((start, stop))


def _body(file: IO[bytes], start: int, length: int) -> bytes:
    """The bytes of a chunk; none if they are not those that were written."""
    file.seek(start + 4)
    whole = file.read(length + 8)
    body, checksum = whole[4:-4], whole[-4:]
    return body if zlib.crc32(whole[:-4]) == int.from_bytes(checksum, "big") else b""


def _read_header(chunks: Chunks, body: bytes) -> None:
    if len(body) != 13:
        return
    width, height, bits, colour = struct.unpack(">IIBB", body[:10])
    chunks.size = width, height
    row = -(-width * bits * _CHANNELS.get(colour, 1) // 8)
    chunks.least = height * row // _DEFLATE


def _inflated(data: bytes, most: int) -> bytes | None:
    """Returns what was deflated; None if it is damaged or longer than ``most``."""
    stream = zlib.decompressobj()
    try:
        plain = stream.decompress(data, most)
    except zlib.error:
        return None
    return plain if stream.eof else None


def _profile(body: bytes) -> bytes:
    _, _, rest = body.partition(b"\0")
    return (_inflated(rest[1:], MAX_PROFILE) or b"") if rest[:1] == b"\0" else b""


def _says_what_is_up(kind: bytes, file: IO[bytes], start: int, length: int) -> bool:
    """Whether a text may hold the orientation, and is short enough for Pillow to take it."""
    file.seek(start + 8)
    if file.read(min(length, 80)).partition(b"\0")[0] not in _TURNED or length > _MAX_TEXT:
        return False
    _, _, rest = _body(file, start, length).partition(b"\0")
    is_deflated = kind == b"zTXt" or rest[:1] == b"\1"
    if kind == b"zTXt":
        rest = rest[1:]
    elif kind == b"iTXt":
        rest = rest[2:].split(b"\0", 2)[-1]
    return bool(rest) and not (is_deflated and _inflated(rest, _MAX_TEXT) is None)


class Spliced(io.RawIOBase):
    """A file with parts of it left out.

    Args:
        file: The file.
        spans: The (start, stop) of what is left, in their order.
    """

    def __init__(self, file: IO[bytes], spans: list[tuple[int, int]]) -> None:
        self.file = file
        self.spans = spans
        self.starts = [0]  # where each span begins in what is left
        for start, stop in spans:
            self.starts.append(self.starts[-1] + stop - start)
        self.place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.starts[-1]}[whence]
        self.place = max(base + offset, 0)
        return self.place

    def tell(self) -> int:
        return self.place

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        index = bisect_right(self.starts, self.place) - 1
        if index >= len(self.spans):
            return 0
        offset = self.place - self.starts[index]
        start, stop = self.spans[index]
        self.file.seek(start + offset)
        data = self.file.read(min(len(buffer), stop - start - offset))
        buffer[: len(data)] = data
        self.place += len(data)
        return len(data)
