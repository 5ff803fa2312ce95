"""PSNR of both pictures of a network, through real 8-bit PNG files, beside bicubic's.

    python benchmarks/quality.py rescaling-x2-naive-small Set5 Set14 BSD100
    python benchmarks/quality.py hiding-1-naive-small BSD100 --reduce 2

RGB, the mean over the images of each folder. Rescaling: ``scale`` pixels are cropped at each
border, odd images first lose their last row or column, and the small picture is judged against
Pillow's bicubic reduction. Hiding: image k is the cover of image k + 1 (turned upright where the
shapes differ), nothing else is cropped. Every picture is written, read back from its file and only
then judged or run backwards.
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

from wic_layers.images import find_images, psnr, read_image, write_png
from wic_layers.models import from_pretrained
from wic_layers.tasks import TASKS, down, hide, reveal, up


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
    return read_image(path)


def rescaling(
    images: list[Tensor], model: torch.nn.Module, folder: Path
) -> Iterator[dict[str, float]]:
    border = 2
    inner = (slice(None), slice(border, -border), slice(border, -border))
    for image in images:
        whole = image[:, : image.shape[1] // 2 * 2, : image.shape[2] // 2 * 2]
        half = (whole.shape[2] // 2, whole.shape[1] // 2)
        reduced = bicubic(whole, half)
        enlarged = bicubic(reduced, (whole.shape[2], whole.shape[1]))
        small = through_file(down(whole, model=model), folder)
        restored = through_file(up(small, model=model), folder)
        yield {
            "small": psnr(small, reduced),
            "restored": psnr(restored[inner], whole[inner]),
            "bicubic restored": psnr(enlarged[inner], whole[inner]),
        }


def hiding(
    images: list[Tensor], model: torch.nn.Module, folder: Path
) -> Iterator[dict[str, float]]:
    for cover, secret in zip(images, images[1:] + images[:1], strict=True):
        turned = secret if secret.shape == cover.shape else secret.transpose(1, 2).contiguous()
        stego = through_file(hide(cover, turned, model=model), folder)
        revealed = through_file(reveal(stego, model=model), folder)
        height, width = cover.shape[1:]
        yield {
            "stego": psnr(stego[:, :height, :width], cover),
            "secret": psnr(revealed[:, :height, :width], turned),
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network", help="preset with packaged weights, or a .safetensors file")
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument(
        "--reduce", type=int, default=1, help="first make every image that many times smaller"
    )
    parser.add_argument("--csv", type=Path, help="write one row per image")
    args = parser.parse_args()
    model = from_pretrained(args.network)
    made_for = (model.config["in_channels"], model.config["scale"])
    (task,) = (task for task in TASKS.values() if (3 * task.images, task.scale) == made_for)
    judge = {"hiding": hiding, "rescaling": rescaling}[task.name]
    rows: list[dict[str, object]] = []
    for place, folder in enumerate(args.folders):
        images = load(folder, args.reduce)
        with tempfile.TemporaryDirectory() as scratch:
            found = list(judge(images, model, Path(scratch)))
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
