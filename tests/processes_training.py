"""What test_training_processes.py runs in several processes: trains, saves gradients, weights."""

import contextlib
import os

import photographs
import torch

from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS
from wic_layers.training import Photographs, Training, guard, make_fabric
from wic_layers.training import loop as engine


def train(folder, out, *words):
    """Trains a few steps on ``folder``; ``words``: muon, shard, stop, resume."""
    gradients, made = [], []
    slowed, optimizer = guard.Guard._slowed, engine.make_optimizer

    def keep(self):  # between clipping and the optimizer's step
        gradients.append([p.grad.clone() for p in self.model.parameters() if p.grad is not None])
        if "stop" in words and len(gradients) == 4:
            raise KeyboardInterrupt
        return slowed(self)

    def make(*arguments):
        made.append(optimizer(*arguments))
        return made[0]

    guard.Guard._slowed, engine.make_optimizer = keep, make
    chosen = photographs.settings(
        steps=4, batch=4, shard="shard" in words,
        optimizer="muon" if "muon" in words else "adamw",
    )  # fmt: skip
    torch.manual_seed(0)
    model = photographs.network()
    with torch.no_grad():  # the last convolutions start at zero, which hides those before them
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    fabric = make_fabric(chosen)
    fabric.launch()
    images = Photographs(find_images(folder), smallest=48)
    x = torch.rand(1, 3, 32, 32)

    out.mkdir(exist_ok=True)
    try:
        training = Training(
            model, TASKS["rescaling-x2"], images, chosen, out, held_out=x, fabric=fabric
        )
        training.run(resume="resume" in words)
    except KeyboardInterrupt:
        # end as a killed process does; a tidy end would race with what the other one still sends
        with contextlib.suppress(RuntimeError):
            torch.distributed.barrier()
        os._exit(0)
    states = guard.own_optimizer(made[0]).state.values()
    held = sum(value.numel() for state in states for value in state.values())
    torch.save(
        {"gradients": gradients, "model": model.state_dict(), "held": held},
        out / f"result-{fabric.global_rank}.pt",
    )
