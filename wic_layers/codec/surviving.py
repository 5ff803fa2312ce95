"""Which weights were trained for files with loss: ``trained_through``, ``who_can``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from wic_layers.codec.attacks import attacks
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import PRESETS, packaged_weights
from wic_layers.models.weights import describe
from wic_layers.tasks.base import Task

__all__ = ["preset_through", "trained_through", "who_can"]

JPEG, WEBP = "jpeg", "webp"


def trained_through(model: str | Path | nn.Module) -> bool:
    """Whether weights were trained for files with loss, JPEG or WebP; without loading them.

    Raises:
        WICArgumentError: If there are no such weights.
        WICFileError: If what they say of themselves cannot be read, or is no such thing.
    """
    if isinstance(model, nn.Module):
        texts = getattr(model, "through", ())
    else:
        texts = describe(model)[0].get("through", [])
    try:
        return any(attack.has(JPEG) or attack.has(WEBP) for attack in attacks(texts))
    except WICArgumentError as error:
        raise WICFileError(f"{model} was trained for what is not known here: {error}") from error


def preset_through(tasks: Sequence[Task]) -> str | None:
    """Returns the preset whose weights come with the package and were trained for such files."""
    there = packaged_weights()
    for task in tasks:
        for name in _presets(task):
            if name in there and trained_through(name):
                return name
    return None


def _presets(task: Task) -> list[str]:
    """The presets of a task that are trained through something; small ones first."""
    names = [
        name
        for name, preset in PRESETS.items()
        if preset.task == task.name and preset.recipe.get("through")
    ]
    return sorted(names, key=lambda name: not name.endswith("-small"))


def who_can(tasks: Sequence[Task]) -> str:
    """Returns a sentence on the weights that can bring something back from a file with loss."""
    name = preset_through(tasks)
    if name is not None:
        return f"Weights that were trained for it can, such as --preset {name}."
    for task in tasks:
        for name in _presets(task):
            return f"Weights that were trained for it can, as `wic train {name}` makes them."
    return "Weights that were trained for it can: `wic train PRESET --through jpeg:75-95`."
