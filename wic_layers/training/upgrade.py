"""``wic upgrade``: a checkpoint of other code becomes a network with a WIC at its end."""

from __future__ import annotations

import argparse
import copy
from pathlib import Path
from typing import get_args

import torch

from wic_layers._text import printable
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.evaluation.judging import Judgement
from wic_layers.layer.completion import CompletionName
from wic_layers.models import NETWORKS, PRESETS, Network, Preset, load_official, with_wic
from wic_layers.models.base import has_wic
from wic_layers.models.colours import Colours
from wic_layers.models.weights import TENSORS, Precision
from wic_layers.tasks import TASKS
from wic_layers.training.command import check_folder, clear_folder, fit, gather
from wic_layers.training.recipe import Settings

__all__ = ["KINDS", "add_arguments", "judge_decodings", "run"]

KINDS = {"irn": "IRN", "hinet": "HiNet", "iicnet": "IICNet", "hcflow": "HCFlow", "dlv": "DLVIRN"}
"""The code bases whose checkpoints can be upgraded, with the class of their networks."""

# by the argument that builds a network as published: what it had, what a WIC does there, its row
_WAS = {
    "random_z": ("random z", "gives zeros for z", "z drawn"),
    "channel_squeeze": ("channel squeeze", "starts as the channel squeeze", "channel squeeze"),
    "z": ("random z", "gives zeros for z", "z drawn"),
}
_DECODINGS = 10
# fine-tuning: the couplings are trained already
_DEFAULTS: dict[str, object] = {"steps": 2000, "learning_rate": 2e-4, "warmup": 100}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what ``wic upgrade`` takes to ``parser``."""
    add = parser.add_argument
    add("kind", choices=tuple(KINDS), type=str.lower, help="whose code the checkpoint is of")
    add("checkpoint", metavar="CHECKPOINT", type=Path, help="the .pth file, as its code wrote it")
    add("-o", "--out", required=True, type=Path, help="folder for the weights")
    add(
        "--task",
        choices=tuple(TASKS),
        metavar="TASK",
        help="what it is for, where its channels leave that open, as IICNet's do (stereo, ...)",
    )
    add(
        "--precision", choices=get_args(Precision),
        help="of the stored weights (default float32, as they are; once fine-tuned float16, half "
        "the file, kernels in float32)",
    )  # fmt: skip
    add("--config", type=Path, metavar="YAML", help="settings of a file; flags overrule them")
    add("--resume", action="store_true", help="go on with fine-tuning from the one in --out")
    add("--force", action="store_true", help="start anew although --out holds something")
    add(
        "--trust", action="store_true",
        help="read the checkpoint with a torch below 2.10 too, which it could harm",
    )  # fmt: skip
    Settings.add_arguments(parser, _DEFAULTS, without=("start",))


TITLES = ("forward picture", "what comes back", "spread of 10 decodings")


def judge_decodings(rows: dict[str, Judgement]) -> str:
    """Returns judgements side by side, as a table in Markdown; no spread where none can be."""
    shown = len(TITLES) if any(len(row.decoded) > 1 for row in rows.values()) else len(TITLES) - 1
    lines = [f"| PSNR, dB, 8 bits | {' | '.join(TITLES[:shown])} |", f"|---|{'---|' * shown}"]
    lines += [f"| {name} | {' | '.join(_cells(row)[:shown])} |" for name, row in rows.items()]
    return "\n".join(lines)


def _cells(row: Judgement) -> list[str]:
    psnrs = row.psnrs_back
    mean, low, high = sum(psnrs) / len(psnrs), min(psnrs), max(psnrs)
    extremes = f" ({low:.2f} to {high:.2f})" if high - low > 0.005 else ""
    return [f"{row.psnr_forward:.2f}", f"{mean:.2f}{extremes}", f"{row.spread:.2f}"]


def run(args: argparse.Namespace) -> int:
    """Reads a checkpoint, puts a WIC where z or the channel squeeze was, fine-tunes, compares."""
    chosen = gather(args, {})
    original = _read(args, chosen)
    argument, _ = original.closed_by or ("", None)
    preset = _like(original, argument, args.task)
    task = TASKS[preset.task]
    original.task = task.name
    settings = gather(args, {**_DEFAULTS, **preset.recipe, "colours": original.colours})
    if settings.preset:
        raise WICArgumentError("Expected no preset in the settings; the checkpoint says.")
    torch.manual_seed(settings.seed)  # of a learned completion
    was, stands_for, drawn = _WAS[argument]
    kind = type(original).__name__
    is_closed = has_wic(original)
    model = original if is_closed else with_wic(original, settings.completion)  # type: ignore[arg-type]
    before = "already with a WIC" if is_closed else f"its {was} a WIC"
    card = {"start": f"{args.checkpoint.name}, {kind}, {before}"}
    parameters = sum(parameter.numel() for parameter in model.parameters())
    already = ", already has a WIC" if is_closed else ""
    title = printable(str(args.checkpoint))
    print(f"{title}: {kind} for {task.name}, {parameters:,} parameters{already}")
    precision: Precision = args.precision or ("float16" if settings.data else "float32")
    if not settings.data:
        check_folder(args)
        clear_folder(args.out)
        model.save_pretrained(args.out, card, precision=precision)
        kernel = "the WIC that it was trained with" if is_closed else f"a WIC that {stands_for}"
        print(
            printable(
                f"{args.out / TENSORS}: the checkpoint's weights in {precision}, and {kernel}, "
                f"for --weights {args.out}; give --data FOLDER to fine-tune it"
            )
        )
        return 0
    untuned = copy.deepcopy(model).eval()
    fitted = fit(model, task, settings, args)
    if fitted is None:
        return 0
    tuned = fitted.model.eval()
    tuned.save_pretrained(args.out, {**card, **fitted.card}, precision=precision)
    networks = {} if is_closed else {f"original, {drawn}": original}
    networks |= {
        "the checkpoint" if is_closed else "upgraded, as it starts": untuned,
        f"{'tuned' if is_closed else 'upgraded'}, after {settings.steps} steps": tuned,
    }
    decodings = 1 if argument == "channel_squeeze" else _DECODINGS
    rows = {
        name: Judgement(network, task, fitted.held_out, decodings, carrier=settings.carrier)
        for name, network in networks.items()
    }
    print(
        f"\n{len(fitted.held_out)} photographs that were not trained on:\n\n"
        f"{judge_decodings(rows)}\n\n"
        + printable(f"{args.out}: weights, for --weights {args.out}")
    )
    return 0


def _read(args: argparse.Namespace, settings: Settings) -> Network:
    """The network of the checkpoint; one that has a WIC with the completion that was asked for."""
    colours: Colours | None = settings.colours  # type: ignore[assignment]
    model = load_official(args.checkpoint, colours=colours, trust=args.trust)
    if type(model) is not NETWORKS[KINDS[args.kind]]:
        raise WICFileError(
            f"Expected a checkpoint of {KINDS[args.kind]}; {args.checkpoint} is one of "
            f"{type(model).__name__}."
        )
    if settings.completion is None or not has_wic(model):
        return model
    completion: CompletionName = settings.completion  # type: ignore[assignment]
    return load_official(args.checkpoint, colours=colours, completion=completion, trust=args.trust)


def _like(model: Network, argument: str, task: str | None) -> Preset:
    """The preset without that argument of a network's shape and task, whatever its depth."""
    shape = {key: model.config.get(key) for key in ("in_channels", "out_channels", "scale")}
    kind = type(model).__name__
    fitting: dict[str, Preset] = {}
    for each in PRESETS.values():
        if (
            each.network == kind
            and not each.arguments.get(argument)
            and {key: each.arguments.get(key) for key in shape} == shape
        ):
            fitting.setdefault(each.task, each)  # the paper's size comes first
    if not fitting:
        raise WICArgumentError(
            f"Expected a network for one of the tasks; this {kind} has {shape}."
        )
    if task is None and len(fitting) > 1:
        raise WICArgumentError(
            f"Expected --task with what this {kind} is for, as its channels leave it open: "
            f"{', '.join(fitting)}."
        )
    preset = fitting.get(task or next(iter(fitting)))
    if preset is None:
        raise WICArgumentError(
            f"Expected --task {' or '.join(fitting)} for this {kind} with {shape}; got {task}."
        )
    return preset
