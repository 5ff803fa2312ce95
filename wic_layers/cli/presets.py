"""``wic presets``: the one table of networks; ``check_usable``: whether one has weights to use."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wic_layers.cli.command import Command, print_line
from wic_layers.errors import WICArgumentError
from wic_layers.models import PRESETS, packaged_weights
from wic_layers.models.packaged import CONFIG, TENSORS, described_weights
from wic_layers.models.presets import Preset, find_preset
from wic_layers.tasks import TASKS

__all__ = ["PRESETS_COMMAND", "check_usable"]

_WHERE = re.compile(r" \(RGB, through 8-bit PNG files\)")


def check_usable(name: str, tasks: Sequence[str]) -> None:
    """Checks that a preset has weights.

    Args:
        name: What was asked for.
        tasks: The tasks that it may be for, which the message has presets for.

    Raises:
        WICArgumentError: If there is no such preset, or it has none.
    """
    there = packaged_weights()
    if name in described_weights():  # here, or on the hub
        return
    usable = [each for each in there if PRESETS[each].task in tasks]
    instead = f"With weights for that there are {', '.join(usable)} (see `wic presets`)"
    if Path(name).is_dir():
        raise WICArgumentError(f"Expected a preset; {name} is a folder: say --weights {name}.")
    if name not in PRESETS:
        try:
            find_preset(name)
        except WICArgumentError as error:
            raise WICArgumentError(f"{error} {instead}.") from None
    raise WICArgumentError(
        f"There are no weights for the preset {name!r} here. {instead}; with some of your own, as "
        f"`wic train {name}` makes them, say --weights FOLDER."
    )


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words", metavar="WORD", nargs="*",
        help="show only those with it in their names, tasks or purposes, such as rescaling",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="print a line of JSON for each")


def _run(args: argparse.Namespace) -> int:
    there = packaged_weights()
    rows = [_facts(name, PRESETS[name], there.get(name)) for name in PRESETS]
    for word in args.words:
        plain = word.lower().replace("_", "-")
        keys = ("preset", "for", "task", "network", "what")
        rows = [row for row in rows if any(plain in str(row[key]).lower() for key in keys)]
    if not rows:
        raise WICArgumentError(
            f"Expected words of the table that `wic presets` prints; no row has "
            f"{' and '.join(args.words)}."
        )
    rows.sort(key=lambda row: not row["MB"])  # those that can be used at once come first
    if args.json:
        print_line(*(json.dumps(row) for row in rows))
        return 0
    cells = [list(rows[0])]
    cells += [["" if value is None else str(value) for value in row.values()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]
    print_line(
        *lines,
        "",
        "MB: the size of weights that are here; without, wic train PRESET makes some.",
        "PSNR: of weights that are here, in RGB, through 8-bit PNG files.",
        "Endings of these names make others to train: -small, -tiny, and of other papers -z,",
        "-squeeze (as published).",
    )
    return 0


def _facts(name: str, preset: Preset, folder: Path | None) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "preset": name, "for": TASKS[preset.task].commands[0], "task": preset.task,
        "network": preset.network, "what": preset.purpose, "MB": None, "PSNR": None,
    }  # fmt: skip
    if folder is not None:
        config: Mapping[str, Any] = json.loads((folder / CONFIG).read_bytes())
        facts["MB"] = round((folder / TENSORS).stat().st_size / 1e6, 1)
        facts["PSNR"] = _WHERE.sub("", config["card"].get("PSNR", "")) or None
    return facts


PRESETS_COMMAND = Command(
    "presets",
    "List the networks: what for, weights, size, PSNR",
    _add_arguments,
    _run,
    "Those that come with weights stand first; others are there to be trained.",
)
