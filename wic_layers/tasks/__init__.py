"""Task and its classes, what networks are for; and their use on images and files.

The functions (``hide`` to ``unpack_file``) come from :mod:`wic_layers.codec.verbs` and
:mod:`wic_layers.codec.file_verbs` when they are asked for, so that a task can be defined without a
network.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from wic_layers.tasks.base import Task
from wic_layers.tasks.decolorization import Decolorization
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.packing import Clip, Layers, Packing, Stereo, Zoom
from wic_layers.tasks.registry import COLORING, HIDING, PACKING, RESCALING, TASKS
from wic_layers.tasks.rescaling import Rescaling

if TYPE_CHECKING:
    from wic_layers.codec import Written
    from wic_layers.codec.file_verbs import (
        color_file,
        down_file,
        gray_file,
        hide_file,
        pack_clip,
        pack_file,
        reveal_file,
        unpack_file,
        up_file,
    )
    from wic_layers.codec.verbs import color, down, gray, hide, pack, reveal, unpack, up

__all__ = [
    "COLORING",
    "HIDING",
    "PACKING",
    "RESCALING",
    "TASKS",
    "Clip",
    "Decolorization",
    "Hiding",
    "Layers",
    "Packing",
    "Rescaling",
    "Stereo",
    "Task",
    "Written",
    "Zoom",
    "color",
    "color_file",
    "down",
    "down_file",
    "gray",
    "gray_file",
    "hide",
    "hide_file",
    "pack",
    "pack_clip",
    "pack_file",
    "reveal",
    "reveal_file",
    "unpack",
    "unpack_file",
    "up",
    "up_file",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wic_layers.codec import file_verbs, verbs

    return getattr(verbs if name in verbs.__all__ else file_verbs, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
