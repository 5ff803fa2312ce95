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
import csv
import json
import math
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import skimage
import torch
from PIL import Image
from torch import Tensor

from wic_layers.images import find_images, read_image
from wic_layers.models import NETWORKS, PRESETS
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Guard, Objective, Photographs, Settings
from wic_layers.training.command import pack_middles, split_off
from wic_layers.training.engine import Batches, pack_crops
from wic_layers.training.upgrade import Outcome

RESULTS = Path(__file__).parent / "results"
LINES = RESULTS / "iicnet.jsonl"
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


def fit(model: Any, task: Task, images: Photographs, preset: str, row: dict[str, Any]) -> float:
    """Trains a network in place; returns the seconds of processor time that a step took."""
    steps, seed = row["steps"], row["seed"]
    recipe = {**PRESETS[preset].recipe, "frequency": row["frequency"]}
    settings = Settings(steps=steps, batch=BATCH, crop=CROP, seed=seed, warmup=50, **recipe)
    weights = settings.weights
    if row["closed by"] == "WIC without L_shift":  # which draws the groups of channels together
        weights = (*weights[:3], 0.0)
    objective = Objective(
        task, weights, forward=settings.forward, reverse=settings.reverse,  # type: ignore[arg-type]
        rounding=settings.rounding, frequency=settings.frequency,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, fused=True)
    guard = Guard(model.train(), optimizer, every=100)
    batches = Batches(images, task, settings, 0, 1)
    began = time.process_time()
    while guard.steps < steps:
        step = guard.steps
        optimizer.param_groups[0]["lr"] = settings.rate(step)
        torch.manual_seed(seed * 1_000_003 + step)  # of what is composed, and of the noise
        x, reference = pack_crops(batches[step], task)
        with torch.autocast("cpu", torch.bfloat16):
            guard.step(objective.weighted(objective(model, x, reference)))
    model.eval()
    return (time.process_time() - began) / steps


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    RESULTS.mkdir(exist_ok=True)
    until = time.monotonic() + args.hours * 3600
    lines = read_lines()
    for seed in range(args.seeds):
        for kind in args.networks:
            task = TASKS[PRESETS[kind].task]
            sets = None
            for closed, ending in ROWS.items():
                row = {
                    "network": kind, "closed by": closed, "frequency": args.frequency,
                    "steps": args.steps, "seed": seed,
                }  # fmt: skip
                if any(row.items() <= line.items() for line in lines):
                    continue
                if time.monotonic() > until:
                    print("time is up; start again to go on")
                    return
                if sets is None:
                    images = Photographs(chosen, levels=3, smallest=task.source_side(CROP + 16))
                    least = task.source_side(task.multiple)
                    middles = pack_middles(task, Photographs(held_out_paths, smallest=least))
                    sets = judging_sets(task, args.eval, middles)
                preset = f"{kind}{ending}"
                torch.manual_seed(seed)  # all but the last layer, which draws nothing, is alike
                model = NETWORKS["IICNet"].from_preset(preset)
                seconds = fit(model, task, images, preset, row)
                result = {**row, "seconds": seconds}
                result["parameters"] = sum(p.numel() for p in model.parameters())
                for title, samples in sets.items():
                    found = [Outcome(model, task, x, decodings=1) for x in samples]
                    result[f"{title} forward"] = statistics.mean(each.forward for each in found)
                    result[f"{title} back"] = statistics.mean(each.back[0] for each in found)
                card = {"data": f"{len(chosen)} photographs", "steps": f"{args.steps}"}
                model.save_pretrained(
                    args.weights / f"{kind}-{closed}-{seed}".replace(" ", "-"), card
                )
                with LINES.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(result) + "\n")
                shown = {key: round(v, 2) for key, v in result.items() if isinstance(v, float)}
                print(f"{', '.join(map(str, row.values()))}: {shown}", flush=True)


def read_lines() -> list[dict[str, Any]]:
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def report() -> None:
    """Writes a row for every task and steps: means over seeds, squeeze beside WIC."""
    lines, table = read_lines(), []
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
    text = "\n".join(table) + "\n"
    (RESULTS / "iicnet.md").write_text(text, encoding="utf-8")
    keys = list({key: None for line in lines for key in line})
    with (RESULTS / "iicnet.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(lines)
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    trains = commands.add_parser("run")
    trains.add_argument("--photos", type=Path, required=True)
    trains.add_argument("--eval", type=Path, required=True)
    trains.add_argument("--networks", nargs="+", choices=KINDS, default=KINDS)
    trains.add_argument("--steps", type=int, default=400)
    trains.add_argument("--seeds", type=int, default=1)
    trains.add_argument("--frequency", type=float, default=FREQUENCY)
    trains.add_argument("--weights", type=Path, default=Path("runs/iicnet"))
    trains.add_argument("--hours", type=float, default=math.inf)
    commands.add_parser("report")
    args = parser.parse_args()
    run(args) if args.command == "run" else report()


if __name__ == "__main__":
    main()
