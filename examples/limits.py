"""What the shipped weights are bad at, and what a residual tells: hard photographs and textures.

Runs ``wic`` on scikit-image's pictures, each command in a process of its own, and writes one
picture: a secret in a smooth cover, grass and noise at half their size, all hues in grey; beside
each what comes back, and residuals x 20.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from quick_start import bicubic, cell, pixels, psnr, residual, run, table
from skimage import data
from skimage.color import hsv2rgb


def rgb(image: np.ndarray) -> np.ndarray:
    return np.repeat(image[..., None], 3, axis=2) if image.ndim == 2 else image


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("limits"), help="folder for the files")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    sky = data.rocket()[:160, 400:]
    y, x = np.mgrid[-1:1:300j, -1.33:1.33:400j]
    hue = (np.arctan2(y, x) / (2 * np.pi) % 1, np.hypot(x, y).clip(0, 1), np.ones_like(x))
    hues = (hsv2rgb(np.dstack(hue)) * 255).round().astype(np.uint8)
    photographs = {
        "sky": np.asarray(Image.fromarray(sky).resize((400, 300), Image.Resampling.BICUBIC)),
        "text": rgb(data.text()[:150, 40:240]).repeat(2, 0).repeat(2, 1),
        "grass": rgb(data.grass()[:300, :400]),
        "hues": hues,
        "noise": np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8),
    }
    for name, image in photographs.items():
        Image.fromarray(image).save(folder / f"{name}.png")
    run("hide", "sky.png", "text.png", "-o", "stego.png", "--force", folder=folder)
    run("reveal", "stego.png", "-o", "revealed.png", "--force", folder=folder)
    for name in ("grass", "noise"):
        run("down", f"{name}.png", "-o", f"small-{name}.png", "--force", folder=folder)
        run("up", f"small-{name}.png", "-o", f"restored-{name}.png", "--force", folder=folder)
    run("gray", "hues.png", "-o", "grey.png", "--force", folder=folder)
    run("color", "grey.png", "-o", "coloured.png", "--force", folder=folder)

    rows = []
    for title, name, made in (
        ("stego of a smooth cover", "sky", "stego"),
        ("its secret", "text", "revealed"),
        ("grass, through half the size", "grass", "restored-grass"),
        ("noise, through half the size", "noise", "restored-noise"),
        ("hues, through grey", "hues", "coloured"),
    ):
        image, found = photographs[name], pixels(folder / f"{made}.png")
        height, width = image.shape[:2]
        found = found[:height, :width]
        detail = f"PSNR {psnr(found, image):.2f} dB"
        if made.startswith("restored"):
            reduced = bicubic(image, (width // 2, height // 2))
            detail += f"; bicubic {psnr(bicubic(reduced, (width, height)), image):.2f} dB"
        print(f"{title}: {detail}")
        rows.append(
            [cell(image, name), cell(found, title, detail), cell(residual(found, image), "x 20")]
        )
    path = folder / "limits.png"
    table(rows).save(path)
    print(f"See {path}")


if __name__ == "__main__":
    main()
