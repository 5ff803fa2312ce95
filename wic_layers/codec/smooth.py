"""``smoothed``: stand-ins with a gradient for what happens to pictures on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.codec.attacks import Attack

__all__ = ["smoothed"]

_Run = Callable[[list[Tensor], list[float]], list[Tensor]]


def smoothed(x: Tensor, several: Sequence[Attack]) -> Tensor:
    """Returns pictures after what of their attacks has a gradient.

    Of JPEG and WebP that is the quarter of the colours' pixels that they store; the rounding of
    their frequencies is left out, so that the gradient passes through it as through that of
    pixels. A resize is torch's. JPEG with whole colours and H.264 leave a picture as it is.

    Args:
        x: Pictures (B, C, H, W) in [0, 1], of 1 or 3 channels.
        several: For each the attack, with single numbers.
    """
    alike: dict[tuple[str, ...], list[int]] = {}
    for index, attack in enumerate(several):
        alike.setdefault(tuple(step.name for step in attack.steps), []).append(index)
    results: dict[int, Tensor] = {}
    for names, indices in alike.items():
        pictures = [x[index : index + 1] for index in indices]
        for place, name in enumerate(names):
            values = [several[index].steps[place].low for index in indices]
            pictures = _SMOOTH.get(name, _same)(pictures, values)
        for index, picture in zip(indices, pictures, strict=True):
            results[index] = _sized(picture, (x.shape[2], x.shape[3]))
    return torch.cat([results[index] for index in range(len(x))])


def _same(pictures: list[Tensor], values: list[float]) -> list[Tensor]:
    return pictures


def _halved_colours(pictures: list[Tensor], values: list[float]) -> list[Tensor]:
    return [_with_halved_colours(picture) for picture in pictures]


def _with_halved_colours(picture: Tensor) -> Tensor:
    """The luma as it is; the differences from it as means of 2 x 2 pixels (BT.601, T.871)."""
    if picture.shape[1] == 1:
        return picture
    luma = (picture * picture.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    colours = picture - luma
    small = F.avg_pool2d(colours, 2, ceil_mode=True, count_include_pad=False)
    large = F.interpolate(small, scale_factor=2, mode="bilinear", align_corners=False)
    return luma + large[:, :, : picture.shape[2], : picture.shape[3]]


def _resize(pictures: list[Tensor], values: list[float]) -> list[Tensor]:
    return [
        _sized(each, (max(round(each.shape[2] * f), 1), max(round(each.shape[3] * f), 1)))
        for each, f in zip(pictures, values, strict=True)
    ]


def _fit(pictures: list[Tensor], values: list[float]) -> list[Tensor]:
    longest = [max(each.shape[2:]) for each in pictures]
    factors = [min(value / side, 1.0) for value, side in zip(values, longest, strict=True)]
    return _resize(pictures, factors)


def _sized(picture: Tensor, size: tuple[int, int]) -> Tensor:
    if picture.shape[2:] == size:
        return picture
    return F.interpolate(picture, size=size, mode="bicubic", antialias=True)


_LUMA = (0.299, 0.587, 0.114)
_SMOOTH: dict[str, _Run] = {
    "jpeg": _halved_colours,
    "webp": _halved_colours,
    "resize": _resize,
    "fit": _fit,
}
