"""lettered: crops with text and drawings on them, which photographs have little of."""

from __future__ import annotations

import string

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

__all__ = ["lettered"]

_SIZES = (7, 40)  # of letters, in pixels
_CHARACTERS = string.ascii_letters + string.digits + string.punctuation


def lettered(pixels: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Returns a crop with lines of text and a few shapes, on itself or on a plain page.

    Letters are those of the font that comes with Pillow (Aileron, in the public domain), words are
    random characters: it is edges that are learned, not a language.

    Args:
        pixels: (H, W, 3).
        random: What decides about everything.
    """
    height, width = pixels.shape[:2]
    if random.random() < 0.5:
        image = Image.fromarray(pixels)
    else:
        image = Image.new("RGB", (width, height), _colour(random))
    draw = ImageDraw.Draw(image)
    for _ in range(random.integers(4)):
        corners = random.integers(-width // 4, width + width // 4, 4)
        left, right = sorted(map(int, corners[:2]))
        top, bottom = sorted(map(int, corners[2:]))
        kind, thickness = random.integers(3), int(random.integers(1, 5))
        if kind == 0:
            draw.line((left, top, right, bottom), _colour(random), thickness)
        elif kind == 1:
            draw.rectangle((left, top, right, bottom), _colour(random), _colour(random), thickness)
        else:
            draw.ellipse((left, top, right, bottom), _colour(random), _colour(random), thickness)
    size = int(np.exp(random.uniform(*np.log(_SIZES))))
    font = ImageFont.load_default(size)
    colour = _colour(random)
    line = int(random.integers(-size, size))
    while line < height:
        letters = random.choice(list(_CHARACTERS + " " * 20), 2 * width // size + 2)
        draw.text((int(random.integers(-size, 1)), line), "".join(letters), colour, font)
        line += int(size * random.uniform(1.0, 1.6))
    return np.asarray(image)


def _colour(random: np.random.Generator) -> tuple[int, int, int]:
    """Black, white or any colour."""
    kind = random.random()
    if kind < 0.5:
        return ((0, 0, 0), (255, 255, 255))[int(kind < 0.25)]
    red, green, blue = map(int, random.integers(256, size=3))
    return red, green, blue
