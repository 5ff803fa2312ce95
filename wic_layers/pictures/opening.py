"""``opened``: an image file within Pillow, before its pixels are read, or why it cannot be.

Pillow is imported when a function needs it.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import IO, TYPE_CHECKING

from wic_layers.errors import WICDependencyError, WICError, WICFileError
from wic_layers.pictures import jpeg, png, tiff
from wic_layers.pictures.names import is_heic
from wic_layers.pictures.silence import mute_decoders, quiet

if TYPE_CHECKING:
    from PIL import ImageFile

__all__ = ["check_pixels", "import_pillow", "is_lossy_webp", "opened", "reads_heic"]

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "AVIF")
_RAISING = threading.RLock()


def import_pillow() -> ModuleType:
    """Returns the module ``PIL.Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise WICDependencyError(
            "Image files need Pillow, which is not installed. Run: pip install 'wic-layers[cli]'"
        ) from error
    return Image


def _formats() -> list[str]:
    """Pillow's names of the formats that are read, as far as what is installed reads them."""
    pillow = import_pillow()
    pillow.init()
    names = [*_FORMATS, "HEIF"] if reads_heic() else _FORMATS
    return [name for name in names if name in pillow.OPEN]


@cache
def reads_heic() -> bool:
    """Whether HEIC is read: whether pillow-heif is installed."""
    try:
        from pillow_heif import register_heif_opener
    except ImportError:
        return False
    register_heif_opener()
    return True


def check_pixels(size: tuple[int, int], name: str, max_pixels: int | None = None) -> None:
    """Checks that an image of a size may be read, or written.

    Args:
        size: Its (width, height).
        name: What to call it in errors.
        max_pixels: How many pixels it may have; by default as many as Pillow takes.

    Raises:
        WICFileError: If it has more.
    """
    limit = max_pixels
    if limit is None:
        usual = import_pillow().MAX_IMAGE_PIXELS
        limit = None if usual is None else 2 * usual  # Pillow refuses what is twice as large
    if limit is not None and size[0] * size[1] > limit:
        raise WICFileError(_too_many(f"{name}, {size[0]}x{size[1]},", limit))


def _too_many(name: str, limit: int) -> str:
    return (
        f"{name} has more than {limit} pixels; a file made to exhaust the memory may say so. If "
        f"it is right, allow as many by --max-pixels (max_pixels=)."
    )


@contextmanager
def opened(
    path: str | Path, max_pixels: int | None = None
) -> Iterator[tuple[ImageFile.ImageFile, bytes | None]]:
    """An image file, open in Pillow, at the page that is its picture.

    Its ``info`` has, beside what Pillow finds, ``cicp`` and the ``icc_profile`` of a PNG.

    Args:
        path: The file.
        max_pixels: See :func:`check_pixels`.

    Yields:
        The image, whose pixels are not read yet; and the content of our own, of a PNG's chunk or
        a JPEG's segments.

    Raises:
        WICFileError: If the file cannot be read; also for whatever is raised while it is open.
        WICDependencyError: If Pillow is not installed.
    """
    pillow = import_pillow()
    mute_decoders(pillow)
    try:
        with quiet(), Path(path).open("rb") as file, _allowing(pillow, max_pixels):
            try:
                yield _open(pillow, file, str(path), max_pixels)
            except (WICError, MemoryError):
                raise
            except Exception as error:  # Pillow raises nearly anything for a damaged file
                raise WICFileError(_why(pillow, error, file, path)) from error
    except WICError:
        raise
    except MemoryError as error:
        raise WICFileError(f"{path} is too large for the memory that is left.") from error
    except FileNotFoundError as error:
        raise WICFileError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise WICFileError(f"{path} is a folder; expected an image file.") from error
    except OSError as error:
        raise WICFileError(f"{path} cannot be read: {error.strerror or error}.") from error


def _open(
    pillow: ModuleType, file: IO[bytes], name: str, max_pixels: int | None
) -> tuple[ImageFile.ImageFile, bytes | None]:
    start = file.read(8)
    source, chunks = file, png.Chunks()
    if start == png.SIGNATURE:
        chunks = png.read_chunks(file)
        check_pixels(chunks.size, name, max_pixels)
        if chunks.least > chunks.pixels:
            raise ValueError(f"{chunks.pixels} bytes cannot hold as many pixels as it says")
        source = io.BufferedReader(png.Spliced(file, chunks.spans))
    source.seek(0)
    image = pillow.open(source, formats=_formats())
    check_pixels(image.size, name, max_pixels)
    if chunks.cicp is not None:
        image.info["cicp"] = chunks.cicp
    if chunks.profile is not None:
        image.info["icc_profile"] = chunks.profile
    if start.startswith(b"BM") and (profile := _bmp_profile(file)):
        image.info["icc_profile"] = profile
    said = image.info.get("nclx_profile")  # of HEIC, where a profile counts before it
    if isinstance(said, dict) and "icc_profile" not in image.info:
        numbers = [said.get(name, 2) for name in ("color_primaries", "transfer_characteristics")]
        if 2 not in numbers:  # which says nothing
            image.info["cicp"] = bytes([*numbers, 0, 1])  # pixels are RGB of full range by now
    if start.startswith(tiff.SIGNATURES):
        page = tiff.picture_page(file)
        if page:
            image.seek(page)
            check_pixels(image.size, name, max_pixels)
    if image.format in ("JPEG", "MPO"):
        return image, jpeg.own_content(image)
    return image, chunks.own


def _bmp_profile(file: IO[bytes]) -> bytes:
    """The ICC profile of a BMP of version 5, which Pillow leaves out; empty if it has none."""
    file.seek(14)
    head = file.read(124)
    if len(head) < 124 or head[:4] != b"\x7c\0\0\0" or head[56:60] != b"DEBM":
        return b""
    place, length = (int.from_bytes(head[start : start + 4], "little") for start in (112, 116))
    file.seek(14 + place)
    return file.read(min(length, png.MAX_PROFILE))


@contextmanager
def _allowing(pillow: ModuleType, pixels: int | None) -> Iterator[None]:
    """Raises Pillow's own limit, one for the whole process, for those who ask for more."""
    usual = pillow.MAX_IMAGE_PIXELS
    if pixels is None or usual is None or pixels <= 2 * usual:
        yield
        return
    with _RAISING:  # one after the other, so that the last one puts back what was there
        usual = pillow.MAX_IMAGE_PIXELS
        pillow.MAX_IMAGE_PIXELS = pixels  # type: ignore[attr-defined]
        try:
            yield
        finally:
            pillow.MAX_IMAGE_PIXELS = usual  # type: ignore[attr-defined]


def is_lossy_webp(file: IO[bytes], start: int = 0) -> bool:
    """Whether a WebP file, or the part of a file that begins at ``start``, was made with loss."""
    file.seek(start + 12)  # behind RIFF, size, WEBP
    while len(head := file.read(8)) == 8:
        if head[:4] in (b"VP8 ", b"VP8L"):
            return head[:4] == b"VP8 "
        # the pixels of an animation are inside of its frames, behind 16 bytes
        size = 16 if head[:4] == b"ANMF" else int.from_bytes(head[4:], "little")
        file.seek(size + size % 2, io.SEEK_CUR)
    return False


# ---------------------------------------------------------------------------- why it cannot be


def _why(pillow: ModuleType, error: Exception, file: IO[bytes], path: str | Path) -> str:
    """What is wrong with a file, in a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{path} cannot be read: {error.strerror}."
    if isinstance(error, pillow.DecompressionBombError):
        return _too_many(str(path), 2 * pillow.MAX_IMAGE_PIXELS)
    file.seek(0)
    start = file.read(32)
    reason = str(error).rstrip(".") or type(error).__name__
    is_unknown = isinstance(error, pillow.UnidentifiedImageError)
    if start.startswith(tiff.SIGNATURES):
        tags = tiff.read_tags(file, tiff.picture_page(file) or 0)
        is_new = isinstance(error, KeyError)  # a compression that Pillow has no name for
        if tags and (is_unknown or is_new or tags.get(tiff.COMPRESSION, (1,))[0] in tiff.IS_RARE):
            return (
                f"{path} is a TIFF of a kind that Pillow cannot read, if it is not damaged "
                f"({tiff.describe(tags)}); save it as PNG, or as TIFF with 8 bits per channel, "
                f"RGB or grey, uncompressed."
            )
    elif start.startswith(b"BM") and "nsupported" in reason:
        return f"{path} is a BMP of a kind that Pillow cannot read ({reason}); save it as PNG."
    if not is_unknown:
        return f"{path} is damaged or cut short: {reason}."
    if (is_heic(path) or start[4:12].startswith((b"ftyphei", b"ftypmif1"))) and not reads_heic():
        return f"{path} is HEIC, which needs pillow-heif. Run: pip install 'wic-layers[heic]'"
    for signature, what in _SIGNATURES.items():
        if start.startswith(signature) or start[4:12].startswith(signature):
            return f"{path} is {what}, which is not an image that can be read; save it as PNG."
    for signature, what in _KINDS.items():
        if start.startswith(signature):
            return f"{path} is damaged, or {what} of a kind that Pillow cannot read."
    return (
        f"{path} is not an image that can be read; expected PNG, JPEG, WebP, TIFF, "
        f"BMP, AVIF or HEIC."
    )


_KINDS = {
    png.SIGNATURE: "a PNG", b"\xff\xd8\xff": "a JPEG", b"RIFF": "a WebP", b"BM": "a BMP",
    **dict.fromkeys(tiff.SIGNATURES, "a TIFF"),
}  # fmt: skip
_SIGNATURES = {
    b"GIF8": "a GIF", b"8BPS": "a Photoshop file", b"\0\0\x01\0": "an icon", b"%PDF": "a PDF",
    b"\0\0\0\x0cJXL ": "a JPEG XL", b"\xff\x0a": "a JPEG XL", b"\0\0\0\x0cjP  ": "a JPEG 2000",
    b"\xff\x4f\xff\x51": "a JPEG 2000", b"v/1\x01": "an OpenEXR file",
    b"#?RADIANCE": "a Radiance file",
    b"ftypavi": "an AVIF", b"ftyp": "a video",
    b"<svg": "an SVG", b"BA": "an OS/2 bitmap array", b"P5\n": "a PGM", b"P6\n": "a PPM",
}  # fmt: skip
