"""``wic train``: a preset, a folder of photographs, and weights at the end."""

from __future__ import annotations

import argparse
import json
import shutil
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import wic_layers
from wic_layers.errors import WICArgumentError, WICDependencyError, WICFileError
from wic_layers.images import find_images
from wic_layers.models import from_pretrained
from wic_layers.models.presets import find_preset
from wic_layers.models.weights import CARD, CONFIG, TENSORS
from wic_layers.models.win import NETWORKS
from wic_layers.tasks import TASKS, Task
from wic_layers.training.data import Photographs
from wic_layers.training.engine import Settings, train
from wic_layers.training.objective import DISTANCES, Losses

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what ``wic train`` takes to ``parser``."""
    add, default = parser.add_argument, Settings()
    add("preset", help="network to train, such as rescaling-x2-small")
    add("--data", required=True, type=Path, help="folder of photographs, searched below too")
    add("-o", "--out", required=True, type=Path, help="folder for weights, checkpoint and log")
    add(
        "--reduce",
        type=int,
        default=2,
        help="first make photographs that many times smaller; 2 removes JPEG's halved chroma "
        "(default 2)",
    )
    add(
        "--levels",
        type=int,
        default=3,
        help="sizes of every photograph, each half the one before (default 3)",
    )
    add("--held-out", type=int, default=4, help="photographs kept for judging (default 4)")
    for name in ("steps", "batch", "crop", "seed"):
        value = getattr(default, name)
        add(f"--{name}", type=int, default=value, help=f"default {value}")
    rate = default.learning_rate
    add("--lr", dest="learning_rate", type=float, default=rate, help=f"largest (default {rate})")
    add(
        "--weights",
        type=float,
        nargs=4,
        default=default.weights,
        metavar=("F", "R", "D", "S"),
        help="of the forward, reverse, det and shift losses (default 2 1 0.1 1)",
    )
    add(
        "--reverse",
        choices=sorted(DISTANCES),
        default=default.reverse,
        help=f"distance of what comes back (default {default.reverse}; l2 is what PSNR measures)",
    )
    add(
        "--clip",
        type=float,
        default=default.clip,
        help=f"largest gradient norm (default {default.clip:g})",
    )
    add(
        "--saturate",
        type=float,
        default=default.saturate,
        metavar="CHANCE",
        help="of a crop to have some of its pixels made black or white (default 0)",
    )
    add(
        "--candidates",
        type=int,
        default=default.candidates,
        metavar="N",
        help="take the most detailed of N random crops (default 1)",
    )
    add("--bf16", action="store_true", help="run the networks inside couplings in bfloat16")
    add("--every", type=int, default=500, help="steps between checkpoints (default 500)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--start", type=Path, metavar="WEIGHTS", help="folder of weights to fine-tune")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--force", action="store_true", help="start anew although --out holds a training")


def _split(paths: list[Path], held_out: int) -> tuple[list[Path], list[Path]]:
    """Parts off ``held_out`` paths, evenly spread."""
    if not 1 <= held_out < len(paths):
        raise WICArgumentError(
            f"Expected --held-out from 1 to {len(paths) - 1}, as there are {len(paths)} images; "
            f"got {held_out}."
        )
    step = len(paths) / held_out
    chosen = {int(step * (index + 0.5)) for index in range(held_out)}
    return [p for i, p in enumerate(paths) if i not in chosen], [paths[i] for i in sorted(chosen)]


def _held_out(task: Task, images: Photographs) -> Tensor:
    """The middles of the held-out photographs, packed; each is used once in every role."""
    side = min(min(image.shape[1:]) for image in images.images)
    side = min(side, 256) // task.multiple * task.multiple
    middles = []
    for image in images.images:
        top, left = (image.shape[1] - side) // 2, (image.shape[2] - side) // 2
        middles.append(image[:, top : top + side, left : left + side].float() / 255)
    stack = torch.stack(middles)
    return task.pack(*(stack.roll(-turn, 0) for turn in range(task.images)))


def run(args: argparse.Namespace) -> int:
    """Trains, and writes weights, settings, checkpoint and log into ``--out``.

    Raises:
        WICArgumentError: If a setting is out of range.
        WICFileError: If there are no images, or ``--out`` holds a training and neither
            ``--resume`` nor ``--force`` is given.
        WICDependencyError: If tqdm is not installed.
    """
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise WICDependencyError(
            "Training needs tqdm. Run: pip install 'wic-layers[train]'"
        ) from error
    preset = find_preset(args.preset)
    task = TASKS[preset.task]
    chosen = {
        field.name: getattr(args, field.name)
        for field in fields(Settings)
        if hasattr(args, field.name)
    }
    if args.crop % task.multiple:
        raise WICArgumentError(
            f"Expected a crop divisible by {task.multiple} for {task.name}; got {args.crop}."
        )
    settings = Settings(**{**chosen, "weights": tuple(args.weights)})
    checkpoint = args.out / "checkpoint.pt"
    if args.resume and not checkpoint.is_file():
        raise WICFileError(
            f"Expected a checkpoint to resume; there is no {checkpoint}. Leave out --resume."
        )
    if args.out.exists() and not args.out.is_dir():
        raise WICFileError(f"Expected a folder as --out; {args.out} is a file.")
    if not args.resume and args.out.exists() and any(args.out.iterdir()):
        if not args.force:
            raise WICFileError(
                f"{args.out} is not empty. Go on with --resume, or start anew with --force."
            )
        for name in (TENSORS, CONFIG, CARD, "settings.json", "checkpoint.pt", "log.jsonl"):
            (args.out / name).unlink(missing_ok=True)
    args.out.mkdir(parents=True, exist_ok=True)

    chosen_paths, judged_paths = _split(find_images(args.data), args.held_out)
    images = Photographs(
        chosen_paths, reduce=args.reduce, levels=args.levels, smallest=settings.crop + 16
    )
    held_out = _held_out(task, Photographs(judged_paths, reduce=args.reduce))
    torch.manual_seed(settings.seed)
    device = torch.device(args.device)
    model = NETWORKS[preset.network].from_preset(args.preset)
    if args.start is not None:
        start = from_pretrained(args.start)
        if start.preset != args.preset:
            raise WICArgumentError(
                f"Expected --start with weights of {args.preset}; {args.start} holds those of "
                f"{start.preset or 'a network without a preset'}."
            )
        model.load_state_dict(start.state_dict())
    model.to(device)
    described = {
        "preset": args.preset,
        "start": None if args.start is None else str(args.start),
        "data": str(args.data),
        "reduce": args.reduce,
        "levels": args.levels,
        "images": len(images),
        "held_out": [path.name for path in judged_paths],
        **asdict(settings),
        "device": args.device,
        "torch": torch.__version__,
        "wic_layers": wic_layers.__version__,
    }
    (args.out / "settings.json").write_text(
        json.dumps(described, indent=2) + "\n", encoding="utf-8"
    )

    columns = min(shutil.get_terminal_size().columns, 160)
    with tqdm(total=settings.steps, unit="step", ncols=columns, mininterval=1) as bar:
        shown: dict[str, Any] = {}

        def report(step: int, losses: Losses, judged: tuple[float, float] | None) -> None:
            bar.update(step - bar.n)
            if judged is not None:
                shown.update(psnr=f"{judged[0]:.2f}/{judged[1]:.2f}")
            if step % 20 == 0 or judged is not None:
                terms = (losses.forward, losses.reverse, losses.det, losses.shift)
                for name, term in zip(("fwd", "rev", "det", "shift"), terms, strict=True):
                    shown[name] = f"{float(term.detach()):.4g}"
                bar.set_postfix(shown)

        train(
            model,
            task,
            images,
            settings,
            args.out,
            held_out=held_out,
            device=device,
            resume=args.resume,
            every=args.every,
            report=report,
        )
    card = {"data": f"{len(chosen_paths)} images", "steps": f"{settings.steps}"}
    model.cpu().save_pretrained(args.out, {**card, "seed": f"{settings.seed}"})
    print(f"{args.out}: weights of {args.preset}, for --weights {args.out}")
    return 0
