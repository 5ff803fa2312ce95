r"""What survives JPEG: networks trained through it and without it, bicubic, a plain upscaler.

    python benchmarks/carriers.py run --photos PHOTOS --eval EVAL --runs FOLDER --seeds 2
    python benchmarks/carriers.py upscaler --photos PHOTOS SHARP --eval EVAL --runs FOLDER
    python benchmarks/carriers.py report
    python benchmarks/carriers.py pictures --weights hiding-1-jpeg-naive-small --out FILE.jpg

``run`` trains a small network for every row that ``results/carriers.jsonl`` does not hold yet, and
adds a line for it; it can be stopped and started again. Equal in all rows of a task: photographs,
crops, batches, steps, optimizer, rate and seed. Rows: WIN-Naive and the structure of IRN (x2) or
HiNet (hiding) as published, each with and without ``--through``; WIN-Naive with other weights of
the forward picture (the frontier between both pictures); and of x2 a plain upscaler, the decoding
half of ``plain.py``'s network of as many parameters in all, trained on bicubic's small picture
through the same JPEG. Weights of the package, where there are some, bicubic, and a grey picture
that stays without colours need no training; of decolorization there are only these.
``upscaler`` trains the plain upscaler as the package's weights for x2 were, with their crops,
batch, photographs and averaged weights, and for about as many steps; it goes on where it stopped.
EVAL holds Set14 and BSD100; hiding is judged on BSD100 reduced by 2, with the next picture as the
secret. ``report`` writes ``results/carriers.md``; ``pictures`` draws what comes back at quality 90
and 50 and after a messenger (longest side 1280, quality 75).

Judged are 8-bit pictures, after the real codec; borders of two pixels are left out of x2.
"picture" is the forward picture before JPEG, against bicubic's or the cover; bytes are those of
the JPEG.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import plain
import torch
import torch.nn.functional as F
import trials
from torch import Tensor
from trials import Trials, spread

from wic_layers.codec.attacks import Attack, attacks
from wic_layers.codec.carrier import CARRIER
from wic_layers.evaluation.protocol import reduce_by
from wic_layers.models import NETWORKS, PRESETS, Network, from_pretrained, packaged_weights
from wic_layers.pictures import find_images, psnr, read_image
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings, Training
from wic_layers.training.command import pack_middles, split_off
from wic_layers.training.loop import CHECKPOINT

THROUGH = ("jpeg:30-95",)
ATTACKS = attacks(
    ["jpeg:90,75,70,50,30", "jpeg444:90", "webp:80", "jpeg:90+jpeg:75", "resize:0.75+jpeg:75"]
)


# ------------------------------------------------------------------------------------- judging


def figures(name: str, picture: Tensor, original: Tensor) -> dict[str, float]:
    """PSNR in RGB and of the luma of BT.601, at most 99 dB."""
    luma = torch.tensor((65.481, 128.553, 24.966)).view(3, 1, 1) / 255
    pair = [each.float() / 255 for each in (picture, original)]
    grey = [(each * luma).sum(0) for each in pair]
    return {f"{name} RGB": min(psnr(*pair), 99.0), f"{name} Y": min(psnr(*grey), 99.0)}


def judged(
    model: Any, task: Task, images: Sequence[Tensor], choices: Sequence[Attack]
) -> dict[str, float]:
    """The mean figures over pictures uint8 (3, H, W).

    Without a network: of bicubic, or of a grey picture that stays grey.
    """
    sums: dict[str, float] = {}
    for index, image in enumerate(images):
        height, width = (side // task.multiple * task.multiple for side in image.shape[1:])
        inputs = [image[:, :height, :width]]
        if task.images > 1:
            other = images[(index + 1) % len(images)]
            turned = other if other.shape == image.shape else other.transpose(1, 2)
            inputs.append(turned[:, :height, :width])
        x = task.packed(*inputs)[None].float() / 255
        with torch.no_grad():
            reference = CARRIER.pixels(task.reference(x))[0]
            picture = reference if model is None else CARRIER.pixels(model(x))[0]
        found = figures("picture", picture, reference)
        for attack in [None, *choices]:
            arriving = None if attack is None else attack(picture)
            y = (picture if arriving is None else arriving.pixels)[None].float() / 255
            with torch.no_grad():
                if model is None and task.scale > 1:
                    back = F.interpolate(y, scale_factor=task.scale, mode="bicubic")
                elif model is None:
                    back = y.expand(-1, x.shape[1], -1, -1)
                else:
                    back = task.restored(model.inverse(y))[-1]
            border = task.scale if task.scale > 1 else 0
            inner = slice(border, -border or None)
            name = "8 bits" if attack is None else str(attack)
            found |= figures(
                name, CARRIER.pixels(back)[0][:, inner, inner], inputs[-1][:, inner, inner]
            )
            if arriving is not None and arriving.size is not None:
                found[f"{name} bytes"] = arriving.size
        for key, value in found.items():
            sums[key] = sums.get(key, 0.0) + value / len(images)
    return sums


def pictures_of(folder: Path, task: Task, most: int | None = None) -> list[Tensor]:
    """What a task is judged on in a folder, evenly spread if not all of it."""
    paths = find_images(folder)
    step = max(len(paths) // most, 1) if most else 1
    images = [reduce_by(read_image(path), 2 if task.images > 1 else 1) for path in paths[::step]]
    return images[:most]


# ---------------------------------------------------------------------------- trained equally

TRIALS = Trials("carriers")
STEPS, BATCH, CROP = 2000, 4, 48
UPSCALER = "plain upscaler"
# what is trained: presets, or for the upscaler the one whose size it has
KINDS = {
    "rescaling-x2": {
        "WIN-Naive": "rescaling-x2-naive-small", "IRN": "irn-x2-z-small",
        UPSCALER: "rescaling-x2-naive-small",
    },
    "hiding-1": {"WIN-Naive": "hiding-1-jpeg-naive-small", "HiNet": "hinet-z-small"},
}  # fmt: skip
# weights of the forward picture: the first is that of all rows, the others make the frontier
FRONTIER = {"rescaling-x2": (12.0, 4.0, 40.0), "hiding-1": (1.0, 0.3, 3.0)}
PACKAGE = {
    "rescaling-x2": ("rescaling-x2-naive-small", "rescaling-x2-jpeg-naive-small"),
    "hiding-1": ("hiding-1-naive-small", "hiding-1-jpeg-naive-small"),
    "decolorization": ("decolorization-naive-small", "decolorization-jpeg-naive-small"),
}
# what needs no network
WITHOUT = {"rescaling-x2": "bicubic", "decolorization": "uncoloured"}


def rows(tasks: Sequence[str], seeds: int) -> list[dict[str, Any]]:
    """All that is trained: networks with JPEG and without, the upscaler with it, the frontiers."""
    planned = []
    for seed in range(seeds):
        for task in filter(KINDS.__contains__, tasks):
            usual, *others = FRONTIER[task]
            for kind in KINDS[task]:
                for through in (True, False) if kind != UPSCALER else (True,):
                    planned.append((task, kind, through, usual, seed))
            planned += [(task, "WIN-Naive", True, weight, seed) for weight in others]
    names = ("task", "network", "through", "forward", "seed")
    return [dict(zip(names, each, strict=True)) for each in planned]


def prepared(row: dict[str, Any], steps: int) -> tuple[Settings, Any]:
    """The settings of a row, and its network before its training."""
    preset = KINDS[row["task"]][row["network"]]
    torch.manual_seed(row["seed"])
    is_plain = row["network"] == UPSCALER
    model: Any = (
        plain.Upscaler(preset)
        if is_plain
        else NETWORKS[PRESETS[preset].network].from_preset(preset)
    )
    has_wic = row["network"] == "WIN-Naive"
    settings = Settings(
        preset=preset, steps=steps, batch=BATCH, crop=CROP, seed=row["seed"], optimizer="muon",
        learning_rate=1e-3, warmup=min(100, steps // 4),
        through=THROUGH if row["through"] else (),
        weights=(0.0 if is_plain else row["forward"], 1.0, 0.1 * has_wic, 1.0 * has_wic),
    )  # fmt: skip
    return settings, model


def run_row(
    row: dict[str, Any], photos: Photographs, sets: dict[str, list[Tensor]], steps: int, runs: Path
) -> dict[str, Any]:
    """Trains the network of a row, keeps its weights, and judges it on every set."""
    settings, model = prepared(row, steps)
    task = TASKS[row["task"]]
    result = trials.fit(trials.Training(model, task, photos, settings))
    runs.mkdir(parents=True, exist_ok=True)
    name = "-".join(str(value) for value in row.values()).replace(" ", "-")
    torch.save(model.state_dict(), runs / f"{name}.pt")
    found = {
        f"{title} {key}": value
        for title, images in sets.items()
        for key, value in judged(model, task, images, ATTACKS).items()
    }
    return {"steps": steps, **result, **found}


def sets_of(task: Task, folder: Path, most: int | None) -> dict[str, list[Tensor]]:
    names = ("BSD100",) if task.images > 1 else ("Set14", "BSD100")
    return {name: pictures_of(folder / name, task, most) for name in names}


def run(args: argparse.Namespace) -> None:
    photos = Photographs(find_images(args.photos), reduce=2, levels=2, smallest=80)
    planned = rows(args.tasks, args.seeds)
    chosen = [row for row in planned if args.networks is None or row["network"] in args.networks]
    for row in TRIALS.missing(chosen, args.hours):
        sets = sets_of(TASKS[row["task"]], args.eval, args.most)
        TRIALS.add(row, run_row(row, photos, sets, args.steps, args.runs))
    for name in args.tasks:
        task = TASKS[name]
        titles = [each for each in PACKAGE[name] if each in packaged_weights()]
        if name in WITHOUT:
            titles.append(WITHOUT[name])
        for title in titles:
            row = {"task": name, "network": title, "through": None, "forward": None, "seed": 0}
            if not list(TRIALS.missing([row], math.inf)):
                continue
            model = from_pretrained(title) if title in PACKAGE[name] else None
            found = {
                f"{each} {key}": value
                for each, images in sets_of(task, args.eval, args.most).items()
                for key, value in judged(model, task, images, ATTACKS).items()
            }
            TRIALS.add(row, found)


def upscaler(args: argparse.Namespace) -> None:
    """Trains the plain upscaler as long as the package's weights, and judges it."""
    preset = "rescaling-x2-jpeg-naive-small"
    task = TASKS[PRESETS[preset].task]
    row = {
        "task": task.name, "network": UPSCALER, "through": True, "forward": None,
        "seed": args.seed, "steps": args.steps,
    }  # fmt: skip
    settings = Settings(
        preset=preset, steps=args.steps, batch=16, crop=72, seed=args.seed, optimizer="muon",
        learning_rate=2e-3, warmup=200, ema=0.999, bf16=True, candidates=2, grey=0.06,
        lettering=0.06, every=500, through=(*THROUGH, "jpeg:75-95"), weights=(0.0, 1.0, 0.0, 0.0),
    )  # fmt: skip
    paths = [path for folder in args.photos for path in find_images(folder)]
    chosen, held_out = split_off(paths, settings.held_out)
    photos, judges = (
        Photographs(some, reduce="auto", levels=settings.levels, smallest=80)
        for some in (chosen, held_out)
    )
    torch.manual_seed(args.seed)
    folder = args.runs / f"upscaler-{args.steps}-{args.seed}"
    folder.mkdir(parents=True, exist_ok=True)
    training = Training(
        cast(Network, plain.Upscaler(preset)), task, photos, settings, folder,
        held_out=pack_middles(task, judges),
    )  # fmt: skip

    def told(step: int, losses: Any, judgement: Any, rate: float) -> None:
        if judgement is not None:
            took = training.seconds
            print(f"step {step}: {judgement.psnr_back:.2f} dB, {took:.0f} s", flush=True)

    model = training.run(resume=(folder / CHECKPOINT).is_file(), report=told).eval()
    sets = sets_of(task, args.eval, args.most)
    TRIALS.add(row, {
        "parameters": sum(p.numel() for p in model.parameters()),
        **{
            f"{title} {key}": value
            for title, images in sets.items()
            for key, value in judged(model, task, images, ATTACKS).items()
        },
    })  # fmt: skip


def report(args: argparse.Namespace) -> None:
    """Writes a table for every task and set."""
    lines, text = TRIALS.read(), []
    names = ["8 bits", *map(str, ATTACKS)]
    for task in PACKAGE:
        for title in ("Set14", "BSD100"):
            own = [e for e in lines if e["task"] == task and f"{title} picture Y" in e]
            if not own:
                continue
            text += [f"## {task}, {title}: PSNR of luma in dB (RGB)", ""]
            heads = ("", "through JPEG", "forward weight", "seeds", "steps", "picture", *names)
            text += [f"| {' | '.join(heads)} | bytes at 90 |", "|---" * (len(heads) + 1) + "|"]
            for kind in dict.fromkeys(map(_kind, own)):
                some = [line for line in own if _kind(line) == kind]
                through = "" if kind[1] is None else "yes" if kind[1] else "no"
                cells = [kind[0], through, "" if kind[2] is None else f"{kind[2]:g}"]
                cells += [str(len(some)), str(some[0].get("steps", "")),
                          spread(some, f"{title} picture RGB")]  # fmt: skip
                for name in names:
                    luma, rgb = (spread(some, f"{title} {name} {end}") for end in ("Y", "RGB"))
                    cells.append(f"{luma} ({rgb})")
                size = some[0].get(f"{title} jpeg:90 bytes")
                cells.append("" if size is None else f"{size:,.0f}")
                text.append(f"| {' | '.join(cells)} |")
            text.append("")
    TRIALS.write(text, lines)


def _kind(line: dict[str, Any]) -> tuple[Any, ...]:
    """What lines have in common that differ by their seed only."""
    return line["network"], line["through"], line["forward"], line.get("steps")


# ------------------------------------------------------------------------------------ pictures

MESSENGER = "fit:1280+jpeg:75"


def draw(args: argparse.Namespace) -> None:
    """Draws what comes back at 90, at 50 and after a messenger, beside bicubic for x2."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from skimage import data

    network = from_pretrained(args.weights)
    task = TASKS[str(network.task)]
    photos = [data.astronaut(), data.coffee()[:, 40:552]][: task.images]
    side = min(min(image.shape[:2]) for image in photos) // 4 * 4
    images = [torch.from_numpy(image[:side, :side].copy()).permute(2, 0, 1) for image in photos]
    x = task.packed(*images)[None].float() / 255
    ways = ["8 bits", "jpeg:90", "jpeg:50", MESSENGER]
    with torch.no_grad():
        made = {"network": CARRIER.pixels(network(x))[0]}
        if task.scale > 1:
            made["bicubic"] = CARRIER.pixels(task.reference(x))[0]
        figure, axes = pyplot.subplots(
            len(made), len(ways) + 2, figsize=(3 * len(ways) + 6, 3.3 * len(made)),
            layout="constrained", squeeze=False,
        )  # fmt: skip
        for row, (way, picture) in zip(axes, made.items(), strict=True):
            cells = [("what went in", images[-1]), (f"picture of {way}", picture)]
            for each in ways:
                arrived = picture if each == "8 bits" else attacks([each])[0](picture).pixels
                y = arrived[None].float() / 255
                back = (
                    plain.resized(y, task.scale) if way == "bicubic"
                    else task.restored(network.inverse(y))[-1]
                )  # fmt: skip
                pixels = CARRIER.pixels(back)[0]
                cells.append((f"{each}: {psnr(pixels, images[-1]):.2f} dB", pixels))
            for axis, (title, image) in zip(row, cells, strict=True):
                scale = images[-1].shape[1] // image.shape[1]
                top, left, part = 60 // scale, 180 // scale, 128 // scale
                cut = image[:, top : top + part, left : left + part]
                shown = cut.expand(3, -1, -1).permute(1, 2, 0).numpy()
                axis.imshow(shown, interpolation="nearest")
                axis.set_title(title, fontsize=11)
                axis.axis("off")
    figure.savefig(args.out, dpi=80, pil_kwargs={"quality": 90})
    pyplot.close(figure)
    print(f"See {args.out}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    trains = commands.add_parser("run")
    trains.add_argument("--photos", type=Path, required=True)
    trains.add_argument("--eval", type=Path, required=True)
    trains.add_argument("--seeds", type=int, default=1)
    trains.add_argument("--steps", type=int, default=STEPS)
    trains.add_argument("--tasks", nargs="+", choices=list(PACKAGE), default=list(PACKAGE))
    trains.add_argument("--hours", type=float, default=math.inf)
    networks = sorted({network for kinds in KINDS.values() for network in kinds})
    trains.add_argument("--networks", nargs="*", choices=networks, help="train only these")
    trains.add_argument("--most", type=int, help="judge on so many pictures of a set")
    trains.add_argument("--runs", type=Path, required=True, help="folder for the weights")
    upscales = commands.add_parser("upscaler")
    upscales.add_argument("--photos", type=Path, nargs="+", required=True)
    upscales.add_argument("--eval", type=Path, required=True)
    upscales.add_argument("--steps", type=int, default=12_000)
    upscales.add_argument("--seed", type=int, default=0)
    upscales.add_argument("--most", type=int, help="judge on so many pictures of a set")
    upscales.add_argument("--runs", type=Path, required=True, help="folder for its checkpoint")
    commands.add_parser("report")
    pictures = commands.add_parser("pictures")
    pictures.add_argument("--weights", required=True, help="preset, or folder of weights")
    pictures.add_argument("--out", type=Path, required=True, help="JPEG to write")
    args = parser.parse_args()
    torch.set_num_threads(1)
    {"run": run, "upscaler": upscaler, "report": report, "pictures": draw}[args.command](args)


if __name__ == "__main__":
    main()
