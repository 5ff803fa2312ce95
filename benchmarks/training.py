"""How fast crops are read against how fast a training takes them, and what a step costs.

    python benchmarks/training.py FOLDER [--preset hiding-1] [--batch 4] [--crop 64] [--bf16]

Prints the median time of a step (losses, backward, guard, optimizer), of cutting out its crops in
the process itself, and of getting them from one and two readers, all on the device of --device;
and how many times as fast the readers are. The photographs are decoded before, and read once.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from pathlib import Path

import torch

from wic_layers.images import find_images
from wic_layers.models import NETWORKS, PRESETS
from wic_layers.tasks import TASKS
from wic_layers.training import Guard, Objective, Photographs, Settings, engine


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("folder", type=Path)
    add("--preset", default="hiding-1")
    add("--batch", type=int, default=4)
    add("--crop", type=int, default=64)
    add("--repeats", type=int, default=20)
    add("--bf16", action="store_true")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    device, preset = torch.device(args.device), PRESETS[args.preset]
    task = TASKS[preset.task]
    settings = Settings(
        preset=args.preset, batch=args.batch, crop=args.crop, bf16=args.bf16, steps=10_000
    )
    images = Photographs(find_images(args.folder), levels=3, smallest=args.crop + 16)
    batches = engine.Batches(images, task, settings, 0, 1)
    model = NETWORKS[preset.network].from_preset(args.preset).to(device).train()
    objective = Objective(task)
    guard = Guard(model, torch.optim.AdamW(model.parameters(), 1e-4, fused=True), every=None)

    def step(number: int) -> None:
        x, reference = engine.pack_crops(batches[number].to(device), task)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            losses = objective(model, x, reference)
        guard.step(objective.weighted(losses))

    def timed(function: object, numbers: range) -> float:
        times = []
        for number in numbers:
            start = time.perf_counter()
            function(number)  # type: ignore[operator]
            synchronize(device)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    warnings.filterwarnings("ignore", message=".*worker processes")  # on a single core
    for number in range(3):
        step(number)
    taken = timed(step, range(3, 3 + args.repeats))
    print(
        f"{args.preset}, batch {args.batch}, crop {args.crop}, {device}, "
        f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    )
    print(f"step               {taken * 1e3:8.1f} ms")
    many = 10 * args.repeats
    for readers in (0, 1, 2):
        given = Settings(**{**settings.__dict__, "readers": readers, "steps": many + 20})
        crops = engine.read_batches(batches, given, 0, device)
        for _ in range(20):  # the readers start, the pages are read
            next(crops).to(device)
        start = time.perf_counter()
        for each in crops:
            each.to(device)
        synchronize(device)
        read = (time.perf_counter() - start) / many
        print(
            f"batch, {readers} readers   {read * 1e3:8.2f} ms, {taken / read:7.1f} times as fast"
        )


if __name__ == "__main__":
    main()
