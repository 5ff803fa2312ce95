"""Images out, as PNG files: written whole, and only where one may be written."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from wic_layers._files import check_place, write_whole
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures.names import LOSSY_SUFFIXES
from wic_layers.pictures.reading import KEYWORD, import_pillow

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_output", "encode_png", "to_pil", "write_png"]


def check_output(
    path: str | Path, *, inputs: Iterable[str | Path] = (), force: bool = False
) -> Path:
    """Checks that an image may be written to ``path``, before the work that makes it.

    Args:
        path: The file to write; must end in ``.png``, in a folder that exists.
        inputs: Files that are read; none of them may be overwritten, whatever ``force`` says.
        force: Whether a file that exists may be replaced.

    Returns:
        The path.

    Raises:
        WICFileError: If it may not; the message says why.
    """
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix in LOSSY_SUFFIXES:
        raise WICFileError(
            f"{target} would be written with lossy compression, which destroys what is hidden and "
            f"changes what came back; choose a name that ends in .png."
        )
    if suffix != ".png":
        raise WICFileError(f"Expected an output whose name ends in .png; got {target}.")
    return check_place(target, inputs=inputs, force=force)


def write_png(
    pixels: Tensor, path: str | Path, *, text: str | None = None, force: bool = False
) -> None:
    """Writes an image as PNG, all at once: to a temporary name in the same folder, then renamed.

    Args:
        pixels: (3, H, W) or (1, H, W), uint8.
        path: The file to write.
        text: ASCII text for the ``wic-layers`` chunk; without it the file holds pixels only.
        force: Whether a file that exists may be replaced.

    Raises:
        WICArgumentError: If ``text`` is not ASCII.
        WICFileError: As :func:`check_output`, or if writing fails. Nothing is left behind.
        WICDependencyError: If Pillow is not installed.
    """
    content = encode_png(pixels, text=text)
    write_whole(check_output(path, force=force), content, replace=force)


def encode_png(pixels: Tensor, *, text: str | None = None) -> bytes:
    """Returns an image as the bytes of a PNG file.

    Args:
        pixels: (3, H, W) or (1, H, W), uint8.
        text: ASCII text for the ``wic-layers`` chunk; without it the file holds pixels only.

    Raises:
        WICArgumentError: If ``text`` is not ASCII.
        WICDependencyError: If Pillow is not installed.
    """
    image = to_pil(pixels)
    chunks = None
    if text is not None:
        from PIL.PngImagePlugin import PngInfo

        if not text.isascii():
            raise WICArgumentError(f"Expected ASCII text for the chunk; got {text!r}.")
        chunks = PngInfo()
        chunks.add_text(KEYWORD, text)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def to_pil(pixels: Tensor) -> Image.Image:
    """The PIL image of pixels (3, H, W) or (1, H, W), uint8."""
    # through a shared buffer, so that NumPy is not needed
    buffer = bytearray(pixels.numel())
    flat = torch.frombuffer(buffer, dtype=torch.uint8)
    flat.copy_(pixels.permute(1, 2, 0).reshape(-1))
    mode = "RGB" if len(pixels) == 3 else "L"
    image: Image.Image = import_pillow().frombytes(mode, tuple(pixels.shape[:0:-1]), bytes(buffer))
    return image
