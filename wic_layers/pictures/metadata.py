"""Metadata: what a photograph's file says beside its pixels, EXIF and density, out and in.

Pillow is imported when a function needs it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from wic_layers.errors import WICFileError
from wic_layers.pictures.opening import import_pillow, opened

__all__ = ["Metadata", "read_metadata"]

_ORIENTATION, _EXIF, _GPS = 0x0112, 0x8769, 0x8825
# description, make, model, resolution and its unit, software, date, artist, host, copyright, and
# Windows' title to subject: all else of the first directory says how a file stores its pixels
_ABOUT = (270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 33432, *range(40091, 40096))
_METRES_PER_INCH = 0.0254


@dataclass(frozen=True)
class Metadata:
    """What a file says about its photograph.

    Attributes:
        exif: As TIFF, without the orientation, a preview and what describes the stored pixels; or
            None.
        density: Pixels per metre across and down, or None.
    """

    exif: bytes | None = None
    density: tuple[int, int] | None = None

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch across and down."""
        if self.density is None:
            return None
        return self.density[0] * _METRES_PER_INCH, self.density[1] * _METRES_PER_INCH

    @property
    def names(self) -> tuple[str, ...]:
        """What there is of it: exif, dpi."""
        values = {"exif": self.exif, "dpi": self.density}
        return tuple(name for name, value in values.items() if value is not None)


def read_metadata(path: str | Path, *, max_pixels: int | None = None) -> Metadata:
    """Returns what an image file says about its photograph, as of one that stands upright.

    Args:
        path: The file.
        max_pixels: See :func:`~wic_layers.pictures.read_image`.

    Raises:
        WICFileError: If it cannot be read, or its EXIF cannot be written again.
        WICDependencyError: If Pillow is not installed.
    """
    with opened(path, max_pixels) as (image, _):
        try:
            exif, stated = image.getexif(), image.info.get("dpi")
            is_turned = exif.get(_ORIENTATION, 1) in (5, 6, 7, 8)
            about = import_pillow().Exif()
            about.update({tag: exif[tag] for tag in _ABOUT if tag in exif})
            for tag in (_EXIF, _GPS):
                if directory := exif.get_ifd(tag):
                    about[tag] = dict(directory)
            content = about.tobytes().removeprefix(b"Exif\0\0") if len(about) else None
        except Exception as error:  # Pillow raises nearly anything for damaged EXIF
            raise WICFileError(
                f"The EXIF of {path} is damaged and cannot be kept: {error}. Leave out "
                f"--keep-metadata (keep_metadata=True)."
            ) from error
    return Metadata(content, _density(stated, is_turned=is_turned))


def _density(dpi: object, *, is_turned: bool) -> tuple[int, int] | None:
    """Pixels per metre across and down, where a file says something that can be."""
    try:
        across, down = (float(each) / _METRES_PER_INCH for each in dpi)  # type: ignore[attr-defined]
    except (TypeError, ValueError, ArithmeticError):
        return None
    if not all(math.isfinite(each) and 1 <= each < 2**31 for each in (across, down)):
        return None
    return (round(down), round(across)) if is_turned else (round(across), round(down))
