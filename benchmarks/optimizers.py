r"""What does Muon bring in place of AdamW, at which learning rate, and what does a step cost?

    python benchmarks/optimizers.py run --photos PHOTOS --eval EVAL --task rescaling-x2 --hours 1
    python benchmarks/optimizers.py time --photos PHOTOS
    python benchmarks/optimizers.py report

``run`` trains the WIN-Naive of a task, of two couplings or (``hiding-3``) of four, once for every
row that ``results/optimizers.jsonl`` does not hold yet, and adds a line for it; it can be stopped
and started again. EVAL holds Set5 and BSD100. ``report`` writes ``results/optimizers.md`` and
``.csv``. Equal in all rows of a task: network, start, photographs, crops, batches, steps, warm-up,
cosine, losses and their weights. ``time`` lets both take steps in turns, one thread: what a step
takes, of AdamW's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import trials
from completions import judging_sets
from dlv import judged
from trials import spread

from wic_layers.models import WINNaive
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("optimizers")


class Kind(NamedTuple):
    """What is trained for a task, and what it is judged on beside the held-out photographs."""

    preset: str
    weights: tuple[float, float, float, float]
    judged_on: str
    # steps, and the learning rates of each optimizer
    budgets: tuple[tuple[int, dict[str, tuple[float, ...]]], ...]
    bf16: bool = False


_TINY = tuple(
    (steps, {"adamw": rates, "muon": rates})
    for steps, rates in ((1000, (1e-3, 2e-3, 4e-3)), (4000, (2e-3,)))
)
_DEEP = ((1000, {"adamw": (1e-3, 2e-3, 4e-3), "muon": (2.5e-4, 5e-4, 1e-3, 2e-3)}),)
KINDS = {
    "rescaling-x2": Kind("rescaling-x2-naive-tiny", (12, 1, 0.1, 1), "Set5", _TINY),
    "hiding-1": Kind("hiding-1-naive-tiny", (1, 1, 0.1, 1), "BSD100", _TINY),
    "hiding-3": Kind("hiding-3-naive-small", (3, 1, 0.1, 1), "BSD100", _DEEP, bf16=True),
}
BATCH, CROP = 4, 48


def plan(task: str) -> Iterator[dict[str, Any]]:
    """The rows of a task, all of a seed before those of the next."""
    for seed in (0, 1):
        for steps, of_each in KINDS[task].budgets:
            for optimizer, rates in of_each.items():
                for rate in rates:
                    yield {
                        "task": task, "optimizer": optimizer, "rate": rate, "steps": steps,
                        "seed": seed,
                    }  # fmt: skip


def training_of(row: dict[str, Any], task: Task, images: Photographs) -> trials.Training:
    kind = KINDS[row["task"]]
    settings = Settings(
        steps=row["steps"], batch=BATCH, crop=CROP, seed=row["seed"], warmup=50,
        weights=kind.weights, learning_rate=row["rate"], optimizer=row["optimizer"],
        bf16=kind.bf16,
    )  # fmt: skip
    torch.manual_seed(row["seed"])
    return trials.Training(WINNaive.from_preset(kind.preset), task, images, settings)


def run(args: argparse.Namespace) -> None:
    task, title = TASKS[args.task], KINDS[args.task].judged_on
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 32)
    held_out = pack_middles(task, Photographs(held_out_paths, smallest=task.multiple))
    sets = judging_sets(task, args.eval, held_out)
    judged_on = {name: sets[name] for name in ("held out", title)}
    for row in TRIALS.missing(plan(args.task), args.hours):
        training = training_of(row, task, images)
        result = trials.fit(training)
        TRIALS.add(
            row, {**result, **trials.means(partial(judged, training.model, task), judged_on)}
        )


def measure(args: argparse.Namespace) -> None:
    """Lets both optimizers take steps in turns."""
    images = Photographs(find_images(args.photos)[:4], smallest=CROP + 32)
    for name in KINDS:
        rows = {row["optimizer"]: row for row in plan(name)}
        steps = {key: training_of(row, TASKS[name], images).step for key, row in rows.items()}
        TRIALS.add_times(name, trials.step_times(steps))


def report() -> None:
    """Writes a table for each task: means over seeds, and half their range."""
    lines, text, times = TRIALS.read(), [], TRIALS.read_times()
    for task, kind in KINDS.items():
        if not any(line["task"] == task for line in lines):
            continue
        title = kind.judged_on
        shown = f"{title} reduced by 2" if title == "BSD100" else title
        bf16 = ", bfloat16 inside couplings" if kind.bf16 else ""
        text.append(
            f"\n### {kind.preset}{bf16}\n\n| steps | optimizer | learning rate | seeds "
            f"| {shown}: forward / back | held out: forward / back | loss | not taken "
            f"| time of a step |\n|{'---|' * 9}"
        )
        for row in plan(task):
            wanted = {key: value for key, value in row.items() if key != "seed"}
            found = [line for line in lines if wanted.items() <= line.items()]
            if not found or row["seed"]:
                continue
            cells = [
                f"{row['steps']:,}", row["optimizer"], f"{row['rate']:g}", str(len(found)),
                *(f"{spread(found, f'{name} forward')} / {spread(found, f'{name} back')}"
                  for name in (title, "held out")),
                spread(found, "loss"), str(sum(line["not taken"] for line in found)),
                f"{times.get(task, {}).get(row['optimizer'], float('nan')):.2f}",
            ]  # fmt: skip
            text.append(f"| {' | '.join(cells)} |")
    TRIALS.write(text, lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=list(KINDS), default="rescaling-x2")


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report, measure)
