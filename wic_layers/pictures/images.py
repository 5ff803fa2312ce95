"""Images: files, PIL images, arrays and tensors to 8-bit pixels and back.

Inside the library an image is a uint8 tensor (3, H, W) in sRGB, or (1, H, W) in grey. Sizes are
``(width, height)``, as in Pillow and on the command line. Pillow is imported when a function needs
it.
"""

from __future__ import annotations

import io
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from wic_layers._files import check_place, write_whole
from wic_layers._quiet import quiet
from wic_layers.errors import WICArgumentError, WICFileError, WICShapeError
from wic_layers.pictures.pillow import (
    as_opaque,
    check_single,
    has_opacity,
    import_pillow,
    pixels_of,
    split_opacity,
    to_pil,
)

__all__ = [
    "KEYWORD",
    "as_channels",
    "as_kind",
    "as_layer",
    "as_pixels",
    "check_output",
    "encode_png",
    "find_images",
    "has_halved_chroma",
    "is_image",
    "names_file",
    "pad_to",
    "psnr",
    "read_carrier",
    "read_image",
    "read_layer",
    "size_of",
    "write_png",
]

KEYWORD = "wic-layers"
"""Keyword of the PNG text chunk that says what made a file."""

_T = TypeVar("_T")
_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP")
_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
_LOSSY = frozenset({".avif", ".heic", ".jp2", ".jpe", ".jpeg", ".jpg", ".jxl", ".webp"})
_PHOTOMETRIC, _YCBCR_SUBSAMPLING = 262, 530  # tags of TIFF


def find_images(folder: str | Path) -> list[Path]:
    """Returns the image files below ``folder``, in the order of their paths.

    Hidden ones, whose names or folders begin with a dot, are left out, as shells do.

    Raises:
        WICFileError: If there is no such folder or no image in it.
    """
    root = Path(folder)
    if not root.is_dir():
        raise WICFileError(f"Expected a folder of images; {root} is not a folder.")
    found = sorted(
        path
        for path in root.rglob("*")
        if path.suffix.lower() in _SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    )
    if not found:
        raise WICFileError(
            f"Expected images ({', '.join(sorted(_SUFFIXES))}) below {root}; found none."
        )
    return found


def is_image(path: str | Path) -> bool:
    """Whether a file's name is that of an image that can be read."""
    return Path(path).suffix.lower() in _SUFFIXES


def names_file(path: Path) -> bool:
    """Whether a path, as an output, is the name of an image file rather than of a folder."""
    if path.is_dir():
        return False
    return path.is_file() or path.suffix.lower() in _SUFFIXES | _LOSSY | {".gif"}


def size_of(image: Tensor) -> tuple[int, int]:
    """Returns the (width, height) of an image tensor (..., H, W)."""
    return image.shape[-1], image.shape[-2]


def psnr(a: Tensor, b: Tensor) -> float:
    """Returns the PSNR in dB of two 8-bit images of one shape; infinite if they are equal."""
    # a few rows at a time: as numbers, a photograph takes sixteen times its pixels
    rows = max(2**20 // max(a.shape[-1], 1), 1)
    parts = zip(a.split(rows, dim=-2), b.split(rows, dim=-2), strict=True)
    error = sum(int((x.int() - y.int()).square_().sum()) for x, y in parts) / max(a.numel(), 1)
    return 10 * math.log10(255**2 / error) if error else math.inf


def pad_to(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Pads an image at its right and bottom: reflected as far as it goes, then the last repeated.

    Args:
        image: Pixels (..., H, W) of any dtype.
        size: The (width, height) to reach; not less than the image's.

    Returns:
        Pixels (..., height, width). The top left is the image.

    Raises:
        WICShapeError: If the image is larger than ``size``.

    Example:
        >>> pad_to(torch.tensor([[1, 2, 3]]), (7, 1)).tolist()
        [[1, 2, 3, 2, 1, 1, 1]]
    """
    width, height = size
    if image.shape[-1] > width or image.shape[-2] > height:
        raise WICShapeError(
            f"Expected an image of at most {width}x{height}; got {_times(size_of(image))}."
        )
    if size_of(image) == size:
        return image
    rows, columns = (
        (last - (torch.arange(target, device=image.device) - last).abs()).clamp(min=0)
        for last, target in ((image.shape[-2] - 1, height), (image.shape[-1] - 1, width))
    )
    return image[..., rows, :][..., columns]


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def as_pixels(
    image: Any, name: str = "image", *, carrier: bool = False, channels: int = 3
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
        return as_channels(pixels_of(as_opaque(image, name, carrier=carrier)), channels, name)
    if isinstance(image, Tensor):
        pixels, layout = image.cpu(), "(3, H, W) or (1, H, W)"
    elif numpy is not None and isinstance(image, numpy.ndarray):
        if image.dtype != numpy.uint8:
            raise TypeError(f"Expected {name} with pixels of dtype uint8; got {image.dtype}.")
        # the copy is contiguous and writable, which torch asks for
        pixels, layout = torch.from_numpy(image.copy()), "(H, W, 3) or (H, W)"
        if pixels.ndim == 2:
            pixels = pixels[..., None]
        if pixels.ndim == 3:
            pixels = pixels.permute(2, 0, 1)
    else:
        raise TypeError(
            f"Expected {name} as a PIL image, a NumPy array or a torch tensor; got "
            f"{type(image).__name__}."
        )
    if pixels.dtype != torch.uint8:
        raise TypeError(f"Expected {name} with pixels of dtype uint8; got {pixels.dtype}.")
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or not pixels.numel():
        raise WICShapeError(f"Expected {name} of shape {layout}; got {tuple(image.shape)}.")
    return as_channels(pixels, channels, name)


def as_channels(pixels: Tensor, channels: int, name: str = "image") -> Tensor:
    """Returns an image as RGB or grey, where that loses nothing.

    Args:
        pixels: (1, H, W) or (3, H, W), uint8.
        channels: 3: grey becomes RGB; 1: RGB whose channels are equal becomes grey.
        name: What to call it in errors.

    Raises:
        WICShapeError: If it should become grey and holds colours.
    """
    if pixels.shape[0] == channels:
        return pixels
    if channels == 3:
        return pixels.expand(3, -1, -1)
    if not bool((pixels == pixels[:1]).all()):
        raise WICShapeError(f"Expected {name} to be a grey image; it holds colours.")
    return pixels[:1]


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
    return to_pil(pixels)


def read_image(path: str | Path) -> Tensor:
    """Reads an image file: PNG, JPEG, WebP, TIFF or BMP.

    Grey, palette and opaque alpha become RGB, the EXIF orientation is applied, and colours of
    another profile than sRGB are converted to it.

    Returns:
        Pixels (3, H, W), uint8.

    Raises:
        WICFileError: If the file is missing, damaged, no image or too large (Pillow's limit); or
            if reading would lose bits, transparency, frames or the meaning of CMYK colours.
        WICDependencyError: If Pillow is not installed.
    """
    return as_channels(_read(path, carrier=False)[0], 3)


def as_layer(image: Any, name: str = "layer") -> Tensor:
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
    pillow = sys.modules.get("PIL.Image")
    if pillow is not None and isinstance(image, pillow.Image):
        if has_opacity(image):
            check_single(image, name)
            return pixels_of(image.convert("RGBA"))
    elif isinstance(image, Tensor):
        if image.ndim == 3 and len(image) == 4:
            return torch.cat((as_pixels(image[:3], name), as_pixels(image[3:], name)[:1]))
    elif getattr(image, "ndim", 0) == 3 and image.shape[-1] == 4:
        color, alpha = (as_pixels(image[..., part], name) for part in (slice(3), slice(3, 4)))
        return torch.cat((color, alpha[:1]))
    return as_pixels(image, name)


def read_layer(path: str | Path) -> Tensor:
    """Reads an image file with its transparency.

    Returns:
        Pixels (4, H, W), opacity last, or (3, H, W) where the file has none, uint8.

    Raises:
        WICFileError: As :func:`read_image`.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=False, layer=True)[0]


def has_halved_chroma(path: str | Path) -> bool:
    """Whether an image file stores its colours with fewer pixels than its brightness.

    Nearly every photograph in JPEG does (4:2:0, 4:2:2), and every lossy WebP.

    Raises:
        WICFileError: If the file is missing or no image.
        WICDependencyError: If Pillow is not installed.
    """
    pillow = import_pillow()
    try:
        with pillow.open(path, formats=_FORMATS) as image:
            if image.format in ("JPEG", "MPO"):
                factors = [layer[1:3] for layer in image.layer]
                return any(factor != factors[0] for factor in factors)
            if image.format == "TIFF":
                is_ycbcr = image.tag_v2.get(_PHOTOMETRIC) == 6
                return is_ycbcr and image.tag_v2.get(_YCBCR_SUBSAMPLING, (2, 2)) != (1, 1)
            return image.format == "WEBP" and _is_lossy_webp(Path(path))
    except OSError as error:
        raise WICFileError(f"{path} cannot be read as an image: {error}.") from error


def _is_lossy_webp(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(12)  # behind RIFF, size, WEBP
        while len(head := file.read(8)) == 8:
            if head[:4] in (b"VP8 ", b"VP8L"):
                return head[:4] == b"VP8 "
            size = int.from_bytes(head[4:], "little")
            file.seek(size + size % 2, 1)
    return False


def read_carrier(path: str | Path) -> tuple[Tensor, str | None]:
    """Reads a PNG file whose very pixels count.

    Returns:
        Pixels (3, H, W) or (1, H, W), uint8, as they are stored; and the text of the
        ``wic-layers`` chunk or None.

    Raises:
        WICFileError: As :func:`read_image`; and if the file is not a PNG.
        WICDependencyError: If Pillow is not installed.
    """
    return _read(path, carrier=True)


def _read(path: str | Path, *, carrier: bool, layer: bool = False) -> tuple[Tensor, str | None]:
    pillow = import_pillow()
    try:
        with quiet(), pillow.open(path, formats=_FORMATS) as image:
            limit = pillow.MAX_IMAGE_PIXELS
            if limit is not None and image.width * image.height > limit:
                raise pillow.DecompressionBombError
            if carrier and image.format != "PNG":
                raise WICFileError(
                    f"{path} is a {image.format} file; expected the PNG as it was written, "
                    f"since lossy compression destroys what it holds."
                )
            opaque, alpha = split_opacity(image, str(path)) if layer else (image, None)
            pixels = pixels_of(as_opaque(opaque, str(path), carrier=carrier))
            if alpha is not None:
                pixels = torch.cat((as_channels(pixels, 3), alpha))
            text = getattr(image, "text", {}).get(KEYWORD)
    except WICFileError:
        raise
    except FileNotFoundError as error:
        raise WICFileError(f"{path} does not exist.") from error
    except IsADirectoryError as error:
        raise WICFileError(f"{path} is a folder; expected an image file.") from error
    except pillow.UnidentifiedImageError as error:
        raise WICFileError(
            f"{path} is not an image that can be read; expected PNG, JPEG, WebP, TIFF or BMP."
        ) from error
    except pillow.DecompressionBombError as error:
        raise WICFileError(
            f"{path} claims more than {pillow.MAX_IMAGE_PIXELS} pixels, Pillow's limit against "
            f"files made to exhaust the memory."
        ) from error
    except MemoryError as error:
        raise WICFileError(f"{path} is too large for the memory that is left.") from error
    except Exception as error:  # Pillow's decoders raise nearly anything for a damaged file
        if isinstance(error, OSError) and error.strerror:
            raise WICFileError(f"{path} cannot be read: {error.strerror}.") from error
        reason = str(error).rstrip(".") or type(error).__name__
        raise WICFileError(f"{path} is damaged or cut short: {reason}.") from error
    return pixels, None if text is None else str(text)


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
    if suffix in _LOSSY:
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
    target = check_output(path, force=force)
    content = encode_png(pixels, text=text)
    write_whole(target, content, check=lambda: check_output(target, force=force))


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
