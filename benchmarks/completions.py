r"""What stands in for the dropped channels, and what else decides: all other things equal.

    python benchmarks/completions.py run --photos PHOTOS --eval EVAL --task hiding-1 \
        --plan completions --hours 2
    python benchmarks/completions.py time --photos PHOTOS
    python benchmarks/completions.py report

``run`` trains one small network for every row of the plan that ``results/completions.jsonl`` does
not hold yet, and adds a line for it; it can be stopped and started again. EVAL holds the folders
Set5, Set14 and BSD100. Plans: ``completions`` with both starts of the kernel; ``long``, the three
best of them for ten times as many steps; ``structure``, how a network squeezes; ``ablation``, the
rows of the paper's Table V and those beside it that the paper leaves out; ``compute``, fewer
operations. ``report`` writes ``results/completions.md``, ``.csv`` and ``.png`` from the lines.

Equal in all rows of a task, but for what the row names: the couplings, the photographs (each at
three sizes, first reduced by 2 where its chroma is halved), crops, batches, steps, rates, losses
and their weights, and, by seed, the start of the couplings. The learned completion has parameters
of its own beside. Pictures are rounded to 8 bits in training and judging. "held out" are four
photographs that no network was trained on; choices are made by them, never by the test sets.
``time`` lets all networks of a task take steps in turns, one thread: what the step of each takes,
of the one with the zero completion.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
import trials
from torch import Tensor, nn
from trials import spread

from wic_layers.blocks import AffineCoupling, Chain, Haar, InverseHaar, Squeeze, Unsqueeze
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.evaluation.protocol import reduce_by
from wic_layers.layer.conv import WIC
from wic_layers.layer.quantization import quantize
from wic_layers.models import WIN
from wic_layers.pictures import find_images, psnr, read_image
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import pack_middles, split_off

TRIALS = trials.Trials("completions")

COMPLETIONS: dict[str, dict[str, Any]] = {
    "gaussian": {"completion": "gaussian"},
    "zero": {"completion": "zero"},
    "repeat": {"completion": "repeat"},
    "shift, published": {"completion": "shift", "layout": "published"},
    "shift": {"completion": "shift"},
    "shift, constrained": {"completion": "shift", "rows": "more"},
    "learned": {"completion": "learned"},
}
STARTS = ("orthogonal", "task-aware")
# parts of the loss beside the two pictures': L_det and L_shift, the second alone, or neither
LOSSES = {"both": (1, 1), "shift": (0, 1), "none": (0, 0)}
# of the losses: the forward picture counts as much as it takes to look right at crops of 48
WEIGHTS = {
    "rescaling-x2": (12.0, 1.0, 0.1, 1.0),
    "hiding-1": (1.0, 1.0, 0.1, 1.0),
    "decolorization": (40.0, 1.0, 0.1, 1.0),
}
BATCH, CROP, STEPS = 4, 48, 1200
SETS = {"Set5": 1, "Set14": 1, "BSD100": 2}  # each with the factor that it is first reduced by


def network(task: Task, row: dict[str, Any]) -> nn.Module:
    """WIN-Naive (squeeze, couplings, a narrowing WIC), or WIN with one module and its memory."""
    channels, haar = 12 * task.images, row["squeeze"] == "haar"
    groups = channels // 4 if task.scale == 1 else 1
    narrow = channels // 4 if task.scale == 1 else channels
    given = dict(COMPLETIONS[row["completion"]])
    if given.get("rows") == "more":
        given["rows"] = narrow + task.out_channels
    if row["squeeze"] == "memory":
        return WIN(
            3 * task.images, task.out_channels, scale=task.scale, width=channels + 8,
            split=channels / (channels + 8), modules=1, couplings=row["couplings"] - 1,
            growth=row["growth"], **given,
        )  # fmt: skip
    subnet = partial(DenseBlock, growth=row["growth"])
    blocks: list[nn.Module] = [Haar(groups) if haar else Squeeze(2)]
    split = 3 if haar and task.scale == 2 else None
    blocks += [
        AffineCoupling(channels, split=split, subnet=subnet) for _ in range(row["couplings"])
    ]
    if task.scale == 1:
        blocks.append(InverseHaar(groups) if haar else Unsqueeze(2))
    last = WIC(narrow, task.out_channels, **given)
    if row["start"] == "task-aware":
        with torch.no_grad():
            last.weight.copy_(task_aware(task, last.weight, haar=haar))
    return Chain(*blocks, last)


def task_aware(task: Task, weight: Tensor, *, haar: bool) -> Tensor:
    """A kernel whose kept rows give the wanted picture at the start: mean, cover or brightness."""
    kept = torch.zeros(task.out_channels, weight.shape[1])
    if task.out_channels == 1:
        kept[0] = torch.tensor([0.299, 0.587, 0.114])
    elif task.scale == 1:  # the cover is the first of the images
        kept[:, :3] = torch.eye(3)
    elif haar:  # the low band is twice the mean
        kept[:, :3] = torch.eye(3) / 2
    else:  # the four pixels of each channel
        kept[:] = torch.eye(3).repeat_interleave(4, dim=1) / 4
    # the other rows keep their random directions, made orthogonal to these
    basis, _ = torch.linalg.qr(kept.T)
    others = weight[task.out_channels :] - weight[task.out_channels :] @ basis @ basis.T
    return torch.cat((kept, others / others.norm(dim=1, keepdim=True)))


def plan(task: str, name: str) -> Iterator[dict[str, Any]]:
    """The rows of a plan, the most telling first."""
    usual = {
        "task": task, "squeeze": "haar", "completion": "zero", "start": "orthogonal",
        "losses": "both", "couplings": 4, "growth": 12, "steps": STEPS,
    }  # fmt: skip
    rows: list[dict[str, Any]]
    if name == "completions":
        rows = [{"completion": c, "start": s} for s in STARTS for c in COMPLETIONS]
    elif name == "long":
        rows = [{**row, "steps": 10 * STEPS} for row in leading(task)]
    elif name == "structure":
        rows = [{}, {"squeeze": "pixels"}]
    elif name == "ablation":
        rows = [
            {"completion": "gaussian", "losses": "none"},
            {"completion": "shift, published", "losses": "none"},
            {"completion": "shift, published", "losses": "shift"},
            {"completion": "shift, published"},
            {"completion": "shift, published", "squeeze": "memory"},
            {"losses": "none"},
            {},
            {"squeeze": "memory"},
        ]
        rows = [{"squeeze": "pixels", **row} for row in rows]
    else:
        rows = [
            {"squeeze": "pixels"},
            {"growth": 4},
            *({"growth": growth, "couplings": 2} for growth in (8, 7, 6)),
            *(
                {"growth": growth, "couplings": 2, "start": "task-aware", "completion": completion}
                for growth in (8, 6)
                for completion in ("zero", "repeat")
            ),
        ]
    for seed in (0, 1):
        yield from ({**usual, **row, "seed": seed} for row in rows)


def leading(task: str, number: int = 3) -> list[dict[str, Any]]:
    """Completions and starts that did best on the held-out photographs, one of each completion."""
    scores: dict[tuple[str, str], list[float]] = defaultdict(list)
    for line in TRIALS.read():
        usual = (line["squeeze"], line["losses"], line["growth"], line["couplings"])
        if (line["task"], line["steps"]) == (task, STEPS) and usual == ("haar", "both", 12, 4):
            both = line["held out forward"] + line["held out back"]
            scores[line["completion"], line["start"]].append(both / 2)
    best: dict[str, str] = {}
    for completion, start in sorted(scores, key=lambda key: -statistics.mean(scores[key])):
        best.setdefault(completion, start)
    if len(best) < number:
        raise SystemExit(f"Run the plan completions of {task} first: it has {len(best)} rows.")
    return [{"completion": c, "start": s} for c, s in list(best.items())[:number]]


def judging_sets(task: Task, folder: Path, held_out: Tensor) -> dict[str, list[Tensor]]:
    """Packed images (1, C, H, W) of every set; for hiding the image that follows is the secret."""
    sets = {"held out": list(held_out.split(1))}
    for name, factor in SETS.items():
        images = [reduce_by(read_image(path), factor) for path in find_images(folder / name)]
        packed = []
        for index, image in enumerate(images):
            others = [images[(index + step) % len(images)] for step in range(1, task.images)]
            others = [o if o.shape == image.shape else o.transpose(1, 2) for o in others]
            sides = [
                min(o.shape[axis] for o in (image, *others)) // task.multiple * task.multiple
                for axis in (1, 2)
            ]
            group = [o[None, :, : sides[0], : sides[1]].float() / 255 for o in (image, *others)]
            packed.append(task.pack(*group))
        sets[name] = packed
    return sets


@torch.no_grad()
def judged(model: Any, task: Task, x: Tensor) -> dict[str, float]:
    """PSNR of both pictures through 8 bits, and how far a second round trip is from the first."""
    edge = task.scale if task.scale > 1 else 0
    y = quantize(model(x))
    back = quantize(model.inverse(y))
    again = quantize(model.inverse(quantize(model(back))))
    found, wanted, twice = (torch.cat(task.restored(z), 1) for z in (back, x, again))
    return {
        "forward": psnr(y, quantize(task.reference(x))),
        "back": psnr(found, wanted, border=edge),
        "second": psnr(twice, found, border=edge),
    }


def training_of(row: dict[str, Any], task: Task, images: Photographs) -> trials.Training:
    forward, back, det, shift = WEIGHTS[task.name]
    counted = LOSSES[row["losses"]]
    weights = (forward, back, det * counted[0], shift * counted[1])
    settings = Settings(
        steps=row["steps"], batch=BATCH, crop=CROP, seed=row["seed"], bf16=True, warmup=100,
        weights=weights,
    )  # fmt: skip
    torch.manual_seed(row["seed"])  # the couplings come first, so that they start alike
    return trials.Training(network(task, row), task, images, settings, seeded=False)


def run_one(
    row: dict[str, Any], task: Task, images: Photographs, sets: dict[str, list[Tensor]]
) -> dict[str, Any]:
    """Trains and judges the network of a row."""
    training = training_of(row, task, images)
    result, model = trials.fit(training), training.model
    (last,) = [m for m in model.modules() if isinstance(m, WIC) and m.in_channels > m.out_channels]
    result["condition"] = float(last.condition_number().detach())
    result["torch"] = torch.__version__
    return {**result, **trials.means(partial(judged, model, task), sets)}


def run(args: argparse.Namespace) -> None:
    task = TASKS[args.task]
    chosen, held_out_paths = split_off(find_images(args.photos), 4)
    images = Photographs(chosen, levels=3, smallest=CROP + 16)
    held_out = pack_middles(task, Photographs(held_out_paths, smallest=2))
    sets = judging_sets(task, args.eval, held_out)
    for row in TRIALS.missing(plan(args.task, args.plan), args.hours):
        TRIALS.add(row, run_one(row, task, images, sets))


def structure_of(row: dict[str, Any]) -> str:
    """What a row is beside its completion."""
    structure = f"{row['squeeze']}, {row['start']}"
    if row["losses"] != "both":
        structure += f", L_det and L_shift: {row['losses']}"
    if (row["couplings"], row["growth"]) != (4, 12):
        structure += f", {row['couplings']} couplings of growth {row['growth']}"
    return structure


def measure(args: argparse.Namespace) -> None:
    """Lets the networks of all rows of a task take steps in turns."""
    images = Photographs(find_images(args.photos)[:4], smallest=CROP + 16)
    for name in sorted({line["task"] for line in TRIALS.read()}):
        rows = {
            f"{row['completion']}; {structure_of(row)}": row
            for row in [next(plan(name, "structure")), *TRIALS.read()] if row["task"] == name
        }  # fmt: skip
        steps = {key: training_of(row, TASKS[name], images).step for key, row in rows.items()}
        TRIALS.add_times(name, trials.step_times(steps))


def report() -> None:
    """Writes a table for every task and budget: means over seeds, and half their range."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for line in TRIALS.read():
        groups[line["task"], line["steps"], structure_of(line), line["completion"]].append(line)
    times = TRIALS.read_times()
    text, flat = [], []
    for task, steps in sorted({key[:2] for key in groups}):
        text.append(
            f"\n### {task}, {steps} steps\n\n| completion | squeeze and start | seeds | "
            + " | ".join(f"{name}: forward / back" for name in ("held out", *SETS))
            + " | loss | second round trip | condition | time of a step |\n|"
            + "---|" * (8 + len(SETS))
        )
        rows = {key[2:]: lines for key, lines in groups.items() if key[:2] == (task, steps)}
        order = sorted(
            rows, key=lambda key: (key[0], statistics.mean(line["loss"] for line in rows[key]))
        )
        for start, completion in order:
            lines = rows[start, completion]

            cells = [completion, start, str(len(lines))]
            cells += [
                f"{spread(lines, f'{name} forward')} / {spread(lines, f'{name} back')}"
                for name in ("held out", *SETS)
            ]
            cells += [spread(lines, key) for key in ("loss", "BSD100 second", "condition")]
            time = times.get(task, {}).get(f"{completion}; {start}")
            cells.append("" if time is None else f"{time:.2f}")
            text.append(f"| {' | '.join(cells)} |")
            flat += lines
    TRIALS.write(text, flat)
    if flat:
        plot(groups)


def plot(groups: dict[tuple[Any, ...], list[dict[str, Any]]]) -> None:
    """Both pictures' PSNR on the held-out photographs: a point for every row and seed."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    tables = sorted({key[:2] for key in groups})
    figure, axes = pyplot.subplots(
        1, len(tables), figsize=(5.5 * len(tables), 4.5), squeeze=False, layout="constrained"
    )
    colours = dict(zip(COMPLETIONS, pyplot.get_cmap("tab10").colors, strict=False))  # type: ignore[attr-defined]
    markers = dict(zip(sorted({key[2] for key in groups}), "o^sDvP*Xd<>ph8", strict=False))
    for axis, (task, steps) in zip(axes[0], tables, strict=True):
        for key, lines in groups.items():
            if key[:2] != (task, steps):
                continue
            axis.scatter(
                [line["held out forward"] for line in lines],
                [line["held out back"] for line in lines],
                color=colours[key[3]], marker=markers[key[2]], s=36, alpha=0.8,
            )  # fmt: skip
        axis.set(
            title=f"{task}, {steps} steps", xlabel="PSNR of the forward picture, dB",
            ylabel="PSNR of what comes back, dB",
        )  # fmt: skip
        axis.grid(alpha=0.3)
    handles = [
        pyplot.Line2D([], [], color=colour, marker="o", linestyle="", label=name)
        for name, colour in colours.items()
    ]
    handles += [
        pyplot.Line2D([], [], color="black", marker=marker, linestyle="", label=name)
        for name, marker in markers.items()
    ]
    figure.legend(handles=handles, loc="outside right upper", fontsize=8)
    figure.savefig(trials.RESULTS / "completions.png", dpi=110)
    pyplot.close(figure)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--task", choices=list(WEIGHTS), default="rescaling-x2")
    parser.add_argument(
        "--plan", choices=["completions", "long", "structure", "ablation", "compute"],
        default="completions",
    )  # fmt: skip


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report, measure)
