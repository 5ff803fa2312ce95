"""Names of image files: which can be read, which are in a folder, which would be lossy."""

from __future__ import annotations

from pathlib import Path

from wic_layers.errors import WICFileError

__all__ = ["LOSSY_SUFFIXES", "find_images", "is_image", "names_file"]

_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
LOSSY_SUFFIXES = frozenset({".avif", ".heic", ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl", ".webp"})
"""Ends of the names of files that are written with lossy compression."""


def find_images(folder: str | Path) -> list[Path]:
    """Returns the image files below ``folder``, in the order of their paths.

    Hidden ones, whose names or folders begin with a dot, are left out, as shells do.

    Raises:
        WICFileError: If there is no such folder or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise WICFileError(f"Expected a folder of images; {root} is not a folder.")
    paths = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not paths:
        raise WICFileError(
            f"Expected images ({', '.join(sorted(_SUFFIXES))}) below {root}; found none."
        )
    return paths


def is_image(path: str | Path) -> bool:
    """Whether a file's name is that of an image that can be read."""
    return Path(path).suffix.lower() in _SUFFIXES


def names_file(path: Path) -> bool:
    """Whether a path, as an output, is the name of an image file rather than of a folder."""
    if path.is_dir():
        return False
    return path.is_file() or path.suffix.lower() in _SUFFIXES | LOSSY_SUFFIXES | {".gif"}
