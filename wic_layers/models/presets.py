"""Networks by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from wic_layers.errors import WICArgumentError

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True)
class Preset:
    """A network for a task.

    Attributes:
        task: Name of the task in :mod:`wic_layers.tasks`.
        network: Class name of the network.
        arguments: Arguments of its constructor.
    """

    task: str
    network: str
    arguments: Mapping[str, Any]


_HIDING: dict[str, Any] = {"in_channels": 6, "out_channels": 3, "scale": 1}
_RESCALING: dict[str, Any] = {"in_channels": 3, "out_channels": 3, "scale": 2}
_SMALL: dict[str, Any] = {"split": 0.8, "couplings": 1, "completion": "zero"}

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        # the paper's sizes
        "hiding-1": Preset("hiding", "WIN", {**_HIDING, "width": 32}),
        "hiding-1-naive": Preset("hiding", "WINNaive", {**_HIDING}),
        "rescaling-x2": Preset("rescaling", "WIN", {**_RESCALING, "width": 32}),
        "rescaling-x2-naive": Preset("rescaling", "WINNaive", {**_RESCALING}),
        # small enough to train on a CPU; weights of the naive ones are in the package
        "hiding-1-small": Preset(
            "hiding", "WIN", {**_HIDING, "width": 30, "growth": 20, **_SMALL}
        ),
        "rescaling-x2-small": Preset(
            "rescaling",
            "WIN",
            {
                **_RESCALING,
                "width": 20,
                "split": 0.8,
                "modules": 1,
                "couplings": 6,
                "growth": 13,
                "completion": "zero",
            },
        ),
        "hiding-1-naive-small": Preset(
            "hiding", "WINNaive", {**_HIDING, "couplings": 4, "growth": 16, "completion": "zero"}
        ),
        "rescaling-x2-naive-small": Preset(
            "rescaling",
            "WINNaive",
            {**_RESCALING, "couplings": 6, "growth": 16, "completion": "zero"},
        ),
    }
)


def find_preset(name: str) -> Preset:
    """Returns the preset of that name.

    Raises:
        WICArgumentError: If there is none; the message names the closest ones.
    """
    if name not in PRESETS:
        close = difflib.get_close_matches(name, PRESETS, n=3) or sorted(PRESETS)
        raise WICArgumentError(
            f"Expected the name of a preset, such as {', '.join(close)}; got {name!r}."
        )
    return PRESETS[name]
