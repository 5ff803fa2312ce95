"""A small IRN, a DLV-IRN and a DLV-IRN with a WIC, and a picture of what is random in each.

    python integrations/dlv/example.py

Trains each on crops of scikit-image's photographs for half a minute and draws, for another
photograph, the small picture with two draws of w and their difference x20, then what comes back
twice from the small picture without w, and their difference x20. After so few steps none is good;
what differs is where they draw numbers.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from wic_layers import cli, tasks
from wic_layers.images import psnr
from wic_layers.models import from_pretrained

NETWORKS = {
    "IRN, z drawn": "irn-x2-z-small",
    "DLV-IRN, z zero": "dlv-irn-x2-z-small",
    "DLV-IRN with a WIC": "dlv-irn-x2-small",
}


def photographs(folder: Path) -> None:
    """Three to train on, of which one is held out."""
    for name in ("astronaut", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")


@torch.no_grad()
def with_a_draw(network: Any, photo: np.ndarray) -> np.ndarray:
    """The small picture with a w that is drawn, where the network takes one."""
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    y = network(x, w=network.draw(x)) if hasattr(network, "draw") else network(x)
    return (y[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def difference(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, float]:
    """The difference of two pictures x20, and its mean in grey levels."""
    levels = np.abs(a.astype(int) - b.astype(int))
    return (20 * levels).clip(0, 255).astype(np.uint8), float(levels.mean())


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
    parser.add_argument("--out", type=Path, default=Path("dlv.png"), help="picture to write")
    args = parser.parse_args()
    torch.manual_seed(0)
    photo = data.coffee()[60:316, 120:376]
    rows, lines = [], []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "photographs").mkdir()
        photographs(folder / "photographs")
        given = [
            "--data", f"{folder}/photographs", "--cache", f"{folder}/cache", "--held-out", "1",
            "--steps", f"{args.steps}", "--crop", "48", "--warmup", "20", "--accelerator", "cpu",
        ]  # fmt: skip
        for title, preset in NETWORKS.items():
            if cli.main(["train", preset, "-o", f"{folder}/{preset}", *given]):
                raise SystemExit("The training failed.")
            network = from_pretrained(folder / preset)
            drawn = [with_a_draw(network, photo) for _ in range(2)]
            forward, of_w = difference(*drawn)
            small = tasks.down(photo, scale=2, model=network)
            again = [tasks.up(small, scale=2, model=network) for _ in range(2)]
            back, of_z = difference(*again)
            rows.append([*drawn, forward, *again, back])
            decibel = psnr(torch.from_numpy(again[0]), torch.from_numpy(photo))
            lines.append(
                f"{title}: {decibel:.2f} dB; a pixel changes by {of_w:.2f} grey levels with w on "
                f"the way forward, by {of_z:.2f} from one time to the next on the way back"
            )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(rows).save(args.out)
    print("\n".join(lines))
    print(
        f"{args.out}: IRN, DLV-IRN, DLV-IRN with a WIC; the small picture with two draws of w, "
        "their difference x20, what comes back first and second, their difference x20"
    )


if __name__ == "__main__":
    main()
