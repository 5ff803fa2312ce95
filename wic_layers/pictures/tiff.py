"""TIFF's directories: which page of a file is its picture, and what kind of picture that is."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO

__all__ = ["IS_RARE", "colour_map", "describe", "picture_page", "read_tags"]

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
BITS, COMPRESSION, PHOTOMETRIC, COLOUR_MAP = 258, 259, 262, 320
_SUBFILE, _OLD_SUBFILE, _SAMPLES, _PLANAR, _FORMAT = 254, 255, 277, 284, 339
_NUMBERS = {1: "B", 3: "H", 4: "I", 16: "Q"}  # types of values: BYTE, SHORT, LONG, LONG8
_MOST_VALUES = 16
_COMPRESSIONS = {
    1: "none", 2: "CCITT", 3: "CCITT group 3", 4: "CCITT group 4", 5: "LZW", 6: "old JPEG",
    7: "JPEG", 8: "deflate", 32773: "PackBits", 32809: "ThunderScan", 32946: "deflate",
    34676: "SGI LogLuv", 34677: "SGI LogLuv", 34712: "JPEG 2000", 34887: "LERC", 34892: "JPEG",
    34925: "LZMA", 50000: "Zstandard", 50001: "WebP", 50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
_PHOTOMETRICS = {
    0: "grey, white at 0", 1: "grey", 2: "RGB", 3: "a colour map", 4: "a mask", 5: "CMYK",
    6: "YCbCr", 8: "CIE Lab", 9: "ICC Lab", 10: "ITU Lab", 32803: "a colour filter array",
    32844: "LogL", 32845: "LogLuv", 34892: "linear raw",
}  # fmt: skip
_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex", 6: "complex"}
IS_RARE = frozenset({6, 34676, 34677, 34925, 32809, 50000, 50001})
"""Compressions that Pillow knows and its libtiff may have been built without."""

Tags = dict[int, tuple[int, ...]]


class _Directories:
    """The chain of directories in a file, from its header."""

    def __init__(self, file: IO[bytes]) -> None:
        file.seek(0)
        head = file.read(16)
        self.file = file
        self.order = ">" if head[:1] == b"M" else "<"
        # of the number of entries, an entry, and an offset, which long values have in their place
        codes = ("Q", "HHQ8s", "Q") if b"+" in head[2:4] else ("H", "HHI4s", "I")
        self.count, self.entry, self.offset = codes
        self.first = self.number(self.offset, head[8 if codes[0] == "Q" else 4 :])

    def number(self, code: str, data: bytes) -> int:
        """The number at the start of some bytes."""
        (value,) = struct.unpack_from(self.order + code, data)
        return int(value)

    def read(self, start: int, most: int) -> tuple[Tags, int]:
        """The tags among the first entries of a directory, and where the next one is."""
        self.file.seek(start)
        size = struct.calcsize(self.order + self.count)
        count = self.number(self.count, self.file.read(size))
        width = struct.calcsize(self.order + self.entry)
        entries = self.file.read(width * min(count, most))
        self.file.seek(start + size + count * width)
        following = self.number(self.offset, self.file.read(8))
        tags: Tags = {}
        for tag, kind, length, value in struct.iter_unpack(self.order + self.entry, entries):
            if kind in _NUMBERS and 0 < length <= _MOST_VALUES:
                tags[tag] = self._values(_NUMBERS[kind], length, value)
        return tags, following

    def _values(self, code: str, length: int, value: bytes) -> tuple[int, ...]:
        layout = f"{self.order}{length}{code}"
        size = struct.calcsize(layout)
        if size > len(value):
            self.file.seek(self.number(self.offset, value))
            value = self.file.read(size)
        return struct.unpack(layout, value[:size]) if len(value) >= size else ()

    def __iter__(self) -> Iterator[int]:
        """Yields where each directory starts."""
        start, visited = self.first, set[int]()
        while start and start not in visited:
            visited.add(start)
            yield start
            start = self.read(start, 0)[1]


def picture_page(file: IO[bytes]) -> int | None:
    """Returns the index of a TIFF's only picture; None if it has several.

    Thumbnails, overviews and masks of the picture are none, nor are they pages. The search ends
    at the second picture, however many there are.

    Args:
        file: The file, which can seek.
    """
    pages = []
    try:
        directories = _Directories(file)
        for index, start in enumerate(directories):
            tags, _ = directories.read(start, 8)  # in the order of their numbers: 254 is first
            is_reduced = tags.get(_SUBFILE, (0,))[0] & 5 or tags.get(_OLD_SUBFILE, (0,))[0] == 2
            if not is_reduced:
                pages.append(index)
            if len(pages) > 1:
                return None
    except (struct.error, OSError, OverflowError, IndexError, ValueError):
        pass  # what follows is damaged; the first page may be whole
    return pages[0] if pages else 0


def read_tags(file: IO[bytes], page: int = 0) -> Tags:
    """Returns the numbers in a page's tags; none where the file is damaged."""
    try:
        directories = _Directories(file)
        for index, start in enumerate(directories):
            if index == page:
                return directories.read(start, 1000)[0]
    except (struct.error, OSError, OverflowError, ValueError):
        pass
    return {}


def describe(tags: Tags) -> str:
    """Returns what kind of picture tags speak of, in words."""
    bits = tags.get(BITS, (1,))
    kind = tags.get(PHOTOMETRIC, (0,))[0]
    numbers = _FORMATS.get(tags.get(_FORMAT, (1,))[0], "")
    compression = tags.get(COMPRESSION, (1,))[0]
    samples = tags.get(_SAMPLES, (1,))[0]
    parts = [
        f"{samples} channel{'s' * (samples > 1)} of {'/'.join(map(str, sorted(set(bits))))} bits",
        _PHOTOMETRICS.get(kind, f"photometric interpretation {kind}"),
        numbers,
        "planes one after the other" if tags.get(_PLANAR, (1,))[0] == 2 else "",
        f"compression {_COMPRESSIONS.get(compression, compression)}",
    ]
    return ", ".join(filter(None, parts))


def colour_map(values: tuple[int, ...]) -> bytes | None:
    """Returns the palette of a colour map whose numbers have 8 bits, in place of 16.

    libtiff, too, takes a map for one of 8 bits if none of its numbers is above 255.

    Args:
        values: All reds, then all greens, then all blues.

    Returns:
        Red, green and blue of each colour; None if the numbers have 16 bits.
    """
    if not values or max(values) > 255:
        return None
    count = len(values) // 3
    return bytes(values[plane * count + index] for index in range(count) for plane in range(3))
