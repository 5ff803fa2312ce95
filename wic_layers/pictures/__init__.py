"""Image files and videos in, files out, and the kinds of images that memory holds as pixels."""

from wic_layers.pictures.kinds import as_kind, as_layer, as_pixels
from wic_layers.pictures.metadata import Metadata, read_metadata
from wic_layers.pictures.names import find_images, find_others, names_file
from wic_layers.pictures.opening import check_pixels
from wic_layers.pictures.pixels import as_channels, as_grey, is_grey, pad_to, psnr, size_of
from wic_layers.pictures.reading import (
    CHUNK,
    has_halved_chroma,
    read_carrier,
    read_carrier_head,
    read_image,
    read_layer,
    refuse_lossy,
)
from wic_layers.pictures.transparency import fill_hidden, reduce_opacity
from wic_layers.pictures.video import is_clip, read_frames
from wic_layers.pictures.writing import (
    check_output,
    decoded_jpeg,
    encode_png,
    write_jpeg,
    write_png,
)

__all__ = [
    "CHUNK",
    "Metadata",
    "as_channels",
    "as_grey",
    "as_kind",
    "as_layer",
    "as_pixels",
    "check_output",
    "check_pixels",
    "decoded_jpeg",
    "encode_png",
    "fill_hidden",
    "find_images",
    "find_others",
    "has_halved_chroma",
    "is_clip",
    "is_grey",
    "names_file",
    "pad_to",
    "psnr",
    "read_carrier",
    "read_carrier_head",
    "read_frames",
    "read_image",
    "read_layer",
    "read_metadata",
    "reduce_opacity",
    "refuse_lossy",
    "size_of",
    "write_jpeg",
    "write_png",
]
