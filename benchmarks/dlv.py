r"""Does a latent w on the way forward help, and does it still where no z is drawn?

    python benchmarks/dlv.py run --photos PHOTOS --eval EVAL --plan settings --hours 1
    python benchmarks/dlv.py run --photos PHOTOS --eval EVAL --plan networks --network hinet
    python benchmarks/dlv.py time --photos PHOTOS
    python benchmarks/dlv.py report

``run`` trains one small network for every row that ``results/dlv.jsonl`` does not hold yet, and
adds a line for it; it can be stopped and started again. EVAL holds Set5, and BSD100 for hiding.
Plans: ``settings``, the rows of the DLV paper's Table 1 (z and w at zero or drawn, one to three
channels of w, the LR-invariance loss), on DLV-IRN x4; ``networks``, a base network, DLV, a WIC in
place of z, and DLV with a WIC. ``report`` writes ``results/dlv.md`` and ``.csv``.

Equal in all rows of a network: couplings, photographs, crops, batches, steps, rates, the weights
of the authors' losses (rows with a WIC add L_det), and that the picture is the low band, or the
cover, at the start. DLV adds channels, and parameters with them: the row with w at zero has these
too. Pictures are rounded to 8 bits in training and judging. Judged with w at zero; "w drawn" is
what comes back with another w, as the paper judges. ``time`` lets all networks of a table take
steps in turns, one thread: what the step of each takes, of the first one's.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
import trials
from completions import judging_sets
from torch import Tensor
from trials import spread

from wic_layers.layer.conv import WIC
from wic_layers.layer.quantization import quantize
from wic_layers.models import NETWORKS, PRESETS, with_wic
from wic_layers.pictures import find_images, psnr
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("dlv")
STEPS = {"irn-x2": 800}  # of the others 400
BATCH, CROP = 2, 48
# size of each network, and what it is judged on beside the held-out photographs
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "irn-x4": ({"couplings": 2, "growth": 8}, "Set5"),
    "irn-x2": ({"couplings": 4, "growth": 8}, "Set5"),
    "hinet": ({"couplings": 4, "growth": 8}, "BSD100"),
    "hcflow": (
        {"steps": 4, "growth": 8, "conditional_steps": 2, "width": 16, "depth": 1},
        "Set5",
    ),
}
TABLES = [("settings", "irn-x4"), *(("networks", kind) for kind in KINDS)]
# the rows of the paper's Table 1: channels of w, z, w in training, and whether L_i counts
TABLE_1 = (
    (2, "drawn", "drawn", False),
    (2, "drawn", "zero", False),
    (2, "zero", "zero", False),
    (1, "zero", "drawn", False),
    (2, "zero", "drawn", False),
    (3, "zero", "drawn", False),
    (2, "zero", "drawn", True),
)


def plan(name: str, kind: str) -> Iterator[dict[str, Any]]:
    """The rows of a plan, all of a seed before those of the next."""
    with_loss = kind.startswith("irn")  # the paper has L_i for DLV-IRN only
    rows: list[tuple[int, str, str, bool]] = list(TABLE_1)
    if name == "networks":
        rows = [(0, z, "none", False) for z in ("drawn", "zero", "WIC")]
        rows += [(2, z, "drawn", with_loss) for z in ("zero", "WIC")]
        rows += [(2, z, "zero", False) for z in ("zero", "WIC")]
    for seed in (0, 1):
        for channels, z, w, loss in rows:
            yield {
                "network": kind, "w channels": channels, "z": z, "w": w, "L_i": loss,
                "steps": STEPS.get(kind, 400), "seed": seed,
            }  # fmt: skip


def build(row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The network of a row, whose first channels are the picture at the start; and its recipe."""
    kind, channels, z = row["network"], row["w channels"], row["z"]
    name = f"dlv-{kind}" if channels else kind
    size = {**KINDS[kind][0], **({"w_channels": channels} if channels else {})}
    # as published first; z at zero is a kind of its own only where a network knows it
    preset = PRESETS[f"{name}-z"]
    knows = "z" in preset.arguments
    given = {"z": "drawn" if z == "drawn" else "zero"} if knows else {}
    model = NETWORKS[preset.network](**{**preset.arguments, **size, **given})
    recipe = dict((preset if z != "WIC" else PRESETS[name]).recipe)
    forward, reverse, det, shift = recipe["weights"]
    if knows and shift:  # half the square of a z that is drawn counts twice
        square = shift / 2 if preset.arguments["z"] == "drawn" and z != "WIC" else shift
        shift = 2 * square if z == "drawn" else square
    if not knows and z == "zero":
        places = [i for i, b in enumerate(model) if isinstance(b, WIC) and b.out_channels < b.rows]
        (place,) = places
        closed = model[place]
        zeros = WIC(
            closed.in_channels, closed.out_channels, completion="zero", parametrization="fixed"
        )
        model._modules[str(place)] = zeros
        shift /= 2
    if z == "WIC":
        model = with_wic(model)
    recipe["weights"] = (forward, reverse, det, shift)
    recipe.pop("invariance", None)
    if row["L_i"]:
        recipe["invariance"] = TASKS[preset.task].scale ** 2 / 4
    if row["w"] == "zero":
        recipe["w"] = "zero"
    return model, recipe


@torch.no_grad()
def judged(model: Any, task: Task, x: Tensor) -> dict[str, float]:
    """PSNR of both pictures through 8 bits with w at zero, and with one that is drawn."""
    edge = task.scale if task.scale > 1 else 0
    wanted, reference = torch.cat(task.restored(x), dim=1), quantize(task.reference(x))
    given: dict[str, dict[str, Tensor]] = {"": {}}
    if hasattr(model, "draw"):
        torch.manual_seed(0)
        given[", w drawn"] = {"w": model.draw(x)}
    found = {}
    for name, latent in given.items():
        y = quantize(model(x, **latent))
        back = torch.cat(task.restored(quantize(model.inverse(y))), dim=1)
        found[f"forward{name}"] = psnr(y, reference)
        found[f"back{name}"] = psnr(back, wanted, border=edge)
    return found


def run(args: argparse.Namespace) -> None:
    kind = "irn-x4" if args.plan == "settings" else args.network
    task = TASKS[PRESETS[kind].task]
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 32)
    held_out = pack_middles(task, Photographs(held_out_paths, smallest=task.multiple))
    sets = judging_sets(task, args.eval, held_out)
    judged_on = {name: sets[name] for name in ("held out", KINDS[kind][1])}
    for row in TRIALS.missing(plan(args.plan, kind), args.hours):
        training = training_of(row, task, images)
        # the invariance is a part of the loss that only some rows have
        result = trials.fit(training, without=("invariance",))
        judges = partial(judged, training.model, task)
        TRIALS.add(row, {**result, **trials.means(judges, judged_on)})


def training_of(row: dict[str, Any], task: Task, images: Photographs) -> trials.Training:
    torch.manual_seed(row["seed"])
    model, recipe = build(row)
    settings = Settings(
        **{**recipe, "crop": CROP}, steps=row["steps"], batch=BATCH, seed=row["seed"], bf16=True,
        warmup=50,
    )  # fmt: skip
    return trials.Training(model, task, images, settings)


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("w channels", "z", "w", "L_i"))


def measure(args: argparse.Namespace) -> None:
    """Lets the networks of every table take steps in turns."""
    images = Photographs(find_images(args.photos)[:4], smallest=CROP + 32)
    for name, kind in TABLES:
        task, rows = TASKS[PRESETS[kind].task], {str(key_of(r)): r for r in plan(name, kind)}
        steps = {key: training_of(row, task, images).step for key, row in rows.items()}
        TRIALS.add_times(f"{kind}, {name}", trials.step_times(steps))


def report() -> None:
    """Writes the tables: means over seeds, and half their range."""
    lines, text = TRIALS.read(), []
    times = TRIALS.read_times()
    for name, kind in TABLES:
        title = KINDS[kind][1]
        shown = f"{title} reduced by 2" if title == "BSD100" else title
        seen: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
        for row in plan(name, kind):
            wanted = row.items()
            seen.setdefault(key_of(row), []).extend(
                line for line in lines if wanted <= line.items()
            )
        if name == "networks" and not any(not key[0] and found for key, found in seen.items()):
            continue
        text.append(
            f"\n### {kind}, {name}, {STEPS.get(kind, 400)} steps\n\n"
            f"| C_w | z | w in training | L_i | seeds | parameters | {shown}: forward / back "
            f"| with w drawn | held out: forward / back | loss | time of a step |\n|{'---|' * 11}"
        )
        for key, found in seen.items():
            channels, z, w, has_loss = key
            time = times.get(f"{kind}, {name}", {}).get(str(key))
            if not found:
                continue
            pictures = [
                f"{spread(found, f'{title} forward{end}')} / {spread(found, f'{title} back{end}')}"
                for end in ("", ", w drawn")
            ]
            cells = [
                f"{channels or ''}", z, "" if w == "none" else w, "yes" if has_loss else "",
                str(len(found)), f"{found[0]['parameters']:,}", pictures[0],
                pictures[1] if channels else "",
                f"{spread(found, 'held out forward')} / {spread(found, 'held out back')}",
                spread(found, "loss"), "" if time is None else f"{time:.2f}",
            ]  # fmt: skip
            text.append(f"| {' | '.join(cells)} |")
    TRIALS.write(text, lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plan", choices=["settings", "networks"], default="settings")
    parser.add_argument("--network", choices=list(KINDS), default="irn-x4")


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report, measure)
