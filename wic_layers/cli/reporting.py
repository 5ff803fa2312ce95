"""What is printed of a file that was written: a line for people, or one of JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from wic_layers.cli.beside import carried
from wic_layers.codec import Written

__all__ = ["as_json", "backward_line", "forward_line", "times"]


def backward_line(written: Written) -> str:
    """Returns the line for an image that came back."""
    return f"{written.path}: {times(written.size)}"


def forward_line(written: Written, title: str, looks_like: str) -> str:
    """Returns the line for a picture from which images come back.

    Args:
        written: What was written.
        title: What an image that comes back is called.
        looks_like: What the picture should look like.
    """
    line = f"{written.path}: {times(written.size)}"
    if written.is_stored:
        line += ", the grey photo as it is"
    elif written.psnr is not None:
        line += f", {_decibel(written.psnr)} from {looks_like}"
    for index, size in enumerate(written.returns):
        number = f" {index + 1}" if len(written.returns) > 1 else ""
        line += f"; {title}{number} comes back at {times(size)}"
        if written.psnr_back:
            line += f", {_decibel(written.psnr_back[index])}"
        elif written.tiles is not None:
            about = _decibel(written.psnr_about[index], about=True)
            line += f", {about}, {written.tiles[0]} of {written.tiles[1]} tiles"
    if written.carries:
        line += f", with {carried(written.carries)}"
    return line


def as_json(inputs: Sequence[Path], written: Written) -> str:
    """Returns what was written as a line of JSON; an infinite PSNR is the text "inf"."""

    def plain(value: object) -> object:
        if isinstance(value, float) and math.isinf(value):
            return "inf"
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    facts = {"inputs": list(inputs), **asdict(written)}
    if written.tiles is None:  # figures of the whole are never beside those of some tiles
        del facts["psnr_about"], facts["tiles"]
    return json.dumps({key: plain(value) for key, value in facts.items()})


def times(size: tuple[int, int]) -> str:
    """Returns a (width, height) as people write it."""
    return f"{size[0]}x{size[1]}"


def _decibel(value: float, *, about: bool = False) -> str:
    if math.isinf(value):
        return "no difference"
    return f"about {value:.1f} dB" if about else f"{value:.2f} dB PSNR"
