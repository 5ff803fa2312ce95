"""What the networks are for, and their use on images and files."""

from wic_layers.tasks.base import Task
from wic_layers.tasks.decolorization import Decolorization
from wic_layers.tasks.files import Written, down_file, hide_file, reveal_file, up_file
from wic_layers.tasks.hiding import MOST_SECRETS, Hiding
from wic_layers.tasks.memory import down, hide, reveal, up
from wic_layers.tasks.rescaling import SCALES, Rescaling

__all__ = [
    "TASKS",
    "Decolorization",
    "Hiding",
    "Rescaling",
    "Task",
    "Written",
    "down",
    "down_file",
    "hide",
    "hide_file",
    "reveal",
    "reveal_file",
    "up",
    "up_file",
]

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        *(Hiding(secrets) for secrets in range(1, MOST_SECRETS + 1)),
        *(Rescaling(scale) for scale in SCALES),
        Decolorization(),
    )
}
"""Every task by its name."""
