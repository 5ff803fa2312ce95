"""Options, which all functions of :mod:`wic_layers.tasks` take by name; what they are made of."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias, TypedDict

import torch
from torch import nn

from wic_layers.codec.tiles import Progress

__all__ = ["Model", "Options", "PathLike"]

PathLike: TypeAlias = str | Path
Model: TypeAlias = str | Path | nn.Module | None


class Options(TypedDict, total=False):
    """What all functions of :mod:`wic_layers.tasks` take by name; see :class:`Codec`."""

    model: Model
    device: str | torch.device | None
    tile: int | None
    fast: bool
    progress: Progress | None
    max_pixels: int | None
