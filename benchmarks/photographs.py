r"""What do other photographs, and other crops of them, bring on equal steps?

    python benchmarks/photographs.py run --photos FIRST --sharp SECOND --eval EVAL --hours 2
    python benchmarks/photographs.py report

FIRST holds photographs as they come, SECOND ones that were chosen for detail; EVAL holds Set5,
Set14 and BSD100. ``run`` trains a tiny x2 network for each row that ``results/photographs.jsonl``
does not hold, each row with one change more than the one before; it can be stopped and started
again. The network is tiny, as larger ones take longer to differ by anything but their start.
Equal in all rows: the network and its start, steps, batches, losses, Muon and its rate, and
bfloat16 inside couplings.

Judged beside the sets are four photographs of each folder that no row was trained on, all of them
without colours, and crops of them with text and shapes on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trials
from completions import judging_sets
from dlv import judged
from torch import Tensor
from trials import pairs_and_mean

from wic_layers.models import NETWORKS, PRESETS
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import pack_middles, split_off
from wic_layers.training.lettering import lettered

TRIALS = trials.Trials("photographs")
PRESET, STEPS, BATCH, CROP = "rescaling-x2-naive-tiny", 1000, 8, 64
# what a row has more than the one before it
ROWS: dict[str, dict[str, Any]] = {
    "first folder, by area": {"by area": True, "both": False},
    "both folders": {"both": True},
    "by photograph": {"by area": False},
    "the more detailed of two crops": {"candidates": 2},
    "some grey": {"grey": 0.06},
    "some lettering": {"lettering": 0.06},
}
SETS = ("Set5", "Set14", "BSD100", "first", "second", "grey", "lettering")


class ByArea(Photographs):
    """Photographs of which a large one is drawn as much more often as it has more pixels."""

    def __init__(self, paths: list[Path], **arguments: Any) -> None:
        super().__init__(paths, **arguments)
        areas = np.array([pixels.shape[0] * pixels.shape[1] for pixels in self], dtype=float)
        self._upto = np.cumsum(areas / areas.sum())


def plan() -> Iterator[dict[str, Any]]:
    """The rows, all of a seed before those of the next."""
    for seed in (0, 1):
        for name in ROWS:
            yield {"row": name, "seed": seed}


def changes_of(name: str) -> dict[str, Any]:
    """What a row has, with all that the rows before it have."""
    whole: dict[str, Any] = {}
    for each, changes in ROWS.items():
        whole |= changes
        if each == name:
            break
    return whole


def sets_of(task: Task, args: argparse.Namespace, held_out: list[list[Path]]) -> Any:
    """Packed images (1, C, H, W) of every set."""
    first, second = (
        pack_middles(task, Photographs(paths, smallest=task.multiple)) for paths in held_out
    )
    both = [*first.split(1), *second.split(1)]
    sets = judging_sets(task, args.eval, first)
    del sets["held out"]
    return {
        **sets,
        "first": list(first.split(1)),
        "second": list(second.split(1)),
        "grey": [x.mean(1, keepdim=True).expand_as(x) for x in both],
        "lettering": [with_letters(x, index) for index, x in enumerate(both)],
    }


def with_letters(x: Tensor, seed: int) -> Tensor:
    pixels = (x[0] * 255).round().byte().permute(1, 2, 0).numpy()
    drawn = lettered(pixels, np.random.default_rng((7, seed)))
    return torch.from_numpy(drawn.copy()).permute(2, 0, 1)[None].float() / 255


def run(args: argparse.Namespace) -> None:
    task = TASKS[PRESETS[PRESET].task]
    parted = [split_off(find_images(folder), 4) for folder in (args.photos, args.sharp)]
    sets = sets_of(task, args, [held_out for _, held_out in parted])
    for row in TRIALS.missing(plan(), args.hours):
        changes = changes_of(row["row"])
        paths = [path for chosen, _ in parted[: 1 + changes["both"]] for path in chosen]
        kind = ByArea if changes["by area"] else Photographs
        given = {key: value for key, value in changes.items() if key not in ("both", "by area")}
        settings = Settings(
            steps=STEPS, batch=BATCH, crop=CROP, seed=row["seed"], warmup=50, **given,
            weights=(12.0, 1.0, 0.1, 1.0), learning_rate=2e-3, optimizer="muon", bf16=True,
        )  # fmt: skip
        torch.manual_seed(row["seed"])
        model = NETWORKS[PRESETS[PRESET].network].from_preset(PRESET)
        images = kind(paths, levels=3, smallest=CROP + 32)
        result = trials.fit(trials.Training(model, task, images, settings))
        with torch.no_grad():
            TRIALS.add(row, {**result, **trials.means(partial(judged, model, task), sets)})


def report() -> None:
    """Writes the table: means over seeds, and half their range."""
    lines = TRIALS.read()
    text = [
        f"| | seeds | {' | '.join(f'{name}: forward / back' for name in SETS)} "
        f"| mean of both over the sets |",
        "|---" * (3 + len(SETS)) + "|",
    ]
    for name in ROWS:
        own = [line for line in lines if line["row"] == name]
        if own:
            cells = [name, str(len(own)), *pairs_and_mean(own, SETS)]
            text.append(f"| {' | '.join(cells)} |")
    TRIALS.write(text, lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sharp", type=Path, required=True)


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report)
