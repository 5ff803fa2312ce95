"""Codec, a network at work on 8-bit images and files; its verbs; Carrier, what files do to it."""

from wic_layers.codec.carrier import Carrier, EightBit
from wic_layers.codec.checking import Written
from wic_layers.codec.codec import Codec, Options
from wic_layers.codec.verbs import (
    color,
    color_file,
    down,
    down_file,
    gray,
    gray_file,
    hide,
    hide_file,
    pack,
    pack_clip,
    pack_file,
    reveal,
    reveal_file,
    unpack,
    unpack_file,
    up,
    up_file,
)

__all__ = [
    "Carrier",
    "Codec",
    "EightBit",
    "Options",
    "Written",
    "color",
    "color_file",
    "down",
    "down_file",
    "gray",
    "gray_file",
    "hide",
    "hide_file",
    "pack",
    "pack_clip",
    "pack_file",
    "reveal",
    "reveal_file",
    "unpack",
    "unpack_file",
    "up",
    "up_file",
]
