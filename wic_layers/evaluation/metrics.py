"""``Row``, ``compare``: how far two pictures are apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from wic_layers.pictures import psnr

__all__ = ["METRICS", "Row", "compare"]

METRICS = {
    "psnr_rgb": "PSNR RGB", "ssim_rgb": "SSIM RGB", "psnr_y": "PSNR Y", "ssim_y": "SSIM Y",
}  # fmt: skip
"""The figures of a :class:`Row` with their titles."""

_REACH, _SIGMA = 5, 1.5  # of the Gaussian window of SSIM, in pixels
# luma of ITU-R BT.601, 16 to 235, of RGB in [0, 1]
_WEIGHTS_OF_Y, _OFFSET_OF_Y = (65.481, 128.553, 24.966), 16.0


@dataclass(frozen=True)
class Row:
    """One comparison of two pictures, or the mean of several.

    Attributes:
        what: Which picture, and how it was made.
        psnr_rgb: PSNR in dB over all channels.
        ssim_rgb: SSIM, the mean over the channels.
        psnr_y: PSNR in dB of the luma of BT.601 (16 to 235); of a grey picture None.
        ssim_y: SSIM of that luma; of a grey picture None.
        bits: Bits per pixel of the picture's PNG, where it is the forward picture; else None.
        identical: How many of the comparisons found no difference. Their PSNR is infinite; a mean
            is of the others, unless there are none.
        size: Bytes of the file of the picture that is judged, where that counts; else None.
    """

    what: str
    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float | None = None
    ssim_y: float | None = None
    bits: float | None = None
    identical: int = 0
    size: float | None = None


def compare(
    what: str,
    picture: Tensor,
    original: Tensor,
    *,
    bits: float | None = None,
    size: float | None = None,
) -> Row:
    """Compares two pictures (C, H, W): uint8, or float in [0, 1].

    SSIM takes a Gaussian window of 11 x 11, sigma 1.5, where it lies within the picture; smaller
    pictures have none (NaN).
    """
    # float32 would do for PSNR; of bright flat pictures, SSIM would be wrong in its fourth digit
    a, b = (x.cpu().double() / (255 if x.dtype == torch.uint8 else 1) for x in (picture, original))
    rgb = psnr(a, b), _ssim(a, b, 1.0)
    luma: tuple[float | None, float | None] = None, None
    if len(a) == 3:
        weights = a.new_tensor(_WEIGHTS_OF_Y)[:, None, None]
        x, y = (_OFFSET_OF_Y + (picture * weights).sum(0, keepdim=True) for picture in (a, b))
        luma = psnr(x, y, peak=255.0), _ssim(x, y, 255.0)
    return Row(what, *rgb, *luma, bits, int(math.isinf(rgb[0])), size)


def _ssim(a: Tensor, b: Tensor, peak: float) -> float:
    if min(a.shape[1:]) < 2 * _REACH + 1:
        return math.nan
    means = [_blurred(x) for x in (a, b)]
    product = means[0] * means[1]
    squares = means[0].square() + means[1].square()
    covariance = _blurred(a * b) - product
    variances = _blurred(a.square() + b.square()) - squares
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    similarity = (2 * product + c1) * (2 * covariance + c2)
    return float((similarity / ((squares + c1) * (variances + c2))).mean())


def _blurred(x: Tensor) -> Tensor:
    """Gaussian means of pictures (C, H, W) over windows that lie within: (C, H - 10, W - 10)."""
    offsets = torch.arange(-_REACH, _REACH + 1, dtype=x.dtype)
    window = torch.softmax(-((offsets / _SIGMA) ** 2) / 2, dim=0).tolist()
    for axis in (1, 2):
        size = x.shape[axis] - 2 * _REACH
        x = sum(weight * x.narrow(axis, k, size) for k, weight in enumerate(window))
    return x
