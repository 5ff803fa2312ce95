"""One image hidden in another."""

from __future__ import annotations

from torch import Tensor

from wic_layers.tasks.base import Task

__all__ = ["Hiding"]


class Hiding(Task):
    """A secret inside a cover: the stego image looks like the cover and gives the secret back."""

    name = "hiding"
    images = 2
    scale = 1
    forward_criterion = "l1"
    preset = "hiding-1-naive-small"
    commands = ("wic hide", "wic reveal")

    def reference(self, x: Tensor) -> Tensor:
        """The cover."""
        return x[:, :3]
