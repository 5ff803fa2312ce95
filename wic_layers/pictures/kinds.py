"""``as_pixels``, ``as_kind``: PIL images, NumPy arrays and torch tensors to pixels and back.

Neither Pillow nor NumPy is imported here: without them there is no image of their kind.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from wic_layers.errors import WICShapeError, warn
from wic_layers.pictures.depth import check_depth
from wic_layers.pictures.pixels import as_channels
from wic_layers.pictures.reading import has_opacity, layer_of, pixels_of
from wic_layers.pictures.writing import to_pil

__all__ = ["as_kind", "as_layer", "as_pixels"]

_T = TypeVar("_T")


def as_pixels(
    image: object, name: str = "image", *, carrier: bool = False, channels: int = 3
) -> Tensor:
    """Returns the pixels of an image in memory, (channels, H, W) uint8, on the CPU.

    Args:
        image: A PIL image (converted as :func:`read_image` does); a NumPy array uint8 (H, W, 3),
            (H, W, 1) or (H, W); or a torch tensor uint8 (3, H, W) or (1, H, W).
        name: What to call it in errors.
        carrier: Take a PIL image's pixels as they are stored, whatever its EXIF orientation and
            its colour profile: they hold something.
        channels: 3 for RGB, 1 for grey; see :func:`as_channels`.

    Raises:
        TypeError: If it is none of these, or its numbers are not uint8.
        WICShapeError: If its shape is another one, or it is empty.
        WICFileError: If a PIL image cannot be converted without loss.
    """
    numpy = sys.modules.get("numpy")
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        check_depth(image, name)
        doubts: list[str] = []
        pixels, _ = pixels_of(image, name, carrier=carrier, doubts=doubts)
        for doubt in doubts:
            warn(doubt)
        return as_channels(pixels, channels, name)
    if isinstance(image, Tensor):
        pixels, shape, layout = image.cpu(), image.shape, "(3, H, W) or (1, H, W)"
    elif numpy is not None and isinstance(image, numpy.ndarray):
        if image.dtype != numpy.uint8:
            raise TypeError(f"Expected {name} with pixels of dtype uint8; got {image.dtype}.")
        # the copy is contiguous and writable, which torch asks for
        pixels, shape, layout = torch.from_numpy(image.copy()), image.shape, "(H, W, 3) or (H, W)"
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.ndim == 3:
            pixels = pixels.permute(2, 0, 1)
    else:
        raise TypeError(
            f"Expected {name} as a PIL image, a NumPy array or a torch tensor; got "
            f"{type(image).__name__}."
            + " Files have functions whose names end in _file."
            * isinstance(image, (str, Path))
        )
    if pixels.dtype != torch.uint8:
        raise TypeError(f"Expected {name} with pixels of dtype uint8; got {pixels.dtype}.")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or not pixels.numel():
        raise WICShapeError(f"Expected {name} of shape {layout}; got {tuple(shape)}.")
    return as_channels(pixels, channels, name)


def as_layer(image: object, name: str = "layer") -> Tensor:
    """Returns an image with its transparency as pixels.

    Args:
        image: A PIL image, a NumPy array (H, W, 4) or a torch tensor (4, H, W) of dtype uint8;
            what has no transparency is taken as :func:`as_pixels` does.
        name: What to call it in errors.

    Returns:
        Pixels (4, H, W), opacity last, or (3, H, W), uint8.

    Raises:
        WICShapeError: If the shape is not that of an image.
        TypeError: If it is none of these, or not uint8.
    """
    numpy = sys.modules.get("numpy")
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        if has_opacity(image):
            check_depth(image, name)
            doubts: list[str] = []
            parts = pixels_of(image, name, layer=True, doubts=doubts)
            for doubt in doubts:
                warn(doubt)
            return layer_of(*parts)
    elif isinstance(image, Tensor):
        if image.ndim == 3 and len(image) == 4:
            return torch.cat((as_pixels(image[:3], name), as_pixels(image[3:], name)[:1]))
    elif numpy is not None and isinstance(image, numpy.ndarray):
        if image.ndim == 3 and image.shape[-1] == 4:
            parts = as_pixels(image[..., :3], name), as_pixels(image[..., 3:], name)[:1]
            return torch.cat(parts)
    return as_pixels(image, name)


def as_kind(pixels: Tensor, like: _T) -> _T:
    """Returns pixels as the kind of image that ``like`` is, on its device.

    Args:
        pixels: (3, H, W) or (1, H, W), uint8.
        like: A PIL image, a NumPy array (grey pixels become (H, W)) or a torch tensor.
    """
    if isinstance(like, Tensor):
        return pixels.to(like.device)  # type: ignore[return-value]
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(like, numpy.ndarray):
        last = pixels.permute(1, 2, 0) if len(pixels) == 3 else pixels[0]
        return last.contiguous().cpu().numpy()  # type: ignore[return-value]
    return to_pil(pixels)  # type: ignore[return-value]
