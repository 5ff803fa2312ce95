"""What the networks are for, and their use on images and files."""

from wic_layers.tasks.base import Task
from wic_layers.tasks.decolorization import Decolorization
from wic_layers.tasks.files import (
    Written,
    color_file,
    down_file,
    gray_file,
    hide_file,
    reveal_file,
    up_file,
)
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.memory import (
    COLORING,
    HIDING,
    RESCALING,
    color,
    down,
    gray,
    hide,
    reveal,
    up,
)
from wic_layers.tasks.packed import (
    PACKING,
    pack,
    pack_clip,
    pack_file,
    unpack,
    unpack_file,
)
from wic_layers.tasks.packing import Clip, Layers, Packing, Stereo, Zoom
from wic_layers.tasks.rescaling import Rescaling

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

TASKS: dict[str, Task] = {task.name: task for task in (*HIDING, *RESCALING, *COLORING, *PACKING)}
"""Every task by its name."""
