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
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import trials
from completions import judging_sets
from torch import Tensor
from trials import spread

from wic_layers.models import NETWORKS, PRESETS, with_wic
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Judgement, Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("integrations")
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


def run_one(
    row: dict[str, Any], task: Task, images: Photographs, sets: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Trains and judges the network of a row; keeps a random z's weights for those that follow."""
    kind, seed, kept = row["network"], row["seed"], folder / f"{row['network']}-{row['seed']}.pt"
    random_z = row["closed by"] == "random z"
    if row["started from"] and not kept.exists():  # another machine has trained them
        run_one(
            {**row, "closed by": row["started from"], "started from": None, "steps": STEPS},
            task, images, {}, folder,
        )  # fmt: skip
    torch.manual_seed(seed)  # the couplings come first, so that they start alike
    model = build(kind, row["closed by"])
    if row["started from"]:
        start = build(kind, row["started from"])
        start.load_state_dict(torch.load(kept, weights_only=True))
        model = start if random_z else with_wic(start, row["closed by"].partition(", ")[2])
    name = f"{kind}-z-small" if random_z else f"{kind}-small"
    settings = Settings(
        **{**PRESETS[name].recipe, "crop": CROP}, steps=row["steps"], batch=BATCH, seed=seed,
        bf16=True, warmup=100,
    )  # fmt: skip
    result = trials.fit(trials.Training(model, task, images, settings))
    if random_z and not row["started from"]:
        torch.save(model.state_dict(), kept)
    judged = {name: sets[name] for name in ("held out", SETS.get(kind, "Set5")) if name in sets}
    return {**result, **trials.means(partial(outcome, model, task), judged)}


def outcome(model: Any, task: Task, x: Tensor) -> dict[str, float]:
    judgement = Judgement(model, task, x, decodings=10)
    back = statistics.mean(judgement.psnrs_back)
    return {"forward": judgement.psnr_forward, "back": back, "spread": judgement.spread}


def rows(args: argparse.Namespace) -> Iterator[trials.Row]:
    for seed in range(args.seeds):
        for closed, start in ROWS:
            yield {
                "network": args.network, "closed by": closed, "started from": start,
                "steps": STEPS // 2 if start else STEPS, "seed": seed,
            }  # fmt: skip


def run(args: argparse.Namespace) -> None:
    task = TASKS[PRESETS[f"{args.network}-small"].task]
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 32)
    held_out = pack_middles(task, Photographs(held_out_paths, smallest=task.multiple))
    sets = judging_sets(task, args.eval, held_out)
    args.weights.mkdir(parents=True, exist_ok=True)
    for row in TRIALS.missing(rows(args), args.hours):
        TRIALS.add(row, run_one(row, task, images, sets, args.weights))


def report() -> None:
    """Writes a table for every network: means over seeds, and half their range."""
    lines, text = TRIALS.read(), []
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

            steps = rows[0]["steps"]
            what = f"{closed}, {steps} steps"
            if start:
                what = f"then {steps} more {'as it is' if closed == start else f'with {closed}'}"
            cells = [
                spread(rows, f"{s} {k}")
                for s in (title, "held out")
                for k in ("forward", "back", "spread")
            ]
            text.append(f"| {what} | {len(rows)} | {' | '.join(cells)} |")
    TRIALS.write(text, lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", choices=KINDS, default="irn-x2")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--weights", type=Path, default=Path("runs/integrations"), help="folder for trained ones"
    )


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report)
