r"""IICNet with its channel squeeze and with a WIC in its place, task by task, at equal budgets.

    python benchmarks/iicnet.py run --photos PHOTOS --eval EVAL --hours 1
    python benchmarks/iicnet.py report

``run`` trains the small preset of every task as published and with a WIC (which starts as the
channel squeeze), adds a line for each to ``results/iicnet.jsonl``, and keeps the weights in
``--weights``; it leaves out what is there already, so that it can be stopped and started again.
EVAL holds Set14. ``report`` writes ``results/iicnet.md`` and ``.csv``.

Equal in all rows of a task: couplings and relation module and, by seed, their start; photographs,
crops, batches, steps, rates; the losses of IICNet's authors with their weights (that of the
frequencies by ``--frequency``: 0.001 times the pixels of a crop are 2.3 here and 20.7 at their
crops of 144), to which a row with a WIC adds its own two, or L_det alone. Clips, pairs, views and
layers are made of photographs, see ``wic_layers/tasks/composing.py``; "motorcycle" is
scikit-image's stereo pair, from a camera. Pictures are rounded to 8 bits; PSNR is in dB, RGB, the
mean over pictures.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
import trials
from PIL import Image
from torch import Tensor

from wic_layers.models import NETWORKS, PRESETS
from wic_layers.pictures import find_images, read_image
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Judgement, Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("iicnet")
KINDS = (
    "iicnet-stereo", "iicnet-clip-3", "iicnet-zoom-x4", "iicnet-layers", "iicnet-clip-3-x2",
    "iicnet-hiding-1", "iicnet-decolorization", "iicnet-x2", "iicnet-clip-5", "iicnet-zoom-x2",
    "iicnet-zoom-x8",
)  # fmt: skip
ROWS = {
    "channel squeeze": "-squeeze-small",
    "WIC": "-small",
    "WIC without L_shift": "-small",
}
SETS = ("Set14", "held out", "motorcycle")
BATCH, CROP, SIDE = 2, 48, 192
FREQUENCY = 0.001 * CROP**2


def packed(task: Task, photographs: list[Tensor]) -> list[Tensor]:
    """A sample of the middle of every photograph (and those that follow it), always the same."""
    found = []
    for index in range(len(photographs)):
        several = [photographs[(index + k) % len(photographs)] for k in range(task.sources)]
        least = min(min(image.shape[1:]) for image in several)
        sides = range(task.multiple, SIDE + 1, task.multiple)
        side = task.source_side(max(s for s in sides if task.source_side(s) <= least))
        sources = []
        for image in several:
            top, left = ((n - side) // 2 for n in image.shape[1:])
            sources.append(image[None, :, top : top + side, left : left + side].float() / 255)
        torch.manual_seed(index)
        found.append(task.pack(*task.compose(*sources)))
    return found


def judging_sets(task: Task, folder: Path, held_out: Tensor) -> dict[str, list[Tensor]]:
    sets = {
        "Set14": packed(task, [read_image(path) for path in find_images(folder / "Set14")]),
        "held out": list(held_out.split(1)),
    }
    if task.name == "stereo":
        data = os.path.join(os.path.dirname(skimage.__file__), "data")
        pair = []
        for view in ("left", "right"):
            with Image.open(f"{data}/motorcycle_{view}.png") as image:
                pixels = np.asarray(image.convert("RGB"))[:, :740]
            pair.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255)
        sets["motorcycle"] = [task.pack(*pair)]
    return sets


def rows(args: argparse.Namespace) -> Iterator[trials.Row]:
    for seed in range(args.seeds):
        for kind in args.networks:
            for closed in ROWS:
                yield {
                    "network": kind, "closed by": closed, "frequency": args.frequency,
                    "steps": args.steps, "seed": seed,
                }  # fmt: skip


def outcome(model: Any, task: Task, x: Tensor) -> dict[str, float]:
    judgement = Judgement(model, task, x)
    return {"forward": judgement.psnr_forward, "back": judgement.psnr_back}


def run(args: argparse.Namespace) -> None:
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    task, images, sets = None, None, {}
    for row in TRIALS.missing(rows(args), args.hours):
        kind, seed, closed = row["network"], row["seed"], row["closed by"]
        if task is not TASKS[PRESETS[kind].task]:
            task = TASKS[PRESETS[kind].task]
            images = Photographs(chosen, levels=3, smallest=task.source_side(CROP + 16))
            least = task.source_side(task.multiple)
            middles = pack_middles(task, Photographs(held_out_paths, smallest=least))
            sets = judging_sets(task, args.eval, middles)
        preset = f"{kind}{ROWS[closed]}"
        recipe = {**PRESETS[preset].recipe, "frequency": row["frequency"]}
        if closed == "WIC without L_shift":  # which draws the groups of channels together
            recipe["weights"] = (*recipe["weights"][:3], 0.0)
        settings = Settings(
            steps=row["steps"], batch=BATCH, crop=CROP, seed=seed, warmup=50, bf16=True, **recipe
        )
        torch.manual_seed(seed)  # all but the last layer, which draws nothing, is alike
        model = NETWORKS["IICNet"].from_preset(preset)
        result = trials.fit(trials.Training(model, task, images, settings))
        card = {"data": f"{len(chosen)} photographs", "steps": f"{args.steps}"}
        folder = args.weights / f"{kind}-{closed}-{seed}".replace(" ", "-")
        model.save_pretrained(folder, card)
        TRIALS.add(row, {**result, **trials.means(partial(outcome, model, task), sets)})


def report() -> None:
    """Writes a row for every task and steps: means over seeds, squeeze beside WIC."""
    lines, table = TRIALS.read(), []
    columns = [f"{title} {what}" for title in SETS for what in ("forward", "back")]
    heads = [f"{title}: {what}" for title in SETS for what in ("picture", "what comes back")]
    table.append(f"| | closed by | frequencies | steps | seeds | {' | '.join(heads)} |")
    table.append("|---" * (5 + len(heads)) + "|")
    for kind in KINDS:
        of_kind = [line for line in lines if line["network"] == kind]
        for plan in sorted({(line["frequency"], line["steps"]) for line in of_kind}):
            for closed in ROWS:
                rows = [
                    line for line in of_kind
                    if (line["frequency"], line["steps"], line["closed by"]) == (*plan, closed)
                ]  # fmt: skip
                if not rows:
                    continue
                cells = [kind.removeprefix("iicnet-"), closed, f"{plan[0]:.1f}", f"{plan[1]}"]
                cells.append(f"{len(rows)}")
                for column in columns:
                    values = [row[column] for row in rows if column in row]
                    cells.append(f"{statistics.mean(values):.2f}" if values else "")
                table.append(f"| {' | '.join(cells)} |")
    TRIALS.write(table, lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--networks", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--frequency", type=float, default=FREQUENCY)
    parser.add_argument("--weights", type=Path, default=Path("runs/iicnet"))


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report)
