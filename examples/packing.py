"""Packs several images into one and brings them back, by every task of ``wic pack``.

Runs ``wic pack`` and ``wic unpack`` with the shipped weights on scikit-image's photographs, each
in a process of its own: a camera's stereo pair, normal and zoomed views cut from photographs, a
foreground with a soft matte over a background, a camera that moves over a photograph. Writes
everything into one picture; of what comes back, the image that fared worst.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from quick_start import cell, pixels, psnr, residual, run, table
from skimage import data

from wic_layers.tasks import PACKING


def views(photograph: np.ndarray, factor: int) -> list[np.ndarray]:
    """A photograph made smaller, and its middle as it is: what a phone's two cameras see."""
    height, width = (side // factor // 2 * 2 for side in photograph.shape[:2])
    normal = Image.fromarray(photograph).resize((width, height), Image.Resampling.BICUBIC)
    top, left = (photograph.shape[0] - height) // 2, (photograph.shape[1] - width) // 2
    return [np.asarray(normal), photograph[top : top + height, left : left + width]]


def layers() -> list[np.ndarray]:
    """A cup of coffee, and before it an astronaut, cut out by an ellipse with soft edges."""
    background, foreground = data.coffee()[:384, 60:572], data.astronaut()[:384]
    y, x = np.mgrid[-1:1:384j, -1:1:512j]
    distance = np.hypot((x + 0.13) / 0.62, (y + 0.02) / 0.95)
    opacity = ((1.1 - distance) / 0.2).clip(0, 1) * 255
    return [background, np.dstack((foreground, opacity.astype(np.uint8)))]


def pan(frames: int) -> list[np.ndarray]:
    """What a camera sees that moves over a rocket."""
    photograph = data.rocket()
    return [photograph[20 + n : 340 + n, 100 + 2 * n : 520 + 2 * n] for n in range(frames)]


def inputs(task: str) -> list[np.ndarray]:
    kind, *numbers = task.removesuffix("-x2" if task.startswith("clip") else "").split("-")
    if kind == "clip":
        return pan(int(numbers[0]))
    if kind == "zoom":
        factor = int(numbers[0].removeprefix("x"))
        photograph = {2: data.stereo_motorcycle()[0], 4: data.hubble_deep_field()}
        return views(photograph.get(factor, data.retina()), factor)
    return layers() if kind == "layers" else list(data.stereo_motorcycle()[:2])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [task.name for task in PACKING]
    parser.add_argument("--out", type=Path, default=Path("packing"), help="folder for the files")
    parser.add_argument("--tasks", nargs="+", choices=names, default=names, metavar="TASK")
    args = parser.parse_args()
    rows = []
    for name in args.tasks:
        (task,) = (task for task in PACKING if task.name == name)
        folder = args.out / name
        folder.mkdir(parents=True, exist_ok=True)
        images = inputs(name)
        parts = [f"{part.replace(' ', '-')}.png" for part in task.parts]
        for part, image in zip(parts, images, strict=True):
            Image.fromarray(image).save(folder / part)
        run("pack", name, *parts, "-o", "packed.png", "--force", folder=folder)
        run("unpack", "packed.png", "-o", "back.png", "--force", folder=folder)

        back = [pixels(folder / f"back-{n + 1}.png") for n in range(task.restored_count)]
        opacity = images[1][..., 3:] / 255 if name == "layers" else np.ones(())
        wanted = [images[0], (images[1][..., :3] * opacity).round().astype(np.uint8), *images[2:]]
        if name == "layers":  # the composition comes back too
            mixed = wanted[1] + (images[0] * (1 - opacity)).round()
            wanted.insert(0, mixed.clip(0, 255).astype(np.uint8))
        height, width = wanted[0].shape[:2]
        first = wanted[(len(wanted) - 1) // 2 if name.startswith("clip") else 0]
        size = (-(-width // task.scale), -(-height // task.scale))
        reduced = Image.fromarray(first).resize(size, Image.Resampling.BICUBIC)
        packed = pixels(folder / "packed.png")[: size[1], : size[0]]
        found = [psnr(a, b) for a, b in zip(back, wanted, strict=True)]
        worst = int(np.argmin(found))
        print(
            f"{name}: the file is {psnr(packed, np.asarray(reduced)):.2f} dB from "
            f"{task.looks_like}; back come {', '.join(f'{value:.2f}' for value in found)} dB"
        )
        rows.append([
            cell(packed, f"{name}: the file", f"{psnr(packed, np.asarray(reduced)):.2f} dB"),
            cell(residual(packed, np.asarray(reduced)), f"file - {task.looks_like}, x 20"),
            cell(wanted[worst], f"{task.image_names[worst].replace('_', ' ')}, as it was"),
            cell(back[worst], "as it comes back", f"{found[worst]:.2f} dB"),
            cell(residual(back[worst], wanted[worst]), "back - was, x 20"),
        ])  # fmt: skip
    path = args.out / "packing.png"
    table(rows).save(path)
    print(f"See {path}")


if __name__ == "__main__":
    main()
