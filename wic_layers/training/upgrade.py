"""``wic upgrade``: a checkpoint with a random z becomes a network without random numbers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import NETWORKS, PRESETS, Preset, load_official, with_wic
from wic_layers.quantization import quantize
from wic_layers.tasks import TASKS, Task
from wic_layers.training.command import fit, gather
from wic_layers.training.engine import psnr
from wic_layers.training.settings import Settings

__all__ = ["KINDS", "Outcome", "add_arguments", "judge_decodings", "run"]

KINDS = {"irn": "IRN", "hinet": "HiNet"}
"""The code bases whose checkpoints can be upgraded, with the class of their networks."""

_DECODINGS = 10
# fine-tuning: the couplings are trained already
_DEFAULTS: dict[str, Any] = {"steps": 2000, "learning_rate": 2e-4, "warmup": 100}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what ``wic upgrade`` takes to ``parser``."""
    add = parser.add_argument
    add("kind", choices=tuple(KINDS), help="whose code the checkpoint is of")
    add("checkpoint", metavar="CHECKPOINT", type=Path, help="the .pth file, as its code wrote it")
    add("-o", "--out", required=True, type=Path, help="folder for the weights")
    add("--config", type=Path, metavar="YAML", help="settings of a file; flags overrule them")
    add("--resume", action="store_true", help="go on with fine-tuning from the one in --out")
    add("--force", action="store_true", help="start anew although --out holds something")
    Settings.add_arguments(parser, _DEFAULTS, without=("start",))


class Outcome:
    """What comes back from the forward pictures of some images, decoded several times.

    Args:
        model: The network.
        task: What it is for.
        x: Packed images (B, C, H, W).
        decodings: How often the same pictures are run backwards.

    Attributes:
        forward: PSNR in dB of the forward pictures, through 8 bits.
        back: PSNR of what comes back, through 8 bits, of every decoding.
        spread: How far a pixel of what comes back is from decoding to decoding: the standard
            deviation in grey levels, mean over all pixels. 0 for a network without random numbers.
    """

    @torch.no_grad()
    def __init__(self, model: Any, task: Task, x: Tensor, decodings: int = _DECODINGS) -> None:
        picture = quantize(model(x))
        wanted = torch.cat(task.wanted(x), dim=1)
        found = torch.stack(
            [
                torch.cat(task.wanted(quantize(model.inverse(picture))), dim=1)
                for _ in range(decodings)
            ]
        )
        self.forward = psnr(picture, quantize(task.reference(x)))
        self.back = [psnr(each, wanted) for each in found]
        self.spread = float(found.std(dim=0, correction=0).mean()) * 255 if decodings > 1 else 0.0

    def cells(self) -> list[str]:
        """The figures as a row of a table."""
        mean, low, high = sum(self.back) / len(self.back), min(self.back), max(self.back)
        many = f" ({low:.2f} to {high:.2f})" if high - low > 0.005 else ""
        return [f"{self.forward:.2f}", f"{mean:.2f}{many}", f"{self.spread:.2f}"]


TITLES = ("forward picture", "what comes back", "spread of 10 decodings")


def judge_decodings(rows: dict[str, Outcome]) -> str:
    """Returns outcomes side by side, as a table in Markdown."""
    lines = [f"| PSNR, dB, 8 bits | {' | '.join(TITLES)} |", f"|---|{'---|' * len(TITLES)}"]
    lines += [f"| {name} | {' | '.join(row.cells())} |" for name, row in rows.items()]
    return "\n".join(lines)


def run(args: argparse.Namespace) -> int:
    """Reads a checkpoint, puts a WIC where z was, fine-tunes and compares.

    Raises:
        WICFileError: If the checkpoint cannot be read or is of another network, or ``--out`` is
            not empty.
        WICArgumentError: If a setting is out of range.
        WICDependencyError: If a package of the extra ``train`` is not installed.
    """
    original = load_official(args.checkpoint)
    if type(original) is not NETWORKS[KINDS[args.kind]]:
        raise WICFileError(
            f"Expected a checkpoint of {KINDS[args.kind]}; {args.checkpoint} is one of "
            f"{type(original).__name__}."
        )
    preset = _like(original)
    task = TASKS[preset.task]
    settings = gather(args, {**_DEFAULTS, **preset.recipe})
    if settings.preset:
        raise WICArgumentError("Expected no preset in the settings; the checkpoint says.")
    torch.manual_seed(settings.seed)  # of a learned completion
    model = with_wic(original, settings.completion)  # type: ignore[arg-type]
    card = {"start": f"{args.checkpoint.name}, {type(original).__name__}, its random z a WIC"}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(
        f"{args.checkpoint}: {type(original).__name__} for {task.name}, {parameters:,} parameters"
    )
    if not settings.data:
        if args.out.exists() and not args.force:
            raise WICFileError(f"{args.out} exists; choose another, or replace it with --force.")
        model.save_pretrained(args.out, card)
        print(
            f"{args.out}: the same weights, and a WIC that gives zeros for z, for --weights "
            f"{args.out}; give --data FOLDER to fine-tune it"
        )
        return 0
    untuned = with_wic(original, settings.completion).eval()  # type: ignore[arg-type]
    fitted = fit(model, task, settings, args)
    if fitted is None:
        return 0
    tuned = fitted.model.eval()
    tuned.save_pretrained(args.out, {**card, **fitted.card})
    rows = {
        "original, z drawn": Outcome(original, task, fitted.held_out),
        "upgraded, as it starts": Outcome(untuned, task, fitted.held_out),
        f"upgraded, after {settings.steps} steps": Outcome(tuned, task, fitted.held_out),
    }
    print(
        f"\n{len(fitted.held_out)} photographs that were not trained on:\n\n"
        f"{judge_decodings(rows)}\n\n{args.out}: weights, for --weights {args.out}"
    )
    return 0


def _like(model: Any) -> Preset:
    """The preset with a WIC of a published network's shape, whatever its depth."""
    shape = {key: model.config.get(key) for key in ("in_channels", "out_channels", "scale")}
    for preset in PRESETS.values():
        given = preset.arguments
        if (
            preset.network == type(model).__name__
            and not given.get("random_z")
            and {key: given.get(key) for key in shape} == shape
        ):
            return preset
    raise WICArgumentError(
        f"Expected a network for one of the tasks; this {type(model).__name__} has {shape}."
    )
