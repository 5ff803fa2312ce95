"""Colours, the order in which a network sees red, green and blue; and turning it."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError, quoted

__all__ = ["Colours", "check_colours", "turned"]

Colours = Literal["RGB", "BGR"]
"""Which colour comes first: red, as everywhere here, or blue, as OpenCV reads pictures."""


def check_colours(colours: object) -> Colours:
    """Returns the order, if it is one.

    Raises:
        WICArgumentError: If it is something else.
    """
    for known in get_args(Colours):
        if colours == known:
            return known
    raise WICArgumentError(f'Expected colours "RGB" or "BGR"; got {quoted(colours)}.')


def turned(x: Tensor, width: int) -> Tensor:
    r"""Returns images with red and blue exchanged.

    Args:
        x: Shape (B, C, \*spatial), images one behind the other in the channels.
        width: Channels of each: colour pictures of three, and planes behind them (opacity, depth)
            that stay as they are. Images of one or two channels have no colours.
    """
    coloured = width // 3 * 3
    if not coloured or x.shape[1] % width:  # the blocks say what is wrong with the latter
        return x
    images = x.unflatten(1, (x.shape[1] // width, width))
    pictures = images[:, :, :coloured].unflatten(2, (coloured // 3, 3)).flip(3).flatten(2, 3)
    return torch.cat((pictures, images[:, :, coloured:]), dim=2).flatten(1, 2)
