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
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wic_layers.errors import WICDependencyError, WICFileError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "KEYWORD",
    "as_opaque",
    "check_single",
    "has_halved_chroma",
    "has_opacity",
    "import_pillow",
    "pixels_of",
    "quiet",
    "read_carrier",
    "read_image",
    "read_layer",
]

KEYWORD = "wic-layers"
"""Keyword of the PNG text chunk that says what made a file."""

_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_BITS_PER_SAMPLE, _PHOTOMETRIC, _YCBCR_SUBSAMPLING = 258, 262, 530  # tags of TIFF


def read_image(path: str | Path) -> Tensor:
    """Reads an image file: PNG, JPEG, WebP, TIFF or BMP.

    Grey, palette and opaque alpha become RGB, the EXIF orientation is applied, and colours of
    another profile than sRGB are converted to it.

    Returns:
        Pixels (3, H, W), uint8.

    Raises:
        WICFileError: If the file is missing, damaged, no image or too large (Pillow's limit); or
            if reading would lose bits, transparency, frames or the meaning of CMYK colours.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=False)[0]


def read_layer(path: str | Path) -> Tensor:
    """Reads an image file with its transparency.

    Returns:
        Pixels (4, H, W), opacity last, or (3, H, W) where the file has none, uint8.

    Raises:
        WICFileError: As :func:`read_image`.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=False, layer=True)[0]


def read_carrier(path: str | Path) -> tuple[Tensor, str | None]:
    """Reads a PNG file whose very pixels count.

    Returns:
        Pixels (3, H, W) or (1, H, W), uint8, as they are stored; and the text of the
        ``wic-layers`` chunk or None.

    Raises:
        WICFileError: As :func:`read_image`; and if the file is not a PNG.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=True)


def _read(path: str | Path, *, carrier: bool, layer: bool = False) -> tuple[Tensor, str | None]:
    pillow = import_pillow()
    try:
        with quiet(), pillow.open(path, formats=_FORMATS) as image:
            limit = pillow.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise pillow.DecompressionBombError
            if carrier and image.format != "PNG":
                raise WICFileError(
                    f"{path} is a {image.format} file; expected the PNG as it was written, "
                    f"since lossy compression destroys what it holds."
                )
            opaque, alpha = _split_opacity(image, str(path)) if layer else (image, None)
            pixels = pixels_of(as_opaque(opaque, str(path), carrier=carrier))
            if alpha is not None:
                pixels = torch.cat((pixels, alpha))
            text = getattr(image, "text", {}).get(KEYWORD)
    except WICFileError:
        raise
    except FileNotFoundError as error:
        raise WICFileError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise WICFileError(f"{path} is a folder; expected an image file.") from error
    except pillow.UnidentifiedImageError as error:
        raise WICFileError(
            f"{path} is not an image that can be read; expected PNG, JPEG, WebP, TIFF or BMP."
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
    return pixels, None if text is None else str(text)


def has_halved_chroma(path: str | Path) -> bool:
    """Whether an image file stores its colours with fewer pixels than its brightness.

    Nearly every photograph in JPEG does (4:2:0, 4:2:2), and every lossy WebP.

    Raises:
        WICFileError: If the file is missing or no image.
        WICDependencyError: If Pillow is not installed.
    """
    pillow = import_pillow()
    try:
        with pillow.open(path, formats=_FORMATS) as image:
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


def as_opaque(image: Image.Image, name: str, *, carrier: bool) -> Image.Image:
    """Converts to 8-bit RGB, a carrier may be grey, or refuses where that would lose something."""
    if _is_deep(image) or image.mode.startswith(("I", "F")):
        raise WICFileError(
            f"{name} has more than 8 bits per channel, which would be lost; convert it to 8 bits "
            f"first."
        )
    check_single(image, name)
    if has_opacity(image):
        if min(image.convert("RGBA").getchannel("A").tobytes()) < 255:
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
