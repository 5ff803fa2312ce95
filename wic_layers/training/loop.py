"""``Training``: the loop, on Lightning Fabric; a stop does not change the result."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from wic_layers._files import check_regular, write_whole
from wic_layers.blocks.reversible import save_memory
from wic_layers.errors import IllConditionedError, WICArgumentError, WICFileError, needing
from wic_layers.evaluation.judging import Judgement
from wic_layers.models import Network
from wic_layers.tasks import Task
from wic_layers.training import checkpoint
from wic_layers.training.checkpoint import CHECKPOINT, UNFINISHED
from wic_layers.training.data import Batches, Crops, Photographs, pack_crops, read_batches
from wic_layers.training.guard import Guard, Incident
from wic_layers.training.objective import Losses, Step, capture
from wic_layers.training.optimizers import averaging, bring_steps_home, make_optimizer
from wic_layers.training.recipe import Settings

if TYPE_CHECKING:
    from lightning_fabric import Fabric

__all__ = [
    "CHECKPOINT",
    "LOG",
    "UNFINISHED",
    "Log",
    "Report",
    "Training",
    "make_fabric",
]

LOG = "log.jsonl"

Report = Callable[[int, Losses, Judgement | None, float], None]
"""Told of every step: its number, its losses, what was judged after it, and the learning rate."""


class Training:
    """A network in training, which leaves ``checkpoint.pt`` and ``log.jsonl`` in a folder.

    A step that explodes is not taken, see :class:`~wic_layers.training.Guard`; the state that the
    training returns to is that of the last checkpoint.

    Args:
        model: The network.
        task: What it is trained for.
        images: Where the crops come from.
        settings: Everything that decides the result.
        folder: Where the checkpoint and the log are written.
        held_out: Packed images (B, C, H, W) that are never trained on.
        fabric: What runs the processes, see :func:`make_fabric`, launched; made of the settings if
            None.
        warn: Called with every incident. In the first process only.

    Attributes:
        result: ``model``, or the network of its averaged weights.
        guard: What takes the steps; ``guard.steps`` is how many were taken.

    Raises:
        WICArgumentError: If the step is to be captured in a graph where that cannot be.
    """

    def __init__(
        self,
        model: Network,
        task: Task,
        images: Photographs,
        settings: Settings,
        folder: Path,
        *,
        held_out: Tensor,
        fabric: Fabric | None = None,
        warn: Callable[[Incident], None] | None = None,
    ) -> None:
        if fabric is None:
            fabric = make_fabric(settings)
            fabric.launch()
        if settings.graph and (fabric.world_size > 1 or fabric.device.type != "cuda"):
            raise WICArgumentError(
                f"Expected one process on CUDA to capture a graph of the step; got "
                f"{fabric.world_size} on {fabric.device.type}. Leave out --graph."
            )
        if settings.graph and settings.through:
            raise WICArgumentError(
                "Expected no --graph with --through, as codecs run on the CPU; leave one out."
            )
        self.model, self.task, self.images, self.settings = model, task, images, settings
        self.folder, self.fabric, self.warn = folder, fabric, warn
        self.held_out = held_out.to(fabric.device)
        self.log = Log(folder / LOG, enabled=fabric.is_global_zero)
        self._began = time.monotonic()
        # the network, and the average of its weights
        model.to(fabric.device).train()
        save_memory(model, enabled=settings.save_memory)
        self.result, self.average = model, None
        if settings.ema:
            self.average = AveragedModel(model, multi_avg_fn=averaging(settings.ema))
            self.result = cast(Network, self.average.module)
        # a step: compiled, captured, for several processes; and plain, to look back layer by layer
        self.objective = settings.objective(task)
        self._whole = Step(model, self.objective, bf16=settings.bf16)
        self._plain = Step(model, self.objective, bf16=settings.bf16)
        self._is_captured = not settings.graph
        self.optimizer: Optimizer
        whole = cast(Step, torch.compile(self._whole)) if settings.compile else self._whole
        self._run, self.optimizer = fabric.setup(whole, make_optimizer(model, settings, fabric))
        self.guard = Guard(
            model, self.optimizer, every=None, clip=settings.clip, fabric=fabric,
            report=self._note, also=[] if self.average is None else [self.average],
        )  # fmt: skip
        self.batches = Batches(images, task, settings, fabric.global_rank, fabric.world_size)

    def run(
        self,
        *,
        resume: bool = False,
        begin: Callable[[], None] | None = None,
        report: Report | None = None,
    ) -> Network:
        """Trains to the last step of the settings.

        Args:
            resume: Go on from the checkpoint, to the same result as without the stop.
            begin: Called once a training that is not resumed is sure to start, before its first
                checkpoint takes the place of an earlier one. In the first process only.
            report: Called after every step that was taken. In the first process only.

        Returns:
            The network with the result: the one that is trained, or that of the averaged weights.

        Raises:
            WICError: If the checkpoint is damaged or of other settings, or the training exploded
                too often in a row; the last good state is in the checkpoint then.
        """
        settings, guard = self.settings, self.guard
        # from the checkpoint, or from a first one
        if resume:
            self.load()
        else:
            self.save(begin)
            self.log.cut(0)
        for crops in self._crops():
            rate = settings.rate(guard.steps)
            # forward, back, and a step of the optimizer; if it would ruin the network, back to the
            # last checkpoint, and the crops that follow are those of its next step
            losses = self.step(crops)
            if losses is None:
                continue
            # every so often: look at the held-out images; if they are sound, write a checkpoint
            judgement = None
            if guard.steps % settings.every == 0 or guard.steps == settings.steps:
                judgement, failure = self.judge()
                if failure:
                    guard.fail(failure)
                    continue
                guard.mark_good()
                if judgement is not None:
                    self.log.add(
                        step=guard.steps, seconds=round(self.seconds, 1), loss=guard.loss,
                        psnr_forward=judgement.psnr_forward, psnr_back=judgement.psnr_back,
                    )  # fmt: skip
                self.save()
            # tell how it goes
            if report is not None and self.fabric.is_global_zero:
                report(guard.steps, losses, judgement, rate * guard.rate)
        return self.result

    def step(self, crops: Crops) -> Losses | None:
        """Takes a step.

        Args:
            crops: Of the step in question, ``guard.steps``.

        Returns:
            The losses, unweighted; None if the step was not taken.

        Raises:
            WICError: If the training exploded too often in a row.
        """
        settings, number = self.settings, self.guard.steps
        self._seed(number)
        for group in self.optimizer.param_groups:
            group["lr"] = settings.rate(number)
        x, reference = pack_crops(
            crops.to(self.fabric.device), self.task, saturate=settings.saturate, grey=settings.grey
        )
        if not self._is_captured:
            capture(self._whole, x, reference)
            self._is_captured = True
            self._seed(number)  # it drew random numbers
        try:
            losses: Losses = self._run(x, reference)
        except IllConditionedError as error:
            self.guard.fail(f"a kernel cannot be inverted: {error}", layer=".".join(error.parts))
            return None
        weighted = self.objective.weighted(losses)
        if not self.guard.step(weighted, rerun=lambda: self._plain(x, reference)):
            return None
        if self.average is not None:
            self.average.update_parameters(self.model)
        return losses

    def judge(self) -> tuple[Judgement | None, str]:
        """Returns what the network makes of the held-out images, and what is wrong with it.

        The judgement is None where something is wrong, and in all processes but the first; what is
        wrong is a sentence, the same in all of them, and empty if nothing is.
        """
        judgement, failure = None, ""
        if self.fabric.is_global_zero:
            try:
                judgement = Judgement(
                    self.result, self.task, self.held_out, carrier=self.settings.carrier
                )
            except IllConditionedError as error:
                failure = f"a kernel cannot be inverted: {error}"
            else:
                if not math.isfinite(judgement.psnr_forward + judgement.psnr_back):
                    judgement, failure = None, "what it makes of the held-out images is not finite"
        return judgement, self.fabric.broadcast(failure)

    def save(self, begin: Callable[[], None] | None = None) -> None:
        """Writes the checkpoint.

        Args:
            begin: Called in the first process once the new one is written, before it takes the
                place of an earlier one.
        """
        state = {
            "format": checkpoint.FORMAT,
            "settings": self.settings.decisive(),
            "photographs": self.images.digest,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),  # of all processes, in the first
            "average": None if self.average is None else self.average.state_dict(),
            # the good state is the one that is saved
            "guard": {**self.guard.state_dict(), "good": {}},
            "lines": self.log.lines,
            "seconds": self.seconds,
        }
        if self.fabric.is_global_zero:
            checkpoint.write(self.folder, state, begin)
        self.fabric.barrier()

    def load(self) -> None:
        """Goes on from the checkpoint.

        Raises:
            WICError: If it is damaged, or of other settings or photographs.
        """
        path = self.folder / CHECKPOINT
        state = checkpoint.read(path, self.settings, self.images.digest, self.fabric.device)
        with checkpoint.resuming(path):
            checkpoint.check(state, self.model, self.average, self.optimizer)
            self.model.load_state_dict(state["model"])
            if self.average is not None:
                self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            bring_steps_home(self.optimizer)
            self.guard.load_state_dict(state["guard"])
        self.log.cut(state.get("lines"))
        self._began = time.monotonic() - state.get("seconds", 0.0)

    @property
    def seconds(self) -> float:
        """How long it has trained, with what was before a stop."""
        return time.monotonic() - self._began

    def _crops(self) -> Iterator[Crops]:
        """Yields the crops of the step that comes next, also where the guard went back."""
        while self.guard.steps < self.settings.steps:
            start = self.guard.steps
            reader = read_batches(self.batches, self.settings, start, self.fabric.device)
            for step, crops in enumerate(reader, start):
                yield crops
                if self.guard.steps != step + 1:
                    break

    def _note(self, incident: Incident) -> None:
        self.log.add(
            not_taken=incident.step, reason=incident.reason, losses=incident.losses,
            layer=incident.layer, back_to=incident.back_to, rate=incident.rate,
        )  # fmt: skip
        if self.warn is not None and self.fabric.is_global_zero:
            self.warn(incident)

    def _seed(self, step: int) -> None:
        """Random parts (noise, a Gaussian completion) are those of the step, after a stop too."""
        number = (self.settings.seed * 1_000_003 + step) * 4099 + self.fabric.global_rank
        torch.manual_seed(number % 2**63)


class Log:
    """``log.jsonl``: a line for every judgement and incident.

    Args:
        path: Where it is written.
        enabled: Whether it is written at all: by the first process only.

    Attributes:
        lines: How many there are.
    """

    def __init__(self, path: Path, *, enabled: bool) -> None:
        self.path, self.enabled, self.lines = path, enabled, 0

    def cut(self, lines: int | None) -> None:
        """Keeps the first lines only, those before a checkpoint; all if None."""
        if not self.enabled:
            return
        first: list[bytes] = []
        with suppress(OSError):
            check_regular(self.path)
            first = self.path.read_bytes().splitlines(keepends=True)[:lines]
        self.lines = len(first)
        write_whole(self.path, b"".join(first))

    def add(self, **row: object) -> None:
        """Writes a line."""
        self.lines += 1
        if not self.enabled:
            return
        try:
            with self.path.open("a", encoding="utf-8", newline="\n") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            reason = error.strerror or error
            raise WICFileError(f"{self.path} cannot be written: {reason}.") from error


def make_fabric(settings: Settings) -> Fabric:
    """Returns the Fabric that runs a training; its ``launch()`` starts the processes.

    Under ``torchrun`` they are there already, on one machine or several; else Fabric starts one
    for every device after the first.

    Raises:
        WICDependencyError: If Lightning Fabric is not installed.
        WICArgumentError: If the devices are not there, or the batch cannot be shared out.
    """
    with needing("Training needs Lightning Fabric", "train"):
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    devices, nodes = settings.devices, 1
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // devices
    processes = devices * nodes
    if settings.batch % processes:
        raise WICArgumentError(
            f"Expected a batch that {processes} processes can share; got {settings.batch}."
        )
    try:
        return Fabric(
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if processes > 1 else "auto",
            precision="32-true",
        )
    except (RuntimeError, ValueError) as error:  # Fabric's, where a device is not there
        reason = " ".join(str(error).split()).rstrip(".")
        raise WICArgumentError(
            f"Cannot train on {devices} device(s) of kind {settings.accelerator!r}: {reason}."
        ) from error
