"""``smoothed``: stand-ins with a gradient for what happens to pictures on their way."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.codec.attacks import Attack
from wic_layers.errors import needing

__all__ = ["smoothed"]

_Run = Callable[[list[Tensor], list[float]], list[Tensor]]


def smoothed(x: Tensor, several: Sequence[Attack]) -> Tensor:
    """Returns pictures after something like their attacks, which has a gradient.

    JPEG is kornia's differentiable one, which stands for WebP of the same quality too: both round
    frequencies and store a quarter of the colours' pixels. A resize is torch's. What has no
    stand-in, whole chroma and H.264, leaves a picture as it is.

    Args:
        x: Pictures (B, C, H, W) in [0, 1], of 1 or 3 channels.
        several: For each the attack, with single numbers.

    Raises:
        WICDependencyError: If kornia is needed and not installed.
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


def _jpeg(pictures: list[Tensor], values: list[float]) -> list[Tensor]:
    with needing("The gradient of JPEG needs {name}", "through"):
        from kornia.enhance import jpeg_codec_differentiable
    if len({picture.shape for picture in pictures}) > 1:
        return [_jpeg([each], [value])[0] for each, value in zip(pictures, values, strict=True)]
    x = torch.cat(pictures)
    channels = x.shape[1]
    out: Tensor = jpeg_codec_differentiable(x.expand(-1, 3, -1, -1), x.new_tensor(values))
    if channels == 1:
        out = out.mean(dim=1, keepdim=True)
    return list(out.split(1))


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


_SMOOTH: dict[str, _Run] = {"jpeg": _jpeg, "webp": _jpeg, "resize": _resize, "fit": _fit}
