"""``wic train``: a preset, photographs, weights at the end; ``fit`` is that for any network."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

import wic_layers
from wic_layers._files import is_temporary
from wic_layers._text import printable
from wic_layers.errors import WICArgumentError, WICFileError, needing
from wic_layers.evaluation.judging import Judgement
from wic_layers.models import NETWORKS, Network, from_pretrained
from wic_layers.models.colours import check_colours
from wic_layers.models.presets import PRESETS, find_preset
from wic_layers.models.weights import CARD, CONFIG, TENSORS
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training.data import Photographs, margin
from wic_layers.training.loop import CHECKPOINT, LOG, UNFINISHED, Training, make_fabric
from wic_layers.training.monitor import Monitor
from wic_layers.training.objective import Losses
from wic_layers.training.recipe import Settings, Values
from wic_layers.training.shown import Shown

__all__ = [
    "Fitted",
    "add_arguments",
    "check_folder",
    "clear_folder",
    "fit",
    "gather",
    "pack_middles",
    "run",
    "split_off",
]

SETTINGS, EVENTS = "settings.yaml", "tensorboard"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what ``wic train`` takes to ``parser``."""
    add = parser.add_argument
    add("preset", nargs="?", help="network to train, such as rescaling-x2-small")
    add("-o", "--out", required=True, type=Path, help="folder for weights, checkpoint and log")
    add("--config", type=Path, metavar="YAML", help="settings of a file; flags overrule them")
    add("--resume", action="store_true", help="go on from the checkpoint in --out")
    add("--force", action="store_true", help="start anew although --out holds a training")
    Settings.add_arguments(parser)


def _settings(args: argparse.Namespace) -> Settings:
    """What the command line says, over the recipe of the preset; see :func:`gather`."""
    settings = gather(args, {})
    for name, what in (("preset", "a preset"), ("data", "--data with a folder of photographs")):
        if not getattr(settings, name):
            taken = [each for each in settings.data if each in PRESETS and not Path(each).is_dir()]
            if taken:
                raise WICArgumentError(
                    f"Expected the preset first: wic train {taken[0]} --data FOLDER ...; after "
                    f"--data it was taken for a folder."
                )
            raise WICArgumentError(f"Expected {what}; got none (see wic train --help).")
    return gather(args, find_preset(settings.preset).recipe)


def gather(args: argparse.Namespace, defaults: Mapping[str, object]) -> Settings:
    """What the command line says, over --config or, to resume, the settings beside --out."""
    values: Values = dict(defaults)
    if args.resume:
        if not (args.out / CHECKPOINT).is_file():
            raise WICFileError(
                f"Expected a checkpoint to resume; there is no {args.out / CHECKPOINT}. Leave out "
                f"--resume."
            )
        stored = Settings.read(args.out / SETTINGS)
        _check_steps(args, stored)
        values.update(stored)
    if args.config is not None:
        values.update(Settings.read(args.config))
    for each in dataclasses.fields(Settings):
        if getattr(args, each.name, None) is not None:
            values[each.name] = getattr(args, each.name)
    return Settings.from_dict(values, "wic train")


def _check_steps(args: argparse.Namespace, stored: Values) -> None:
    """Says how a training is prolonged, where it is asked for other steps than it has."""
    steps = getattr(args, "steps", None)
    if steps in (None, stored.get("steps", steps)):
        return
    more = "run it anew in another folder"
    if hasattr(args, "preset"):
        name, data = stored.get("preset"), " ".join(stored.get("data", []))
        again = f"wic train {name} --data {data} --start {args.out} --steps {steps} -o OTHER"
        more = f"start another one from its weights: {again}"
        if not (args.out / TENSORS).is_file():
            more = f"finish it with --resume alone, then {more}"
    raise WICArgumentError(
        f"Expected --resume without other --steps: {args.out} is a training of "
        f"{stored.get('steps')} steps, over which its learning rate falls. To prolong it, {more}."
    )


def split_off(paths: list[Path], held_out: int) -> tuple[list[Path], list[Path]]:
    """Parts off ``held_out`` paths, evenly spread."""
    if len(paths) < 2:
        raise WICArgumentError(
            f"Expected at least 2 images in --data, one of them held out for judging; "
            f"got {len(paths)}."
        )
    if not 1 <= held_out < len(paths):
        raise WICArgumentError(
            f"Expected --held-out from 1 to {len(paths) - 1}, as there are {len(paths)} images; "
            f"got {held_out}."
        )
    step = len(paths) / held_out
    chosen = {int(step * (index + 0.5)) for index in range(held_out)}
    return [p for i, p in enumerate(paths) if i not in chosen], [paths[i] for i in sorted(chosen)]


def _judged(
    task: Task, paths: list[Path], smallest: int, decode: Callable[..., Photographs]
) -> Photographs:
    """The held-out photographs; without those that are smaller than a crop, if any is not."""
    with contextlib.suppress(WICFileError):
        return decode(paths, smallest=smallest)
    return decode(paths, smallest=task.source_side(task.multiple))


def pack_middles(task: Task, images: Photographs) -> Tensor:
    """The middles of the held-out photographs, packed; each is used once in every role.

    Where there are fewer than roles, those that come again are turned by 90 degrees: no picture is
    hidden in itself.
    """
    least = min(min(image.shape[:2]) for image in images)
    sides = range(task.multiple, 257, task.multiple)
    side = max(side for side in sides if task.source_side(side) <= least)
    middles = []
    for image in images:
        cut = task.source_side(side)
        top, left = (image.shape[0] - cut) // 2, (image.shape[1] - cut) // 2
        middles.append(np.array(image[top : top + cut, left : left + cut]))
    stack = torch.from_numpy(np.stack(middles)).permute(0, 3, 1, 2).float() / 255
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # the same for every training
        several = (
            stack.roll(-role, 0).rot90(role // len(stack), (2, 3)) for role in range(task.sources)
        )
        return task.pack(*task.compose(*several))


def _network(settings: Settings, *, resume: bool) -> Network:
    preset = find_preset(settings.preset)
    changes = {}
    if settings.completion not in (None, preset.arguments.get("completion")):
        changes["completion"] = settings.completion
    model: Network = NETWORKS[preset.network].from_preset(settings.preset, **changes)
    model.colours = check_colours(settings.colours or "RGB")
    if settings.start is not None and not resume:  # else all weights come from the checkpoint
        start = from_pretrained(settings.start)
        if (type(start), start.task, start.config) != (type(model), model.task, model.config):
            raise WICArgumentError(
                f"Expected --start with weights of the same task and structure as "
                f"{settings.preset}, with the same completion; {settings.start} holds those of "
                f"{start.preset or 'a changed preset'} with {start.config.get('completion')!r}."
            )
        if start.colours != model.colours:
            raise WICArgumentError(
                f"Expected --start with weights that see {model.colours}; {settings.start} holds "
                f"some that see {start.colours}: say --colours {start.colours}."
            )
        model.load_state_dict(start.state_dict())
    return model


def check_folder(args: argparse.Namespace) -> None:
    """Refuses to write to --out what would take the place of something that is no training."""
    out = args.out
    if out.exists() and not out.is_dir():
        raise WICFileError(f"Expected a folder as --out; {out} is a file.")
    if (out / EVENTS).is_symlink():
        raise WICFileError(
            f"{out / EVENTS} is a link, and what a training writes would go where it leads; "
            "remove it."
        )
    names = {path.name for path in out.iterdir()} if out.exists() else set()
    if all(_is_before_the_first_checkpoint(name) for name in names):
        names = set()
    if names and not args.resume:
        if not ({SETTINGS, CHECKPOINT} <= names or _holds_weights(out)):
            raise WICFileError(
                f"{out} holds files that are not of a training; choose another folder, which may "
                f"be a new one."
            )
        if not args.force:
            more = "Go on with --resume, or start" if CHECKPOINT in names else "Start"
            raise WICFileError(f"{out} is not empty. {more} anew with --force.")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WICFileError(f"{out} cannot be made: {error.strerror or error}.") from error


def _is_before_the_first_checkpoint(name: str) -> bool:
    """Whether a training that was ended before its first checkpoint leaves a file so called."""
    return name in (SETTINGS, UNFINISHED) or is_temporary(name)


def _holds_weights(folder: Path) -> bool:
    """Whether what a folder holds is a network's weights and their configuration."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and {"network", "sha256"} <= config.keys()


def clear_folder(out: Path) -> None:
    """Removes what an earlier training left in a folder.

    What tells that it is a training's comes last: it can be started again wherever this ends.
    """
    shutil.rmtree(out / EVENTS, ignore_errors=True)
    unfinished = [path.name for path in out.iterdir() if is_temporary(path.name)]
    for name in (*unfinished, CARD, TENSORS, LOG, CONFIG, CHECKPOINT, SETTINGS):
        (out / name).unlink(missing_ok=True)


def run(args: argparse.Namespace) -> int:
    """Trains, and writes weights, settings, checkpoint and log into ``--out``."""
    settings = _settings(args)
    task = TASKS[find_preset(settings.preset).task]
    torch.manual_seed(settings.seed)
    fitted = fit(_network(settings, resume=args.resume), task, settings, args)
    if fitted is not None:
        fitted.model.save_pretrained(args.out, fitted.card)
        print(printable(f"{args.out}: weights of {settings.preset}, for --weights {args.out}"))
    return 0


class Fitted(NamedTuple):
    """What :func:`fit` gives."""

    model: Network  # on the CPU
    held_out: Tensor  # packed images (B, C, H, W) that it was not trained on
    card: dict[str, str]  # what to say about its weights


def fit(model: Network, task: Task, settings: Settings, args: argparse.Namespace) -> Fitted | None:
    """Trains ``model`` on ``settings.data``, with a progress bar, into the folder ``args.out``.

    Returns:
        The result; None in all processes but the first.
    """
    with needing("Training needs {name}", "train"):
        import tensorboard  # noqa: F401 - now, not after the first step
        import tqdm  # noqa: F401
        from lightning_fabric.utilities.rank_zero import rank_zero_only
    if settings.crop % task.multiple:
        raise WICArgumentError(
            f"Expected a crop divisible by {task.multiple} for {task.name}; got {settings.crop}."
        )
    paths = [path for folder in settings.data for path in find_images(folder)]
    chosen, judged_paths = split_off(paths, settings.held_out)
    fabric = make_fabric(settings)
    if not getattr(rank_zero_only, "rank", 0):  # the others wait for it in the launch
        check_folder(args)
    fabric.launch()
    decode = partial(
        Photographs,
        reduce="auto" if settings.reduce == "auto" else int(settings.reduce),
        cache=None if settings.cache is None else Path(settings.cache),
    )
    with fabric.rank_zero_first(local=True):  # the others find what it decoded
        around = task.source_side(settings.crop + 2 * margin(task))
        images = decode(chosen, levels=settings.levels, smallest=around)
        held_out = pack_middles(task, _judged(task, judged_paths, around, decode))

    monitor: Monitor | None = None
    objective = settings.objective(task)
    with Shown(settings.steps, objective, enabled=fabric.is_global_zero) as shown:

        def report(step: int, losses: Losses, judgement: Judgement | None, rate: float) -> None:
            nonlocal monitor
            if monitor is None:
                monitor = Monitor(args.out / EVENTS, start=step - 1)
            monitor.step(step, losses, rate)
            if judgement is not None:
                monitor.judged(step, judgement, model)
            shown.step(step, losses, judgement, rate)

        def begin() -> None:
            clear_folder(args.out)
            there = tuple(str(Path(folder).resolve()) for folder in settings.data)
            versions = {"torch": torch.__version__, "wic-layers": wic_layers.__version__}
            dataclasses.replace(settings, data=there).write(args.out / SETTINGS, versions)

        training = Training(
            model, task, images, settings, args.out, held_out=held_out, fabric=fabric,
            warn=shown.warn,
        )  # fmt: skip
        try:
            result = training.run(resume=args.resume, begin=begin, report=report)
        except KeyboardInterrupt:
            if fabric.is_global_zero and (args.out / CHECKPOINT).is_file():
                shown.warn("--resume goes on from the last checkpoint", "interrupted")
            raise
        finally:
            if monitor is not None:
                monitor.close()
    result.through = settings.through
    if not fabric.is_global_zero:
        return None
    card = {"data": f"{len(chosen)} images", "steps": f"{settings.steps}"}
    return Fitted(result.cpu(), held_out, {**card, "seed": f"{settings.seed}"})
