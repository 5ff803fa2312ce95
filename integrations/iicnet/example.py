"""A small IICNet for stereo pairs, upgraded by ``wic upgrade``, and a picture of both.

    python integrations/iicnet/example.py

Trains as published on pairs made of scikit-image's photographs for a minute, writes the
checkpoint as IICNet's own code does, upgrades and fine-tunes it as long again, and packs
scikit-image's stereo pair, which is from a camera: left view, right view, the one file's picture,
and both views as they come back. After so few steps neither is good.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import numpy as np
import skimage
import torch
from PIL import Image
from skimage import data

from wic_layers import cli, tasks
from wic_layers.images import psnr
from wic_layers.models import from_pretrained, save_official


def photographs(folder: Path) -> None:
    """Three to train on, of which one is held out for the table."""
    for name in ("astronaut", "chelsea", "coffee"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")


def views() -> list[np.ndarray]:
    """The pair as it lies in scikit-image, which offers it by a download only."""
    folder = os.path.join(os.path.dirname(skimage.__file__), "data")
    found = []
    for side in ("left", "right"):
        with Image.open(f"{folder}/motorcycle_{side}.png") as image:
            found.append(np.asarray(image.convert("RGB"))[100:356, 240:496])
    return found


def decibel(a: np.ndarray, b: np.ndarray) -> float:
    return psnr(torch.from_numpy(a), torch.from_numpy(b))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150, help="of each training")
    parser.add_argument("--out", type=Path, default=Path("iicnet.png"), help="picture to write")
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
        published = "iicnet-stereo-squeeze-small"
        if cli.main(["train", published, "-o", f"{folder}/published", *given]):
            raise SystemExit("The training failed.")
        original = from_pretrained(folder / "published")
        save_official(original, folder / "iicnet.pth")
        upgrade = [
            "upgrade", "iicnet", f"{folder}/iicnet.pth", "-o", f"{folder}/upgraded",
            "--task", "stereo", *given,
        ]  # fmt: skip
        if cli.main(upgrade):
            raise SystemExit("The upgrade failed.")
        upgraded = from_pretrained(folder / "upgraded")

    left, right = views()
    rows = []
    for title, network in (("channel squeeze", original), ("WIC", upgraded)):
        packed = tasks.pack("stereo", [left, right], model=network)
        back = tasks.unpack(packed, "stereo", model=network)
        rows.append(np.concatenate([left, right, packed, *back], axis=1))
        print(
            f"{title}: the picture {decibel(packed, left):.2f} dB from the left view; the views "
            f"come back with {decibel(back[0], left):.2f} and {decibel(back[1], right):.2f} dB"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.concatenate(rows)).save(args.out)
    print(
        f"{args.out}: above with the channel squeeze, below with a WIC; the left and the right "
        "view, the packed picture, both views as they come back"
    )


if __name__ == "__main__":
    main()
