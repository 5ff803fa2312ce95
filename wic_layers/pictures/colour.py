"""``converter``: what is said of an image's colours, by a profile or in numbers, and sRGB of them.

What counts is, as the PNG specification (third edition, 4.3) has it, the first of: the code points
of cICP, an ICC profile, the sRGB chunk, gAMA and cHRM. Without any the pixels are sRGB.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor

from wic_layers.errors import WICFileError

if TYPE_CHECKING:
    from PIL import Image, ImageCms

__all__ = ["CLIPPED", "GREYS", "Convert", "converter", "strips", "tensor_of"]

Convert: TypeAlias = "Callable[[Image.Image], Tensor]"
"""From an image of mode L, RGB or CMYK to its pixels in sRGB, uint8 (1 or 3, H, W)."""

GREYS = frozenset({"1", "L", "LA", "La"})
_NO_DIFFERENCE = 2
"""Levels by which a profile may differ from sRGB and still be it: they are rounded in profiles."""

_STRIP = 2**20
"""Pixels that are converted at a time, so that one copy of an image is in memory and no more."""

_SHARE, _CLIPPED, _OUTSIDE = 0.001, 12, 0.005
"""Share of the pixels, and levels or light by which they are off, where colours are clipped."""

CLIPPED = (
    "Colours outside sRGB were clipped to it: pictures are 8 bits of sRGB, and so is what comes "
    "back."
)
"""The doubt about photographs of wide colours; it names no file, so that it is said once."""

_ROUNDED = 0.002
"""By how much chromaticities may differ and still be the same."""

_WHITES = {"C": (0.310, 0.316), "D65": (0.3127, 0.3290), "E": (1 / 3, 1 / 3), "P3": (0.314, 0.351)}
_BT709 = (*_WHITES["D65"], 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
_SMPTE170 = (*_WHITES["D65"], 0.630, 0.340, 0.310, 0.595, 0.155, 0.070)
_PRIMARIES = {  # ITU-T H.273, table 2: white, red, green, blue, x and y of each
    1: _BT709,
    4: (*_WHITES["C"], 0.67, 0.33, 0.21, 0.71, 0.14, 0.08),
    5: (*_WHITES["D65"], 0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: _SMPTE170,
    7: _SMPTE170,
    8: (*_WHITES["C"], 0.681, 0.319, 0.243, 0.692, 0.145, 0.049),
    9: (*_WHITES["D65"], 0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    10: (*_WHITES["E"], 1.0, 0.0, 0.0, 1.0, 0.0, 0.0),
    11: (*_WHITES["P3"], 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    12: (*_WHITES["D65"], 0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
    22: (*_WHITES["D65"], 0.630, 0.340, 0.295, 0.605, 0.155, 0.077),
}
_HDR = {16: "PQ", 18: "HLG"}


def _power(exponent: float) -> Callable[[float], float]:
    return lambda value: value**exponent


def _piecewise(a: float, b: float, cut: float, exponent: float) -> Callable[[float], float]:
    """The inverse of ``v = a l^(1/exponent) - (a - 1)`` with a line of slope ``b`` near black."""
    return lambda v: v / b if v < cut else ((v + a - 1) / a) ** exponent


_SRGB = _piecewise(1.055, 12.92, 0.04045, 2.4)
_BT709_CURVE = _piecewise(1.099296826809442, 4.5, 0.0812428582986, 1 / 0.45)
_CURVES = {  # ITU-T H.273, table 3: from a number in the file to light
    **dict.fromkeys((1, 6, 11, 12, 14, 15), _BT709_CURVE),
    4: _power(2.2),
    5: _power(2.8),
    7: _piecewise(1.1115, 4.0, 4 * 0.0228, 1 / 0.45),
    8: _power(1.0),
    13: _SRGB,
    17: lambda value: value**2.6 * 52.37 / 48,
}


def converter(image: Image.Image, name: str, doubts: list[str]) -> Convert | None:
    """Returns what makes sRGB of an image's colours; None if they are sRGB already.

    Args:
        image: The image, for its mode and what it says of its colours.
        name: What to call it in errors and doubts.
        doubts: Gets a sentence for each thing that is said and cannot be used, such as a damaged
            profile.

    Raises:
        WICFileError: If the image is HDR: there are colours in it that 8 bits of sRGB have not.
    """
    info = image.info
    is_grey = image.mode in GREYS
    if image.mode != "CMYK" and isinstance(cicp := info.get("cicp"), bytes):
        numbers = tuple(cicp)
        if numbers[1:2] and numbers[1] in _HDR:
            raise WICFileError(
                f"{name} is HDR ({_HDR[numbers[1]]}), whose colours do not fit into 8 bits; save "
                f"it in SDR, such as sRGB or Display P3, first."
            )
        space = _by_code_points(numbers)
        if space is not None:
            return _by_numbers(*space, doubts, is_grey=is_grey)
        doubts.append(_doubt(name, f"the cICP chunk {list(numbers)} is none that is known"))
    if (profile := info.get("icc_profile")) is not None:
        try:
            return _by_profile(image.mode, profile, doubts)
        except ValueError as error:
            doubts.append(_doubt(name, f"the colour profile cannot be used: {error}"))
    if "srgb" in info or image.mode == "CMYK":
        return None
    try:
        return _by_gamma(info, doubts, is_grey=is_grey)
    except ValueError as error:
        doubts.append(_doubt(name, str(error)))
        return None


def _doubt(name: str, what: str) -> str:
    return f"{name}: {what}; its colours may look different from what was meant."


# ------------------------------------------------------------------------------- by an ICC profile


def _by_profile(mode: str, profile: object, doubts: list[str]) -> Convert | None:
    """Raises ValueError, with the reason, if the profile is none for images of the mode."""
    from PIL import Image, ImageCms

    if not isinstance(profile, bytes) or not profile:
        raise ValueError("it is damaged")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        fitting = {"GRAY": "L", "RGB": "RGB", "CMYK": "CMYK"}
        working = fitting.get(space)
        is_other = working == "L" and mode not in GREYS
        if working is None or is_other or (working == "CMYK") != (mode == "CMYK"):
            raise ValueError(f"it is for {space}, the image is {mode}")
        # of grey only 256 levels are computed; what is quicker is 10 levels off near black
        flags = ImageCms.Flags.NOOPTIMIZE if mode in GREYS else ImageCms.Flags.NONE
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, working, "RGB", flags=flags)

        def apply(image: Image.Image) -> Tensor:
            image = _in(image, working)
            return tensor_of(ImageCms.applyTransform(image, transform) or image)

        if mode in GREYS:
            ramp = tensor_of(Image.frombytes("L", (256, 1), bytes(range(256))))
            table = apply(Image.frombytes("L", (256, 1), bytes(range(256))))
            spread = table.amax(0).int() - table.amin(0).int()
            if int(spread.max()) <= _NO_DIFFERENCE:  # grey stays grey
                table = table[1:2]
            return None if _is_same(table, ramp) else _by_table(table[:, 0])
        if mode != "CMYK":
            steps = torch.arange(0, 256, 15, dtype=torch.uint8)
            grid = torch.cartesian_prod(steps, steps, steps)
            probe = Image.frombytes("RGB", (len(grid), 1), bytes(grid.flatten().tolist()))
            if _is_same(apply(probe), tensor_of(probe)):
                return None
        if mode != "CMYK":
            return partial(_by_transform, transform, _inverse_of(source), doubts)
    except (ImageCms.PyCMSError, OSError) as error:
        raise ValueError(str(error).rstrip(".") or "it is damaged") from error
    return apply


def _inverse_of(source: ImageCms.ImageCmsProfile) -> ImageCms.ImageCmsTransform | None:
    """From sRGB to a profile's colours; None of one that goes in one direction alone."""
    from PIL import ImageCms

    try:
        return ImageCms.buildTransform(ImageCms.createProfile("sRGB"), source, "RGB", "RGB")
    except ImageCms.PyCMSError:
        return None


def _by_transform(
    transform: ImageCms.ImageCmsTransform,
    inverse: ImageCms.ImageCmsTransform | None,
    doubts: list[str],
    image: Image.Image,
) -> Tensor:
    """Converts, and sees from some of the pixels whether that can be undone."""
    from PIL import ImageCms

    image = _in(image, "RGB")
    converted = ImageCms.applyTransform(image, transform) or image
    if inverse is not None:
        few = min(image.width, 512), min(image.height, 512)
        before, after = (each.resize(few, resample=0) for each in (image, converted))
        again = ImageCms.applyTransform(after, inverse) or after
        off = (tensor_of(again).int() - tensor_of(before).int()).abs()
        _say_clipped(doubts, (off > _CLIPPED).any(0))
    return tensor_of(converted)


def _say_clipped(doubts: list[str], outside: Tensor) -> None:
    """Adds a doubt, one for all files, where more than a few pixels are outside of sRGB."""
    if CLIPPED not in doubts and float(outside.float().mean()) > _SHARE:
        doubts.append(CLIPPED)


def _is_same(pixels: Tensor, others: Tensor) -> bool:
    return int((pixels.int() - others.int()).abs().max()) <= _NO_DIFFERENCE


# -------------------------------------------------------------------------------------- by numbers


def _by_code_points(numbers: tuple[int, ...]) -> tuple[Tensor, tuple[float, ...]] | None:
    """The curve and primaries that PNG's cICP names, if it names RGB of a kind that is known."""
    if len(numbers) != 4 or numbers[2] or numbers[3] > 1:
        return None
    if numbers[0] not in _PRIMARIES or numbers[1] not in _CURVES:
        return None
    return _light(_CURVES[numbers[1]], is_full=numbers[3] == 1), _PRIMARIES[numbers[0]]


def _by_gamma(info: Mapping[Any, Any], doubts: list[str], *, is_grey: bool) -> Convert | None:
    """By PNG's gAMA and cHRM: without the one the curve, without the other the colours of sRGB."""
    gamma, chromaticities = info.get("gamma"), info.get("chromaticity")
    if not isinstance(gamma, float) or not gamma > 0:
        gamma = None
    primaries = _BT709
    if isinstance(chromaticities, tuple) and len(chromaticities) == 8 and not is_grey:
        if any(abs(a - b) > _ROUNDED for a, b in zip(chromaticities, _BT709, strict=True)):
            primaries = chromaticities
    # with the colours of sRGB, this number stands for its curve, which is no power
    if primaries is _BT709 and (gamma is None or math.isclose(gamma, 0.45455, rel_tol=0.01)):
        return None
    curve = _SRGB if gamma is None else _power(1 / gamma)
    return _by_numbers(_light(curve), primaries, doubts, is_grey=is_grey)


def _light(curve: Callable[[float], float], *, is_full: bool = True) -> Tensor:
    """The light, 0 to 1, that each of the 256 levels stands for."""
    levels = [level / 255 if is_full else (level - 16) / 219 for level in range(256)]
    return torch.tensor([curve(min(max(level, 0.0), 1.0)) for level in levels])


def _by_numbers(
    curve: Tensor, primaries: tuple[float, ...], doubts: list[str], *, is_grey: bool
) -> Convert | None:
    if is_grey or primaries == _BT709:
        table = _encoded(curve)[None]
        is_same = _is_same(table, torch.arange(256, dtype=torch.uint8))
        return None if is_same else _by_table(table)
    matrix = _to_bt709(primaries).float()

    def apply(image: Image.Image) -> Tensor:
        light = curve[tensor_of(_in(image, "RGB")).int()]
        light = torch.einsum("ij,jhw->ihw", matrix, light)
        _say_clipped(doubts, ((light < -_OUTSIDE) | (light > 1 + 4 * _OUTSIDE)).any(0))
        return _encoded(light)

    return apply


def _encoded(light: Tensor) -> Tensor:
    """sRGB, 8 bits, of light; what is outside of it becomes the nearest."""
    light = light.clamp(0, 1)
    curved = torch.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return (255 * curved).round().to(torch.uint8)


def _to_bt709(primaries: tuple[float, ...]) -> Tensor:
    """The matrix from light of some primaries to that of BT.709's, float64 (3, 3).

    White becomes white: it is adapted by Bradford's cone responses, as in ICC profiles.

    Raises:
        ValueError: If there are no such primaries.
    """
    cones = torch.tensor(
        [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]],
        dtype=torch.float64,
    )
    source, target = _to_xyz(primaries), _to_xyz(_BT709)
    whites = [cones @ space.sum(1) for space in (source, target)]
    adapted = torch.linalg.inv(cones) @ torch.diag(whites[1] / whites[0]) @ cones
    matrix = torch.linalg.inv(target) @ adapted @ source
    if not bool(torch.isfinite(matrix).all()) or float(matrix.abs().max()) > 100:
        raise ValueError("the colours that cHRM names are none")
    return matrix


def _to_xyz(primaries: tuple[float, ...]) -> Tensor:
    """The matrix from light of some primaries to XYZ."""
    points = torch.tensor(primaries, dtype=torch.float64).view(4, 2)
    rest = 1 - points.sum(1, keepdim=True)
    white, *colours = torch.cat((points, rest), 1)
    matrix = torch.stack(colours, 1)
    if not float(white[1]) > 0 or abs(float(torch.linalg.det(matrix))) < 1e-4:
        raise ValueError("the colours that cHRM names are none")
    return matrix * torch.linalg.solve(matrix, white / white[1])


# ------------------------------------------------------------------------------------------ pixels


def _by_table(table: Tensor) -> Convert:
    """From a table of 256 levels, (1, 256) for each channel or (3, 256) of colours for grey."""

    def apply(image: Image.Image) -> Tensor:
        pixels = tensor_of(_in(image, image.mode if image.mode in ("L", "RGB") else "RGB"))
        if len(table) == 1:
            return table[0][pixels.int()]
        return table[:, pixels[0].int()]

    return apply


def _in(image: Image.Image, mode: str) -> Image.Image:
    return image if image.mode == mode else image.convert(mode)


def tensor_of(image: Image.Image) -> Tensor:
    """The numbers of an image of 8 bits: uint8 (channels, H, W)."""
    flat = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8)
    return flat.view(image.height, image.width, -1).permute(2, 0, 1)


def strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yields an image in strips, from its top down, and where each begins."""
    rows = max(_STRIP // max(image.width, 1), 1)
    for top in range(0, image.height if image.width else 0, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))
