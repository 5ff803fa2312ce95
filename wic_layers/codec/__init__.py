"""Networks at work on 8-bit images and files."""

from wic_layers.codec.files import (
    color_file,
    down_file,
    gray_file,
    hide_file,
    reveal_file,
    up_file,
)
from wic_layers.codec.packed import pack, pack_clip, pack_file, unpack, unpack_file
from wic_layers.codec.verbs import color, down, gray, hide, reveal, up
from wic_layers.codec.writing import Written

__all__ = [
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
