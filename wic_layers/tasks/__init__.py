"""What the networks are for, and their use on images and files."""

from wic_layers.tasks.base import Task
from wic_layers.tasks.files import Written, down_file, hide_file, reveal_file, up_file
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.memory import down, hide, reveal, up
from wic_layers.tasks.rescaling import Rescaling

__all__ = [
    "TASKS",
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

TASKS: dict[str, Task] = {task.name: task for task in (Hiding(), Rescaling())}
