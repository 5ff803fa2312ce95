"""Names of image files: which can be read, which are in a folder, which would be lossy."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from wic_layers.errors import WICFileError

__all__ = [
    "LOSSY_SUFFIXES",
    "find_images",
    "find_others",
    "is_heic",
    "is_image",
    "names_file",
    "numbered",
]

_JPEG = frozenset({".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"})
_HEIC = frozenset({".heic", ".heif", ".hif"})
_SUFFIXES = _JPEG | _HEIC | {".avif", ".bmp", ".dib", ".png", ".tif", ".tiff", ".webp"}
LOSSY_SUFFIXES = _JPEG | _HEIC | {".avif", ".jp2", ".jxl", ".webp"}
"""Ends of the names of files that are written with lossy compression."""


def find_images(folder: str | Path) -> list[Path]:
    """Returns the image files below ``folder``, in the order of their paths.

    Hidden ones, whose names or folders begin with a dot, are left out, as shells do;
    :func:`find_others` returns what is left out beside.

    Raises:
        WICFileError: If there is no such folder or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise WICFileError(f"Expected a folder of images; {root} is not a folder.")
    paths = [path for path in _shown_files(root) if _can_be_read(path)]
    if not paths:
        suffixes = sorted(_SUFFIXES - (frozenset() if _reads_heic() else _HEIC))
        raise WICFileError(f"Expected images ({', '.join(suffixes)}) below {root}; found none.")
    return paths


def find_others(folder: str | Path) -> list[Path]:
    """Returns the files below ``folder`` that :func:`find_images` leaves out, but hidden ones."""
    return [path for path in _shown_files(Path(folder)) if not _can_be_read(path)]


def _shown_files(root: Path) -> list[Path]:
    """The files below a folder in the order of their paths, without hidden ones."""
    return sorted(
        path
        for path in root.rglob("*")
        if path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )


def _can_be_read(path: Path) -> bool:
    return is_image(path) and (_reads_heic() or not is_heic(path))


def _reads_heic() -> bool:
    return find_spec("pillow_heif") is not None


def is_heic(path: str | Path) -> bool:
    """Whether a file's name is that of an HEIC image, which pillow-heif reads."""
    return Path(path).suffix.lower() in _HEIC


def is_image(path: str | Path) -> bool:
    """Whether a file's name is that of an image that can be read."""
    return Path(path).suffix.lower() in _SUFFIXES


def names_file(path: Path) -> bool:
    """Whether a path, as an output, is the name of an image file rather than of a folder."""
    if path.is_dir():
        return False
    return path.is_file() or path.suffix.lower() in _SUFFIXES | LOSSY_SUFFIXES | {".gif"}


def numbered(out: Path, count: int) -> list[Path]:
    """Returns the names of ``count`` files: ``out``, or ``out`` with -1, -2, ... in its name."""
    if count == 1:
        return [out]
    return [out.with_name(f"{out.stem}-{index}{out.suffix}") for index in range(1, count + 1)]
