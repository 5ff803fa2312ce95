r"""What does invertibility bring? A shipped network beside a plain encoder-decoder of its size.

    python benchmarks/reference.py RUN --runs FOLDER --eval EVAL

RUN is the folder of a ``wic train``, whose ``settings.yaml`` it reads: the plain network has as
many parameters and operations as RUN's (within 5 %), and takes the same steps on the same
crops, with the losses of both pictures alone. It stores its state in FOLDER every 250 steps and
goes on from there. Then both networks, RUN's as it is stored, are judged on Set5, Set14 and BSD100
(hiding: BSD100 reduced by 2), through 8 bits, and a line is printed for each.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import plain
import torch
import trials
from carriers import judged, pictures_of
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from wic_layers.models import PRESETS, from_pretrained
from wic_layers.models.base import Network
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS, Task
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import split_off
from wic_layers.training.data import margin

EVERY = 250


def trained(
    network: Network, task: Task, settings: Settings, photos: Photographs, state: Path
) -> Any:
    """Trains the plain network of a network's size, or goes on from what ``state`` holds.

    What it gives is averaged as the settings say.
    """
    torch.manual_seed(settings.seed)
    inputs, outputs = task.channels[:2]
    other = plain.sized(plain.costs(network, inputs), inputs, outputs, scale=task.scale)
    training = trials.Training(other, task, photos, settings)
    average = AveragedModel(training.model, multi_avg_fn=get_ema_multi_avg_fn(settings.ema or 0.0))
    if state.exists():
        stored = torch.load(state, weights_only=True)
        for name, part in (("model", training.model), ("average", average)):
            part.load_state_dict(stored[name])
        training.optimizer.load_state_dict(stored["optimizer"])
        training.guard.steps = stored["steps"]
    while training.guard.steps < settings.steps:
        found = training.step()
        average.update_parameters(training.model)
        if training.guard.steps % EVERY == 0:
            unfinished = state.with_suffix(".part")
            parts = {"model": training.model, "average": average, "optimizer": training.optimizer}
            torch.save(
                {"steps": training.guard.steps} | {k: v.state_dict() for k, v in parts.items()},
                unfinished,
            )
            os.replace(unfinished, state)
            print(training.guard.steps, found, flush=True)
    return average.module.eval()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--eval", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="stop after so many, to try it")
    args = parser.parse_args()
    torch.set_num_threads(1)
    stored = Settings.read(args.run / "settings.yaml")
    forward, reverse, *_ = stored["weights"]
    changes: dict[str, Any] = {"weights": (forward, reverse, 0.0, 0.0)}
    if args.steps:
        changes["steps"] = args.steps
    settings = Settings.from_dict({**stored, **changes}, str(args.run))
    paths = [path for folder in settings.data for path in find_images(folder)]
    chosen, _ = split_off(paths, settings.held_out)
    task = TASKS[PRESETS[settings.preset].task]
    photos = Photographs(
        chosen,
        reduce="auto" if settings.reduce == "auto" else int(settings.reduce),
        levels=settings.levels,
        smallest=task.source_side(settings.crop + 2 * margin(task)),
    )
    args.runs.mkdir(parents=True, exist_ok=True)
    own = from_pretrained(args.run)
    state = args.runs / f"{settings.preset}.pt"
    networks = {
        settings.preset: own,
        "plain encoder-decoder": trained(own, task, settings, photos, state),
    }
    names = ("BSD100",) if task.images > 1 else ("Set5", "Set14", "BSD100")
    print(f"| | parameters |{'|'.join(f' {name}: picture / back ' for name in names)}|")
    print("|---" * (2 + len(names)) + "|")
    for title, network in networks.items():
        size = sum(parameter.numel() for parameter in network.parameters())
        cells = []
        for name in names:
            found = judged(network, task, pictures_of(args.eval / name, task), ())
            cells.append(f"{found['picture RGB']:.2f} / {found['8 bits RGB']:.2f}")
        print(f"| {title} | {size:,} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
