"""Image files and videos in, files out, and the kinds of images that memory holds as pixels."""

from wic_layers.pictures.kinds import as_kind, as_layer, as_pixels
from wic_layers.pictures.names import find_images, names_file
from wic_layers.pictures.opening import check_pixels
from wic_layers.pictures.pixels import as_channels, pad_to, psnr, size_of
from wic_layers.pictures.reading import (
    KEYWORD,
    has_halved_chroma,
    read_carrier,
    read_carrier_head,
    read_image,
    read_layer,
)
from wic_layers.pictures.video import is_clip, read_frames
from wic_layers.pictures.writing import check_output, encode_png, write_png

__all__ = [
    "KEYWORD",
    "as_channels",
    "as_kind",
    "as_layer",
    "as_pixels",
    "check_output",
    "check_pixels",
    "encode_png",
    "find_images",
    "has_halved_chroma",
    "is_clip",
    "names_file",
    "pad_to",
    "psnr",
    "read_carrier",
    "read_carrier_head",
    "read_frames",
    "read_image",
    "read_layer",
    "size_of",
    "write_png",
]
