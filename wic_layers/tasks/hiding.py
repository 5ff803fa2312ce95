"""Hiding: one to four images hidden in another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.tasks.base import Task, details

__all__ = ["MOST_SECRETS", "Hiding"]

MOST_SECRETS = 4

# Correlations of details. Right secrets have at most 0.1 with the picture, 0.14 with a smooth one,
# and 0.04 with each other, if they are not alike; ghosts from 0.2, or less and each other's. A
# single one may have no more than right ones, but is in the same places (those correlate by 0.34
# to 0.9; of the picture and a right secret by at most 0.32, of two photographs by more than 0.4
# once in 300) and pale: its contrast is 5 to 30 grey levels. What is as pale and has no details of
# its own, such as a blank page, may be doubted although it is right. Good networks bring no ghost
# of a plain photograph, but noise of 3 to 12 levels on a middling grey: its colours vary by more
# than 0.45 of that, and their details correlate by less than 0.75. Of 114 right secrets that were
# made as pale around that grey 9 look so, and none that is dark, light, grey or blank. Of several
# right ones the least ghost has at most 0.053, of too many that were asked for often 0.1. Mixtures
# come back where too many or too few are asked for: colours of two share their coarse details by
# 0.23 to 0.87, of 342 right twos, threes and fours by at most 0.13; fine ones by at most 0.33, as
# copies do by more. A double exposure is as mixed, and so may copies be that are noisy or pale.
# Where nothing was hidden at all, all of several are noise.
_GHOST, _FAINT, _TWINS, _PLACES, _PALE = 0.15, 0.06, 0.1, 0.4, 30.0
_BLANK, _EVERY = 2.5, 0.08
_MIXED, _COPIES = 0.2, 0.4
# of noise: the most contrast, the least part of the colours, the most their details correlate; of
# one image, and of several, where all have to be so
_NOISE, _ALL_NOISE = (14.0, 0.45, 0.75), (20.0, 0.4, 0.9)
_MIDDLING = (85.0, 150.0)
_SMALLEST = 16  # side of an image in which anything can be told


class Hiding(Task):
    """Secrets inside a cover: the stego image looks like the cover and gives the secrets back.

    Args:
        secrets: How many, from 1 to 4.

    Raises:
        WICArgumentError: If ``secrets`` is another number.
    """

    forward_criterion = "l1"
    commands = ("wic hide", "wic reveal")
    picture_name = "stego"
    titles = ("stego", "secret")
    looks_like = "the cover"

    def __init__(self, secrets: int = 1) -> None:
        if not 1 <= secrets <= MOST_SECRETS:
            raise WICArgumentError(f"Expected 1 to {MOST_SECRETS} secrets; got {secrets}.")
        self.name = f"hiding-{secrets}"
        self.images = 1 + secrets
        self.preset = f"{self.name}-naive-small"

    @property
    def image_names(self) -> tuple[str, ...]:
        """The cover, and the secrets with a number each where there are several."""
        secrets = range(1, self.images)
        return ("cover", *(f"secret_{n}" if self.images > 2 else "secret" for n in secrets))

    def prepare(self, *images: Tensor, fit: bool = False) -> list[Tensor]:
        """The cover and the secrets; with ``fit`` those larger than the cover are reduced.

        Args:
            *images: Pixels (3, H, W), uint8, the cover first.
            fit: Reduce a secret that is larger than the cover, keeping its proportions.

        Raises:
            WICArgumentError: If there are too few or too many.
            WICShapeError: If a secret is larger than the cover, and ``fit`` is false.
        """
        cover, *secrets = super().prepare(*images)
        room = cover.shape[2], cover.shape[1]
        return [cover, *(_fitted(secret, room, fit=fit) for secret in secrets)]

    def title_of(self, index: int) -> str:
        """Returns what one of the images that go in is called in errors."""
        return f"secret {index}" if index else "cover"

    def reference(self, x: Tensor) -> Tensor:
        """The cover."""
        return x[:, :3]

    def doubt(self, picture: Tensor, images: Sequence[Tensor]) -> str | None:
        """Whether a ghost of the picture came back, a mixture of secrets, or flat noise."""
        images = [image for image in images if min(image.shape[1:]) >= _SMALLEST]
        pairs = [_details(picture, image) for image in images]
        ghosts = [_likeness(pair) for pair in pairs]
        ghost = max(ghosts, default=0.0)
        is_everywhere = len(images) > 1 and min(ghosts) > _EVERY
        if ghost > _GHOST or is_everywhere or self._has_other_signs(ghost, pairs, images):
            return (
                "What came back looks like the picture itself, as it does where nothing was "
                "hidden, or not so many secrets, or where JPEG or an edit destroyed them."
            )
        if _are_mixed(images):
            return (
                "What came back looks mixed, as it does where not so many secrets were hidden, "
                "or more, or where JPEG or an edit destroyed them."
            )
        limits = _NOISE if len(images) == 1 else _ALL_NOISE
        if images and all(_is_flat_noise(image, *limits) for image in images):
            return (
                "What came back is little more than noise on an even grey, as it is where nothing "
                "was hidden, or where JPEG or an edit destroyed it."
            )
        return None

    @staticmethod
    def _has_other_signs(ghost: float, pairs: Sequence[Tensor], images: Sequence[Tensor]) -> bool:
        if len(images) == 1:  # right ones of several may have traces of each other in those places
            is_likely = ghost > _FAINT or _contrast(images[0]) < _PALE
            return is_likely and _likeness(F.avg_pool2d(pairs[0].abs(), 4)) > _PLACES
        return ghost > _FAINT and _twins(images) > _TWINS


def _fitted(secret: Tensor, room: tuple[int, int], *, fit: bool) -> Tensor:
    """The secret, reduced (antialiased bicubic) where it is larger than ``room``."""
    height, width = secret.shape[1:]
    if width <= room[0] and height <= room[1]:
        return secret
    if not fit:
        raise WICShapeError(
            f"Expected a secret of at most the cover's {room[0]}x{room[1]}; got {width}x{height}. "
            f"Reduce it with --fit (fit=True), or take a larger cover."
        )
    factor = min(room[0] / width, room[1] / height)
    new = tuple(
        min(max(round(side * factor), 1), limit)
        for side, limit in zip((height, width), room[::-1], strict=True)
    )
    x = F.interpolate(secret[None].float(), size=new, mode="bicubic", antialias=True)
    return x[0].round().clamp(0, 255).to(torch.uint8)


def _details(one: Tensor, other: Tensor) -> Tensor:
    """The details of two images where both are, (2, C, H, W); the middle is enough."""
    return torch.stack([details(image) for image in _together(one, other)])


def _together(one: Tensor, other: Tensor) -> list[Tensor]:
    """The middles of two images, where both are."""
    height, width = (min(sides) for sides in zip(one.shape[1:], other.shape[1:], strict=True))
    return [_middle(image[:, :height, :width]) for image in (one, other)]


def _middle(image: Tensor) -> Tensor:
    rows, columns = (
        slice(start, start + 512)
        for start in (max(side - 512, 0) // 2 for side in image.shape[1:])
    )
    return image[:, rows, columns].float()


def _sampled(image: Tensor) -> Tensor:
    """Pixels from all over an image, at most 1023 in a row or column."""
    rows, columns = (slice(None, None, max(side // 512, 1)) for side in image.shape[1:])
    return image[:, rows, columns].float()


def _contrast(image: Tensor) -> float:
    """The standard deviation of an image's pixels, in grey levels; a part of them is enough."""
    return float(_sampled(image).std())


def _twins(images: Sequence[Tensor]) -> float:
    """The largest correlation of details of two images; 0 where there are not two."""
    return max((_likeness(_details(*two)) for two in combinations(images, 2)), default=0.0)


def _are_mixed(images: Sequence[Tensor]) -> bool:
    """Whether two images share coarse details of their colours, but are no copies."""
    large = [image for image in images if min(image.shape[1:]) >= 6 * _SMALLEST]
    return any(_share_colours(*two) and not _are_copies(*two) for two in combinations(large, 2))


def _share_colours(one: Tensor, other: Tensor) -> bool:
    small = [F.avg_pool2d(image, 4) for image in _together(one, other)]
    every = torch.corrcoef(torch.cat([details(image).flatten(1) for image in small]))
    return float(every.nan_to_num(0)[:3, 3:].abs().max()) > _MIXED


def _are_copies(one: Tensor, other: Tensor) -> bool:
    """Whether fine details are the same, also where one image is moved."""
    fine = [details(image).mean(0) for image in _together(one, other)]
    first, second = (torch.fft.rfft2(image - image.mean()) for image in fine)
    moved = torch.fft.irfft2(first * second.conj(), s=fine[0].shape)
    scale = fine[0].numel() * fine[0].std() * fine[1].std()
    return bool(moved.abs().max() > _COPIES * scale)


def _colours_together(image: Tensor) -> float:
    """The least correlation of two colours' details in an image a quarter as large; 0 if flat."""
    coarse = details(F.avg_pool2d(_middle(image), 4))
    return float(torch.corrcoef(coarse.flatten(1)).nan_to_num(0).min())


def _is_flat_noise(image: Tensor, flat: float, coloured: float, apart: float) -> bool:
    """Whether an image hardly varies from a grey, and each colour for itself."""
    if min(image.shape[1:]) < 4 * _SMALLEST:
        return False
    pixels = _sampled(image)
    contrast, colours = (float(x.std()) for x in (pixels, pixels - pixels.mean(0)))
    is_middling = _MIDDLING[0] < float(pixels.mean()) < _MIDDLING[1]
    is_pale = is_middling and _BLANK < contrast < flat and colours > coloured * contrast
    return is_pale and _colours_together(image) < apart


def _likeness(pair: Tensor) -> float:
    """The absolute correlation of two images; 0 where one is flat."""
    return abs(float(torch.corrcoef(pair.flatten(1))[0, 1].nan_to_num(0)))
