"""Hide, reveal, reduce and restore images in memory; 8 bits in and out.

Every function takes PIL images, NumPy arrays (uint8, H x W x 3) or torch tensors (uint8, 3 x H x
W), mixed at will, and returns the kind of its first image. Sizes are ``(width, height)``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.images import as_kind, as_pixels, pad_to, size_of
from wic_layers.models import PRESETS, from_pretrained
from wic_layers.quantization import quantize
from wic_layers.tasks.base import Task
from wic_layers.tasks.hiding import Hiding
from wic_layers.tasks.rescaling import Rescaling

__all__ = [
    "backward_pixels",
    "check_size",
    "down",
    "fit_secret",
    "forward_pixels",
    "hide",
    "load_network",
    "reveal",
    "up",
]

T = TypeVar("T")
HIDING = Hiding(1)
RESCALING = Rescaling(2)


def hide(
    cover: T,
    secret: Any,
    *,
    model: str | Path | nn.Module = "hiding-1-naive-small",
    fit: bool = False,
    device: str | torch.device | None = None,
) -> T:
    """Hides one image in another.

    Args:
        cover: What the result should look like.
        secret: What it should hold; at most as wide and as high as the cover.
        model: A preset with weights in the package, the path of a weights file, or a network.
        fit: Reduce a secret that is larger than the cover, keeping its proportions.
        device: Where a network that is loaded by name runs; the CPU by default.

    Returns:
        The stego image, of the cover's kind, its odd sides one pixel longer: all of its pixels are
        needed.

    Raises:
        WICArgumentError: If ``model`` is of another task, or unknown.
        WICShapeError: If an image has no shape of an image, or the secret is too large.
        TypeError: If an image is of no kind that is taken.

    Example:
        >>> from wic_layers.models import WINNaive
        >>> model = WINNaive.from_preset("hiding-1-naive-small")
        >>> hide(torch.zeros(3, 5, 8, dtype=torch.uint8), torch.zeros(3, 4, 4, dtype=torch.uint8),
        ...      model=model).shape
        torch.Size([3, 6, 8])
    """
    covered, hidden = as_pixels(cover, "cover"), as_pixels(secret, "secret")
    hidden = fit_secret(hidden, size_of(covered), fit=fit)
    network = load_network(HIDING, model, device)
    return as_kind(forward_pixels(HIDING, network, covered, hidden), cover)


def reveal(
    stego: T,
    *,
    size: tuple[int, int] | None = None,
    model: str | Path | nn.Module = "hiding-1-naive-small",
    device: str | torch.device | None = None,
) -> T:
    """Brings back what :func:`hide` hid.

    Args:
        stego: The stego image, every pixel as it was made.
        size: The secret's own (width, height); the stego's by default.
        model: What :func:`hide` was called with.
        device: Where a network that is loaded by name runs; the CPU by default.

    Returns:
        The secret, of the stego's kind.

    Raises:
        WICArgumentError: If ``model`` is of another task, or unknown.
        WICShapeError: If the stego has an odd side, or ``size`` cannot have been hidden in it.
        TypeError: If the image is of no kind that is taken.
    """
    return _back(HIDING, stego, "stego", size, model, device)


def down(
    photo: T,
    *,
    model: str | Path | nn.Module = "rescaling-x2-naive-small",
    device: str | torch.device | None = None,
) -> T:
    """Makes an image half as wide and high, so that :func:`up` can bring it back.

    Args:
        photo: The image.
        model: A preset with weights in the package, the path of a weights file, or a network.
        device: Where a network that is loaded by name runs; the CPU by default.

    Returns:
        The small image, of the photo's kind; its sides are half the photo's, rounded up.

    Raises:
        WICArgumentError: If ``model`` is of another task, or unknown.
        WICShapeError: If the image has no shape of an image.
        TypeError: If the image is of no kind that is taken.
    """
    pixels = as_pixels(photo, "photo")
    network = load_network(RESCALING, model, device)
    return as_kind(forward_pixels(RESCALING, network, pixels), photo)


def up(
    small: T,
    *,
    size: tuple[int, int] | None = None,
    model: str | Path | nn.Module = "rescaling-x2-naive-small",
    device: str | torch.device | None = None,
) -> T:
    """Brings back what :func:`down` made small. This is not super-resolution of any small image.

    Args:
        small: The small image, every pixel as it was made.
        size: The photo's own (width, height); twice the small image's by default.
        model: What :func:`down` was called with.
        device: Where a network that is loaded by name runs; the CPU by default.

    Returns:
        The photo, of the small image's kind.

    Raises:
        WICArgumentError: If ``model`` is of another task, or unknown.
        WICShapeError: If the small image cannot have come from one of ``size``.
        TypeError: If the image is of no kind that is taken.
    """
    return _back(RESCALING, small, "small", size, model, device)


def _back(
    task: Task,
    carrier: T,
    name: str,
    size: tuple[int, int] | None,
    model: str | Path | nn.Module,
    device: str | torch.device | None,
) -> T:
    pixels = as_pixels(carrier, name, carrier=True)
    width, height = size_of(pixels)
    size = size or (width * task.scale, height * task.scale)
    check_size(task, pixels, size, name)
    network = load_network(task, model, device)
    return as_kind(backward_pixels(task, network, pixels, size), carrier)


def load_network(
    task: Task, model: str | Path | nn.Module, device: str | torch.device | None = None
) -> Any:
    """Returns the network that ``model`` names, checked to be one for ``task``.

    Args:
        task: What it must be for.
        model: A preset with packaged weights, the path of a weights file, or a network.
        device: Where to put it if it is loaded; a network that is given stays where it is.

    Raises:
        WICArgumentError: If it is for another task or unknown, or the device is not there.
        WICFileError: If the weights cannot be read.
        TypeError: If a network that is given has no ``inverse`` or no ``config``.
    """
    if isinstance(model, nn.Module):
        network: Any = model
        if not callable(getattr(model, "inverse", None)) or not hasattr(model, "config"):
            raise TypeError(
                f"Expected a network of wic_layers.models; got {type(model).__name__}."
            )
        if device is not None:
            raise WICArgumentError(
                "Expected no device together with a network: it runs where it is."
            )
    else:
        where = _check_device(device or "cpu")
        if str(model) in PRESETS and PRESETS[str(model)].task != task.name:
            raise WICArgumentError(
                f"Expected a preset for {task.name}; '{model}' is for {PRESETS[str(model)].task}."
            )
        network = from_pretrained(model).to(where)
    expected = (3 * task.images, 3, task.scale)
    found = tuple(network.config.get(key) for key in ("in_channels", "out_channels", "scale"))
    if found != expected:
        title = network.preset or (type(model).__name__ if network is model else model)
        raise WICArgumentError(
            f"Expected a network for {task.name} (channels {expected[0]} to {expected[1]}, scale "
            f"{expected[2]}); {title} has channels {found[0]} to {found[1]}, scale {found[2]}."
        )
    return network


def _check_device(device: str | torch.device) -> torch.device:
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        reason = str(error).partition("\n")[0].rstrip(".")
        raise WICArgumentError(f"Device {str(device)!r} cannot be used: {reason}.") from error


def fit_secret(secret: Tensor, room: tuple[int, int], *, fit: bool) -> Tensor:
    """Returns the secret as it can be hidden in a cover of the size ``room``.

    Args:
        secret: Pixels (3, h, w), uint8.
        room: The cover's (width, height).
        fit: Reduce a larger secret with antialiased bicubic interpolation, keeping its
            proportions.

    Raises:
        WICShapeError: If it is larger, and ``fit`` is false.
    """
    width, height = size_of(secret)
    if width <= room[0] and height <= room[1]:
        return secret
    if not fit:
        raise WICShapeError(
            f"Expected a secret of at most the cover's {room[0]}x{room[1]}; got {width}x{height}. "
            f"Reduce it with --fit (fit=True), or take a larger cover."
        )
    factor = min(room[0] / width, room[1] / height)
    new = tuple(
        min(max(round(side * factor), 1), limit)
        for side, limit in zip((height, width), room[::-1], strict=True)
    )
    x = secret[None].float() / 255
    return _to_8_bits(F.interpolate(x, size=new, mode="bicubic", antialias=True)[0])


def check_size(task: Task, carrier: Tensor, size: tuple[int, int], name: str) -> None:
    """Checks that an image of ``size`` can come back from ``carrier``.

    Raises:
        WICShapeError: If it cannot.
    """
    width, height = size_of(carrier)
    if task.scale > 1:
        expected = tuple(-(-side // task.scale) for side in size)
        if min(size) < 1 or expected != (width, height):
            raise WICShapeError(
                f"An image of {size[0]}x{size[1]} cannot come back from {name} of "
                f"{width}x{height}; expected {task.scale * width - 1} or {task.scale * width} by "
                f"{task.scale * height - 1} or {task.scale * height}."
            )
        return
    if width % 2 or height % 2:
        raise WICShapeError(
            f"Expected {name} with even sides, as it was made; got {width}x{height}. It was "
            f"cropped or resized, or holds nothing."
        )
    if min(size) < 1 or size[0] > width or size[1] > height:
        raise WICShapeError(
            f"A secret of {size[0]}x{size[1]} cannot come back from {name} of {width}x{height}."
        )


def even(size: tuple[int, int]) -> tuple[int, int]:
    """Returns the size with odd sides one pixel longer."""
    return size[0] + size[0] % 2, size[1] + size[1] % 2


def packed_input(task: Task, *images: Tensor) -> Tensor:
    """Returns a network's input in [0, 1]: 8-bit images, padded to the first one's even size."""
    size = even(size_of(images[0]))
    return task.pack(*(pad_to(image, size)[None].float() / 255 for image in images))


def forward_pixels(task: Task, network: Any, *images: Tensor) -> Tensor:
    """Runs a network forward on 8-bit images.

    Args:
        task: What the network is for.
        network: See :func:`load_network`.
        *images: Pixels (3, h, w), uint8; none larger than the first one.

    Returns:
        The forward picture, uint8 (3, H / scale, W / scale) for the first image's even size H, W.
    """
    x = packed_input(task, *images)
    with _evaluating(network, size_of(x)) as parameter:
        return _to_8_bits(network(x.to(parameter))[0])


def backward_pixels(task: Task, network: Any, picture: Tensor, size: tuple[int, int]) -> Tensor:
    """Runs a network backwards on the 8-bit forward picture.

    Args:
        task: What the network is for.
        network: See :func:`load_network`.
        picture: Pixels (3, H, W), uint8.
        size: The (width, height) of what comes back.

    Returns:
        What was hidden or made small, uint8 (3, height, width).
    """
    y = picture[None].float() / 255
    with _evaluating(network, size_of(y)) as parameter:
        back = task.unpack(network.inverse(y.to(parameter)))[-1]
        return _to_8_bits(back[0, :, : size[1], : size[0]])


@contextmanager
def _evaluating(network: nn.Module, size: tuple[int, int]) -> Iterator[Tensor]:
    """Runs the body without gradients and in evaluation mode; yields a parameter."""
    training = network.training
    network.eval()
    try:
        with torch.no_grad():
            yield next(network.parameters())
    except (MemoryError, RuntimeError) as error:
        lacking = ("out of memory", "allocate memory")
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in lacking):
            raise
        raise WICError(
            f"There is not enough memory for an image of {size[0]}x{size[1]}; take a smaller one."
        ) from error
    finally:
        network.train(training)


def _to_8_bits(x: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise WICError(
            "The network returned numbers that are not finite; its weights are damaged."
        )
    return (quantize(x) * 255).round().to(torch.uint8).cpu()
