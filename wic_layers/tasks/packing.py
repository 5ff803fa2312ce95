"""Packing, of several images in one that gives all back: Clip, Stereo, Zoom, Layers."""

from __future__ import annotations

from abc import abstractmethod
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.pictures import size_of
from wic_layers.tasks import composing
from wic_layers.tasks.base import Task

__all__ = ["Clip", "Layers", "Packing", "Stereo", "Zoom"]


class Packing(Task):
    """One picture that looks like one of several images and gives all of them back.

    All images have one size. In the network's channels the one that the picture looks like comes
    first.

    Attributes:
        parts: What the images that a user has are called, in their order; of a clip fewer will do.
    """

    forward_criterion = "l2"
    commands = ("wic pack", "wic unpack")
    picture_name = "packed"
    titles: ClassVar[tuple[str, str]] = ("packed", "image")
    looks_like: ClassVar[str] = "the first image"
    is_composed = True
    has_opacity = True
    parts: tuple[str, ...]

    @property
    def image_names(self) -> tuple[str, ...]:
        """What the images are called that go in."""
        return tuple(part.replace(" ", "_") for part in self.parts)

    @cached_property
    def restored_count(self) -> int:
        """All of them come back."""
        return self.images

    def reference(self, x: Tensor) -> Tensor:
        """The first image of the packed tensor; a smaller one is the bicubic reduction."""
        first = x[:, :3]
        if self.scale == 1:
            return first
        size = [side // self.scale for side in x.shape[2:]]
        return F.interpolate(first, size=size, mode="bicubic", antialias=True).clamp(0, 1)

    @abstractmethod
    def compose(self, *sources: Tensor) -> tuple[Tensor, ...]:
        """See :meth:`Task.compose`."""

    def prepare(self, *images: Tensor, fit: bool = False) -> list[Tensor]:
        """See :meth:`Task.prepare`; images have one size, and only a foreground has opacity."""
        for index, image in enumerate(images):
            if len(image) == 4 and index != self.foreground:
                raise WICArgumentError(
                    f"Expected image {index + 1} for {self.name} without transparency, which "
                    "would be lost; flatten it onto a background first."
                )
        if len(images) != len(self.parts):
            raise WICArgumentError(
                f"Expected {len(self.parts)} images for {self.name} ({', '.join(self.parts)}); "
                f"got {len(images)}."
            )
        sizes = [f"{w}x{h}" for w, h in map(size_of, images)]
        if len(set(sizes)) > 1:
            raise WICShapeError(f"Expected images of one size; got {', '.join(sizes)}.")
        return list(images)

    def title_of(self, index: int) -> str:
        """Returns what one of the images that go in is called in errors."""
        return f"image {index + 1}"

    @property
    def picture_title(self) -> str:
        """What the forward picture is called in errors."""
        return "the picture"


class Stereo(Packing):
    """A left view that gives both views back.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 4.2
    """

    name = "stereo"
    images = 2
    preset = "stereo-naive-small"
    titles = ("left view", "view")
    looks_like = "the left view"
    parts = ("left", "right")

    def source_side(self, side: int) -> int:
        """Views are narrower by the largest disparity."""
        return side + composing.MOST_DISPARITY

    def compose(self, *sources: Tensor) -> tuple[Tensor, ...]:
        """One photograph in front of another, from two places."""
        lost = composing.MOST_DISPARITY
        return composing.stereo(*(source[..., lost:, :] for source in sources))


class Zoom(Packing):
    """A normal view that gives itself and a zoomed view back, as two cameras of a phone see them.

    Args:
        factor: By how much the second view is zoomed in: 2, 4 or 8. It decides which weights are
            used, and what they are trained on.

    Raises:
        WICArgumentError: If ``factor`` is another number.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 4.3
    """

    images = 2
    titles = ("normal view", "view")
    looks_like = "the normal view"
    parts = ("normal", "zoomed")

    def __init__(self, factor: int = 4) -> None:
        if factor not in (2, 4, 8):
            raise WICArgumentError(f"Expected a factor of 2, 4 or 8; got {factor!r}.")
        self.factor = factor
        self.name = f"zoom-x{factor}"
        self.preset = f"{self.name}-naive-small"

    @property
    def sources(self) -> int:
        """One photograph has both views in it."""
        return 1

    def source_side(self, side: int) -> int:
        """The photograph is as much larger as the view is zoomed."""
        return self.factor * side

    def compose(self, *sources: Tensor) -> tuple[Tensor, ...]:
        """A photograph reduced, and its middle."""
        height, width = (side // self.factor * self.factor for side in sources[0].shape[2:])
        return composing.views(sources[0][..., :height, :width], self.factor)


class Layers(Packing):
    """A composition that gives itself, its background and its foreground back.

    What a user gives are the background and a foreground with transparency; the composition is
    made of them. The foreground comes back on black, times its opacity.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 4.4
    """

    name = "layers"
    images = 3
    preset = "layers-naive-small"
    titles = ("composition", "layer")
    looks_like = "the composition"
    parts = ("background", "foreground")
    foreground = 1

    @property
    def image_names(self) -> tuple[str, ...]:
        """What the images are called that go in; the first is made of the others."""
        return ("composition", *self.parts)

    @property
    def sources(self) -> int:
        """Background and foreground."""
        return 2

    def compose(self, *sources: Tensor) -> tuple[Tensor, ...]:
        """One photograph in front of another, by a soft matte."""
        return composing.layers(*sources)

    def prepare(self, *images: Tensor, fit: bool = False) -> list[Tensor]:
        """The composition, the background and the foreground on black.

        Args:
            *images: The background (3, H, W) and the foreground (4, H, W), its opacity last, in
                uint8.
            fit: See :meth:`Task.prepare`.

        Raises:
            WICArgumentError: If there is another number, or the foreground has no transparency.
            WICShapeError: If their sizes differ.
        """
        background, foreground = super().prepare(*images)
        if len(foreground) != 4:
            raise WICArgumentError(
                "Expected a foreground with transparency (RGBA), which says where the background "
                "is seen; got one without."
            )
        alpha = foreground[3:].float() / 255
        shown = (foreground[:3] * alpha).round()
        composition = (shown + background * (1 - alpha)).round().clamp(0, 255)
        return [composition.to(torch.uint8), background, shown.to(torch.uint8)]


class Clip(Packing):
    """The middle frame of a clip, that gives all of its frames back.

    Fewer frames are completed by the last one again, which then does not come back.

    Args:
        frames: How many, 2 to 9.
        scale: 1, or 2 for a picture of half the size.

    Raises:
        WICArgumentError: If an argument is another number.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 4.1. There the picture of half the size is reduced by bilinear interpolation, here
        | (antialiased) bicubic, as in rescaling.
    """

    titles = ("middle frame", "frame")
    looks_like = "the middle frame"
    fewer_will_do = True

    def __init__(self, frames: int = 5, scale: int = 1) -> None:
        if not 2 <= frames <= 9:
            raise WICArgumentError(f"Expected 2 to 9 frames; got {frames!r}.")
        if scale not in (1, 2):
            raise WICArgumentError(f"Expected scale 1 or 2 (half the size); got {scale!r}.")
        self.images = frames
        self.scale = scale
        self.name = f"clip-{frames}" + (f"-x{scale}" if scale > 1 else "")
        self.preset = f"{self.name}-naive-tiny"
        self.parts = tuple(f"frame {index}" for index in range(1, frames + 1))

    @property
    def sources(self) -> int:
        """The camera moves over one photograph."""
        return 1

    @property
    def _margin(self) -> int:
        return 2 * round(composing.PAN) * self.images

    def source_side(self, side: int) -> int:
        """The camera moves over more than a frame shows."""
        return side + self._margin

    def compose(self, *sources: Tensor) -> tuple[Tensor, ...]:
        """The frames of a camera pan."""
        return composing.pan(sources[0], self.images, self._margin)

    def _order(self) -> list[int]:
        """Which frame stands where in the channels: the middle one first."""
        middle = self.images // 2
        return [middle, *(index for index in range(self.images) if index != middle)]

    def pack(self, *images: Tensor) -> Tensor:
        """Returns the network's input of frames in the order of time."""
        return torch.cat([images[index] for index in self._order()], dim=1)

    def unpack(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the frames of a packed tensor in the order of time."""
        frames = dict(zip(self._order(), x.split(3, dim=1), strict=True))
        return tuple(frames[index] for index in range(self.images))

    def prepare(self, *images: Tensor, fit: bool = False) -> list[Tensor]:
        """The frames, completed by the last one.

        Args:
            *images: Pixels (3, H, W), uint8; as many as the clip has frames, or fewer.
            fit: See :meth:`Task.prepare`.

        Raises:
            WICArgumentError: If there is none, or there are more.
            WICShapeError: If their sizes differ.
        """
        missing = max(self.images - len(images), 0) if images else 0
        return super().prepare(*images, *images[-1:] * missing)
