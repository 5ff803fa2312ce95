"""An image at half or a quarter of its size and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.tasks.base import Task, details

__all__ = ["SCALES", "Rescaling"]

SCALES = (2, 4)
_SHARPER = 1.5  # details over bicubic's: from 1.6 where they come back, most often less elsewhere


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

    def doubt(self, picture: Tensor, images: Sequence[Tensor]) -> str | None:
        """Whether what came back has no more details than an interpolation of the picture."""
        (image,) = images
        side = 512 // self.scale
        top, left = (max(length - side, 0) // 4 * 2 for length in picture.shape[1:])
        part = picture[:, top : top + side, left : left + side].float()
        enlarged = F.interpolate(part[None], scale_factor=self.scale, mode="bicubic")[0]
        rows, columns = (
            slice(self.scale * start, self.scale * (start + side)) for start in (top, left)
        )
        seen, found = details(enlarged), details(image[:, rows, columns])
        if seen is None or found is None:
            return None
        if float(found.abs().mean()) > _SHARPER * float(seen.abs().mean()):
            return None
        return (
            "What came back has hardly more details than the small picture, as it does where "
            "`wic down` did not make it, or where JPEG or an edit destroyed what it held."
        )
