"""What ``--refine`` brings: steps against PSNR and time, for x2, hiding and decolorization.

    python benchmarks/refining.py FOLDER [--steps 6 12 24 48] [--crop 128] [--most 6]
    python benchmarks/refining.py FOLDER --limits --most 3

The middle of every picture in FOLDER; the next one is hidden in it. PSNR in RGB through 8 bits, of
the forward picture against its reference and of what comes back; mean of the pictures, and the
least and the most that one of them gains. Time in runs of the network forward, alternating.
``--limits`` asks of x2 what it is that limits it: the rounding, the picture's closeness to its
reference, the steps, where they start, or else what the network's way back can make at all.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wic_layers.codec import refining
from wic_layers.codec.carrier import CARRIER
from wic_layers.codec.running import (
    backward_pixels,
    forward_pixels,
    load_network,
    reference_pixels,
)
from wic_layers.pictures import as_pixels, find_images, psnr, read_image, size_of
from wic_layers.tasks import TASKS

NAMES = ("rescaling-x2", "hiding-1", "decolorization")


class Unrounded:
    """A picture with all digits of its pixels."""

    through = staticmethod(lambda x: x)
    pixels = staticmethod(lambda x: x.clamp(0, 1) * 255)


# what limits it: the picture's way, its closeness, and steps, of so many times their usual length
LIMITS: dict[str, tuple[Any, float, int, float, bool]] = {
    "as it is": (CARRIER, refining.CLOSENESS, 24, 1.0, False),
    "the picture may be anything": (CARRIER, 0.0, 24, 1.0, False),
    "the same, more and longer steps": (CARRIER, 0.0, 150, 2.0, False),
    "no rounding": (Unrounded, refining.CLOSENESS, 24, 1.0, False),
    "neither, more and longer steps": (Unrounded, 0.0, 150, 2.0, False),
    "the same, rounded, from bicubic's picture": (CARRIER, 0.0, 150, 2.0, True),
}


def middle(path: Path, side: int) -> Tensor:
    pixels = as_pixels(read_image(path))
    top, left = ((length - side) // 2 for length in pixels.shape[1:])
    return pixels[:, top : top + side, left : left + side].contiguous()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, nargs="+", default=[6, 12, 24, 48])
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--most", type=int, default=6, help="number of pictures")
    parser.add_argument("--limits", action="store_true", help="what limits it, of x2")
    args = parser.parse_args()
    torch.set_num_threads(1)
    crops = [middle(path, args.crop) for path in find_images(args.folder)]
    crops = crops[:: max(len(crops) // args.most, 1)][: args.most]
    if args.limits:
        compare_limits(crops)
        return
    print("| network | steps | forward picture | what comes back | gained by one | time |")
    print("|---|---|---|---|---|---|")
    for name in NAMES:
        task, network = load_network([TASKS[name]], None)
        rows: dict[int, list[tuple[float, float, float]]] = {}
        for index, crop in enumerate(crops):
            images = [crops[(index + step) % len(crops)] for step in range(1, task.images)]
            images = task.prepare(crop, *images, fit=False)
            x, wanted = task.packed(*images), images[-task.restored_count :]
            for steps in (0, *args.steps):
                began = time.process_time()
                picture = forward_pixels(task, network, x, refine=steps)
                taken = time.process_time() - began
                sizes = [size_of(image) for image in wanted]
                back = backward_pixels(task, network, picture, sizes)
                figures = [psnr(one, other) for one, other in zip(back, wanted, strict=True)]
                close = psnr(picture, reference_pixels(task, x))
                rows.setdefault(steps, []).append((close, statistics.mean(figures), taken))
        for steps, found in rows.items():
            gains = [one[1] - other[1] for one, other in zip(found, rows[0], strict=True)]
            times = [one[2] / other[2] for one, other in zip(found, rows[0], strict=True)]
            close, back = (statistics.mean(one[place] for one in found) for place in (0, 1))
            print(
                f"| {network.preset} | {steps} | {close:.2f} | {back:.2f} "
                f"| {min(gains):.2f} to {max(gains):.2f} | {statistics.median(times):.0f} |",
                flush=True,
            )


def compare_limits(crops: list[Tensor]) -> None:
    """Prints both pictures before and after, each time with another limit taken away."""
    task, network = load_network([TASKS["rescaling-x2"]], None)
    usual = refining.CLOSENESS, refining.RATE
    print("| | forward picture | refined | what comes back | refined |")
    print("|---|---|---|---|---|")
    for title, (carrier, closeness, steps, length, from_reference) in LIMITS.items():
        refining.CLOSENESS, refining.RATE = closeness, length * usual[1]
        figures = []
        for crop in crops:
            x = crop[None].float() / 255
            with torch.no_grad():
                reference = task.reference(x)
                y = reference if from_reference else network(x)
            refined = refining.refine(task, network, x, y, steps, carrier=carrier)
            for picture in (y, refined):
                seen = carrier.pixels(picture).float() / 255
                with torch.no_grad():
                    back = network.inverse(seen).clamp(0, 1)
                figures.append((psnr(seen, reference), psnr(back, x)))
        means = [
            statistics.mean(min(one[which], 99.0) for one in figures[state::2])
            for which in (0, 1) for state in (0, 1)
        ]  # fmt: skip
        print(f"| {title} | {' | '.join(f'{mean:.2f}' for mean in means)} |", flush=True)
    refining.CLOSENESS, refining.RATE = usual


if __name__ == "__main__":
    main()
