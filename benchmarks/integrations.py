r"""IRN, HiNet and IICNet as published, with a WIC in place of z, and what needs no inverse.

    python benchmarks/integrations.py run --photos PHOTOS --eval EVAL --plan equal --seeds 2
    python benchmarks/integrations.py run --photos PHOTOS --eval EVAL --network irn-x2 --hours 1
    python benchmarks/integrations.py time --photos PHOTOS
    python benchmarks/integrations.py report

``run`` trains a small network for every row that the plan's file in ``results/`` does not hold
yet, and adds a line for it; it can be stopped and started again. EVAL holds Set5 (rescaling,
decolorization), BSD100 (hiding, reduced by 2) and Set14 (IICNet). ``report`` writes tables and
``.csv`` beside the lines.

Plan ``equal`` (``results/integrations-equal``): each row has the same number of steps in all. As
published (IICNet has no z but its channel squeeze); with zeros for z; published for half of the
steps, then upgraded with a WIC and trained for the other half; with a WIC from its start; and a
plain network forward and another back (``plain.py``) with as many parameters and operations.
Zeros for z are a WIC that is not trained, with all other losses of one that is. In float32; HiNet
is judged on Set5. At the end one plain network for hiding has three times as many steps. ``time``
lets the networks decode a picture in turns, one thread: the time of each, of the published one's.

Plan ``upgrades`` (``results/integrations``), for IRN and HiNet: with its random z, and with a WIC
(zero and learned completion), from scratch; then the first one trained on for half as many steps,
as it is and upgraded, each from the same weights.

Equal in all rows of a network: couplings, photographs, crops, batches, steps and, by seed, the
start of the couplings; the weights of its authors' losses, to which rows with a WIC add L_det.
Pictures are rounded to 8 bits in training and judging. "spread" is the standard deviation of a
pixel over ten decodings of the same file (in plan ``equal`` five), in grey levels.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import iicnet
import plain
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

EQUAL = trials.Trials("integrations-equal")
EQUAL_KINDS: dict[str, dict[str, int]] = {  # with their sizes
    "irn-x2": {"couplings": 2, "growth": 12},
    "hinet": {"couplings": 2, "growth": 12},
    "iicnet-stereo": {"couplings": 2, "growth": 8, "features": 4},
}
EQUAL_STEPS = {"irn-x2": 500, "hinet": 500, "iicnet-stereo": 400}
EQUAL_LONGER = {"hinet": 1500}  # steps of a plain network that has hardly begun
EQUAL_BATCH = 2
EQUAL_SETS = {"iicnet-stereo": "Set14"}  # Set5 for the others
PUBLISHED = {"iicnet-stereo": "-squeeze-small"}  # of the others -z-small
# what closes a network, and what it was for the first half of its steps
EQUAL_ROWS = (
    ("published", None), ("z zero", None), ("WIC", "published"), ("WIC", None), ("plain", None),
)  # fmt: skip
EQUAL_TITLES = {
    ("published", None): "z drawn, as published", ("z zero", None): "z zero",
    ("WIC", "published"): "z drawn, then upgraded with a WIC", ("WIC", None): "WIC from the start",
    ("plain", None): "plain encoder-decoder",
}  # fmt: skip


def preset_of(kind: str, closed: str) -> str:
    """The preset whose losses a row has: a plain network's are the published one's."""
    is_published = closed in ("published", "plain")
    return f"{kind}{PUBLISHED.get(kind, '-z-small')}" if is_published else f"{kind}-small"


def build_equal(kind: str, closed: str) -> Any:
    """A network of the plan ``equal``, by what closes it."""
    preset = preset_of(kind, closed)
    model = NETWORKS[PRESETS[preset].network].from_preset(preset, **EQUAL_KINDS[kind])
    if closed == "z zero":
        return plain.with_zero_z(model)
    if closed == "plain":
        task = TASKS[PRESETS[preset].task]
        channels, out_channels, scale = task.channels
        copies = 1 if task.name.startswith("hiding") else task.images
        return plain.sized(
            plain.costs(model, channels), channels, out_channels, scale=scale, copies=copies
        )
    return model


def run_equal(
    row: dict[str, Any], task: Task, images: Photographs, sets: dict[str, Any], folder: Path
) -> dict[str, Any]:
    """Trains and judges the network of a row of the plan ``equal``, and keeps its weights."""
    kind, seed, closed = row["network"], row["seed"], row["closed by"]
    torch.manual_seed(seed)  # the couplings come first, so that they start alike
    model = build_equal(kind, closed)
    if row["started from"]:
        before = {**row, "closed by": row["started from"], "started from": None}
        kept = folder / f"{name_of(before)}.pt"
        if not kept.exists():
            run_equal(before, task, images, {}, folder)
        start = build_equal(kind, row["started from"])
        start.load_state_dict(torch.load(kept, weights_only=True))
        model = with_wic(start)
    price = plain.costs(model, task.channels[0])
    recipe = dict(PRESETS[preset_of(kind, closed)].recipe)
    if closed == "z zero":  # whose kernel is not trained
        forward, reverse, _, shift = recipe["weights"]
        recipe["weights"] = (forward, reverse, 0.0, shift)
    settings = Settings(
        **{**recipe, "crop": CROP}, steps=row["steps"], batch=EQUAL_BATCH,
        seed=seed, warmup=50,
    )  # fmt: skip
    result = trials.fit(trials.Training(model, task, images, settings))
    torch.save(model.state_dict(), folder / f"{name_of(row)}.pt")
    judged = partial(outcome, model, task, decodings=5 if is_drawn(kind, closed) else 1)
    return {**result, "operations": price.operations, **trials.means(judged, sets)}


def name_of(row: dict[str, Any]) -> str:
    """Of the file that keeps the weights of a row."""
    return "-".join(f"{value}" for value in row.values() if value is not None).replace(" ", "-")


def is_drawn(kind: str, closed: str) -> bool:
    return closed == "published" and kind not in PUBLISHED


def equal_rows(args: argparse.Namespace) -> Iterator[trials.Row]:
    for seed in range(args.seeds):
        for kind in args.networks:
            for closed, start in EQUAL_ROWS:
                if closed == "z zero" and kind in PUBLISHED:
                    continue  # there was no z
                steps = EQUAL_STEPS[kind] // (2 if start else 1)
                yield {
                    "network": kind, "closed by": closed, "started from": start, "steps": steps,
                    "seed": seed,
                }  # fmt: skip
    for kind in set(args.networks) & set(EQUAL_LONGER):
        yield {
            "network": kind, "closed by": "plain", "started from": None,
            "steps": EQUAL_LONGER[kind], "seed": 0,
        }  # fmt: skip


def run_plan_equal(args: argparse.Namespace) -> None:
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    prepared: dict[str, Any] = {}
    for row in EQUAL.missing(equal_rows(args), args.hours):
        kind = row["network"]
        task = TASKS[PRESETS[f"{kind}-small"].task]
        if kind not in prepared:
            images = Photographs(chosen, levels=3, smallest=task.source_side(CROP + 16))
            least = task.source_side(task.multiple)
            held_out = pack_middles(task, Photographs(held_out_paths, smallest=least))
            judge = iicnet.judging_sets if task.is_composed else judging_sets
            sets = judge(task, args.eval, held_out)
            names = (EQUAL_SETS.get(kind, "Set5"), "held out")
            prepared[kind] = images, {name: sets[name] for name in names}
        EQUAL.add(row, run_equal(row, task, *prepared[kind], args.weights))


def measure(args: argparse.Namespace) -> None:
    """Lets the networks of the plan ``equal`` decode a picture in turns."""
    for kind in EQUAL_KINDS:
        task = TASKS[PRESETS[f"{kind}-small"].task]
        images = Photographs(find_images(args.photos)[:1], smallest=task.source_side(256))
        middle = pack_middles(task, images)
        decode = {}
        for closed in dict.fromkeys(closed for closed, _ in EQUAL_ROWS):
            model = build_equal(kind, closed).eval()
            with torch.no_grad():
                decode[closed] = torch.no_grad()(partial(model.inverse, model(middle)))
        EQUAL.add_times(kind, trials.step_times(decode, repeats=15))


def report_equal() -> None:
    """Writes one table: means over seeds, and half their range."""
    lines, times = EQUAL.read(), EQUAL.read_times()
    text = [
        "| | | parameters | operations | seeds | picture | what comes back | spread | "
        f"held out: picture | what comes back | time of the way back |\n|{'---|' * 11}"
    ]
    for kind in EQUAL_KINDS:
        plans = [(*row, EQUAL_STEPS[kind] // (2 if row[1] else 1)) for row in EQUAL_ROWS]
        for closed, start, steps in [*plans, ("plain", None, EQUAL_LONGER.get(kind))]:
            rows = [
                line for line in lines
                if (line["network"], line["closed by"], line["started from"], line["steps"])
                == (kind, closed, start, steps)
            ]  # fmt: skip
            if not rows:
                continue
            title = EQUAL_TITLES[closed, start]
            if kind in PUBLISHED:
                title = title.replace("z drawn", "channel squeeze")
            if steps == EQUAL_LONGER.get(kind):
                title = f"{title}, {steps:,} steps"
            columns = [
                f"{name} {what}"
                for name in (EQUAL_SETS.get(kind, "Set5"), "held out")
                for what in ("forward", "back", "spread")
            ][:-1]
            time = times.get(kind, {}).get(closed)
            cells = [
                kind, title, f"{rows[0]['parameters']:,}",
                f"{rows[0]['operations'] / 1000:.1f}", f"{len(rows)}",
                *(spread(rows, column) for column in columns),
                "" if time is None else f"{time:.2f}",
            ]  # fmt: skip
            text.append(f"| {' | '.join(cells)} |")
    EQUAL.write(text, lines)


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


def outcome(model: Any, task: Task, x: Tensor, decodings: int = 10) -> dict[str, float]:
    judgement = Judgement(model, task, x, decodings)
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
    args.weights.mkdir(parents=True, exist_ok=True)
    if args.plan == "equal":
        run_plan_equal(args)
        return
    task = TASKS[PRESETS[f"{args.network}-small"].task]
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 32)
    held_out = pack_middles(task, Photographs(held_out_paths, smallest=task.multiple))
    sets = judging_sets(task, args.eval, held_out)
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
    report_equal()


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", choices=("upgrades", "equal"), default="upgrades")
    parser.add_argument("--network", choices=KINDS, default="irn-x2", help="of plan upgrades")
    parser.add_argument(
        "--networks", nargs="+", choices=list(EQUAL_KINDS), default=list(EQUAL_KINDS)
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument(
        "--weights", type=Path, default=Path("runs/integrations"), help="folder for trained ones"
    )


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report, measure)
