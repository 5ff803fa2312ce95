"""An image at half or a quarter of its size and back."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.tasks.base import Task

__all__ = ["SCALES", "Rescaling"]

SCALES = (2, 4)


class Rescaling(Task):
    """An image that looks like its bicubic reduction and gives the original back.

    Args:
        scale: How many times smaller it is, 2 or 4.

    Raises:
        WICArgumentError: If ``scale`` is another number.
    """

    forward_criterion = "l2"
    commands = ("wic down", "wic up")

    def __init__(self, scale: int = 2) -> None:
        if scale not in SCALES:
            raise WICArgumentError(f"Expected a scale of 2 or 4; got {scale!r}.")
        self.name = f"rescaling-x{scale}"
        self.scale = scale
        self.preset = "rescaling-x2-naive-small" if scale == 2 else "rescaling-x4-plain-naive-tiny"

    def reference(self, x: Tensor) -> Tensor:
        """The antialiased bicubic reduction (a = -0.5, as Pillow's BICUBIC)."""
        size = (x.shape[-2] // self.scale, x.shape[-1] // self.scale)
        return F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 1)
