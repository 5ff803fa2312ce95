"""Hides one photograph in another, halves a third and makes it grey, through 8-bit files.

Runs the six commands of ``wic`` with the shipped weights on scikit-image's photographs, each in a
process of its own, and writes everything into one picture: originals, results, residuals x 20.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage import data

WIDTH, HEIGHT, LABEL, GAP = 400, 300, 44, 10


def run(*arguments: str, folder: Path) -> None:
    print("$ wic", shlex.join(arguments), flush=True)
    subprocess.run([sys.executable, "-m", "wic_layers", *arguments], cwd=folder, check=True)


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-12)))


def residual(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    difference = np.abs(a.astype(np.int16) - b.astype(np.int16)) * 20
    return difference.clip(0, 255).astype(np.uint8)


def bicubic(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def cell(image: np.ndarray, title: str, detail: str = "") -> Image.Image:
    """One picture at most WIDTH x HEIGHT, a small one at its own size, with two lines above."""
    sheet = Image.new("RGB", (WIDTH, HEIGHT + LABEL), "white")
    picture = Image.fromarray(image)
    picture.thumbnail((WIDTH, HEIGHT), Image.Resampling.LANCZOS)
    sheet.paste(picture, ((WIDTH - picture.width) // 2, LABEL))
    draw = ImageDraw.Draw(sheet)
    draw.text((WIDTH // 2, 2), title, "black", ImageFont.load_default(17), anchor="ma")
    draw.text((WIDTH // 2, 23), detail, "#555", ImageFont.load_default(15), anchor="ma")
    return sheet


def table(rows: list[list[Image.Image]]) -> Image.Image:
    columns = max(len(row) for row in rows)
    step_x, step_y = WIDTH + GAP, HEIGHT + LABEL + GAP
    sheet = Image.new("RGB", (columns * step_x + GAP, len(rows) * step_y + GAP), "white")
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            sheet.paste(picture, (GAP + x * step_x, GAP + y * step_y))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("quick-start"), help="folder for the files"
    )
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    left, _, _ = data.stereo_motorcycle()
    photographs = {"cover": left, "secret": data.coffee(), "photo": data.astronaut()}
    for name, image in photographs.items():
        Image.fromarray(image).save(folder / f"{name}.png")

    run("hide", "cover.png", "secret.png", "-o", "stego.png", "--force", folder=folder)
    run("reveal", "stego.png", "-o", "revealed.png", "--force", folder=folder)
    run("down", "photo.png", "-o", "small.png", "--force", folder=folder)
    run("up", "small.png", "-o", "restored.png", "--force", folder=folder)
    run("gray", "photo.png", "-o", "grey.png", "--force", folder=folder)
    run("color", "grey.png", "-o", "coloured.png", "--force", folder=folder)

    cover, secret, photo = photographs["cover"], photographs["secret"], photographs["photo"]
    height, width = cover.shape[:2]
    stego = pixels(folder / "stego.png")[:height, :width]
    revealed, small, restored, grey, coloured = (
        pixels(folder / f"{n}.png") for n in ("revealed", "small", "restored", "grey", "coloured")
    )
    reduced = bicubic(photo, (small.shape[1], small.shape[0]))
    enlarged = bicubic(reduced, (photo.shape[1], photo.shape[0]))

    def beside(a: np.ndarray, b: np.ndarray) -> str:
        return f"PSNR {psnr(a, b):.2f} dB"

    rows = [
        [
            cell(cover, "cover"),
            cell(stego, "stego: the cover with the secret in it", beside(stego, cover)),
            cell(residual(stego, cover), "stego - cover, x 20"),
        ],
        [
            cell(secret, "secret"),
            cell(revealed, "revealed from the stego's file", beside(revealed, secret)),
            cell(residual(revealed, secret), "revealed - secret, x 20"),
        ],
        [
            cell(photo, "photograph"),
            cell(restored, "down to half, and up again", beside(restored, photo)),
            cell(residual(restored, photo), "restored - photograph, x 20"),
        ],
        [
            cell(small, "the half-size file", f"{beside(small, reduced)} from bicubic's"),
            cell(enlarged, "bicubic down, and up again", beside(enlarged, photo)),
            cell(residual(enlarged, photo), "bicubic - photograph, x 20"),
        ],
        [
            cell(grey, "the grey file"),
            cell(coloured, "coloured from the grey file", beside(coloured, photo)),
            cell(residual(coloured, photo), "coloured - photograph, x 20"),
        ],
    ]
    path = folder / "quick-start.png"
    table(rows).save(path)
    print(f"\nstego:    {beside(stego, cover)} from the cover")
    print(f"revealed: {beside(revealed, secret)}")
    print(f"restored: {beside(restored, photo)}; by bicubic {beside(enlarged, photo)}")
    print(f"coloured: {beside(coloured, photo)}")
    print(f"See {path}")


if __name__ == "__main__":
    main()
