"""PSNR of both pictures of a network, through real 8-bit PNG files, beside bicubic's.

    python benchmarks/quality.py rescaling-x2-naive-small Set5 Set14 BSD100
    python benchmarks/quality.py hiding-1-naive-small BSD100 --reduce 2

RGB, the mean over the images of each folder. Rescaling: ``scale`` pixels are cropped at each
border, images first lose the rows and columns that ``scale`` does not divide, and the small
picture is judged against Pillow's bicubic reduction. Hiding: the secrets of image k are the images
after it (turned upright where the shapes differ). Decolorization: the grey picture is judged
against the lightness L*. Nothing else is cropped. Every picture is written, read back from its
file and only then judged or run backwards.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wic_layers.images import find_images, psnr, read_carrier, read_image, write_png
from wic_layers.models import from_pretrained
from wic_layers.tasks import TASKS, Task, color, down, gray, hide, reveal, up
from wic_layers.tasks.running import reference_pixels


def bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    small = picture.resize(size, Image.Resampling.BICUBIC)
    return (
        torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
        .view(*size[::-1], 3)
        .permute(2, 0, 1)
    )


def load(folder: Path, reduce: int) -> list[Tensor]:
    images = [read_image(path) for path in find_images(folder)]
    return [
        bicubic(image, (image.shape[2] // reduce, image.shape[1] // reduce)) for image in images
    ]


def through_file(image: Tensor, folder: Path) -> Tensor:
    path = folder / "picture.png"
    write_png(image, path, force=True)
    return read_carrier(path)[0]


def rescaling(
    images: list[Tensor], model: torch.nn.Module, folder: Path, task: Task
) -> Iterator[dict[str, float]]:
    scale = task.scale
    inner = (slice(None), slice(scale, -scale), slice(scale, -scale))
    for image in images:
        height, width = (side // scale * scale for side in image.shape[1:])
        whole = image[:, :height, :width]
        reduced = bicubic(whole, (width // scale, height // scale))
        enlarged = bicubic(reduced, (width, height))
        small = through_file(down(whole, model=model), folder)
        restored = through_file(up(small, size=(width, height), model=model), folder)
        yield {
            "small": psnr(small, reduced),
            "restored": psnr(restored[inner], whole[inner]),
            "bicubic restored": psnr(enlarged[inner], whole[inner]),
        }


def hiding(
    images: list[Tensor], model: torch.nn.Module, folder: Path, task: Task
) -> Iterator[dict[str, float]]:
    for index, cover in enumerate(images):
        following = [images[(index + step) % len(images)] for step in range(1, task.images)]
        secrets = [
            secret if secret.shape == cover.shape else secret.transpose(1, 2).contiguous()
            for secret in following
        ]
        stego = through_file(hide(cover, secrets, model=model), folder)
        height, width = cover.shape[1:]
        sizes = [(width, height)] * len(secrets)
        revealed = [
            through_file(image, folder) for image in reveal(stego, sizes=sizes, model=model)
        ]
        found = [psnr(*pair) for pair in zip(revealed, secrets, strict=True)]
        names = ["secret"] if len(found) == 1 else [f"secret {n + 1}" for n in range(len(found))]
        yield {
            "stego": psnr(stego[:, :height, :width], cover),
            **dict(zip(names, found, strict=True)),
        }


def decolorization(
    images: list[Tensor], model: torch.nn.Module, folder: Path, task: Task
) -> Iterator[dict[str, float]]:
    for image in images:
        height, width = image.shape[1:]
        grey = through_file(gray(image, model=model), folder)
        coloured = through_file(color(grey, size=(width, height), model=model), folder)
        plain = reference_pixels(task, image)[:, :height, :width]
        yield {
            "grey": psnr(grey[:, :height, :width], plain),
            "restored": psnr(coloured, image),
            "grey as it is": psnr(plain.expand(3, -1, -1), image),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="preset with weights in the package, or their folder")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--reduce", type=int, default=1, help="first make every image that many times smaller"
    )
    parser.add_argument("--csv", type=Path, help="write one row per image")
    args = parser.parse_args()
    model = from_pretrained(args.network)
    config = model.config
    made_for = (config["in_channels"], config["out_channels"], config["scale"])
    (task,) = (task for task in TASKS.values() if task.channels == made_for)
    judges = {"hiding": hiding, "rescaling": rescaling, "decolorization": decolorization}
    judge = judges[task.name.partition("-")[0]]
    rows: list[dict[str, object]] = []
    for place, folder in enumerate(args.folders):
        images = load(folder, args.reduce)
        with tempfile.TemporaryDirectory() as scratch:
            found = list(judge(images, model, Path(scratch), task))
        if not place:
            print(f"{args.network}, weights {model.weights_id}: RGB PSNR in dB, 8-bit files\n")
            print("| images | number | " + " | ".join(found[0]) + " |")
            print("|---|" + "---|" * (len(found[0]) + 1))
        means = (sum(row[key] for row in found) / len(found) for key in found[0])
        name = folder.name + (f" reduced by {args.reduce}" if args.reduce > 1 else "")
        print(
            f"| {name} | {len(found)} | " + " | ".join(f"{mean:.2f}" for mean in means) + " |",
            flush=True,
        )
        for path, row in zip(find_images(folder), found, strict=True):
            rows.append({"images": name, "image": path.name, **row})
    if args.csv:
        with args.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
