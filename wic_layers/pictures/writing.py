"""Images out, as PNG files: written whole, and only where one may be written."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wic_layers._files import check_place, write_whole
from wic_layers.errors import WICFileError
from wic_layers.pictures.colour import tensor_of
from wic_layers.pictures.jpeg import encode_jpeg
from wic_layers.pictures.metadata import Metadata
from wic_layers.pictures.names import LOSSY_SUFFIXES
from wic_layers.pictures.opening import import_pillow
from wic_layers.pictures.png import CHUNK

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_output", "decoded_jpeg", "encode_png", "to_pil", "write_jpeg", "write_png"]


def check_output(
    path: str | Path,
    *,
    inputs: Iterable[str | Path] = (),
    force: bool = False,
    jpeg: bool = False,
) -> Path:
    """Checks that an image may be written to ``path``, before the work that makes it.

    Args:
        path: The file to write; must end in ``.png``, in a folder that exists.
        inputs: Files that are read; none of them may be overwritten, whatever ``force`` says.
        force: Whether a file that exists may be replaced.
        jpeg: Whether it may end in ``.jpg`` or ``.jpeg`` too.

    Returns:
        The path.

    Raises:
        WICFileError: If it may not; the message says why.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if jpeg and suffix in (".jpg", ".jpeg"):
        return check_place(target, inputs=inputs, force=force)
    if suffix in LOSSY_SUFFIXES:
        raise WICFileError(
            f"{target} would be written with lossy compression, which destroys what is hidden and "
            f"changes what came back; choose a name that ends in .png."
        )
    if suffix != ".png":
        raise WICFileError(f"Expected an output whose name ends in .png; got {target}.")
    return check_place(target, inputs=inputs, force=force)


def write_png(
    pixels: Tensor,
    path: str | Path,
    *,
    chunk: bytes | None = None,
    metadata: Metadata | None = None,
    force: bool = False,
) -> None:
    """Writes an image as PNG, all at once: to a temporary name in the same folder, then renamed.

    Args:
        pixels: (3, H, W) or (1, H, W), or with opacity last (4, H, W) or (2, H, W), uint8.
        path: The file to write.
        chunk: See :func:`encode_png`.
        metadata: See :func:`encode_png`.
        force: Whether a file that exists may be replaced.

    Raises:
        WICFileError: As :func:`check_output`, or if writing fails. Nothing is left behind.
        WICDependencyError: If Pillow is not installed.
    """
    content = encode_png(pixels, chunk=chunk, metadata=metadata)
    write_whole(check_output(path, force=force), content, replace=force)


def encode_png(
    pixels: Tensor, *, chunk: bytes | None = None, metadata: Metadata | None = None
) -> bytes:
    """Returns an image as the bytes of a PNG file.

    Args:
        pixels: (3, H, W) or (1, H, W), or with opacity last (4, H, W) or (2, H, W), uint8.
        chunk: Content of the chunk of our own, see :mod:`wic_layers.codec.parts`; without it and
            ``metadata`` the file holds pixels only.
        metadata: What a photograph's file says about it, for all who read this one.

    Raises:
        WICDependencyError: If Pillow is not installed.
    """
    image = to_pil(pixels)
    options: dict[str, object] = {}
    if chunk is not None:
        from PIL.PngImagePlugin import PngInfo

        chunks = PngInfo()
        chunks.add(CHUNK, chunk)
        options["pnginfo"] = chunks
    if metadata is not None and metadata.exif is not None:
        options["exif"] = metadata.exif
    if metadata is not None and metadata.density is not None:
        options["dpi"] = metadata.dpi
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", **options)
    return buffer.getvalue()


def write_jpeg(
    pixels: Tensor,
    path: str | Path,
    quality: int,
    *,
    own: bytes | None = None,
    force: bool = False,
) -> None:
    """Writes an image as JPEG, all at once, as :func:`write_png` does.

    Args:
        pixels: (3, H, W) or (1, H, W), uint8.
        path: The file to write.
        quality: From 1 to 100.
        own: Content of our own, see :mod:`wic_layers.codec.parts`.
        force: Whether a file that exists may be replaced.

    Raises:
        WICFileError: As :func:`check_output`, if writing fails, or if a side is longer than JPEG
            takes. Nothing is left behind.
    """
    target = check_output(path, force=force, jpeg=True)
    if max(pixels.shape[1:]) > _LONGEST:
        raise WICFileError(f"Expected sides of at most {_LONGEST} for {path}, as JPEG has them.")
    write_whole(target, encode_jpeg(to_pil(pixels), quality, own=own), replace=force)


def decoded_jpeg(pixels: Tensor, quality: int) -> Tensor:
    """Returns what a JPEG of an image holds, uint8 of its shape."""
    content = encode_jpeg(to_pil(pixels), quality)
    with import_pillow().open(io.BytesIO(content)) as image:
        return tensor_of(image).clone()


_LONGEST = 65500  # pixels, of libjpeg
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def to_pil(pixels: Tensor) -> Image.Image:
    """The PIL image of pixels (C, H, W), uint8, C of 1 to 4: grey or RGB, opacity last."""
    # through a shared buffer, so that NumPy is not needed
    buffer = bytearray(pixels.numel())
    flat = torch.frombuffer(buffer, dtype=torch.uint8)
    flat.copy_(pixels.permute(1, 2, 0).reshape(-1))
    size = tuple(pixels.shape[:0:-1])
    image: Image.Image = import_pillow().frombytes(_MODES[len(pixels)], size, bytes(buffer))
    return image
