"""Part: one of the named things in a picture's own chunk; ``join``, ``split``: the chunk's bytes.

A PNG that brings something back has one chunk of type ``wiCl`` before its pixels. Its letters say,
as PNG's specification has it, that the chunk

- is *ancillary* (``w``): programs that do not know it show the picture without it;
- is *private* (``i``): nobody else gives this name a meaning;
- is *safe to copy* (``l``): optimisers that store the same pixels in another way leave it in; they
  may not where the last letter is a capital. Editors that change pixels copy it too, which does
  no harm: a digest in it says which pixels it belongs to, so that such a file is called edited,
  in place of one that never held anything. What else is in it, such as the EXIF that
  ``--keep-metadata`` asks for, stays in a file until the chunk is taken out.

Its content is the number of the format, 3, and then one part after the other: a byte that is 1 if
whoever does not know the part must refuse the file, else 0; a byte with the part's version; a byte
with the length of its name; its name in lower case, digits and hyphens; its length, four bytes
with the highest first; and what it holds.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wic_layers.errors import WICArgumentError, WICFileError

__all__ = ["FORMAT", "KINDS", "Kind", "Part", "join", "split"]

FORMAT = 3
"""Number of the chunk's format."""

_MOST_PARTS = 16
_NAME = re.compile(rb"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Kind:
    """What this version knows of a part.

    Attributes:
        version: The one that it reads and writes.
        most: The most bytes that it may hold.
        is_required: Whether a file must be refused by those who do not know the part.
    """

    version: int
    most: int
    is_required: bool


KINDS = {
    "mark": Kind(version=1, most=2**13, is_required=True),
    "alpha": Kind(version=1, most=2**28, is_required=True),
    "exif": Kind(version=1, most=2**20, is_required=False),
    "dpi": Kind(version=1, most=8, is_required=False),
}
"""The parts that are known: the :class:`~wic_layers.codec.mark.Mark` as JSON; and of what comes
back opacity as a grey PNG, EXIF as TIFF, and pixels per metre across and down, 4 bytes each."""


@dataclass(frozen=True)
class Part:
    """One thing in a chunk.

    Attributes:
        name: What it is called.
        content: What it holds.
        version: Of what it holds.
        is_required: Whether whoever does not know it, or this version of it, must refuse the file.
    """

    name: str
    content: bytes
    version: int
    is_required: bool

    @classmethod
    def of(cls, name: str, content: bytes) -> Part:
        """Returns a part of a kind that is known.

        Raises:
            WICArgumentError: If it is longer than such a part may be.
        """
        kind = KINDS[name]
        if len(content) > kind.most:
            raise WICArgumentError(
                f"Expected {name} of at most {kind.most} bytes; got {len(content)}."
            )
        return cls(name, content, kind.version, kind.is_required)


def join(parts: Sequence[Part]) -> bytes:
    """Returns the content of the chunk that holds some parts."""
    pieces = [bytes([FORMAT])]
    for part in parts:
        name = part.name.encode("ascii")
        pieces.append(bytes([part.is_required, part.version, len(name)]) + name)
        pieces.append(struct.pack(">I", len(part.content)))
        pieces.append(part.content)
    return b"".join(pieces)


def split(content: bytes, source: str | Path = "A file") -> dict[str, bytes]:
    """Returns what the parts of a chunk hold, by name: those that this version knows.

    Args:
        content: The content of the chunk.
        source: The file, for errors.

    Raises:
        WICFileError: If it is not what :func:`join` makes, of another format, or holds a part that
            is required and not known.
    """
    if content[:1] != bytes([FORMAT]):
        raise WICFileError(
            f"{source} cannot be used: its wic-layers chunk is not of format {FORMAT}, the one "
            f"known to this version."
        )
    parts: dict[str, Part] = {}
    place = 1
    while place < len(content):
        part, place = _read(content, place, source)
        if part.name in parts or len(parts) == _MOST_PARTS:
            raise _damaged(source)
        parts[part.name] = part
    known = {}
    for name, part in parts.items():
        kind = KINDS.get(name)
        if kind is not None and part.version == kind.version:
            if len(part.content) > kind.most or part.is_required != kind.is_required:
                raise _damaged(source)
            known[name] = part.content
        elif part.is_required:
            raise WICFileError(
                f"{source} cannot be used: its wic-layers chunk holds {name!r} of version "
                f"{part.version}, without which nothing can come back and which this version of "
                f"wic-layers does not know. Install a later one."
            )
    if "mark" not in known:
        raise _damaged(source)
    return known


def _read(content: bytes, place: int, source: str | Path) -> tuple[Part, int]:
    """The part that begins at a place, and where the next one does."""
    head = content[place : place + 3]
    if len(head) < 3 or head[0] > 1:
        raise _damaged(source)
    begin = place + 3 + head[2]
    name, length = content[place + 3 : begin], content[begin : begin + 4]
    if not _NAME.fullmatch(name) or len(length) < 4:
        raise _damaged(source)
    end = begin + 4 + struct.unpack(">I", length)[0]
    if end > len(content):
        raise _damaged(source)
    part = Part(name.decode("ascii"), content[begin + 4 : end], head[1], bool(head[0]))
    return part, end


def _damaged(source: str | Path) -> WICFileError:
    return WICFileError(f"{source} cannot be used: its wic-layers chunk is damaged.")
