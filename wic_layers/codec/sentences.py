"""What is said where an image cannot be taken as it is, with the line that takes it."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import torch
from torch import nn

from wic_layers.codec.mark import Sizes
from wic_layers.codec.running import check_size, load_network
from wic_layers.errors import WICError
from wic_layers.models import PRESETS
from wic_layers.tasks.base import Task

__all__ = ["how_to_read", "refuse_paths"]


def how_to_read(
    path: str | Path,
    size: tuple[int, int],
    tasks: Sequence[Task],
    model: str | Path | nn.Module | None,
    sizes: Sizes | None,
) -> str:
    """Returns what to say of a file without a mark: the command that reads it, if it can be read.

    Args:
        path: The file.
        size: Its (width, height).
        tasks: What it may be of.
        model: The network that was asked for; None if none was.
        sizes: The sizes that were asked for; None if none were.
    """
    task = _guess(size, tasks, model, sizes)
    forward, backward = task.commands
    name = getattr(model, "preset", None) if isinstance(model, nn.Module) else model
    is_preset = name is None or str(name) in PRESETS
    network = f"--preset {name or task.preset}" if is_preset else f"--weights {name}"
    width, height = (side * task.scale for side in size)
    each = sizes or [(width, height)] * task.restored_count
    flags = " ".join(f"--size {wide}x{high}" for wide, high in each)
    return (
        f"{path} does not say that `{forward}` made it, so nothing can be brought back; if it "
        f"did, and its chunk was left out or lost, say so: `{backward} {shlex.quote(str(path))} "
        f"-o OUT.png {network} {flags}`, with the size of what comes back, which is that or less."
    )


def _guess(
    size: tuple[int, int],
    tasks: Sequence[Task],
    model: str | Path | nn.Module | None,
    sizes: Sizes | None,
) -> Task:
    """The task that an unmarked picture may be of: by the model, else by the sizes."""
    if model is not None:
        return load_network(tasks, model)[0]
    stored = torch.empty(1, size[1], size[0], device="meta")
    for task in tasks if sizes else ():
        with suppress(WICError):
            check_size(task, stored, sizes or (), "")
            return task
    return tasks[0]


def refuse_paths(images: Sequence[object], command: str) -> None:
    """Says what files have where a path was passed for an image.

    Args:
        images: What was passed.
        command: The command that does the same to files, such as ``"wic down"``.

    Raises:
        TypeError: If one of them is a path.
    """
    for image in images:
        if isinstance(image, (str, os.PathLike)):
            verb = command.split()[1]
            raise TypeError(
                f"Expected a PIL image, a NumPy array or a torch tensor; got the path "
                f"{str(image)!r}. Files have tasks.{verb}_file, and methods of Codec that end in "
                f"_file or _files."
            )
