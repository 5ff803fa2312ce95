"""A small HiNet with its random z, upgraded by ``wic upgrade``, and a picture of both.

    python integrations/hinet/example.py

Trains on crops of scikit-image's photographs for half a minute, writes the checkpoint as HiNet's
own code does, upgrades and fine-tunes it as long again, and draws what is revealed: twice from the
same stego image, with the difference x20. After so few steps neither is good; what differs is that
one draws numbers and the other does not.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

from wic_layers import cli, tasks
from wic_layers.images import psnr
from wic_layers.models import from_pretrained, save_official


def photographs(folder: Path) -> None:
    """Three to train on, of which one is held out for the table."""
    for name in ("astronaut", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")


def sheet(rows: list[list[np.ndarray]], gap: int = 8) -> Image.Image:
    """Pictures in rows, on white."""
    height, width = (
        max(picture.shape[axis] for row in rows for picture in row) for axis in (0, 1)
    )
    columns = max(map(len, rows))
    size = ((height + gap) * len(rows) - gap, (width + gap) * columns - gap, 3)
    canvas = np.full(size, 255, np.uint8)
    for y, row in enumerate(rows):
        for x, picture in enumerate(row):
            top, left = y * (height + gap), x * (width + gap)
            canvas[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return Image.fromarray(canvas)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("hinet.png"), help="picture to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photographs").mkdir()
        photographs(folder / "photographs")
        given = [
            "--data", f"{folder}/photographs", "--cache", f"{folder}/cache", "--held-out", "1",
            "--steps", f"{args.steps}", "--crop", "48", "--warmup", "20", "--accelerator", "cpu",
        ]  # fmt: skip
        if cli.main(["train", "hinet-z-small", "-o", f"{folder}/published", *given]):
            raise SystemExit("The training failed.")
        published = from_pretrained(folder / "published")
        save_official(published, folder / "hinet.pth")
        if cli.main(
            ["upgrade", "hinet", f"{folder}/hinet.pth", "-o", f"{folder}/upgraded", *given]
        ):
            raise SystemExit("The upgrade failed.")
        upgraded = from_pretrained(folder / "upgraded")

    cover, secret = data.coffee()[60:316, 120:376], data.cat()[20:276, 100:356]
    rows = []
    for title, network in (("with its random z", published), ("with a WIC", upgraded)):
        stego = tasks.hide(cover, [secret], model=network)
        first, second = (tasks.reveal(stego, model=network)[0] for _ in range(2))
        difference = np.abs(first.astype(int) - second.astype(int))
        rows.append(
            [cover, stego, secret, first, second, (20 * difference).clip(0, 255).astype(np.uint8)]
        )
        stego_decibel = psnr(torch.from_numpy(stego), torch.from_numpy(cover))
        decibel = psnr(torch.from_numpy(first), torch.from_numpy(secret))
        print(
            f"{title}: stego {stego_decibel:.2f} dB, secret {decibel:.2f} dB; from one time to "
            f"the next a pixel changes by {difference.mean():.2f} "
            "grey levels"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(args.out)
    print(
        f"{args.out}: above with z, below with a WIC; the cover, the stego image, the secret, "
        "what was revealed first and second, their difference x20"
    )


if __name__ == "__main__":
    main()
