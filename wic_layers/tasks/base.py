"""What a task is: how its images become one tensor, and what the result should look like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

__all__ = ["Task"]


class Task(ABC):
    """One way to use a network that turns images into a smaller one and back.

    Attributes:
        name: Its name in presets, files and on the command line.
        images: How many RGB images go in.
        scale: How many times smaller the result's sides are.
        forward_criterion: ``"l2"`` or ``"l1"``, the paper's distance for the forward picture.
        preset: The preset that is used where none is named; its weights come with the package.
        commands: The commands that run it forward and back.
    """

    name: ClassVar[str]
    images: ClassVar[int]
    scale: ClassVar[int]
    forward_criterion: ClassVar[str]
    preset: ClassVar[str]
    commands: ClassVar[tuple[str, str]]

    def pack(self, *images: Tensor) -> Tensor:
        """Returns the network's input (B, C, H, W) from images (B, 3, H, W) in [0, 1]."""
        return torch.cat(images, dim=1)

    def unpack(self, x: Tensor) -> tuple[Tensor, ...]:
        """Returns the task's images from what the network gave back."""
        return x.split(3, dim=1)

    @abstractmethod
    def reference(self, x: Tensor) -> Tensor:
        """Returns what the forward picture of the packed input should look like."""
