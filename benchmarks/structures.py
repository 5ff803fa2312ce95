r"""What should stand inside the couplings? Structures against operations, at equal time on a core.

    python benchmarks/structures.py time --photos PHOTOS
    python benchmarks/structures.py run --photos PHOTOS --eval EVAL --hours 3
    python benchmarks/structures.py report

``time`` lets all structures take steps in turns, one thread: what a step takes, of the dense
blocks' step. ``run`` gives every structure the steps that take as long as those of the dense
blocks, by that measurement, so that other work on the machine does not count; it trains once for
each row that ``results/structures.jsonl`` does not hold, and can be stopped and started again.
EVAL holds Set5, Set14 and BSD100.

All structures train for as long as ``SHORT`` steps of the dense blocks take. What learns fast at
first is not what is best later, so those in ``LONGER`` train for ``LONG`` too, with two weights of
the forward picture, as the two pictures are traded against each other, and with two seeds. The
rate that is best for a structure is not that of another: ``OTHER_RATES`` are rows that show it.
``report`` writes ``results/structures.md``, ``.csv`` and ``.png``. Equal in all rows of a task and
a length: photographs, crops, batches, time, warm-up, cosine, Muon, bfloat16 inside couplings, the
losses but for that weight.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import plain
import torch
import trials
from completions import judging_sets
from dlv import judged
from torch import Tensor, nn
from trials import spread

from wic_layers.blocks import AffineCoupling, DenseBlock, SqueezedBlock
from wic_layers.models import WIN, WINNaive
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("structures")
SHORT, LONG, BATCH, CROP = 400, 1600, 8, 64
WEIGHTS = {"rescaling-x2": (12.0, 24.0), "hiding-1": (1.0, 2.0)}
SETS = ("Set5", "Set14", "BSD100", "held out")
PUBLISHED, DENSE, SQUEEZED = "WIN as published", "dense blocks", "squeezed, 64 wide"
PLAIN = "plain encoder-decoder"
LONGER = (DENSE, SQUEEZED, PUBLISHED, PLAIN, "squeezed, with a skip", "96 wide, 2 couplings")
OTHER_RATES = (
    (SHORT, DENSE, 5e-3),
    (SHORT, SQUEEZED, 2e-3),
    (SHORT, "48 wide, 6 couplings", 2e-3),
    (LONG, SQUEEZED, 2e-3),
)


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


def coupled(number: int, subnet: Callable[[int, int], nn.Module], task: Task) -> nn.Module:
    """WIN-Naive: a Haar transform, couplings with such networks inside, and a WIC with zeros."""
    inputs, outputs = task.channels[:2]
    model = WINNaive(inputs, outputs, scale=task.scale, couplings=number, growth=1, haar=True)
    for place, block in model.named_children():
        if isinstance(block, AffineCoupling):
            sizes = {"split": block.sizes[0], "clamp": block.clamp}
            setattr(model, place, AffineCoupling(block.channels, subnet=subnet, **sizes))
    return model


def published(task: Task) -> nn.Module:
    """WIN with its memory and its shift, one module of the two."""
    return WIN(
        *task.channels[:2], scale=task.scale, modules=1, couplings=4, growth=12,
        completion="shift", layout="published",
    )  # fmt: skip


def plain_of_dense(task: Task) -> nn.Module:
    """Two plain networks that have the dense blocks' parameters and operations."""
    inputs, outputs = task.channels[:2]
    costs = plain.costs(structures()[DENSE](task), inputs)
    return plain.sized(costs, inputs, outputs, scale=task.scale)


def structures() -> dict[str, Callable[[Task], nn.Module]]:
    """What builds each, of about equal operations but for the last rows."""
    return {
        DENSE: partial(coupled, 4, partial(DenseBlock, growth=16)),
        PUBLISHED: published,
        PLAIN: plain_of_dense,
        SQUEEZED: partial(coupled, 4, partial(SqueezedBlock, width=64)),
        "48 wide, 6 couplings": partial(coupled, 6, partial(SqueezedBlock, width=48)),
        "96 wide, 2 couplings": partial(coupled, 2, partial(SqueezedBlock, width=96)),
        "80 wide, 3 convolutions": partial(coupled, 4, partial(SqueezedBlock, width=80, depth=3)),
        "56 wide, 5 convolutions": partial(coupled, 4, partial(SqueezedBlock, width=56, depth=5)),
        "128 wide": partial(coupled, 4, partial(SqueezedBlock, width=128)),
        "by 4, 144 wide": partial(coupled, 4, partial(SqueezedBlock, width=144, factor=4)),
        "squeezed, with a skip": partial(coupled, 4, partial(Skipped, width=64)),
        "depthwise 7 x 7, 96 wide": partial(coupled, 4, partial(Wide, width=96, depth=2, size=7)),
        "squeezed, 8 couplings": partial(coupled, 8, partial(SqueezedBlock, width=64)),
        "dense blocks, 8 couplings": partial(coupled, 8, partial(DenseBlock, growth=16)),
    }


def rate_of(name: str) -> float:
    return 2e-3 if name in (PUBLISHED, PLAIN) or name.startswith(DENSE) else 5e-3


def plan(task: str, names: list[str]) -> Iterator[dict[str, Any]]:
    """The rows: all short ones, those that train for longer, and what other rates do."""

    def row(length: int, name: str, rate: float, weight: float, seed: int = 0) -> dict[str, Any]:
        return {
            "task": task, "length": length, "structure": name, "weight": weight, "seed": seed,
            "rate": rate,
        }  # fmt: skip

    first, *_ = weights = WEIGHTS[task]
    yield from (row(SHORT, name, rate_of(name), first) for name in names)
    longer = [name for name in LONGER if name in names]
    for seed in (0, 1):
        for weight in weights:
            yield from (row(LONG, name, rate_of(name), weight, seed) for name in longer)
        if seed == 0:
            for length, name, rate in OTHER_RATES:
                if name in names:
                    yield row(length, name, rate, first)


def training_of(row: dict[str, Any], images: Photographs, steps: int) -> trials.Training:
    task = TASKS[row["task"]]
    settings = Settings(
        steps=steps, batch=BATCH, crop=CROP, seed=row["seed"], warmup=50,
        weights=(row["weight"], 1.0, 0.1, 1.0), learning_rate=row["rate"], optimizer="muon",
        bf16=True,
    )  # fmt: skip
    torch.manual_seed(row["seed"])
    return trials.Training(structures()[row["structure"]](task), task, images, settings)


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
        steps = round(row["length"] / times[task.name][row["structure"]])
        training = training_of(row, images, steps)
        result = trials.fit(training)
        TRIALS.add(
            row,
            {
                **result,
                "steps": training.settings.steps,
                "operations": plain.costs(training.model, task.channels[0]).operations / 2,
                **trials.means(partial(judged, training.model, task), sets),
            },
        )


def measure(args: argparse.Namespace) -> None:
    """Lets the dense blocks, and all structures that no time is known of, take steps in turns."""
    images = Photographs(find_images(args.photos)[:4], smallest=CROP + 32)
    for name, weights in WEIGHTS.items():
        known, steps = TRIALS.read_times().get(name, {}), {}
        new = [structure for structure in structures() if structure not in known]
        for structure in dict.fromkeys([DENSE, *new]):
            row = {
                "task": name, "structure": structure, "weight": weights[0], "seed": 0,
                "rate": rate_of(structure),
            }  # fmt: skip
            steps[structure] = training_of(row, images, SHORT).step
        TRIALS.add_times(name, {**known, **trials.step_times(steps, repeats=9)})


def report() -> None:
    """Writes a table for each task and length, and a plot for each task: means over seeds."""
    lines, text, times = TRIALS.read(), [], TRIALS.read_times()
    for task, weights in WEIGHTS.items():
        points: dict[int, list[Point]] = {}
        for length in (SHORT, LONG):
            own = [line for line in lines if (line["task"], line["length"]) == (task, length)]
            points[length] = [
                Point(structure, weight, rate, found)
                for weight in weights
                for structure in structures()
                for rate in sorted({line["rate"] for line in own})
                if (
                    found := [
                        line
                        for line in own
                        if (line["structure"], line["weight"], line["rate"])
                        == (structure, weight, rate)
                    ]
                )
            ]
            if points[length]:
                text.append(f"\n### {task}, as long as {length:,} steps of dense blocks\n")
                text.extend(table(points[length], times[task]))
        if any(points.values()):
            plot(task, points)
    TRIALS.write(text, lines)


class Point(NamedTuple):
    """What was found of a structure, at a weight of the forward picture and a rate."""

    structure: str
    weight: float
    rate: float
    found: list[dict[str, Any]]

    def mean(self, picture: str) -> float:
        """A picture's PSNR: the mean over the sets, and over seeds."""
        return statistics.mean(line[f"{name} {picture}"] for line in self.found for name in SETS)

    @property
    def both(self) -> float:
        """The mean of both pictures."""
        return statistics.mean((self.mean("forward"), self.mean("back")))


def table(points: list[Point], times: dict[str, float]) -> Iterator[str]:
    """Lines of a table, with half the range over seeds."""
    yield (
        f"| structure | weight | rate | seeds | parameters | operations a pixel | steps "
        f"| time of a step | {' | '.join(f'{name}: forward / back' for name in SETS)} "
        f"| mean of both over the sets |"
    )
    yield f"|{'---|' * (9 + len(SETS))}"
    for point in points:
        structure, weight, rate, found = point
        cells = [
            structure, f"{weight:g}", f"{rate:g}", str(len(found)),
            f"{found[0]['parameters']:,}", f"{found[0]['operations']:,.0f}",
            f"{found[0]['steps']:,}", f"{times[structure]:.2f}",
            *(f"{spread(found, f'{name} forward')} / {spread(found, f'{name} back')}"
              for name in SETS),
            f"{point.both:.2f}",
        ]  # fmt: skip
        yield f"| {' | '.join(cells)} |"


def plot(task: str, points: dict[int, list[Point]]) -> None:
    """Both pictures, means over the sets: against operations, and against each other.

    What is far below the best is in the table alone.
    """
    import matplotlib.pyplot as plt

    figure, (over, against) = plt.subplots(1, 2, figsize=(12, 5), layout="constrained")
    for number, name in enumerate(structures()):
        marker = "o" if rate_of(name) == 5e-3 else "s"
        colour = plt.get_cmap("tab20")(number)
        for length, own in points.items():
            same = [point for point in own if point.structure == name]
            if not same:
                continue
            style = {
                "linestyle": "none", "marker": marker, "color": colour,
                "markerfacecolor": colour if length == LONG else "none",
            }  # fmt: skip
            label = name if length == SHORT else None
            operations = same[0].found[0]["operations"] / 1e3
            over.plot([operations] * len(same), [point.both for point in same], **style)
            pairs = [(point.mean("forward"), point.mean("back")) for point in same]
            against.plot(*zip(*pairs, strict=True), label=label, **style)
    shown = [point for own in points.values() for point in own]
    over.set_ylim(bottom=max(point.both for point in shown) - 8)
    against.set_xlim(left=max(point.mean("forward") for point in shown) - 11)
    against.set_ylim(bottom=max(point.mean("back") for point in shown) - 8)
    over.set_xscale("log")
    over.xaxis.set_major_formatter("{x:g}")
    over.xaxis.set_minor_formatter("{x:g}")
    over.set_xlabel("thousand multiplications and additions a pixel, each way")
    over.set_ylabel("mean of both pictures (dB)")
    against.set_xlabel("forward picture (dB)")
    against.set_ylabel("what comes back (dB)")
    for axis in (over, against):
        axis.grid(alpha=0.3)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.suptitle(
        f"{task}: hollow, as long as {SHORT:,} steps of dense blocks; filled, as {LONG:,}"
    )
    figure.savefig(trials.RESULTS / f"structures-{task}.png", dpi=120)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=list(WEIGHTS))
    names = list(structures())
    parser.add_argument("--structures", nargs="+", choices=names, default=names)


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report, measure)
