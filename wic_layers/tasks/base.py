"""Task: what a network is for, its images, what the result looks like, how it is doubted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.pictures import pad_to

__all__ = ["Task", "details"]


class Task(ABC):
    """One way to use a network that turns images into a smaller one and back.

    Attributes:
        name: Its name in presets and files, such as ``"rescaling-x2"``.
        images: How many RGB images go in.
        out_channels: Channels of the result: 3 for RGB, 1 for grey.
        scale: How many times smaller the result's sides are.
        forward_criterion: ``"l2"`` or ``"l1"``, the paper's distance for the forward picture.
        preset: The preset that is used where none is named; the package holds its weights, but for
            rescaling by 3.
        commands: The commands that run it forward and back.
        picture_name: What the forward picture is called, in files of other formats too.
        titles: What the forward picture and each image that comes back are called.
        fewer_will_do: Whether a user may have fewer images; as many then come back.
        has_opacity: Whether :meth:`prepare` takes images with transparency, (4, H, W), if only to
            refuse them.
        foreground: The one whose transparency counts, by its place, or None.
        has_companions: Whether what goes with its photograph, opacity and metadata, travels beside
            the forward picture's pixels in a file.
        keeps_grey: Whether a grey photograph is its own forward picture in a file, and comes back
            exactly.
        looks_like: What the forward picture should look like.
        is_composed: Whether a sample's images are made of photographs (:meth:`compose`); else they
            are photographs that have nothing to do with each other.
    """

    name: str
    images: int = 1
    out_channels: int = 3
    scale: int = 1
    preset: str
    forward_criterion: ClassVar[str]
    commands: ClassVar[tuple[str, str]]
    picture_name: ClassVar[str]
    titles: ClassVar[tuple[str, str]]
    looks_like: ClassVar[str]
    fewer_will_do: ClassVar[bool] = False
    has_opacity: ClassVar[bool] = False
    has_companions: ClassVar[bool] = False
    keeps_grey: ClassVar[bool] = False
    foreground: ClassVar[int | None] = None
    is_composed: ClassVar[bool] = False

    @property
    def image_names(self) -> tuple[str, ...]:
        """What the images are called that go in."""
        return ("photo",)

    @cached_property
    def multiple(self) -> int:
        """What both sides of the input must be divisible by: every network squeezes once."""
        return max(self.scale, 2)

    def padded(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the (width, height) to which images of a size are padded for the network."""
        width, height = (-(-side // self.multiple) * self.multiple for side in size)
        return width, height

    @cached_property
    def channels(self) -> tuple[int, int, int]:
        """Input channels, output channels and scale of a network for this task."""
        return 3 * self.images, self.out_channels, self.scale

    @cached_property
    def restored_count(self) -> int:
        """How many images come back: what was converted, or the secrets without their cover."""
        return max(self.images - 1, 1)

    @property
    def sources(self) -> int:
        """How many photographs a sample is made of."""
        return self.images

    def source_side(self, side: int) -> int:
        """Returns the side of the photographs of which images of ``side`` are made."""
        return side

    def compose(self, *sources: Tensor) -> tuple[Tensor, ...]:
        """Returns the images of a sample, in their order, for training and judging.

        Args:
            *sources: As many photographs (B, 3, H, W) in [0, 1] as :attr:`sources` says.

        Returns:
            Images of 8 bits (B, 3, h, w); what is left to chance is drawn from torch's own
            generator.
        """
        return sources

    def prepare(self, *images: Tensor, fit: bool = False) -> list[Tensor]:
        """Returns the images that go into the network of those that a user has.

        Args:
            *images: Pixels (3, H, W), uint8.
            fit: Reduce those that are too large, where a task has such.

        Raises:
            WICArgumentError: If there are too few or too many.
            WICShapeError: If their sizes do not fit each other.
        """
        if len(images) != self.images:
            raise WICArgumentError(
                f"Expected {self.images} image{'s' * (self.images > 1)} for {self.name}; got "
                f"{len(images)}."
            )
        return list(images)

    def title_of(self, index: int) -> str:
        """Returns what one of the images that go in is called in errors."""
        return "photo"

    @property
    def picture_title(self) -> str:
        """What the forward picture is called in errors."""
        return self.titles[0]

    def pack(self, *images: Tensor) -> Tensor:
        """Returns the network's input (B, C, H, W) from images (B, 3, H, W) in [0, 1]."""
        return torch.cat(images, dim=1)

    def packed(self, *images: Tensor) -> Tensor:
        """Returns the network's input (C, H, W), uint8, on the CPU, from images of 8 bits.

        They are padded to the first one's size and to what the network halves.

        Args:
            *images: Pixels (3, h, w) on any device; none larger than the first one.
        """
        size = self.padded((images[0].shape[2], images[0].shape[1]))
        return self.pack(*[pad_to(image.cpu(), size)[None] for image in images])[0]

    def unpack(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the images (B, 3, H, W) that a packed tensor holds."""
        return x.split(3, dim=1)

    def restored(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns those images of a packed tensor that the task is there to bring back."""
        return self.unpack(x)[-self.restored_count :]

    @abstractmethod
    def reference(self, x: Tensor) -> Tensor:
        """Returns what the forward picture of the packed input should look like."""

    def doubt(self, picture: Tensor, images: Sequence[Tensor]) -> str | None:
        """Returns a sentence if a picture looks as if it did not come from this task, else None.

        A hint, not a proof: its thresholds were measured on photographs with the weights in the
        package.

        Args:
            picture: What was run backwards, uint8 (out_channels, H, W).
            images: What came back from it, each uint8 (3, h, w).
        """
        return None


def details(image: Tensor) -> Tensor:
    """Returns the Laplacian of an image (C, H, W): (C, H - 2, W - 2)."""
    inner = 4 * image[:, 1:-1, 1:-1]
    across = image[:, 1:-1, :-2] + image[:, 1:-1, 2:]
    return inner - image[:, :-2, 1:-1] - image[:, 2:, 1:-1] - across
