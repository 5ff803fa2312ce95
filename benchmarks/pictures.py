r"""What random numbers cost, in a picture: networks trained equally, but for their completion.

    python benchmarks/pictures.py RUNS --photos PHOTOS

Trains the tiny WIN-Naive for x2 and for hiding with zeros, the paper's shift and random numbers,
by ``wic train``, into RUNS; those that are there are taken as they are, and a training that was
stopped goes on. Then photographs of scikit-image go through each, through 8-bit pixels, and what
comes back is set side by side in ``results/pictures.jpg``, that of random numbers twice. Equal are
photographs, crops, batches, start, steps, optimizer, losses and their weights.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from skimage import data
from torch import Tensor
from trials import RESULTS

from wic_layers import cli
from wic_layers.codec.running import backward_pixels, forward_pixels, reference_pixels
from wic_layers.models import from_pretrained
from wic_layers.pictures import psnr, size_of
from wic_layers.tasks import TASKS, Task

COMPLETIONS = {"zero": "zeros", "shift": "shifted copies", "gaussian": "random numbers"}
TRAINING = (
    "--reduce 2 --batch 4 --crop 48 --steps 1000 --optimizer muon --lr 2e-3 --seed 0 --bf16 "
    "--every 1000"
).split()
WEIGHTS = {"rescaling-x2": "12 1 0.1 1", "hiding-1": "1 1 0.1 1"}
SIDE = 96  # of the part that is drawn
TIMES = 10  # what the difference of two decodings is multiplied by


class Shown(NamedTuple):
    """Photographs that a task takes, and the part of the last one, which comes back, to draw."""

    images: tuple[np.ndarray, ...]
    top: int
    left: int


SHOWN = {
    "rescaling-x2": Shown((data.astronaut(),), 60, 180),
    "hiding-1": Shown((data.coffee(), data.chelsea()), 70, 140),
}


def train(runs: Path, photos: Path) -> None:
    """Trains what is not there yet."""
    for task, weights in WEIGHTS.items():
        for completion in COMPLETIONS:
            out = runs / f"{task}-{completion}"
            if (out / "model.safetensors").exists():
                continue
            more = ["--resume"] if (out / "checkpoint.pt").exists() else []
            command = [
                "train", f"{task}-naive-tiny", "-o", f"{out}", "--data", f"{photos}",
                "--completion", completion, "--weights", *weights.split(), *TRAINING, *more,
            ]  # fmt: skip
            if cli.main(command):
                raise SystemExit(f"wic {' '.join(command)} failed.")


class Outcome(NamedTuple):
    """What a network makes of the photographs of a task."""

    forward: float  # PSNR of the forward picture in dB
    back: list[Tensor]  # what comes back, decoded twice
    psnr: list[float]  # of both, in dB


def outcome(folder: Path, task: Task, images: list[Tensor]) -> Outcome:
    model = from_pretrained(folder)
    x = task.packed(*images)
    picture = forward_pixels(task, model, x)
    size = [size_of(images[-1])]
    torch.manual_seed(0)
    back = [backward_pixels(task, model, picture, size)[0] for _ in range(2)]
    forward = psnr(picture, reference_pixels(task, x))
    return Outcome(forward, back, [psnr(each, images[-1]) for each in back])


def draw(found: dict[str, dict[str, Outcome]]) -> None:
    """Writes a row for every task: what should come back, and what does."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        len(found), len(COMPLETIONS) + 3, figsize=(15, 3 * len(found)), layout="constrained"
    )
    for row, (name, outcomes) in zip(axes, found.items(), strict=True):
        shown = SHOWN[name]
        part = tuple(slice(start, start + SIDE) for start in (shown.top, shown.left))
        cells = [(f"{name}: the photograph", shown.images[-1])]
        for completion, each in outcomes.items():
            pictures = [back.permute(1, 2, 0).numpy() for back in each.back]
            cells.append((f"{COMPLETIONS[completion]}\n{each.psnr[0]:.2f} dB", pictures[0]))
        difference = np.abs(pictures[0].astype(int) - pictures[1]) * TIMES
        cells += [
            (f"the same file, decoded again\n{each.psnr[1]:.2f} dB", pictures[1]),
            (f"difference of the two, x {TIMES}", difference.clip(0, 255).astype(np.uint8)),
        ]
        for axis, (title, image) in zip(row, cells, strict=True):
            axis.imshow(image[part], interpolation="nearest")
            axis.set_title(title, fontsize=11)
            axis.axis("off")
    figure.savefig(RESULTS / "pictures.jpg", dpi=80, pil_kwargs={"quality": 90})
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, metavar="RUNS")
    parser.add_argument("--photos", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    train(args.runs, args.photos)
    found = {}
    for name, shown in SHOWN.items():
        images = [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in shown.images]
        found[name] = {
            each: outcome(args.runs / f"{name}-{each}", TASKS[name], images)
            for each in COMPLETIONS
        }
        for each, made in found[name].items():
            print(f"{name}, {COMPLETIONS[each]}: {made.forward:.2f} / {made.psnr[0]:.2f} dB")
    draw(found)
    print(f"See {RESULTS / 'pictures.jpg'}")


if __name__ == "__main__":
    main()
