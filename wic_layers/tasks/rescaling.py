"""An image at half its size and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from wic_layers.tasks.base import Task

__all__ = ["Rescaling"]


class Rescaling(Task):
    """An image that looks like its bicubic reduction and gives the original back."""

    name = "rescaling"
    images = 1
    scale = 2
    forward_criterion = "l2"
    preset = "rescaling-x2-naive-small"
    commands = ("wic down", "wic up")

    def reference(self, x: Tensor) -> Tensor:
        """The antialiased bicubic reduction (a = -0.5, as Pillow's BICUBIC)."""
        size = (x.shape[-2] // self.scale, x.shape[-1] // self.scale)
        return F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 1)
