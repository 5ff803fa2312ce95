"""Rescaling: an image at half, a third or a quarter of its size and back."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.tasks.base import Task, details

__all__ = ["SCALES", "Rescaling"]

SCALES = (2, 3, 4)
_PRESETS = {
    2: "rescaling-x2-naive-small",
    3: "irn-x3-small",  # no weights come with the package
    4: "rescaling-x4-plain-naive-small",
}
_TRACES = {2: 0.19, 4: 0.125}
"""Least traces of hidden details, by scale: see :meth:`Rescaling.doubt`."""


class Rescaling(Task):
    """An image that looks like its bicubic reduction and gives the original back.

    That of a grey photograph has three channels too: they differ by what brings it back, and from
    their mean it comes back 7 dB worse.

    Args:
        scale: How many times smaller it is: 2, 3 or 4.

    Raises:
        WICArgumentError: If ``scale`` is another number.
    """

    forward_criterion = "l2"
    commands = ("wic down", "wic up")
    picture_name = "small"
    titles = ("small", "restored")
    looks_like = "bicubic"
    has_companions = True

    def __init__(self, scale: int = 2) -> None:
        if scale not in SCALES:
            raise WICArgumentError(f"Expected a scale of 2, 3 or 4; got {scale!r}.")
        self.name = f"rescaling-x{scale}"
        self.scale = scale
        self.preset = _PRESETS[scale]

    def reference(self, x: Tensor) -> Tensor:
        """The antialiased bicubic reduction (a = -0.5, as Pillow's BICUBIC)."""
        size = (x.shape[-2] // self.scale, x.shape[-1] // self.scale)
        return F.interpolate(x, size=size, mode="bicubic", antialias=True).clamp(0, 1)

    def doubt(self, picture: Tensor, images: Sequence[Tensor]) -> str | None:
        """Whether the small picture shows no traces of the details that came back.

        Traces are what it has beside the reduction of what came back, judged by its roughness and
        against the details. On small crops of photographs it finds 9 in 10 that ``wic down`` did
        not make and all that went through JPEG, for no false alarm in 38
        (``benchmarks/doubts.py``).
        """
        (image,) = images
        side = 512 // self.scale
        top, left = (max(length - side, 0) // 4 * 2 for length in picture.shape[1:])
        rows, columns = (
            slice(self.scale * start, self.scale * (start + side)) for start in (top, left)
        )
        large = image[:, rows, columns].float()[None]
        height, width = (length // self.scale for length in large.shape[2:])
        if self.scale not in _TRACES or min(height, width) < 16:
            return None
        large = large[..., : height * self.scale, : width * self.scale]
        small = picture[:, top : top + height, left : left + width].float()[None]
        reduced = F.interpolate(large, size=(height, width), mode="bicubic", antialias=True)
        enlarged = F.interpolate(small, scale_factor=self.scale, mode="bicubic")
        traces, rough, sharp, smooth = (
            float(details(x[0]).abs().mean()) for x in (small - reduced, small, large, enlarged)
        )
        brought_back = float((large - enlarged).abs().mean())
        if not (rough and sharp):
            return None
        signs = traces / rough * brought_back**0.3 * (smooth / sharp) ** 0.6
        if signs > _TRACES[self.scale]:
            return None
        return (
            "The small picture has no traces of the details that came back, as where `wic down` "
            "did not make it, or where JPEG or an edit destroyed them."
        )
