"""``went_through_jpeg``: whether a picture shows the steps to which JPEG rounds frequencies."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["went_through_jpeg"]

_SIDE = 512
_STEPS = range(2, 65)
_CLOSE = 0.3
"""Half of the coefficients of a frequency are nearer to a multiple of its step, if it has one.

What is left is the rounding of the pixels, 0.2 on average. Networks' pictures of photographs that
were JPEG files themselves are farther away: they were not rounded as those were.
"""
_SHARE = 0.5
"""By chance half of them are nearer than a quarter of the step; this much of that counts."""

_LEAST, _LEAST_OF_SMALL = 24, 64
"""Coefficients that tell of a step, and of one below 5, to which more come close by chance."""

_FREQUENCIES = 3
"""Frequencies with a step that make a JPEG."""


def went_through_jpeg(picture: Tensor) -> bool:
    """Whether a picture shows that it was a JPEG file after it was made.

    JPEG rounds each of 63 frequencies in blocks of 8 x 8 to multiples of a step of its own. Of
    pixels that were not changed afterwards, the coefficients still stand close to them, far closer
    than by chance, down to a quality of about 97.

    Args:
        picture: Pixels (3, H, W) or (1, H, W), uint8.

    References:
        | Zhigang Fan, Ricardo L. de Queiroz, Identification of Bitmap Compression History: JPEG
        | Detection and Quantizer Estimation (IEEE Transactions on Image Processing, 2003)
    """
    height, width = (length // 8 * 8 for length in picture.shape[1:])
    top, left = (max(length - _SIDE, 0) // 16 * 8 for length in (height, width))
    crop = picture[:, top : min(top + _SIDE, height), left : min(left + _SIDE, width)].float()
    if not crop.numel():
        return False
    luma = crop[0] if len(crop) == 1 else 0.299 * crop[0] + 0.587 * crop[1] + 0.114 * crop[2]
    blocks = (luma - 128).unfold(0, 8, 8).unfold(1, 8, 8).reshape(-1, 8, 8)
    basis = _cosines()
    # the mean of a block is left out: flat pictures have multiples of 8 there
    values = (basis @ blocks @ basis.T).flatten(1)[:, 1:]
    rounded = sum(_has_step(frequency) for frequency in values.T)
    return rounded >= _FREQUENCIES


def _has_step(values: Tensor) -> bool:
    """Whether the coefficients of a frequency are multiples of some step."""
    values = values.unique()  # what is repeated exactly, as in graphics, tells nothing
    for step in _STEPS:
        large = values[values.abs() > step / 2]
        if len(large) < _LEAST:
            return False
        if step < 5 and len(large) < _LEAST_OF_SMALL:
            continue
        distance = (large - step * (large / step).round()).abs().median()
        if float(distance) < min(_CLOSE, _SHARE * step / 4):
            return True
    return False


def _cosines() -> Tensor:
    """The orthonormal cosine transform of 8 values, (frequency, place)."""
    angles = torch.arange(8.0)[:, None] * (2 * torch.arange(8.0) + 1) * math.pi / 16
    basis = angles.cos() / 2
    basis[0] = math.sqrt(1 / 8)
    return basis
