"""What a door is, and how files are drawn: honest ones, damaged."""

from __future__ import annotations

import math
import random
from pathlib import Path

import torch

VALUES = (
    0, -1, 1, 2, 7, 4000, 10**5, 3 * 10**8, 10**18, 10**400, 0.5, 5e-324, 1e308, math.nan,
    math.inf, True, None, "x", "shift", "learned", "x" * 10**5, [], [1], {}, {"a": 1},
)  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A file with flipped bytes, a hole, a doubled piece, or cut short."""
    changed = bytearray(content)
    kind = chance.randrange(5)
    start = chance.randrange(len(changed))
    length = chance.randrange(1, 40)
    if kind == 0:
        for _ in range(chance.randrange(1, 9)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    elif kind == 1:
        del changed[start : start + length]
    elif kind == 2:
        changed[start:start] = changed[start : start + length]
    elif kind == 3:
        del changed[start:]
    else:
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def damaged(value: object, chance: random.Random) -> object:
    """A copy of nested values with one of them missing, or another in its place."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damaged(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], damaged(value[place], chance), *value[place + 1 :]]
    if isinstance(value, torch.Tensor) and chance.random() < 0.7:
        return chance.choice(
            [
                value.double(), value.to(torch.complex64), value.flatten(), value[None],
                value.new_zeros(1).expand(3 * 10**8), value * math.nan, value.to("meta"),
                value.to_sparse(), value[..., :0],
            ]
        )  # fmt: skip
    return chance.choice(VALUES)


class Door:
    """A kind of file: ``attacks`` are those by hand, ``make`` draws one, ``open`` reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / type(self).__name__
        self.folder.mkdir()

    def attacks(self) -> list[Path]:
        return []
