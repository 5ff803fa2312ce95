"""What the examples have in common: trainings of half a minute, and pictures side by side."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from skimage import data

from wic_layers import cli, pictures
from wic_layers.models import from_pretrained, save_official

Picture = np.ndarray
"""(height, width, 3) of 8 bits."""


def arguments(text: str | None, out: str) -> argparse.Namespace:
    """The command line of an example: how long it trains, and the picture that it writes."""
    parser = argparse.ArgumentParser(description=(text or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=150, help="of each training")
    parser.add_argument("--out", type=Path, default=Path(out), help="picture to write")
    return parser.parse_args()


class Workshop:
    """Networks trained on three of scikit-image's photographs, of which one is held out.

    Args:
        folder: An empty folder.
        steps: Of each training.
    """

    def __init__(self, folder: str | Path, steps: int) -> None:
        self.folder = Path(folder)
        photographs = self.folder / "photographs"
        photographs.mkdir()
        for name in ("astronaut", "chelsea", "rocket"):
            Image.fromarray(getattr(data, name)()).save(photographs / f"{name}.png")
        self.given = [
            "--data", f"{photographs}", "--cache", f"{self.folder}/cache", "--held-out", "1",
            "--steps", f"{steps}", "--crop", "48", "--warmup", "20", "--accelerator", "cpu",
        ]  # fmt: skip
        torch.manual_seed(0)

    def train(self, preset: str) -> Any:
        """The network that ``wic train`` makes of a preset."""
        return self._made("train", preset)

    def upgrade(self, code: str, network: Any, *more: str) -> Any:
        """The network that ``wic upgrade`` makes of a checkpoint as that code base writes it."""
        save_official(network, self.folder / f"{code}.pth")
        return self._made("upgrade", code, f"{self.folder}/{code}.pth", *more)

    def _made(self, *command: str) -> Any:
        out = self.folder / "-".join(command[:2])
        if cli.main([*command, "-o", f"{out}", *self.given]):
            raise SystemExit(f"wic {command[0]} failed.")
        return from_pretrained(out)


def decibel(a: Picture, b: Picture) -> float:
    """PSNR of two pictures in dB."""
    return pictures.psnr(torch.from_numpy(a), torch.from_numpy(b))


def compared(first: Picture, second: Picture) -> tuple[list[Picture], float]:
    """Both pictures and their difference x20; and its mean in grey levels."""
    levels = np.abs(first.astype(int) - second.astype(int))
    return [first, second, (20 * levels).clip(0, 255).astype(np.uint8)], float(levels.mean())


def write_sheet(rows: list[list[Picture]], out: Path, gap: int = 8) -> None:
    """Writes pictures in rows, on white."""
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
    out.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(canvas).save(out)
