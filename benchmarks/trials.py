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
from wic_layers.training.engine import Batches, make_objective, pack_crops

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


def fit(
    model: Any,
    task: Task,
    images: Photographs,
    settings: Settings,
    *,
    seeded: bool = True,
    without: Collection[str] = (),
) -> Row:
    """Trains a network in place, one thread, couplings in bfloat16.

    ``seeded`` draws what is random in a step (z, w, noise) from the step's own seed; ``without``
    names losses that do not count in the reported one, as only some rows have them. The time of a
    step is the processor's, so that other work on the machine hardly counts.
    """
    objective = make_objective(task, settings)
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, fused=True)
    guard = Guard(model.train(), optimizer, every=200)
    batches = Batches(images, task, settings, 0, 1)
    losses, times, incidents = [], [], 0
    while guard.steps < settings.steps:
        began, step = time.process_time(), guard.steps
        optimizer.param_groups[0]["lr"] = settings.rate(step)
        if seeded:
            torch.manual_seed(settings.seed * 1_000_003 + step)
        x, reference = pack_crops(batches[step], task)
        with torch.autocast("cpu", torch.bfloat16):
            weighted = objective.weighted(objective(model, x, reference))
        incidents += not guard.step(weighted)
        losses.append(sum(float(v.detach()) for k, v in weighted.items() if k not in without))
        times.append(time.process_time() - began)
    model.eval()
    return {
        "loss": statistics.mean(losses[-len(losses) // 10 :]),
        "milliseconds": statistics.median(times) * 1e3,
        "parameters": sum(p.numel() for p in model.parameters()),
        "not taken": incidents,
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
) -> None:
    """The command line of a comparison: ``run``, with arguments of its own, and ``report``."""
    parser = argparse.ArgumentParser(
        description=text, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    trains = commands.add_parser("run")
    trains.add_argument("--photos", type=Path, required=True)
    trains.add_argument("--eval", type=Path, required=True)
    trains.add_argument("--hours", type=float, default=math.inf)
    arguments(trains)
    commands.add_parser("report")
    args = parser.parse_args()
    torch.set_num_threads(1)
    run(args) if args.command == "run" else report()
