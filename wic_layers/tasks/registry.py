"""Every task: :data:`TASKS` by name, and :data:`HIDING` to :data:`PACKING` by kind."""

from __future__ import annotations

from wic_layers.errors import WICArgumentError
from wic_layers.tasks.base import Task
from wic_layers.tasks.decolorization import Decolorization
from wic_layers.tasks.hiding import MOST_SECRETS, Hiding
from wic_layers.tasks.packing import Clip, Layers, Packing, Stereo, Zoom
from wic_layers.tasks.rescaling import SCALES, Rescaling

__all__ = ["COLORING", "HIDING", "PACKING", "RESCALING", "TASKS", "find_packing", "find_task"]

HIDING: tuple[Hiding, ...] = tuple(Hiding(secrets) for secrets in range(1, MOST_SECRETS + 1))
RESCALING: tuple[Rescaling, ...] = tuple(Rescaling(scale) for scale in SCALES)
COLORING: tuple[Decolorization, ...] = (Decolorization(),)
PACKING: tuple[Packing, ...] = (
    Stereo(),
    *(Zoom(factor) for factor in (2, 4, 8)),
    Layers(),
    *(Clip(frames) for frames in (3, 5, 7, 9)),
    *(Clip(frames, scale=2) for frames in (3, 5)),
)
TASKS: dict[str, Task] = {task.name: task for task in (*HIDING, *RESCALING, *COLORING, *PACKING)}


def find_task(task: str | Task) -> Task:
    """Returns the task of that name, or the task itself.

    Raises:
        WICArgumentError: If there is none.
    """
    if isinstance(task, Task):
        return task
    if task not in TASKS:
        raise WICArgumentError(f"Expected one of {', '.join(TASKS)}; got {task!r}.")
    return TASKS[task]


def find_packing(name: str) -> Packing:
    """Returns the packing task of that name.

    Raises:
        WICArgumentError: If there is none.
    """
    for task in PACKING:
        if task.name == name:
            return task
    names = ", ".join(task.name for task in PACKING)
    raise WICArgumentError(f"Expected one of {names}; got {name!r}.")
