"""What ``--refine`` brings: steps against PSNR and time, for x2, hiding and decolorization.

    python benchmarks/refining.py FOLDER [--steps 6 12 24 48] [--crop 128] [--most 6]

The middle of every picture in FOLDER; the next one is hidden in it. PSNR in RGB through 8 bits, of
the forward picture against its reference and of what comes back; mean of the pictures, and the
least and the most that one of them gains. Time in runs of the network forward, alternating.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor

from wic_layers.codec.running import (
    backward_pixels,
    forward_pixels,
    load_network,
    reference_pixels,
)
from wic_layers.pictures import as_pixels, find_images, psnr, read_image, size_of
from wic_layers.tasks import TASKS

NAMES = ("rescaling-x2", "hiding-1", "decolorization")


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
    args = parser.parse_args()
    torch.set_num_threads(1)
    crops = [middle(path, args.crop) for path in find_images(args.folder)]
    crops = crops[:: max(len(crops) // args.most, 1)][: args.most]
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


if __name__ == "__main__":
    main()
