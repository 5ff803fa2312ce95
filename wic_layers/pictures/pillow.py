"""What Pillow's images hold, as 8-bit pixels: colour modes, depths, profiles, opacity.

Pillow is imported when a function needs it.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wic_layers.errors import WICDependencyError, WICFileError

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "as_opaque",
    "check_single",
    "has_opacity",
    "import_pillow",
    "pixels_of",
    "split_opacity",
    "to_pil",
]

_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_BITS_PER_SAMPLE = 258  # a tag of TIFF


def import_pillow() -> Any:
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


def to_pil(pixels: Tensor) -> Any:
    """The PIL image of pixels (3, H, W) or (1, H, W), uint8."""
    # through a shared buffer, so that NumPy is not needed
    buffer = bytearray(pixels.numel())
    flat = torch.frombuffer(buffer, dtype=torch.uint8)
    flat.copy_(pixels.permute(1, 2, 0).reshape(-1))
    mode = "RGB" if len(pixels) == 3 else "L"
    return import_pillow().frombytes(mode, tuple(pixels.shape[:0:-1]), bytes(buffer))


def _is_deep(image: Image.Image) -> bool:
    """Whether Pillow would cut the image to 8 bits without a word."""
    tag = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tag is not None:
        return max(tag.get(_BITS_PER_SAMPLE, (8,))) > 8
    if image.format == "PNG":
        return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    return image.mode.startswith(("I", "F"))


def as_opaque(image: Image.Image, name: str, *, carrier: bool) -> Image.Image:
    """Converts to 8-bit RGB or grey, or refuses where that would lose something."""
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
    return image if image.mode in ("RGB", "L") else image.convert("RGB")


def check_single(image: Image.Image, name: str) -> None:
    """Refuses what is animated or has several pages; a camera's MPO is one image."""
    if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":
        raise WICFileError(
            f"{name} holds {image.n_frames} frames or pages; expected one image."  # type: ignore[attr-defined]
        )


def split_opacity(image: Image.Image, name: str) -> tuple[Image.Image, Tensor | None]:
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
