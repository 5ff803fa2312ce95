"""What the page of all commands shows: each as it is typed, what it prints, and its pictures.

``wic`` runs a command in an empty folder with photographs; ``show`` draws files of that folder.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from skimage import data

from wic_layers import cli

SIDE = 256


def enter() -> None:
    """Goes into an empty folder with the photographs that the page names."""
    os.chdir(tempfile.mkdtemp())
    left, right, _ = data.stereo_motorcycle()
    photographs = {
        "cover": data.coffee()[60:, 180:], "secret": data.chelsea()[20:, 110:],
        "photo": data.astronaut()[:, 90:], "left": left[180:, 250:], "right": right[180:, 250:],
    }  # fmt: skip
    for name, image in photographs.items():
        Image.fromarray(image[:SIDE, :SIDE]).save(f"{name}.png")
    Path("photographs").mkdir()
    for name in ("coffee", "chelsea", "rocket"):
        Image.fromarray(getattr(data, name)()).save(f"photographs/{name}.png")


def wic(words: str) -> None:
    """Runs a command, and prints it with what it says.

    Args:
        words: What stands after ``wic``.
    """
    print(f"$ wic {words}")
    with contextlib.redirect_stderr(sys.stdout):
        code = cli.main(shlex.split(words))
    if code:
        raise SystemExit(f"wic {words}: exit code {code}")


def pixels(name: str) -> np.ndarray:
    """The pixels of a file, with three channels."""
    return np.asarray(Image.open(name).convert("RGB"))


def show(*names: str | tuple[str, str]) -> None:
    """Draws files in a row, small ones small; of a pair of files their difference x20."""
    pictures = {}
    for name in names:
        if isinstance(name, str):
            picture = pixels(name)
            height, width = picture.shape[:2]
            pictures[f"{name}, {width} x {height}"] = picture
        else:
            first, second = (pixels(each).astype(int) for each in name)
            pictures["difference x20"] = (np.abs(first - second) * 20).clip(0, 255)
    _, axes = plt.subplots(
        1, len(pictures), figsize=(2.5 * len(pictures), 2.8), layout="constrained", squeeze=False
    )
    side = max(max(picture.shape[:2]) for picture in pictures.values())
    for axis, (title, picture) in zip(axes[0], pictures.items(), strict=True):
        height, width = picture.shape[:2]
        left, top = (side - width) / 2, (side - height) / 2
        axis.imshow(picture, extent=(left, left + width, top + height, top))
        axis.set(xlim=(0, side), ylim=(side, 0))
        axis.set_title(title, fontsize=9)
        axis.axis("off")
