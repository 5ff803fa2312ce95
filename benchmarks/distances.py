r"""What should a training minimise: the published distances, squared errors, or their logarithm?

    python benchmarks/distances.py run --photos PHOTOS --eval EVAL --hours 2
    python benchmarks/distances.py report

``run`` trains a tiny network for each row that ``results/distances.jsonl`` does not hold; it can
be stopped and started again. As the two pictures are traded against each other, each distance has
two weights of the forward picture. Equal in all rows of a task: photographs, crops, batches,
steps, the network and its start, Muon and its rate, and bfloat16 inside couplings. EVAL holds
Set5, Set14 and BSD100.

Muon's steps are as long whatever a loss' size, and weights of the others are in proportion.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import trials
from completions import judging_sets
from dlv import judged
from trials import pairs_and_mean

from wic_layers.models import NETWORKS, PRESETS
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("distances")
STEPS, BATCH, CROP = 1000, 8, 64
PUBLISHED, SQUARED, LOGARITHM = "as published", "squared errors", "their logarithm"
BACK = "their logarithm, of what comes back"
DISTANCES: dict[str, dict[str, Any]] = {
    PUBLISHED: {},  # L1 of what comes back; of the forward picture squared errors, of a stego L1
    SQUARED: {"forward": "l2", "reverse": "l2"},
    BACK: {"forward": "l2", "reverse": "psnr"},
    LOGARITHM: {"forward": "psnr", "reverse": "psnr"},
}
# weights of the forward picture, then those of the reverse, det and shift losses
WEIGHTS = {
    "rescaling-x2": {
        PUBLISHED: ((12, 24), (1, 0.1, 1)),
        SQUARED: ((12, 24), (40, 0.1, 1)),
        BACK: ((12, 24), (1.1, 0.1, 1)),
        LOGARITHM: ((0.3, 0.6), (1.1, 0.1, 0.025)),
    },
    "hiding-1": {
        PUBLISHED: ((1, 2), (1, 0.1, 1)),
        SQUARED: ((40, 80), (40, 0.1, 40)),
        BACK: ((40, 80), (1, 0.1, 40)),
        LOGARITHM: ((1, 2), (1, 0.1, 1)),
    },
}
SETS = ("Set5", "Set14", "BSD100", "held out")


def plan(task: str) -> Iterator[dict[str, Any]]:
    """The rows, all of a seed before those of the next."""
    for seed in (0, 1):
        for name, (weights, _) in WEIGHTS[task].items():
            for weight in weights:
                yield {"task": task, "distances": name, "weight": weight, "seed": seed}


def run(args: argparse.Namespace) -> None:
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 32)
    rows = (row for name in ([args.task] if args.task else WEIGHTS) for row in plan(name))
    for row in TRIALS.missing(rows, args.hours):
        task, preset = TASKS[row["task"]], f"{row['task']}-naive-tiny"
        held_out = pack_middles(task, Photographs(held_out_paths, smallest=task.multiple))
        sets = judging_sets(task, args.eval, held_out)
        _, others = WEIGHTS[row["task"]][row["distances"]]
        settings = Settings(
            steps=STEPS, batch=BATCH, crop=CROP, seed=row["seed"], warmup=50,
            **DISTANCES[row["distances"]], weights=(row["weight"], *others),
            learning_rate=2e-3, optimizer="muon", bf16=True,
        )  # fmt: skip
        torch.manual_seed(row["seed"])
        model = NETWORKS[PRESETS[preset].network].from_preset(preset)
        result = trials.fit(trials.Training(model, task, images, settings))
        del result["loss"]  # another one in every row
        with torch.no_grad():
            TRIALS.add(row, {**result, **trials.means(partial(judged, model, task), sets)})


def report() -> None:
    """Writes a table for each task: means over seeds, and half their range."""
    lines, text = TRIALS.read(), []
    for task, distances in WEIGHTS.items():
        own = [line for line in lines if line["task"] == task]
        if not own:
            continue
        text += [
            f"\n### {task}\n",
            f"| distances | forward weight | seeds "
            f"| {' | '.join(f'{name}: forward / back' for name in SETS)} "
            f"| mean of both over the sets |",
            "|---" * (4 + len(SETS)) + "|",
        ]
        for name, (weights, _) in distances.items():
            for weight in weights:
                same = [e for e in own if (e["distances"], e["weight"]) == (name, weight)]
                if not same:
                    continue
                cells = [name, f"{weight:g}", str(len(same)), *pairs_and_mean(same, SETS)]
                text.append(f"| {' | '.join(cells)} |")
    TRIALS.write(text, lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=list(WEIGHTS), help="of this one only")


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report)
