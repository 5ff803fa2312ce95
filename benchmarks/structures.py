r"""What should stand inside the couplings? Structures against operations, at equal time on a core.

    python benchmarks/structures.py time --photos PHOTOS
    python benchmarks/structures.py run --photos PHOTOS --eval EVAL --hours 3
    python benchmarks/structures.py report

``time`` lets all structures take steps in turns, one thread: what a step takes, of the dense
blocks' step. ``run`` gives every structure the steps that take as long as ``STEPS`` of the dense
blocks, by that measurement, so that other work on the machine does not count; it trains once for
each row that ``results/structures.jsonl`` does not hold, and can be stopped and started again.
EVAL holds Set5, Set14 and BSD100. As the two pictures are traded against each other by the weight
of the forward one, every structure has two weights: rows are points of a frontier. The rate that
is best for a structure is not that of another: each trains first at every one of ``RATES``, and
goes on (other weight, other seed) at that which gave most. ``report`` writes
``results/structures.md``, ``.csv`` and ``.png``. Equal in all rows of a task: photographs, crops,
batches, time, warm-up, cosine, Muon, bfloat16 inside couplings, the losses but for that weight.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import trials
from completions import judging_sets
from dlv import judged
from torch import Tensor, nn
from trials import spread

from wic_layers.blocks import AffineCoupling, DenseBlock, SqueezedBlock
from wic_layers.models import WINNaive
from wic_layers.models.base import Network
from wic_layers.models.inspection import inspect
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("structures")
STEPS, BATCH, CROP = 600, 8, 64
WEIGHTS = {"rescaling-x2": (12.0, 24.0), "hiding-1": (1.0, 2.0)}
RATES = (2e-3, 5e-3)
SETS = ("Set5", "Set14", "BSD100", "held out")
DENSE = "dense blocks"


class Wide(nn.Module):
    """Squeezed: 1x1 convolutions, and depthwise ones of ``size`` between them, with a skip."""

    def __init__(self, inputs: int, outputs: int, width: int, *, depth: int, size: int) -> None:
        super().__init__()
        self.cell, self.depth, self.size = 2, depth, size
        self.first = nn.Conv2d(4 * inputs, width, 3, padding=1)
        self.spatial = nn.ModuleList(
            nn.Conv2d(width, width, size, padding=size // 2, groups=width) for _ in range(depth)
        )
        self.mix = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, 2 * width, 1), nn.LeakyReLU(0.2), nn.Conv2d(2 * width, width, 1)
            )
            for _ in range(depth)
        )
        self.last = nn.Conv2d(width, 4 * outputs, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    @property
    def reach(self) -> int:
        """In pixels of its input."""
        return 2 * (2 + self.depth * (self.size // 2)) + 1

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        filled = nn.functional.pad(x, (0, width % 2, 0, height % 2))
        features = self.first(nn.functional.pixel_unshuffle(filled, 2))
        features = features.contiguous(memory_format=torch.channels_last)
        for spatial, mix in zip(self.spatial, self.mix, strict=True):
            features = features + mix(spatial(features))
        return nn.functional.pixel_shuffle(self.last(features), 2)[..., :height, :width]


class Skipped(SqueezedBlock):
    """A squeezed block whose middle convolutions are a residual block."""

    def plain(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
        first, *middle, last = convolutions
        start = features = nn.functional.leaky_relu(first(self._squares(x)), self.slope)
        for conv in middle:
            features = nn.functional.leaky_relu(conv(features), self.slope)
        return self._pixels(last(start + features), x)

    with_gradients = plain


Subnet = Callable[[int, int], nn.Module]


def structures() -> dict[str, tuple[int, Subnet]]:
    """Couplings and the networks inside, of about equal operations but for the last rows."""
    return {
        DENSE: (4, partial(DenseBlock, growth=16)),
        "squeezed, 64 wide": (4, partial(SqueezedBlock, width=64)),
        "48 wide, 6 couplings": (6, partial(SqueezedBlock, width=48)),
        "96 wide, 2 couplings": (2, partial(SqueezedBlock, width=96)),
        "80 wide, 3 convolutions": (4, partial(SqueezedBlock, width=80, depth=3)),
        "56 wide, 5 convolutions": (4, partial(SqueezedBlock, width=56, depth=5)),
        "128 wide": (4, partial(SqueezedBlock, width=128)),
        "by 4, 144 wide": (4, partial(SqueezedBlock, width=144, factor=4)),
        "squeezed, with a skip": (4, partial(Skipped, width=64)),
        "depthwise 7 x 7, 96 wide": (4, partial(Wide, width=96, depth=2, size=7)),
        "squeezed, 8 couplings": (8, partial(SqueezedBlock, width=64)),
        "dense blocks, 8 couplings": (8, partial(DenseBlock, growth=16)),
    }


def build(name: str, task: Task) -> Network:
    """WIN-Naive with Haar of a task, with other networks inside its couplings."""
    number, subnet = structures()[name]
    inputs, outputs = task.channels[:2]
    model = WINNaive(inputs, outputs, scale=task.scale, couplings=number, growth=1, haar=True)
    for place, block in model.named_children():
        if isinstance(block, AffineCoupling):
            sizes = {"split": block.sizes[0], "clamp": block.clamp}
            setattr(model, place, AffineCoupling(block.channels, subnet=subnet, **sizes))
    return model


def plan(task: str, names: list[str]) -> Iterator[dict[str, Any]]:
    """The rows, all of a seed before those of the next; at all rates for one weight and seed."""
    for seed in (0, 1):
        for weight in WEIGHTS[task]:
            for name in names:
                first = {"task": task, "structure": name, "weight": WEIGHTS[task][0], "seed": 0}
                row = {**first, "weight": weight, "seed": seed}
                for rate in RATES if row == first else best_rate(first):
                    yield {**row, "rate": rate}


def best_rate(first: dict[str, Any]) -> tuple[float, ...]:
    """The rate that gave most; none where a rate was not tried yet."""
    tried = [line for line in TRIALS.read() if first.items() <= line.items()]
    return (max(tried, key=both)["rate"],) if len(tried) == len(RATES) else ()


def training_of(row: dict[str, Any], images: Photographs, steps: int) -> trials.Training:
    task = TASKS[row["task"]]
    settings = Settings(
        steps=steps, batch=BATCH, crop=CROP, seed=row["seed"], warmup=50,
        weights=(row["weight"], 1.0, 0.1, 1.0), learning_rate=row["rate"], optimizer="muon",
        bf16=True,
    )  # fmt: skip
    torch.manual_seed(row["seed"])
    return trials.Training(build(row["structure"], task), task, images, settings)


def run(args: argparse.Namespace) -> None:
    times = TRIALS.read_times()
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 32)
    tasks = [args.task] if args.task else list(WEIGHTS)
    rows = (row for task in tasks for row in plan(task, args.structures))
    for row in TRIALS.missing(rows, args.hours):
        task = TASKS[row["task"]]
        held_out = pack_middles(task, Photographs(held_out_paths, smallest=task.multiple))
        sets = judging_sets(task, args.eval, held_out)
        training = training_of(row, images, round(STEPS / times[task.name][row["structure"]]))
        result = trials.fit(training)
        flops = inspect(training.model).flops
        TRIALS.add(
            row,
            {
                **result,
                "steps": training.settings.steps,
                "operations": statistics.mean(flops) / 2,
                **trials.means(partial(judged, training.model, task), sets),
            },
        )


def measure(args: argparse.Namespace) -> None:
    """Lets all structures take steps in turns."""
    images = Photographs(find_images(args.photos)[:4], smallest=CROP + 32)
    for name, weights in WEIGHTS.items():
        steps = {}
        for structure in structures():
            first = {"task": name, "structure": structure, "weight": weights[0], "seed": 0}
            row = {**first, "rate": RATES[0]}
            steps[structure] = training_of(row, images, STEPS).step
        TRIALS.add_times(name, trials.step_times(steps, repeats=9))


def report() -> None:
    """Writes a table and a plot for each task: means over seeds, and half their range."""
    lines, text, times = TRIALS.read(), [], TRIALS.read_times()
    for task, weights in WEIGHTS.items():
        rows = [
            (structure, weight, rate, found)
            for weight in weights
            for structure in structures()
            for rate in RATES
            if (
                found := [
                    line
                    for line in lines
                    if (line["task"], line["structure"], line["weight"], line["rate"])
                    == (task, structure, weight, rate)
                ]
            )
        ]
        if not rows:
            continue
        text.append(
            f"\n### {task}\n\n| structure | weight | rate | seeds | parameters "
            f"| operations a pixel | steps | time of a step "
            f"| {' | '.join(f'{name}: forward / back' for name in SETS)} "
            f"| mean of both over the sets |\n|{'---|' * (9 + len(SETS))}"
        )
        for structure, weight, rate, found in rows:
            cells = [
                structure, f"{weight:g}", f"{rate:g}", str(len(found)),
                f"{found[0]['parameters']:,}",
                f"{found[0]['operations']:,.0f}", str(found[0]["steps"]),
                f"{times[task][structure]:.2f}",
                *(f"{spread(found, f'{name} forward')} / {spread(found, f'{name} back')}"
                  for name in SETS),
                f"{statistics.mean(map(both, found)):.2f}",
            ]  # fmt: skip
            text.append(f"| {' | '.join(cells)} |")
        plot(task, rows)
    TRIALS.write(text, lines)


def both(line: dict[str, Any]) -> float:
    """The mean of both pictures over the sets."""
    return statistics.mean(
        line[f"{name} {which}"] for name in SETS for which in ("forward", "back")
    )


def plot(task: str, rows: list[tuple[str, float, float, list[dict[str, Any]]]]) -> None:
    """The mean of both pictures against operations, at the best weight and rate of each."""
    import matplotlib.pyplot as plt

    best: dict[str, tuple[float, float]] = {}
    for structure, *_, found in rows:
        point = (found[0]["operations"] / 1e3, statistics.mean(map(both, found)))
        if structure not in best or point[1] > best[structure][1]:
            best[structure] = point
    figure, axes = plt.subplots(figsize=(8, 5), layout="constrained")
    for structure, (operations, value) in best.items():
        dense = structure.startswith(DENSE)
        axes.plot(operations, value, "s" if dense else "o", color="0.4" if dense else "C0")
        axes.annotate(
            structure, (operations, value), xytext=(6, 3), textcoords="offset points", fontsize=8
        )
    axes.set_xlabel("thousand multiplications and additions a pixel, each way")
    axes.set_ylabel("PSNR, mean of both pictures over the sets (dB)")
    axes.set_title(f"{task}, equal time on a core")
    axes.margins(x=0.25)
    axes.grid(alpha=0.3)
    figure.savefig(trials.RESULTS / f"structures-{task}.png", dpi=120)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=list(WEIGHTS))
    names = list(structures())
    parser.add_argument("--structures", nargs="+", choices=names, default=names)


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report, measure)
