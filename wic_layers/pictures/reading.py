"""Images in, as 8-bit pixels: files, and what Pillow has read; modes, depths, opacity."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from wic_layers.errors import WICFileError, WICShapeError, warn
from wic_layers.pictures import tiff
from wic_layers.pictures.colour import GREYS, converter, strips, tensor_of
from wic_layers.pictures.depth import in_eight_bits
from wic_layers.pictures.opening import is_lossy_webp, opened
from wic_layers.pictures.png import CHUNK

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "CHUNK",
    "CarrierHead",
    "has_halved_chroma",
    "has_opacity",
    "layer_of",
    "pixels_of",
    "read_carrier",
    "read_carrier_head",
    "read_image",
    "read_layer",
    "refuse_lossy",
]

_OPAQUE_MODES = frozenset({"1", "L", "P", "RGB", "RGBX", "YCbCr"})
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
_LOSSLESS = frozenset({"PNG", "BMP", "DIB", "WEBP", "TIFF"})
_YCBCR_SUBSAMPLING, _ORIENTATION = 530, 0x0112  # tags of TIFF and EXIF


def read_image(
    path: str | Path, *, reduce_depth: bool = False, max_pixels: int | None = None
) -> Tensor:
    """Reads an image file: PNG, JPEG, WebP, TIFF, BMP, AVIF or, with pillow-heif, HEIC.

    Palette and opaque alpha become RGB, the EXIF orientation is applied, and colours that the file
    says not to be sRGB, by a profile or by PNG's cICP, gAMA and cHRM, are converted to it. A
    profile that cannot be used is said by a ``WICWarning``.

    Args:
        path: The file.
        reduce_depth: Take the upper 8 bits of an image that has 16, in place of refusing it.
        max_pixels: How many pixels it may have; by default as many as Pillow takes, 179 million.

    Returns:
        Pixels (3, H, W), uint8. Those of a grey file are three views of one channel; ``clone`` it
        to write into it.

    Raises:
        WICFileError: If the file is missing, damaged, no image or too large; or if reading would
            lose bits, transparency, frames, the colours of HDR or the meaning of CMYK.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, max_pixels, reduce_depth=reduce_depth)[0].expand(3, -1, -1)


def read_layer(
    path: str | Path, *, reduce_depth: bool = False, max_pixels: int | None = None
) -> Tensor:
    """Reads an image file with its transparency.

    Args:
        path: The file.
        reduce_depth: See :func:`read_image`.
        max_pixels: See :func:`read_image`.

    Returns:
        Pixels (4, H, W), opacity last, or (3, H, W) where the file has none, uint8.

    Raises:
        WICFileError: As :func:`read_image`.
        WICDependencyError: If Pillow is not installed.
    """
    return layer_of(*_read(path, max_pixels, layer=True, reduce_depth=reduce_depth))


class CarrierHead(NamedTuple):
    """What a file says of itself before its pixels are read.

    Attributes:
        size: Its (width, height).
        chunk: The content of our own, of a PNG's chunk or a JPEG's segments, or None.
        lossy: The name of its format if it was compressed with loss, JPEG or WEBP; else empty.
    """

    size: tuple[int, int]
    chunk: bytes | None
    lossy: str = ""


def read_carrier_head(
    path: str | Path, *, max_pixels: int | None = None, lossy: bool = False
) -> CarrierHead:
    """Reads what a file says of itself whose very pixels count, and no pixels.

    Raises:
        WICFileError: As :func:`read_carrier`, but for pixels that are damaged.
        WICDependencyError: If Pillow is not installed.
    """
    with opened(path, max_pixels) as (image, chunk):
        return CarrierHead(image.size, chunk, _check_lossless(image, path, lossy=lossy))


def read_carrier(
    path: str | Path, *, max_pixels: int | None = None, lossy: bool = False
) -> tuple[Tensor, bytes | None]:
    """Reads a file whose very pixels count: a PNG, or what was saved of it without loss.

    Args:
        path: The file: PNG, BMP, TIFF or lossless WebP.
        max_pixels: As of :func:`read_image`.
        lossy: Take JPEG and lossy WebP too, for networks that were trained for them.

    Returns:
        Pixels (3, H, W) or (1, H, W), uint8, as they are stored; and the content of our own, which
        a PNG or a JPEG may have, or None. Where there is one, opacity is left out: it is for
        viewers.

    Raises:
        WICFileError: As :func:`read_image`; and if the file was compressed with loss.
        WICDependencyError: If Pillow is not installed.
    """
    with opened(path, max_pixels) as (image, chunk):
        _check_lossless(image, path, lossy=lossy)
        eight = in_eight_bits(image, path, max_pixels)
        pixels, _ = pixels_of(eight, str(path), carrier=True, layer=chunk is not None)
        return pixels, chunk


def _read(
    path: str | Path, max_pixels: int | None, *, layer: bool = False, reduce_depth: bool = False
) -> tuple[Tensor, Tensor | None]:
    doubts: list[str] = []
    with opened(path, max_pixels) as (image, _):
        eight = in_eight_bits(image, path, max_pixels, reduce_depth=reduce_depth)
        pixels = pixels_of(eight, str(path), layer=layer, doubts=doubts)
    for doubt in doubts:  # out here warnings are not kept back
        warn(doubt)
    return pixels


def has_halved_chroma(path: str | Path) -> bool:
    """Whether an image file stores its colours with fewer pixels than its brightness.

    Nearly every photograph in JPEG does (4:2:0, 4:2:2), every lossy WebP, and AVIF and HEIC are
    taken to.

    Raises:
        WICFileError: If the file is missing or no image.
        WICDependencyError: If Pillow is not installed.
    """
    with opened(path) as (image, _):
        if image.format in ("AVIF", "HEIF"):
            return True
        if image.format in ("JPEG", "MPO"):
            factors = [layer[1:3] for layer in image.layer]  # type: ignore[attr-defined]
            return any(factor != factors[0] for factor in factors)
        tags = getattr(image, "tag_v2", {})
        if image.format == "TIFF":
            is_ycbcr = tags.get(tiff.PHOTOMETRIC) == 6
            return is_ycbcr and tags.get(_YCBCR_SUBSAMPLING, (2, 2)) != (1, 1)
        if image.format != "WEBP":
            return False
    with Path(path).open("rb") as file:
        return is_lossy_webp(file)


def _check_lossless(image: Image.Image, path: str | Path, *, lossy: bool) -> str:
    """Refuses files whose pixels are not those that were written, or says by which format."""
    compression = getattr(image, "tag_v2", {}).get(tiff.COMPRESSION, 1)
    is_lossy = image.format not in _LOSSLESS or compression in (6, 7, 34892)
    if image.format == "WEBP" or compression == 50001:
        start = 0 if image.format == "WEBP" else image.tag_v2.get(273, (0,))[0]  # type: ignore[attr-defined]
        with Path(path).open("rb") as file:
            is_lossy = is_lossy_webp(file, start)
    name = "JPEG" if image.format == "MPO" else str(image.format)
    if is_lossy and not (lossy and name in ("JPEG", "WEBP")):
        raise WICFileError(refuse_lossy(path, str(image.format)))
    return name if is_lossy else ""


def refuse_lossy(path: str | Path, name: str) -> str:
    """Returns what to say of a file whose pixels are not those that were written."""
    return (
        f"{path} is a {name} file; expected the PNG as it was written, or saved without loss, "
        f"since lossy compression destroys what it holds."
    )


# -------------------------------------------------------------------------------- what it holds


def has_opacity(image: Image.Image) -> bool:
    """Whether an image says how opaque its pixels are."""
    return image.mode in _ALPHA_MODES or "transparency" in image.info


def pixels_of(
    image: Image.Image,
    name: str,
    *,
    carrier: bool = False,
    layer: bool = False,
    doubts: list[str] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """The pixels of an image that Pillow has opened, or refuses where they would lose something.

    Args:
        image: The image.
        name: What to call it in errors.
        carrier: Take pixels as they are stored, whatever the orientation and the colours are.
        layer: Return the opacity too, in place of refusing what is not opaque.
        doubts: Gets a sentence for what is said of the colours and cannot be used.

    Returns:
        Pixels (3, H, W), or (1, H, W) of a grey image, uint8; and their opacity (1, H, W) or None.

    Raises:
        WICFileError: If it has several pictures, pixels that are not opaque, or a colour mode
            without known colours.
        WICShapeError: If it has no pixels.
    """
    check_single(image, name)
    if image.mode not in _OPAQUE_MODES | _ALPHA_MODES | {"CMYK"}:
        raise WICFileError(f"{name} has colour mode {image.mode}; convert it to RGB first.")
    doubts = [] if doubts is None else doubts
    convert = None if carrier else converter(image, name, doubts)
    if image.mode == "CMYK" and convert is None:
        raise WICFileError(
            f"{name} is CMYK without a usable colour profile, so its colours are not known; "
            f"convert it to RGB first."
        )
    image.load()
    mode = "CMYK" if image.mode == "CMYK" else "L" if image.mode in GREYS else "RGB"
    is_opaque, palette = not has_opacity(image), _palette(image)
    pixels = alpha = None
    for top, strip in strips(image):
        if palette is not None:
            strip.putpalette(palette)
        if is_opaque:
            plain = strip.convert(mode)
        else:
            plain, opacity = _without_opacity(strip, mode)
            if layer:
                alpha = _put(alpha, tensor_of(opacity), top, image.height)
            elif min(opacity.tobytes()) < 255:
                raise WICFileError(f"{name} is partly transparent{_WHY_OPAQUE[carrier]}")
        part = tensor_of(plain) if convert is None else convert(plain)
        pixels = _put(pixels, part, top, image.height)
    if pixels is None:
        raise WICShapeError(f"Expected {name} with pixels; got {image.width}x{image.height}.")
    turn = 1 if carrier else _orientation(image)
    return _turned(pixels, turn), None if alpha is None else _turned(alpha, turn)


_WHY_OPAQUE = {
    False: ", which would be lost; flatten it onto a background first.",
    True: "; pictures that `wic down` and `wic gray` made of transparent photos can be brought "
    "back from their files alone.",
}


def _without_opacity(image: Image.Image, mode: str) -> tuple[Image.Image, Image.Image]:
    """An image in a mode, and how opaque its pixels are."""
    whole = (image.convert("LA") if image.mode == "La" else image).convert("RGBA")
    return whole.getchannel("R") if mode == "L" else whole.convert(mode), whole.getchannel("A")


def layer_of(pixels: Tensor, opacity: Tensor | None) -> Tensor:
    """Returns RGB of what :func:`pixels_of` gives, (3, H, W), or (4, H, W) with its opacity."""
    pixels = pixels.expand(3, -1, -1)
    return pixels if opacity is None else torch.cat((pixels, opacity))


def _put(whole: Tensor | None, part: Tensor, top: int, height: int) -> Tensor:
    """Puts a strip into its place in all of an image, which the first one begins."""
    if whole is None:
        whole = part.new_empty((len(part), height, part.shape[2]))
    whole[:, top : top + part.shape[1]] = part
    return whole


def check_single(image: Image.Image, name: str) -> None:
    """Refuses what is animated or has several pages; a camera's MPO is one image."""
    file = getattr(image, "fp", None)
    if image.format == "TIFF" and file is not None:
        has_several = getattr(image, "is_animated", False) and tiff.picture_page(file) is None
    else:
        has_several = image.format != "MPO" and getattr(image, "is_animated", False)
    if has_several:
        raise WICFileError(f"{name} holds several frames or pages; expected one image.")


def _palette(image: Image.Image) -> bytes | None:
    """The colours of a TIFF whose map has numbers of 8 bits: Pillow takes it for one of 16."""
    if image.mode != "P" or image.format != "TIFF":
        return None
    return tiff.colour_map(getattr(image, "tag_v2", {}).get(tiff.COLOUR_MAP, ()))


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # EXIF that is damaged in any way says nothing
        return 1


def _turned(pixels: Tensor, orientation: int) -> Tensor:
    """The way up in which an image is seen, by EXIF's number."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 2)
    across, down = orientation in (2, 3, 6, 7), orientation in (3, 4, 7, 8)
    sides = [axis for axis, is_flipped in ((1, down), (2, across)) if is_flipped]
    return pixels.flip(sides) if sides else pixels.contiguous()
