"""``wic eval``: how good a network is, by PSNR and SSIM, through real 8-bit files."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from wic_layers._files import check_place, write_whole
from wic_layers._text import printable, said
from wic_layers.codec.running import load_network
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.evaluation.attacked import attack_table, evaluate_attacked, fixed_attacks
from wic_layers.evaluation.generations import evaluate_generations, generation_table
from wic_layers.evaluation.metrics import METRICS, Row
from wic_layers.evaluation.protocol import FLOAT, evaluate, least_side, mean_rows, reduce_by
from wic_layers.pictures import find_images, read_image, size_of
from wic_layers.tasks import TASKS, Task

__all__ = ["add_arguments", "run", "table"]

ProgressBar = Callable[[int], AbstractContextManager[Any]]
"""Makes a progress bar for a number of files; its ``file(name)`` is around the work on each."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what ``wic eval`` takes to ``parser``."""
    add = parser.add_argument
    add("network", help="preset with weights in the package, or the folder of weights")
    add("folders", metavar="FOLDER", type=Path, nargs="+", help="images to judge on")
    add(
        "--reduce",
        type=int,
        default=1,
        metavar="N",
        help="first make every image that many times smaller, which hides JPEG's halved chroma",
    )
    add("--csv", type=Path, metavar="FILE", help="write a row for every comparison too")
    add(
        "--through",
        nargs="+",
        default=[],
        metavar="ATTACK",
        help="judge what comes back after each: jpeg:90,75,50,30 (quality; jpeg444: with whole "
        "chroma), webp:80, h264:23 (rate factor of a single frame), resize:0.5, fit:1280 (longest "
        "side), crop:0.5 (share of each side that is left), or chains, fit:1280+jpeg:75; such "
        "rows stand in place of the others",
    )
    add(
        "--generations",
        type=int,
        metavar="N",
        help="run every image forward and back N times, in place of the other figures",
    )
    add("--tile", metavar="N", type=int, help="side of the tiles in which large images are run")
    add("--refine", metavar="N", type=int, default=0, help="as of the commands that are judged")
    add("--device", default="cpu", help="where to run, such as cuda")
    add("--fast", action="store_true", help="as of the commands that are judged")
    add("--force", action="store_true", help="replace the CSV if it exists")


def run(args: argparse.Namespace, bar: ProgressBar) -> int:
    """Prints a table for every folder; the bar shows how far it is."""
    if args.reduce < 1:
        raise WICArgumentError(f"Expected --reduce of at least 1; got {args.reduce}.")
    if args.generations is not None and (args.through or args.generations < 1 or args.refine):
        raise WICArgumentError(
            f"Expected --generations of at least 1, without --through and --refine; got "
            f"{args.generations}."
        )
    attacks = fixed_attacks(args.through)
    files = {folder: find_images(folder) for folder in args.folders}
    if args.csv is not None:
        inputs = [path for paths in files.values() for path in paths]
        check_place(args.csv, inputs=inputs, force=args.force)
    task, network = load_network(list(TASKS.values()), args.network, args.device, fast=args.fast)
    refined = f", refined in {args.refine} steps" if args.refine else ""
    precision = ", couplings in bfloat16" if args.fast else ""
    title = f"{network.preset or args.network}, {task.name}, weights {network.weights_id}"
    print(printable(f"{title}{refined}{precision}"))
    lines: list[dict[str, object]] = []
    for folder, paths in files.items():
        names, images = _large_enough(task, paths, args.reduce)
        rows: list[Any] = []
        results: Iterator[Any]
        if args.generations is not None:
            results = evaluate_generations(task, network, images, args.generations, tile=args.tile)
        elif attacks:
            results = evaluate_attacked(
                task, network, images, attacks, tile=args.tile, refine=args.refine
            )
        else:
            results = evaluate(task, network, images, tile=args.tile, refine=args.refine)
        with bar(len(images)) as shown:
            for name in names:
                with shown.file(name):
                    rows.append(next(results))
        reduced = f" reduced by {args.reduce}" if args.reduce > 1 else ""
        title = printable(f"{folder.resolve().name}{reduced}, {len(images)} images")
        if args.generations is not None:
            text = generation_table(title, rows)
        else:
            text = (attack_table if attacks else table)(title, mean_rows(rows))
        print(f"\n{text}", flush=True)
        for name, each in zip(names, rows, strict=True):
            lines += [{"folder": str(folder), "image": name, **asdict(row)} for row in each]
    if args.csv is not None:
        content = io.StringIO(newline="")
        writer = csv.DictWriter(content, list(lines[0]))
        writer.writeheader()
        writer.writerows(lines)
        write_whole(args.csv, content.getvalue().encode(), replace=args.force)
    return 0


def _large_enough(
    task: Task, paths: Sequence[Path], reduce: int
) -> tuple[list[str], list[Tensor]]:
    """The images, reduced, that can be judged, with their names; says which cannot."""
    least = least_side(task)
    names, images = [], []
    for path in paths:
        image = reduce_by(read_image(path), reduce)
        width, height = size_of(image)
        if min(width, height) < least:
            line = f"{path}, {width}x{height}, is left out: {task.name} is judged from {least}x"
            print(said("warning", f"{line}{least} on"), file=sys.stderr)
            continue
        names.append(path.name)
        images.append(image)
    if not images:
        raise WICFileError(f"Expected images of at least {least}x{least} to judge; got none.")
    return names, images


def table(title: str, rows: Sequence[Row]) -> str:
    """Returns rows as a table in Markdown: through 8-bit files, and beside them as floats.

    Beside a mean of PSNR stands how many identical pictures it leaves out.
    """
    floats = {row.what: row for row in rows if row.what.endswith(FLOAT)}
    titles = " | ".join(f"{title} | float" for title in METRICS.values())
    lines = [
        f"| {title} | {titles} | bits per pixel |", f"|---|{'---|' * (2 * len(METRICS) + 1)}"
    ]  # fmt: skip
    for row in rows:
        if row.what in floats:
            continue
        beside = floats.get(f"{row.what}{FLOAT}")
        cells = [_cell(each, name) for name in METRICS for each in (row, beside)]
        bits = "" if row.bits is None else f"{row.bits:.2f}"
        lines.append(f"| {row.what} | {' | '.join(cells)} | {bits} |")
    return "\n".join(lines)


def _cell(row: Row | None, name: str) -> str:
    value = getattr(row, name, None)
    if row is None or value is None:
        return ""
    if "ssim" in name:
        return f"{value:.4f}"
    beside = row.identical and math.isfinite(value)
    return f"{value:.2f} ({row.identical} identical)" if beside else f"{value:.2f}"
