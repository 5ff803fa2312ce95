"""What the comparisons share: a line for every network that was trained, and its training."""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import torch

from wic_layers.tasks import Task
from wic_layers.training import Guard, Photographs, Settings
from wic_layers.training.data import Batches, pack_crops
from wic_layers.training.optimizers import make_optimizer

RESULTS = Path(__file__).parent / "results"

Row = dict[str, Any]


class Trials:
    """``results/NAME.jsonl``: a line for every network; a run that is stopped can go on."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = RESULTS / f"{name}.jsonl"

    def read(self) -> list[Row]:
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text(encoding="utf-8").splitlines()]

    def missing(self, rows: Iterable[Row], hours: float) -> Iterator[Row]:
        """Yields the rows that no line holds, until the time is up."""
        until = time.monotonic() + hours * 3600
        for row in rows:
            if any(row.items() <= line.items() for line in self.read()):
                continue  # another run beside this one may have added it
            if time.monotonic() > until:
                print("time is up; start again to go on")
                return
            yield row

    def add(self, row: Row, result: Row) -> None:
        """Adds a line, and prints its figures."""
        RESULTS.mkdir(exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**row, **result}) + "\n")
        shown = {key: round(v, 2) for key, v in result.items() if isinstance(v, float)}
        print(f"{', '.join(map(str, row.values()))}: {shown}", flush=True)

    @property
    def _times(self) -> Path:
        return RESULTS / f"{self.name}-times.json"

    def add_times(self, title: str, times: dict[str, float]) -> None:
        """Keeps and prints how long a step takes, of the first one's, by what is trained."""
        known = self.read_times()
        whole = json.dumps({**known, title: times}, indent=1)
        self._times.write_text(whole + "\n", encoding="utf-8")
        print(title, {name: round(value, 2) for name, value in times.items()}, flush=True)

    def read_times(self) -> dict[str, dict[str, float]]:
        return json.loads(self._times.read_text(encoding="utf-8")) if self._times.exists() else {}

    def write(self, text: list[str], lines: list[Row]) -> None:
        """Writes and prints the tables, and every line as CSV."""
        whole = "\n".join(text).strip() + "\n"
        (RESULTS / f"{self.name}.md").write_text(whole, encoding="utf-8")
        keys = list(dict.fromkeys(key for line in lines for key in line))
        with (RESULTS / f"{self.name}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, keys)
            writer.writeheader()
            writer.writerows(lines)
        print(whole)


def spread(lines: list[Row], key: str) -> str:
    """The mean of a figure over seeds and half its range; nothing where no line has it."""
    values = [line[key] for line in lines if key in line]
    if not values:
        return ""
    shown = f"{statistics.mean(values):.2f}"
    half = (max(values) - min(values)) / 2
    return f"{shown} ± {half:.2f}" if len(values) > 1 else shown


def pairs_and_mean(lines: list[Row], names: Collection[str]) -> list[str]:
    """Cells of a table: forward picture / what comes back on every set, and the mean of all."""
    pairs = [
        f"{spread(lines, f'{each} forward')} / {spread(lines, f'{each} back')}" for each in names
    ]
    ways = [f"{each} {way}" for each in names for way in ("forward", "back")]
    return [*pairs, f"{statistics.mean(line[way] for line in lines for way in ways):.2f}"]


class Training:
    """A network's training on one thread; :meth:`step` takes a step.

    ``seeded`` draws what is random in a step (z, w, noise) from the step's own seed.
    """

    def __init__(
        self,
        model: Any,
        task: Task,
        images: Photographs,
        settings: Settings,
        *,
        seeded: bool = True,
    ) -> None:
        self.model, self.task, self.settings, self.seeded = model.train(), task, settings, seeded
        self.objective = settings.objective(task)
        self.optimizer = make_optimizer(model, settings)
        self.guard = Guard(model, self.optimizer, every=200)
        self.batches = Batches(images, task, settings, 0, 1)

    def step(self) -> dict[str, float] | None:
        """Returns the weighted losses; nothing where the step was not taken."""
        step = self.guard.steps
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.rate(step)
        if self.seeded:
            torch.manual_seed(self.settings.seed * 1_000_003 + step)
        x, reference = pack_crops(
            self.batches[step], self.task, saturate=self.settings.saturate, grey=self.settings.grey
        )
        with torch.autocast("cpu", torch.bfloat16, enabled=self.settings.bf16):
            weighted = self.objective.weighted(self.objective(self.model, x, reference))
        taken = self.guard.step(weighted)
        return {key: float(value.detach()) for key, value in weighted.items()} if taken else None


def fit(training: Training, *, without: Collection[str] = ()) -> Row:
    """Trains a network in place, to the end of its settings.

    ``without`` names losses that do not count in the reported one, as only some rows have them.
    """
    losses, incidents = [], 0
    while training.guard.steps < training.settings.steps:
        found = training.step()
        if found is None:
            incidents += 1
        else:
            losses.append(sum(value for key, value in found.items() if key not in without))
    training.model.eval()
    return {
        "loss": statistics.mean(losses[-len(losses) // 10 :]),
        "parameters": sum(p.numel() for p in training.model.parameters()),
        "not taken": incidents,
    }


def alternate(variants: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Times of every variant in seconds, in turns, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(repeats + 1):
        for name, run in variants.items():
            began = time.perf_counter()
            run()
            if turn:
                times[name].append(time.perf_counter() - began)
    return times


def step_times(steps: dict[str, Callable[[], object]], repeats: int = 25) -> dict[str, float]:
    """The time of a step of each, of the first one's: the median of alternating ones."""
    times = alternate(steps, repeats)
    first = times[next(iter(times))]
    return {
        name: statistics.median(one / other for one, other in zip(found, first, strict=True))
        for name, found in times.items()
    }


def means(judged: Callable[[Any], dict[str, float]], sets: dict[str, Any]) -> Row:
    """The mean of every figure over the images of every set, by set and figure."""
    found = {}
    for name, images in sets.items():
        each = [judged(image) for image in images]
        for key in each[0]:
            found[f"{name} {key}"] = statistics.mean(one[key] for one in each)
    return found


def main(
    text: str | None,
    arguments: Callable[[argparse.ArgumentParser], object],
    run: Callable[[argparse.Namespace], None],
    report: Callable[[], None],
    measure: Callable[[argparse.Namespace], None] | None = None,
) -> None:
    """The command line of a comparison; ``arguments`` adds those of ``run``."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    trains = commands.add_parser("run")
    trains.add_argument("--photos", type=Path, required=True)
    trains.add_argument("--eval", type=Path, required=True)
    trains.add_argument("--hours", type=float, default=math.inf)
    arguments(trains)
    if measure is not None:
        commands.add_parser("time").add_argument("--photos", type=Path, required=True)
    commands.add_parser("report")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "run":
        run(args)
    elif args.command == "report":
        report()
    elif measure is not None:
        measure(args)
