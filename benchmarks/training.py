"""What a training step costs, by precision, size and way of running it; and reading its crops.

    python benchmarks/training.py FOLDER [--preset hiding-1] [--batch 4 16] [--crop 64 128]

Prints, for every batch, crop and way, the median time of a step (losses, backward, guard,
optimizer), crops per second, and on CUDA the peak memory; the fastest per crop comes first in
the end. ``graph`` is ``wic train --graph``, ``plain`` the dense blocks of the published code under
plain autograd, as in speed.py. Then the time to cut a batch out in the process itself, and to get
it from one and two readers. The photographs are decoded before, and read once.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from speed import plain

from wic_layers.blocks.reversible import save_memory
from wic_layers.models import NETWORKS, PRESETS
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS
from wic_layers.training import Guard, Objective, Photographs, Settings
from wic_layers.training.data import Batches, pack_crops, read_batches
from wic_layers.training.objective import Step, capture

WAYS = {
    "plain": (),
    "plain, bf16": ("bf16",),
    "float32": (),
    "bf16": ("bf16",),
    "bf16, save_memory": ("bf16", "save_memory"),
    "bf16, graph": ("bf16", "graph"),
    "bf16, compile": ("bf16", "compile"),
}


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def build(
    settings: Settings, images: Photographs, device: torch.device, way: str
) -> Callable[[int], None]:
    """A step of a network of its own, to be called with its number."""
    preset = PRESETS[settings.preset]
    task, parts = TASKS[preset.task], WAYS[way]
    torch.manual_seed(0)
    model = NETWORKS[preset.network].from_preset(settings.preset)
    if way.startswith("plain"):
        model = plain(model)
    model.to(device).train()
    save_memory(model, enabled="save_memory" in parts)
    objective = Objective(task)
    whole = Step(model, objective, bf16="bf16" in parts)
    run = torch.compile(whole) if "compile" in parts else whole
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4, fused=True)
    guard = Guard(model, optimizer, every=None)
    batches = Batches(images, task, settings, 0, 1)
    read = {number % 4: batches[number].to(device) for number in range(4)}

    def step(number: int) -> None:
        x, reference = pack_crops(read[number % 4], task)
        if "graph" in parts and number == 0:
            capture(whole, x, reference)
        guard.step(objective.weighted(run(x, reference)))

    return step


def timed(
    function: Callable[[int], object], numbers: Iterable[int], device: torch.device
) -> float:
    times = []
    for number in numbers:
        synchronize(device)
        start = time.perf_counter()
        function(number)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def sweep(args: argparse.Namespace, device: torch.device, images: Photographs) -> None:
    """Prints what a step takes in every way."""
    print(
        "| batch, crop | way | step, ms | crops per second | peak memory, MB |\n"
        "|---|---|---|---|---|"
    )
    found = []
    for crop in args.crop:
        for batch in args.batch:
            settings = Settings(preset=args.preset, batch=batch, crop=crop)
            for way in args.ways:
                if device.type == "cuda":
                    torch.cuda.empty_cache()
                    torch.cuda.reset_peak_memory_stats(device)
                try:
                    step = build(settings, images, device, way)
                    for number in range(5):
                        step(number)
                    taken = timed(step, range(5, 5 + args.repeats), device)
                except Exception as error:  # such as too little memory: the others still count
                    print(
                        f"| {batch}, {crop} | {way} | {type(error).__name__}: {str(error)[:200]} |"
                    )
                    continue
                most = (
                    torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0
                )
                found.append((crop, batch / taken, batch, way))
                print(
                    f"| {batch}, {crop} | {way} | {taken * 1e3:.1f} | {batch / taken:.0f} | "
                    f"{most:.0f} |", flush=True,
                )  # fmt: skip
                del step
    for crop in args.crop:
        ranked = sorted((each for each in found if each[0] == crop), key=lambda each: -each[1])
        if ranked:
            print(f"fastest for crops of {crop}: batch {ranked[0][2]}, {ranked[0][3]}")


def readers(args: argparse.Namespace, device: torch.device, images: Photographs) -> None:
    """Prints what cutting out a batch takes."""
    many = 10 * args.repeats
    batch, crop = max(args.batch), max(args.crop)
    for count in (0, 1, 2):
        settings = Settings(
            preset=args.preset, batch=batch, crop=crop, readers=count, steps=many + 20
        )
        batches = Batches(images, TASKS[PRESETS[args.preset].task], settings, 0, 1)
        crops = read_batches(batches, settings, 0, device)
        for _ in range(20):  # the readers start, the pages are read
            next(crops).to(device)
        start = time.perf_counter()
        for each in crops:
            each.to(device)
        synchronize(device)
        read = (time.perf_counter() - start) / many
        print(f"batch {batch}, crop {crop}, {count} readers: {read * 1e3:.2f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", type=Path)
    add("--preset", default="hiding-1")
    add("--batch", type=int, nargs="+", default=[4])
    add("--crop", type=int, nargs="+", default=[64])
    add("--ways", nargs="+", choices=tuple(WAYS), default=["plain", "float32", "bf16"])
    add("--repeats", type=int, default=20)
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()

    device = torch.device(args.device)
    images = Photographs(
        find_images(args.folder), reduce="auto", levels=2, smallest=max(args.crop) + 16
    )
    warnings.filterwarnings("ignore", message=".*worker processes")  # on a single core
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{args.preset}, {name}, torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    sweep(args, device, images)
    print()
    readers(args, device, images)


if __name__ == "__main__":
    main()
