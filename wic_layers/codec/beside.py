"""Beside: what of a photograph travels beside the pixels of its picture: opacity and metadata."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from wic_layers.codec.parts import Part
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures import (
    Metadata,
    encode_png,
    fill_hidden,
    read_image,
    read_layer,
    read_metadata,
    reduce_opacity,
    size_of,
)
from wic_layers.pictures.colour import tensor_of
from wic_layers.tasks.base import Task

__all__ = ["Beside", "read_photos"]


@dataclass(frozen=True)
class Beside:
    """What travels beside the pixels of a picture.

    Attributes:
        opacity: How opaque the photograph is, uint8 (1, H, W), or None where it is all opaque.
        metadata: What its file says about it.
    """

    opacity: Tensor | None = None
    metadata: Metadata = field(default_factory=Metadata)

    def parts(self) -> list[Part]:
        """Returns the parts of the chunk that hold it.

        Raises:
            WICArgumentError: If one is longer than it may be.
        """
        contents = {}
        if self.opacity is not None:
            contents["alpha"] = encode_png(self.opacity)
        if self.metadata.exif is not None:
            contents["exif"] = self.metadata.exif
        if self.metadata.density is not None:
            contents["dpi"] = struct.pack(">II", *self.metadata.density)
        return [Part.of(name, content) for name, content in contents.items()]

    @classmethod
    def of(
        cls, contents: Mapping[str, bytes], size: tuple[int, int], source: str | Path
    ) -> Beside:
        """Returns what the parts of a chunk hold.

        Args:
            contents: As :func:`~wic_layers.codec.parts.split` gives them.
            size: The (width, height) of the image that comes back.
            source: The file, for errors.

        Raises:
            WICFileError: If they are damaged.
        """
        alpha, exif, dpi = (contents.get(name) for name in ("alpha", "exif", "dpi"))
        opacity = None if alpha is None else _opacity_of(alpha, size)
        density = None if dpi is None or len(dpi) != 8 else struct.unpack(">II", dpi)
        fits = (
            (opacity is None) == (alpha is None)
            and (density is None) == (dpi is None)
            and (exif is None or exif[:4] in (b"II*\0", b"MM\0*"))
            and all(density or ())
        )
        if not fits:
            raise WICFileError(f"{source} cannot be used: its wic-layers chunk is damaged.")
        return cls(opacity, Metadata(exif, density))

    def shown_with(self, picture: Tensor, scale: int) -> Tensor:
        """Returns a picture with the opacity that viewers see, reduced as its pixels are."""
        if self.opacity is None:
            return picture
        return torch.cat((picture, reduce_opacity(self.opacity, size_of(picture), scale)))

    def restored_with(self, image: Tensor) -> Tensor:
        """Returns what came back with the photograph's own opacity."""
        return image if self.opacity is None else torch.cat((image, self.opacity))


def read_photos(
    task: Task,
    images: Sequence[str | Path | Tensor],
    *,
    keep_metadata: bool = False,
    reduce_depth: bool = False,
    max_pixels: int | None = None,
) -> tuple[Beside, list[Tensor]]:
    """Reads the images that a task makes one picture of.

    Args:
        task: The task.
        images: Their files, or pixels that were read of them.
        keep_metadata: Whether what a file says of its photograph is to travel beside the pixels.
        reduce_depth: Whether 16 bits are cut to 8.
        max_pixels: See :func:`~wic_layers.pictures.read_image`.

    Returns:
        What travels beside the pixels, and the pixels (3, H, W), uint8, filled where nothing is
        seen; those of a foreground (4, H, W).

    Raises:
        WICArgumentError: If the task has no place for metadata.
        WICFileError: If a file cannot be read.
    """
    if keep_metadata and not task.has_companions:
        raise WICArgumentError(
            f"Expected no metadata to be kept for {task.name}; `wic down` and `wic gray` keep it."
        )
    pixels: list[Tensor] = []
    for index, image in enumerate(images):
        is_layer = task.has_companions or index == task.foreground
        read = read_layer if is_layer else read_image
        if isinstance(image, Tensor):
            pixels.append(image)
        else:
            pixels.append(read(image, reduce_depth=reduce_depth, max_pixels=max_pixels))
    if not task.has_companions or len(pixels) != 1:
        return Beside(), pixels
    photo, metadata = images[0], Metadata()
    if keep_metadata and not isinstance(photo, Tensor):
        metadata = read_metadata(photo, max_pixels=max_pixels)
    if len(pixels[0]) != 4:
        return Beside(None, metadata), pixels
    colours, opacity = pixels[0][:3], pixels[0][3:]
    if int(opacity.min()) == 255:
        return Beside(None, metadata), [colours]
    return Beside(opacity, metadata), [fill_hidden(colours, opacity)]


def _opacity_of(content: bytes, size: tuple[int, int]) -> Tensor | None:
    """The pixels of a grey PNG of that size; None if it is none."""
    from PIL.PngImagePlugin import PngImageFile

    try:
        with PngImageFile(io.BytesIO(content)) as image:
            # looked at before anything is unpacked
            return tensor_of(image).clone() if (image.mode, image.size) == ("L", size) else None
    except MemoryError:
        raise
    except Exception:  # Pillow raises nearly anything for a damaged file
        return None
