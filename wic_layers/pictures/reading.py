"""Images in, as 8-bit pixels: files, and what Pillow has read; modes, depths, profiles, opacity.

Pillow is imported when a function needs it.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wic_layers.errors import WICDependencyError, WICFileError
from wic_layers.pictures.names import is_heic

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CHUNK",
    "as_opaque",
    "check_single",
    "formats",
    "has_halved_chroma",
    "has_opacity",
    "import_pillow",
    "pixels_of",
    "quiet",
    "read_carrier",
    "read_image",
    "read_layer",
    "reads_heic",
]

CHUNK = b"wiCl"
"""Type of the PNG chunk that says what made a file, see :mod:`wic_layers.codec.parts`."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "DIB", "AVIF")
_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_BITS_PER_SAMPLE, _PHOTOMETRIC, _YCBCR_SUBSAMPLING = 258, 262, 530  # tags of TIFF


def read_image(path: str | Path, *, reduce_depth: bool = False) -> Tensor:
    """Reads an image file: PNG, JPEG, WebP, TIFF, BMP, AVIF or, with pillow-heif, HEIC.

    Grey, palette and opaque alpha become RGB, the EXIF orientation is applied, and colours of
    another profile than sRGB are converted to it.

    Args:
        path: The file.
        reduce_depth: Take the upper 8 bits of an image that has 16, in place of refusing it.

    Returns:
        Pixels (3, H, W), uint8.

    Raises:
        WICFileError: If the file is missing, damaged, no image or too large (Pillow's limit); or
            if reading would lose bits, transparency, frames or the meaning of CMYK colours.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=False, reduce_depth=reduce_depth)[0]


def read_layer(path: str | Path, *, reduce_depth: bool = False) -> Tensor:
    """Reads an image file with its transparency.

    Args:
        path: The file.
        reduce_depth: See :func:`read_image`.

    Returns:
        Pixels (4, H, W), opacity last, or (3, H, W) where the file has none, uint8.

    Raises:
        WICFileError: As :func:`read_image`.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=False, layer=True, reduce_depth=reduce_depth)[0]


def read_carrier(path: str | Path) -> tuple[Tensor, bytes | None]:
    """Reads a PNG file whose very pixels count.

    Returns:
        Pixels (3, H, W) or (1, H, W), uint8, as they are stored; and the content of the chunk of
        our own or None. Where there is one, opacity is left out: it is for viewers.

    Raises:
        WICFileError: As :func:`read_image`; and if the file is not a PNG, or has several of these
            chunks.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=True)


def _read(
    path: str | Path, *, carrier: bool, layer: bool = False, reduce_depth: bool = False
) -> tuple[Tensor, bytes | None]:
    pillow = import_pillow()
    try:
        with quiet(), pillow.open(path, formats=formats()) as image:
            limit = pillow.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise pillow.DecompressionBombError
            if carrier and image.format != "PNG":
                raise WICFileError(
                    f"{path} is a {image.format} file; expected the PNG as it was written, "
                    f"since lossy compression destroys what it holds."
                )
            chunk = _own_chunk(image, path) if carrier else None
            opaque: Image.Image = _in_8_bits(image, str(path)) if reduce_depth else image
            alpha = None
            if layer:
                opaque, alpha = _split_opacity(opaque, str(path))
            if chunk is not None and has_opacity(opaque) and not _is_deep(opaque):
                opaque = opaque.convert("RGBA").convert("L" if opaque.mode == "LA" else "RGB")
            pixels = pixels_of(as_opaque(opaque, str(path), carrier=carrier))
            if alpha is not None:
                pixels = torch.cat((pixels, alpha))
    except WICFileError:
        raise
    except FileNotFoundError as error:
        raise WICFileError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise WICFileError(f"{path} is a folder; expected an image file.") from error
    except pillow.UnidentifiedImageError as error:
        if is_heic(path) and not reads_heic():
            raise WICFileError(
                f"{path} is HEIC, which needs pillow-heif. Run: pip install 'wic-layers[heic]'"
            ) from error
        raise WICFileError(
            f"{path} is not an image that can be read; expected PNG, JPEG, WebP, TIFF, BMP, AVIF "
            f"or HEIC."
        ) from error
    except pillow.DecompressionBombError as error:
        raise WICFileError(
            f"{path} claims more than {pillow.MAX_IMAGE_PIXELS} pixels, Pillow's limit against "
            f"files made to exhaust the memory."
        ) from error
    except MemoryError as error:
        raise WICFileError(f"{path} is too large for the memory that is left.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise WICFileError(f"{path} cannot be read: {error.strerror}.") from error
        reason = str(error).rstrip(".") or type(error).__name__
        raise WICFileError(f"{path} is damaged or cut short: {reason}.") from error
    return pixels, chunk


def _own_chunk(image: Image.Image, path: str | Path) -> bytes | None:
    """The content of a PNG's chunk of our own, which stands before its pixels."""
    chunks = [each[1] for each in image.private_chunks if each[0] == CHUNK]  # type: ignore[attr-defined]
    if len(chunks) > 1:
        raise WICFileError(f"{path} cannot be used: it has {len(chunks)} wic-layers chunks.")
    return chunks[0] if chunks else None


def formats() -> list[str]:
    """Returns Pillow's names of the formats that are read, as far as what is installed reads them.

    Raises:
        WICDependencyError: If Pillow is not installed.
    """
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


def has_halved_chroma(path: str | Path) -> bool:
    """Whether an image file stores its colours with fewer pixels than its brightness.

    Nearly every photograph in JPEG does (4:2:0, 4:2:2), every lossy WebP, and AVIF and HEIC are
    taken to.

    Raises:
        WICFileError: If the file is missing or no image.
        WICDependencyError: If Pillow is not installed.
    """
    pillow = import_pillow()
    try:
        with pillow.open(path, formats=formats()) as image:
            if image.format in ("AVIF", "HEIF"):
                return True
            if image.format in ("JPEG", "MPO"):
                factors = [layer[1:3] for layer in image.layer]
                return any(factor != factors[0] for factor in factors)
            if image.format == "TIFF":
                is_ycbcr = image.tag_v2.get(_PHOTOMETRIC) == 6
                return is_ycbcr and image.tag_v2.get(_YCBCR_SUBSAMPLING, (2, 2)) != (1, 1)
            return image.format == "WEBP" and _is_lossy_webp(Path(path))
    except OSError as error:
        raise WICFileError(f"{path} cannot be read as an image: {error}.") from error


def _is_lossy_webp(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(12)  # behind RIFF, size, WEBP
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8 "
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, 1)
    return False


def import_pillow() -> ModuleType:
    """Returns the module ``PIL.Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise WICDependencyError(
            "Image files need Pillow, which is not installed. Run: pip install 'wic-layers[cli]'"
        ) from error
    return Image


def has_opacity(image: Image.Image) -> bool:
    """Whether an image says how opaque its pixels are."""
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def pixels_of(image: Image.Image) -> Tensor:
    """The pixels of an 8-bit image: (channels, H, W), uint8."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, -1).permute(2, 0, 1).contiguous()


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow would cut the image to 8 bits without a word."""
    tag = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tag is not None:
        return max(tag.get(_BITS_PER_SAMPLE, (8,))) > 8
    if image.format == "PNG":
        return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode.startswith(("I", "F"))


def _in_8_bits(image: Image.Image, name: str) -> Image.Image:
    """The upper 8 bits of an image that has 16; others, and those not known, as they are."""
    if not _is_deep(image) or "transparency" in image.info:
        return image
    check_single(image, name)
    image.load()
    if image.mode.startswith("I;16"):
        first = 0 if image.mode == "I;16B" else 1
        upper = import_pillow().frombytes("L", image.size, image.tobytes()[first::2])
    elif image.mode == "I" and image.format == "PNG":  # before Pillow 11.3
        upper = image.point(lambda value: value * (1 / 256)).convert("L")
    elif image.mode in _OPAQUE_MODES | _ALPHA_MODES:  # Pillow has left the others out
        upper = image.copy()
    else:
        return image
    upper.info.update(image.info)
    return upper


def as_opaque(image: Image.Image, name: str, *, carrier: bool) -> Image.Image:
    """Converts to 8-bit RGB, a carrier may be grey, or refuses where that would lose something."""
    if _is_deep(image) or image.mode.startswith(("I", "F")):
        raise WICFileError(
            f"{name} has more than 8 bits per channel, which would be lost; take the upper 8 of "
            f"them by --reduce-depth (reduce_depth=True), or convert it first."
        )
    check_single(image, name)
    if has_opacity(image):
        if min(image.convert("RGBA").getchannel("A").tobytes()) < 255:
            if carrier:
                raise WICFileError(
                    f"{name} is partly transparent; pictures that `wic down` and `wic gray` made "
                    f"of transparent photos can be brought back from their files alone."
                )
            raise WICFileError(
                f"{name} is partly transparent, which would be lost; flatten it onto a background "
                f"first."
            )
        image = _keeping_info(image, image.convert("RGBA").convert("RGB"))
    if image.mode not in _OPAQUE_MODES | {"CMYK"}:
        raise WICFileError(f"{name} has colour mode {image.mode}; convert it to RGB first.")
    if not carrier:
        from PIL import ImageOps

        image = _to_srgb(_keeping_info(image, ImageOps.exif_transpose(image)))
    if image.mode == "CMYK":
        raise WICFileError(
            f"{name} is CMYK without a usable colour profile, so its colours are not known; "
            f"convert it to RGB first."
        )
    if image.mode == "RGB" or (carrier and image.mode == "L"):
        return image
    return image.convert("RGB")


def check_single(image: Image.Image, name: str) -> None:
    """Refuses what is animated or has several pages; a camera's MPO is one image."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise WICFileError(
            f"{name} holds {image.n_frames} frames or pages; expected one image."  # type: ignore[attr-defined]
        )


def _split_opacity(image: Image.Image, name: str) -> tuple[Image.Image, Tensor | None]:
    """A file's image the way up in which it is seen, without its opacity, and that if any."""
    if _is_deep(image) or not has_opacity(image):
        return image, None
    check_single(image, name)
    from PIL import ImageOps

    whole = ImageOps.exif_transpose(image).convert("RGBA")
    return _keeping_info(image, whole.convert("RGB")), pixels_of(whole.getchannel("A"))


def _keeping_info(old: Image.Image, new: Image.Image) -> Image.Image:
    if "icc_profile" in old.info:
        new.info["icc_profile"] = old.info["icc_profile"]
    return new


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if not profile:
        return image
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        if "sRGB" in ImageCms.getProfileDescription(source):
            return image
        if source.profile.xcolor_space.strip() == "RGB":
            image = image.convert("RGB")
        target = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, source, target, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        # a profile that cannot be read is no profile: viewers show the pixels as they are, too
        return image
    return converted or image


_IS_QUIET: ContextVar[bool] = ContextVar("quiet", default=False)


class _WhereQuiet:
    """Stands for the pattern of a filter: matches every warning of a context that is quiet."""

    def match(self, text: str) -> bool:
        return _IS_QUIET.get()


_FILTER: tuple[object, ...] = ("ignore", _WhereQuiet(), Warning, None, 0)
_LOCK = threading.Lock()
_inside = 0


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps back the warnings of the calling thread, and of no other one, while the body runs.

    ``warnings.catch_warnings`` would do so in every thread of the process.
    """
    global _inside
    with _LOCK:
        _inside += 1
        if warnings.filters[:1] != [_FILTER]:
            warnings.filters.insert(0, _FILTER)  # type: ignore[attr-defined]
    token = _IS_QUIET.set(True)
    try:
        yield
    finally:
        _IS_QUIET.reset(token)
        with _LOCK:
            _inside -= 1
            if not _inside:
                with suppress(ValueError):  # there is none any more
                    while True:
                        warnings.filters.remove(_FILTER)  # type: ignore[attr-defined]
