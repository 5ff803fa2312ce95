"""The training loop: one network, one process; resumes to the same result."""

from __future__ import annotations

import copy
import json
import math
import os
import statistics
import time
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError, WICError
from wic_layers.quantization import quantize
from wic_layers.tasks import Task
from wic_layers.training.data import Photographs
from wic_layers.training.objective import Losses, Objective

__all__ = ["Settings", "evaluate_held_out", "train"]

FEW, SPIKE = 5, 10.0  # a few losses in a row this many times the usual are no hard batch
MOST_BACK_OFFS = 6
MARGIN = 8  # pixels around a crop, so that its reference is that of the whole photograph


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a training, beside the preset and the images.

    Attributes:
        steps: Number of steps.
        batch: Crops in a step.
        crop: Side of a crop in pixels, even.
        learning_rate: Largest rate of AdamW; falls to ``final_rate`` along a cosine.
        final_rate: Rate of the last step.
        warmup: Steps in which the rate rises from 0.
        clip: Largest gradient norm.
        weights: Of the forward, reverse, det and shift losses.
        reverse: Distance of what came back, ``"l1"`` or ``"l2"``.
        saturate: Chance of a crop to have some of its pixels made black or white.
        candidates: Of so many random crops the one with the most details is taken.
        bf16: Run the networks inside the couplings in bfloat16.
        seed: Of the weights and the crops.
    """

    steps: int = 10_000
    batch: int = 4
    crop: int = 64
    learning_rate: float = 2e-3
    final_rate: float = 1e-6
    warmup: int = 200
    clip: float = 10.0
    weights: tuple[float, float, float, float] = (2.0, 1.0, 0.1, 1.0)
    reverse: str = "l1"
    saturate: float = 0.0
    candidates: int = 1
    bf16: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "crop", "candidates"):
            if getattr(self, name) < 1:
                raise WICArgumentError(
                    f"Expected {name} of at least 1; got {getattr(self, name)!r}."
                )
        if self.crop % 2:
            raise WICArgumentError(f"Expected an even crop; got {self.crop}.")

    def rate(self, step: int) -> float:
        """Returns the learning rate of step ``step`` (from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - 1 - self.warmup, 1)
        return (
            self.final_rate
            + (self.learning_rate - self.final_rate) * (1 + math.cos(math.pi * done)) / 2
        )


def sample(
    images: Photographs, task: Task, settings: Settings, step: int
) -> tuple[Tensor, Tensor]:
    """Returns the packed crops of a step and their reference."""
    wide = images.batch(
        step,
        size=settings.batch * task.images,
        crop=settings.crop + 2 * MARGIN,
        seed=settings.seed,
        saturate=settings.saturate,
        candidates=settings.candidates,
    )
    packed = task.pack(*wide.chunk(task.images))
    inner = slice(MARGIN, -MARGIN)
    edge = slice(MARGIN // task.scale, -(MARGIN // task.scale))
    return packed[..., inner, inner], task.reference(packed)[..., edge, edge]


def psnr(a: Tensor, b: Tensor) -> float:
    """Returns the PSNR in dB of pixels in [0, 1]."""
    return -10 * math.log10(max(float((a - b).square().mean()), 1e-12))


@torch.no_grad()
def evaluate_held_out(model: nn.Module, task: Task, x: Tensor) -> tuple[float, float]:
    """Returns the PSNR of the forward picture and of what comes back, both rounded to 8 bits.

    For hiding, what comes back is judged by the secrets alone.
    """
    training = model.training
    model.eval()
    small = quantize(model(x))
    back = quantize(model.inverse(small))  # type: ignore[operator]
    model.train(training)
    reference = quantize(task.reference(x))
    restored, original = (torch.cat(task.wanted(packed), dim=1) for packed in (back, x))
    return psnr(small, reference), psnr(restored, original)


class _Watch:
    """Tells an explosion from a hard batch: by the medians of the last losses, few and many."""

    def __init__(self) -> None:
        self.losses: deque[float] = deque(maxlen=100)

    def exploded(self, loss: float, norm: float) -> bool:
        """Whether this step must not be taken; remembers the loss otherwise."""
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return True
        self.losses.append(loss)
        if len(self.losses) < 100:
            return False
        recent = statistics.median(list(self.losses)[-FEW:])
        return recent > SPIKE * statistics.median(self.losses)


def _state(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    settings: Settings,
    backed_off: int,
    watch: _Watch,
) -> dict[str, Any]:
    """A copy of everything that decides how the training goes on."""
    return copy.deepcopy(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "settings": asdict(settings),
            "backed_off": backed_off,
            "losses": list(watch.losses),
        }
    )


def _restore(
    model: nn.Module, optimizer: torch.optim.Optimizer, state: dict[str, Any], watch: _Watch
) -> None:
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    watch.losses.clear()
    watch.losses.extend(state["losses"])


def _log(folder: Path, **row: float) -> None:
    """Adds a line to ``log.jsonl``."""
    with (folder / "log.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(row) + "\n")


def _save(path: Path, state: dict[str, Any]) -> None:
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def train(
    model: nn.Module,
    task: Task,
    images: Photographs,
    settings: Settings,
    folder: Path,
    *,
    held_out: Tensor,
    device: torch.device,
    resume: bool = False,
    every: int = 500,
    report: Callable[[int, Losses, tuple[float, float] | None], None] | None = None,
) -> None:
    """Trains ``model`` and leaves ``folder/checkpoint.pt`` and ``folder/log.jsonl``.

    Args:
        model: The network, already on ``device``.
        task: What it is trained for.
        images: Where the crops come from.
        settings: Everything that decides the result.
        folder: Where the checkpoint and the log are written.
        held_out: Packed images (1, C, H, W) that are never trained on.
        device: Where to run.
        resume: Go on from ``folder/checkpoint.pt``, to the same result as without the stop.
        every: Steps between checkpoints, to which an exploding training goes back, and judgements
            of the held-out image.
        report: Called after every step with its number, its losses and, every so often, the two
            PSNR.

    Raises:
        WICError: If the checkpoint is of other settings, or the training exploded too often.

    A step whose loss explodes or is not finite is not taken: the training goes back to the last
    checkpoint and on from there with half the learning rate.
    """
    objective = Objective(task, settings.weights, reverse=settings.reverse)
    fused = device.type == "cuda"
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, fused=fused)
    checkpoint = folder / "checkpoint.pt"
    start = 0
    if resume:
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        if state["settings"] != asdict(settings):
            changed = [
                name
                for name, value in asdict(settings).items()
                if state["settings"].get(name) != value
            ]
            raise WICError(
                f"{checkpoint} was made with another {', '.join(changed)}; resume with the same."
            )
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        start = state["step"]
    model.train()
    watch = _Watch()
    backed_off = 0
    if resume:
        backed_off = state["backed_off"]
        watch.losses.extend(state["losses"])
    good = _state(model, optimizer, start, settings, backed_off, watch)
    began = time.monotonic()
    step = start
    while step < settings.steps:
        x, reference = (tensor.to(device) for tensor in sample(images, task, settings, step))
        for group in optimizer.param_groups:
            group["lr"] = settings.rate(step) / 2**backed_off
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
            losses = objective(model, x, reference)
        optimizer.zero_grad(set_to_none=True)
        losses.total.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        loss = float(losses.total.detach())
        if watch.exploded(loss, float(norm)):
            backed_off += 1
            if backed_off > MOST_BACK_OFFS:
                raise WICError(
                    f"The loss exploded {backed_off} times, last at step {step}; the last good "
                    f"weights are in {checkpoint}. Start again with a lower --lr."
                )
            _restore(model, optimizer, good, watch)
            back_to = good["step"]
            _log(folder, exploded=step, loss=loss, back_to=back_to, halved=backed_off)
            step = back_to
            continue
        optimizer.step()
        step += 1
        done = step
        judged = None
        if done % every == 0 or done == settings.steps:
            judged = evaluate_held_out(model, task, held_out.to(device))
            good = _state(model, optimizer, done, settings, backed_off, watch)
            _save(checkpoint, good)
            _log(
                folder,
                step=done,
                seconds=round(time.monotonic() - began, 1),
                loss=statistics.median(watch.losses),
                psnr_forward=judged[0],
                psnr_back=judged[1],
            )
        if report is not None:
            report(done, losses, judged)
