r"""IRN and HiNet as published and with a WIC in place of z: from scratch, and upgraded.

    python benchmarks/integrations.py run --photos PHOTOS --eval EVAL --network irn-x2 --hours 1
    python benchmarks/integrations.py report

``run`` trains the small preset of a network for every row that ``results/integrations.jsonl`` does
not hold yet, and adds a line for it; it can be stopped and started again. Rows: with its random z,
and with a WIC (zero and learned completion), from scratch; then the first one trained on for half
as many steps, as it is and upgraded, each from the same weights. EVAL holds Set5 (rescaling,
decolorization) and BSD100 (hiding, reduced by 2). ``report`` writes ``results/integrations.md``
and ``.csv``.

Equal in all rows of a network: couplings, photographs, crops, batches, steps, rates and, by seed,
the start of the couplings; the weights of its authors' losses, to which rows with a WIC add L_det.
Pictures are rounded to 8 bits in training and judging. "spread" is the standard deviation of a
pixel over ten decodings of the same file, in grey levels.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from completions import judging_sets

from wic_layers.images import find_images
from wic_layers.models import NETWORKS, PRESETS, with_wic
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Guard, Objective, Photographs, Settings
from wic_layers.training.command import pack_middles, split_off
from wic_layers.training.engine import Batches, pack_crops
from wic_layers.training.upgrade import Outcome

RESULTS = Path(__file__).parent / "results"
LINES = RESULTS / "integrations.jsonl"
KINDS = ("irn-x2", "irn-x3", "irn-x4", "irn-decolorization", "hinet")
SETS = {"hinet": "BSD100"}  # Set5 for the others
ROWS = (
    ("random z", None), ("WIC, zero", None), ("WIC, learned", None),
    ("random z", "random z"), ("WIC, zero", "random z"), ("WIC, learned", "random z"),
)  # fmt: skip
STEPS, BATCH, CROP = 1200, 4, 48


def build(kind: str, what: str) -> Any:
    """The small preset of a network, by what closes it."""
    random_z, completion = what == "random z", what.partition(", ")[2] or None
    name = f"{kind}-z-small" if random_z else f"{kind}-small"
    network = NETWORKS[PRESETS[name].network]
    return network.from_preset(name, **({} if random_z else {"completion": completion}))


def fit(
    model: Any, task: Task, images: Photographs, recipe: dict[str, Any], *, steps: int, seed: int
) -> float:
    """Trains a network in place; returns the mean of its loss over the last tenth."""
    given = {**recipe, "crop": CROP}
    settings = Settings(steps=steps, batch=BATCH, seed=seed, bf16=True, warmup=100, **given)
    objective = Objective(
        task, settings.weights, forward=settings.forward, reverse=settings.reverse,  # type: ignore[arg-type]
        low=settings.low, returned=settings.returned,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), settings.learning_rate, fused=True)
    guard = Guard(model.train(), optimizer, every=200)
    batches = Batches(images, task, settings, 0, 1)
    losses = []
    while guard.steps < steps:
        step = guard.steps
        optimizer.param_groups[0]["lr"] = settings.rate(step)
        x, reference = pack_crops(batches[step], task)
        torch.manual_seed(seed * 1_000_003 + step)  # of z
        with torch.autocast("cpu", torch.bfloat16):
            weighted = objective.weighted(objective(model, x, reference))
        guard.step(weighted)
        losses.append(sum(float(loss.detach()) for loss in weighted.values()))
    model.eval()
    return statistics.mean(losses[-len(losses) // 10 :])


def run_one(
    row: dict[str, Any], task: Task, images: Photographs, sets: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Trains and judges the network of a row; keeps a random z's weights for those that follow."""
    kind, seed, kept = row["network"], row["seed"], folder / f"{row['network']}-{row['seed']}.pt"
    torch.manual_seed(seed)  # the couplings come first, so that they start alike
    model, steps = build(kind, row["closed by"]), row["steps"]
    if row["started from"]:
        start = build(kind, row["started from"])
        start.load_state_dict(torch.load(kept, weights_only=True))
        is_same = row["closed by"] == row["started from"]
        model = start if is_same else with_wic(start, row["closed by"].partition(", ")[2])
    name = f"{kind}-z-small" if row["closed by"] == "random z" else f"{kind}-small"
    began = time.process_time()
    loss = fit(model, task, images, dict(PRESETS[name].recipe), steps=steps, seed=seed)
    seconds = (time.process_time() - began) / steps
    if row["closed by"] == "random z" and not row["started from"]:
        torch.save(model.state_dict(), kept)
    result = {**row, "loss": loss, "seconds": seconds}
    result["parameters"] = sum(p.numel() for p in model.parameters())
    for title in ("held out", SETS.get(kind, "Set5")):
        found = [Outcome(model, task, x) for x in sets[title]]
        result[f"{title} forward"] = statistics.mean(each.forward for each in found)
        result[f"{title} back"] = statistics.mean(statistics.mean(each.back) for each in found)
        result[f"{title} spread"] = statistics.mean(each.spread for each in found)
    return result


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(1)
    task = TASKS[PRESETS[f"{args.network}-small"].task]
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 32)
    held_out = pack_middles(task, Photographs(held_out_paths, smallest=task.multiple))
    sets = judging_sets(task, args.eval, held_out)
    RESULTS.mkdir(exist_ok=True)
    args.weights.mkdir(parents=True, exist_ok=True)
    lines = read_lines()
    until = time.monotonic() + args.hours * 3600
    for seed in range(args.seeds):
        for closed, start in ROWS:
            row = {
                "network": args.network, "closed by": closed, "started from": start,
                "steps": STEPS // 2 if start else STEPS, "seed": seed,
            }  # fmt: skip
            if any(row.items() <= line.items() for line in lines):
                continue
            if time.monotonic() > until:
                print("time is up; start again to go on")
                return
            result = run_one(row, task, images, sets, args.weights)
            with LINES.open("a", encoding="utf-8") as file:
                file.write(json.dumps(result) + "\n")
            shown = {key: round(v, 2) for key, v in result.items() if isinstance(v, float)}
            print(f"{', '.join(map(str, row.values()))}: {shown}", flush=True)


def read_lines() -> list[dict[str, Any]]:
    if not LINES.exists():
        return []
    return [json.loads(line) for line in LINES.read_text(encoding="utf-8").splitlines()]


def report() -> None:
    """Writes a table for every network: means over seeds, and half their range."""
    lines, text = read_lines(), []
    for kind in [kind for kind in KINDS if any(line["network"] == kind for line in lines)]:
        title = SETS.get(kind, "Set5")
        name = f"{title} reduced by 2" if title == "BSD100" else title
        text.append(
            f"\n### {kind}\n\n| | seeds | {name}: forward picture | what comes back | spread | "
            f"held out: forward picture | what comes back | spread |\n|{'---|' * 8}"
        )
        for closed, start in ROWS:
            rows = [
                line for line in lines
                if (line["network"], line["closed by"], line["started from"])
                == (kind, closed, start)
            ]  # fmt: skip
            if not rows:
                continue

            def mean(key: str, rows: list[dict[str, Any]] = rows) -> str:
                values = [row[key] for row in rows]
                shown = f"{statistics.mean(values):.2f}"
                spread = (max(values) - min(values)) / 2
                return f"{shown} ± {spread:.2f}" if len(values) > 1 else shown

            steps = rows[0]["steps"]
            what = f"{closed}, {steps} steps"
            if start:
                what = f"then {steps} more {'as it is' if closed == start else f'with {closed}'}"
            cells = [
                mean(f"{s} {k}")
                for s in (title, "held out")
                for k in ("forward", "back", "spread")
            ]
            text.append(f"| {what} | {len(rows)} | {' | '.join(cells)} |")
    (RESULTS / "integrations.md").write_text("\n".join(text).strip() + "\n", encoding="utf-8")
    keys = sorted({key for line in lines for key in line}, key=str)
    with (RESULTS / "integrations.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys)
        writer.writeheader()
        writer.writerows(lines)
    print("\n".join(text))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    trains = commands.add_parser("run")
    trains.add_argument("--photos", type=Path, required=True)
    trains.add_argument("--eval", type=Path, required=True)
    trains.add_argument("--network", choices=KINDS, default="irn-x2")
    trains.add_argument("--seeds", type=int, default=1)
    trains.add_argument(
        "--weights", type=Path, default=Path("runs/integrations"), help="folder for trained ones"
    )
    trains.add_argument("--hours", type=float, default=math.inf)
    commands.add_parser("report")
    args = parser.parse_args()
    run(args) if args.command == "run" else report()


if __name__ == "__main__":
    main()
