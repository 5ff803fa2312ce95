"""The training loop, on Lightning Fabric: one process or many, the same result after a stop."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wic_layers._files import write_whole
from wic_layers.blocks.reversible import save_memory
from wic_layers.errors import IllConditionedError, WICArgumentError, WICDependencyError, WICError
from wic_layers.evaluation.judging import Judgement
from wic_layers.tasks import Task
from wic_layers.training.batches import Batches, pack_crops, read_batches
from wic_layers.training.data import Photographs
from wic_layers.training.guard import Guard, Incident, _own
from wic_layers.training.objective import Losses, Objective, Step
from wic_layers.training.optimizers import Muon
from wic_layers.training.recipe import Settings

__all__ = [
    "CHECKPOINT",
    "LOG",
    "UNFINISHED",
    "capture",
    "make_fabric",
    "make_objective",
    "make_optimizer",
    "train",
]

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
UNFINISHED = "checkpoint.tmp"  # it takes the checkpoint's place once it is whole

_FORMAT = 1


def make_fabric(settings: Settings) -> Any:
    """Returns the Fabric that runs a training; its ``launch()`` starts the processes.

    Under ``torchrun`` they are there already, on one machine or several; else Fabric starts one
    for every device after the first.

    Raises:
        WICDependencyError: If Lightning Fabric is not installed.
        WICArgumentError: If the devices are not there, or the batch cannot be shared out.
    """
    try:
        from lightning_fabric import Fabric
        from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
    except ImportError as error:
        raise WICDependencyError(
            "Training needs Lightning Fabric, which is not installed. Run: pip install "
            "'wic-layers[train]'"
        ) from error
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


def make_objective(task: Task, settings: Settings) -> Objective:
    """Returns the objective that settings ask for."""
    return Objective(
        task,
        settings.weights,  # type: ignore[arg-type]
        forward=settings.forward,
        reverse=settings.reverse,
        rounding=settings.rounding,
        shift_target=settings.shift_target,
        low=settings.low,
        frequency=settings.frequency,
        returned=settings.returned,
        invariance=settings.invariance,
        w=settings.w,
    )


class _Log:
    """``log.jsonl``: a line for every judgement and incident; those after a checkpoint are cut."""

    def __init__(self, folder: Path, *, lines: int | None) -> None:
        self.path = folder / LOG
        kept: list[str] = []
        with suppress(OSError):
            kept = self.path.read_text(encoding="utf-8").splitlines(keepends=True)[:lines]
        self.lines = len(kept)
        write_whole(self.path, "".join(kept).encode())

    def add(self, **row: Any) -> None:
        self.lines += 1
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def make_optimizer(
    model: nn.Module, settings: Settings, fabric: Any = None
) -> torch.optim.Optimizer:
    """Returns the optimizer that settings ask for, its state shared out among processes."""
    device = next(model.parameters()).device
    arguments: dict[str, Any] = {
        "lr": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "fused": device.type in ("cpu", "cuda"),
    }
    kind: type[torch.optim.Optimizer] = torch.optim.AdamW
    parameters: Any = model.parameters()
    if settings.optimizer == "muon":
        kind, parameters = Muon, Muon.groups(model)
    if not settings.shard or fabric is None or fabric.world_size == 1:
        return kind(parameters, **arguments)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    # every process keeps the moments of its share of the parameters
    return ZeroRedundancyOptimizer(parameters, kind, **arguments)


def _averaging(decay: float) -> Callable[[Any, Any, Any], None]:
    """How averaged weights follow: the last tenth of a young training, then at ``decay``.

    At a decay such as 0.999 alone they would hold on to the start for thousands of steps.
    """

    @torch.no_grad()
    def follow(averages: Any, weights: Any, number: Any) -> None:
        share = (9 / (10 + number)).clamp(min=1 - decay)  # of the newest; on the device
        steps = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(steps, share.to(averages[0].dtype))
        torch._foreach_add_(averages, steps)

    return follow


def _load(
    path: Path, settings: Settings, images: Photographs, device: torch.device
) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        made = state["settings"] if state["format"] == _FORMAT else None
    except Exception as error:  # torch.load raises nearly anything for a damaged file
        reason = " ".join(str(error).split()[:30]) or type(error).__name__
        raise WICError(f"{path} cannot be resumed from: {reason}.") from error
    if made is None:
        raise WICError(f"{path} is of another version of wic-layers and cannot be resumed.")
    changed = [name for name, value in settings.decisive().items() if made.get(name) != value]
    if changed:
        raise WICError(f"{path} was made with another {', '.join(changed)}; resume with the same.")
    if state.get("photographs", images.digest) != images.digest:
        raise WICError(
            f"{path} was made with other photographs; resume with the same files, or begin from "
            f"its weights with --start in another folder."
        )
    return state


def train(
    model: Any,
    task: Task,
    images: Photographs,
    settings: Settings,
    folder: Path,
    *,
    held_out: Tensor,
    fabric: Any = None,
    resume: bool = False,
    begin: Callable[[], None] | None = None,
    report: Callable[[int, Losses, Judgement | None, float], None] | None = None,
    warn: Callable[[Incident], None] | None = None,
) -> Any:
    """Trains ``model`` and leaves ``checkpoint.pt`` and ``log.jsonl`` in a folder.

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
        resume: Go on from ``folder/checkpoint.pt``, to the same result as without the stop.
        begin: Called once a training that is not resumed is sure to start, before its first
            checkpoint takes the place of an earlier one. In the first process only.
        report: Called after every step with its number, its losses, after checkpoints what the
            network makes of the held-out images, and the learning rate. In the first process
            only.
        warn: Called with every incident. In the first process only.

    Returns:
        The network with the result: ``model``, or that of the averaged weights.

    Raises:
        WICError: If the checkpoint is damaged or of other settings, or the training exploded too
            often in a row; the last good state is in the checkpoint then.
        WICArgumentError: If the step is to be captured in a graph where that cannot be.
    """
    if fabric is None:
        fabric = make_fabric(settings)
        fabric.launch()
    if settings.graph and (fabric.world_size > 1 or fabric.device.type != "cuda"):
        raise WICArgumentError(
            f"Expected one process on CUDA to capture a graph of the step; got "
            f"{fabric.world_size} on {fabric.device.type}. Leave out --graph."
        )
    model.to(fabric.device).train()
    objective = make_objective(task, settings)
    save_memory(model, enabled=settings.save_memory)
    whole = Step(model, objective, bf16=settings.bf16)
    optimizer = make_optimizer(model, settings, fabric)
    average: Any = None
    if settings.ema:
        average = AveragedModel(model, multi_avg_fn=_averaging(settings.ema))
    result = model if average is None else average.module
    checkpoint = folder / CHECKPOINT
    state = _load(checkpoint, settings, images, fabric.device) if resume else None
    if state is not None:
        model.load_state_dict(state["model"])
        if average is not None:
            average.load_state_dict(state["average"])
    run, optimizer = fabric.setup(torch.compile(whole) if settings.compile else whole, optimizer)
    plain = Step(model, objective, bf16=settings.bf16)  # for looking back, layer by layer
    is_captured = not settings.graph
    if state is not None:
        optimizer.load_state_dict(state["optimizer"])
        _bring_steps_home(optimizer)

    is_first = fabric.is_global_zero
    log = None
    began = time.monotonic() - (0.0 if state is None else state.get("seconds", 0.0))

    def note(incident: Incident) -> None:
        if log is not None:
            log.add(
                not_taken=incident.step, reason=incident.reason, losses=incident.losses,
                layer=incident.layer, back_to=incident.back_to, rate=incident.rate,
            )  # fmt: skip
        if warn is not None and is_first:
            warn(incident)

    guard = Guard(
        model, optimizer, every=None, clip=settings.clip, fabric=fabric, report=note,
        also=[] if average is None else [average],
    )  # fmt: skip
    if state is not None:
        guard.load_state_dict(state["guard"])

    def save() -> None:
        temporary = folder / UNFINISHED
        fabric.save(
            temporary,
            {
                "format": _FORMAT,
                "settings": settings.decisive(),
                "photographs": images.digest,
                "model": model.state_dict(),
                "optimizer": optimizer,
                "average": None if average is None else average.state_dict(),
                # the good state is the one that is saved
                "guard": {**guard.state_dict(), "good": {}},
                "lines": 0 if log is None else log.lines,
                "seconds": time.monotonic() - began,
            },
        )
        if is_first:
            if guard.steps == 0 and begin is not None:
                begin()
            os.replace(temporary, checkpoint)
        fabric.barrier()

    if state is None:
        save()
    if is_first:
        log = _Log(folder, lines=0 if state is None else state.get("lines"))
    batches = Batches(images, task, settings, fabric.global_rank, fabric.world_size)
    while guard.steps < settings.steps:
        for crops in read_batches(batches, settings, guard.steps, fabric.device):
            step = guard.steps
            _seed(settings.seed, step, fabric.global_rank)
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(step)
            x, reference = pack_crops(crops.to(fabric.device), task, saturate=settings.saturate)

            def again(x: Tensor = x, reference: Tensor = reference) -> object:
                return plain(x, reference)

            if not is_captured:
                capture(whole, x, reference)
                is_captured = True
                _seed(settings.seed, step, fabric.global_rank)  # it drew random numbers
            try:
                losses = Losses(*run(x, reference))
            except IllConditionedError as error:
                guard.fail(f"a kernel cannot be inverted: {error}", layer=".".join(error.parts))
                break
            if not guard.step(objective.weighted(losses), rerun=again):
                break  # the steps that follow are others than those that were read
            if average is not None:
                average.update_parameters(model)
            done = guard.steps
            judged = None
            if done % settings.every == 0 or done == settings.steps:
                ruined = ""
                if is_first:
                    judged, ruined = _judge(result, task, held_out.to(fabric.device))
                ruined = fabric.broadcast(ruined)
                if ruined:
                    guard.fail(ruined)
                    break
                guard.mark_good()
                if judged is not None and log is not None:
                    log.add(
                        step=done, seconds=round(time.monotonic() - began, 1), loss=guard.loss,
                        psnr_forward=judged.psnr_forward, psnr_back=judged.psnr_back,
                    )  # fmt: skip
                save()
            if report is not None and is_first:
                report(done, losses, judged, settings.rate(step) * guard.rate)
    return result


def _judge(model: Any, task: Task, x: Tensor) -> tuple[Judgement | None, str]:
    """What a network makes of held-out images; or what is wrong with it, as a sentence."""
    try:
        judged = Judgement(model, task, x)
    except IllConditionedError as error:
        return None, f"a kernel cannot be inverted: {error}"
    if not math.isfinite(judged.psnr_forward + judged.psnr_back):
        return None, "what it makes of the held-out images is not finite"
    return judged, ""


def _bring_steps_home(optimizer: Any) -> None:
    """Fused optimizers count steps on the parameters' device; sharding loads them on the CPU."""
    optimizer = _own(optimizer)
    if not all(group.get("fused") for group in optimizer.param_groups):
        return
    for parameter, held in optimizer.state.items():
        if isinstance(held.get("step"), Tensor):
            held["step"] = held["step"].to(parameter.device)


def capture(step: Step, x: Tensor, reference: Tensor) -> None:
    """Makes a step on CUDA one graph forward and one for its gradients, from now on.

    Launching its thousands of small kernels one by one takes longer than they run. Shapes must
    stay those of ``x`` and ``reference``.
    """
    # convolutions are timed, and the fastest kept, before the capture
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        torch.cuda.make_graphed_callables(step, (x.clone(), reference.clone()))


def _seed(seed: int, step: int, process: int) -> None:
    """Random parts (noise, a Gaussian completion) are those of the step, after a stop too."""
    torch.manual_seed(((seed * 1_000_003 + step) * 4099 + process) % 2**63)
