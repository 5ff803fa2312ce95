"""Networks on 8-bit pixels: which network, forward, back, in tiles where an image is large."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers._probe import in_evaluation_mode
from wic_layers.codec.refining import refine as improved
from wic_layers.codec.tiles import Progress, map_tiles
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.layer.quantization import quantize
from wic_layers.models import PRESETS, from_pretrained
from wic_layers.models.inspection import flow, receptive_field
from wic_layers.pictures.images import pad_to, size_of
from wic_layers.tasks.base import Task

__all__ = [
    "backward_pixels",
    "check_size",
    "fast",
    "forward_pixels",
    "load_network",
    "reference_pixels",
]

_MOST_BYTES = 2**29  # of activations at once, where no tile is asked for
_BICUBIC_REACH = 4  # pixels of the small picture that a pixel of the reference depends on


_IS_FAST: ContextVar[bool] = ContextVar("fast", default=False)


@contextmanager
def fast(*, enabled: bool = True) -> Iterator[None]:
    """Networks that are loaded by name inside run their couplings in bfloat16, if enabled."""
    token = _IS_FAST.set(enabled)
    try:
        yield
    finally:
        _IS_FAST.reset(token)


def load_network(
    tasks: Sequence[Task],
    model: str | Path | nn.Module | None,
    device: str | torch.device | None = None,
) -> tuple[Task, Any]:
    """Returns the network that ``model`` names and the one of ``tasks`` that it is for.

    Args:
        tasks: What it may be for; the first one where no model is named.
        model: A preset with packaged weights, the folder of weights, or a network; None for the
            first task's own preset.
        device: Where to put it if it is loaded; a network that is given stays where it is.

    Raises:
        WICArgumentError: If it is for another task, by its channels or by what it was trained for,
            or unknown, or the device is not there.
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
        name = tasks[0].preset if model is None else str(model)
        names = [task.name for task in tasks]
        if name in PRESETS and PRESETS[name].task not in names:
            raise WICArgumentError(
                f"Expected a preset for {' or '.join(names)}; '{name}' is for "
                f"{PRESETS[name].task}."
            )
        network = from_pretrained(name).to(where).requires_grad_(requires_grad=False)
        if _IS_FAST.get():
            network.optimize()
    found = (
        network.config.get("in_channels"),
        network.config.get("out_channels"),
        network.config.get("scale", 1),
    )
    stated = getattr(network, "task", None)
    fitting = [task for task in tasks if task.channels == found]
    for task in fitting:
        if stated in (None, task.name):
            return task, network
    title = network.preset or (type(model).__name__ if network is model else model)
    if fitting:
        raise WICArgumentError(
            f"Expected a network for {' or '.join(task.name for task in fitting)}; {title} was "
            f"trained for {stated}."
        )
    wanted = "; ".join(
        f"{task.name} (channels {task.channels[0]} to {task.channels[1]}, scale {task.scale})"
        for task in tasks
    )
    raise WICArgumentError(
        f"Expected a network for {wanted}; {title} has channels {found[0]} to {found[1]}, scale "
        f"{found[2]}."
    )


def _check_device(device: str | torch.device) -> torch.device:
    known = ("cpu", "cuda", "mps", "xpu")
    if str(device).partition(":")[0] not in known:
        raise WICArgumentError(
            f"Device {str(device)!r} cannot be used: expected {', '.join(known)}, or one with a "
            f"number, such as cuda:1."
        )
    try:
        return torch.empty(0, device=device).device
    except (RuntimeError, AssertionError) as error:  # a torch without CUDA asserts
        reason = str(error).partition("\n")[0].rstrip(".")
        raise WICArgumentError(f"Device {str(device)!r} cannot be used: {reason}.") from error


def check_size(task: Task, carrier: Tensor, sizes: Sequence[tuple[int, int]], name: str) -> None:
    """Checks that images of ``sizes`` can come back from ``carrier``.

    Raises:
        WICShapeError: If they cannot.
    """
    width, height = size_of(carrier)
    cell = task.multiple // task.scale
    if width % cell or height % cell:
        raise WICShapeError(
            f"Expected {name} with even sides, as it was made; got {width}x{height}. It was "
            f"cropped or resized, or holds nothing."
        )
    if not task.fewest <= len(sizes) <= task.returned:
        or_fewer = "" if task.fewest == task.returned else " or fewer"
        what = task.titles[1] if task.images > 1 else "image"
        raise WICShapeError(
            f"Expected {task.returned}{or_fewer} sizes, one for each {what}; got {len(sizes)}."
        )
    for size in sizes:
        if task.returned == task.images:
            padded = tuple(_up_to(side, task.multiple) // task.scale for side in size)
            if min(size) < 1 or padded != (width, height):
                least, most = (
                    tuple(side * task.scale - lack for side in (width, height))
                    for lack in (task.multiple - 1, 0)
                )
                raise WICShapeError(
                    f"An image of {size[0]}x{size[1]} cannot come back from {name} of "
                    f"{width}x{height}; expected {least[0]} to {most[0]} by {least[1]} to "
                    f"{most[1]}."
                )
        elif min(size) < 1 or size[0] > width or size[1] > height:
            raise WICShapeError(
                f"A secret of {size[0]}x{size[1]} cannot come back from {name} of "
                f"{width}x{height}."
            )


def _up_to(side: int, multiple: int) -> int:
    return -(-side // multiple) * multiple


def _kept(
    task: Task, images: Sequence[Tensor], size: tuple[int, int], count: int | None
) -> Tensor:
    """Which pixels of every channel that comes back are part of it: 1, elsewhere 0."""
    several = images[-task.returned :]
    kept = torch.zeros(3 * len(several), size[1], size[0], dtype=torch.uint8)
    for index, image in enumerate(several[:count]):
        kept[3 * index : 3 * index + 3, : image.shape[1], : image.shape[2]] = 1
    return kept


def _packed(task: Task, images: Sequence[Tensor]) -> Tensor:
    """8-bit images on the CPU, padded to the first one's size and to what the network halves."""
    width, height = (_up_to(side, task.multiple) for side in size_of(images[0]))
    return task.pack(*(pad_to(image.cpu(), (width, height))[None] for image in images))[0]


def forward_pixels(
    task: Task,
    network: Any,
    *images: Tensor,
    tile: int | None = None,
    progress: Progress | None = None,
    rounded: bool = True,
    refine: int = 0,
    count: int | None = None,
) -> Tensor:
    """Runs a network forward on 8-bit images.

    Args:
        task: What the network is for.
        network: See :func:`load_network`.
        *images: Pixels (3, h, w), uint8, on any device; none larger than the first one.
        tile: Side of the tiles in pixels of the large picture; by default as large as half a
            gigabyte of activations allows. See :func:`~wic_layers.codec.tiles.map_tiles`.
        progress: Called after every tile.
        rounded: Whether the picture is rounded to 8 bits, as every file is; without, it is what
            papers judge that have no file.
        refine: Steps that improve the picture for this very image; see
            :func:`~wic_layers.codec.refining.refine`. Tiles then are no longer the same as the
            whole, as each is improved for itself.
        count: How many of the images that can come back are wanted, for ``refine``; all when None.

    Returns:
        The forward picture on the CPU, uint8 (out_channels, H / scale, W / scale) for the first
        image's sides H, W, padded to what the network can halve. If not ``rounded``, float32 as
        the network gives it.

    Raises:
        WICArgumentError: If ``tile`` is less than 1, or ``refine`` less than 0.
    """
    if refine < 0:
        raise WICArgumentError(f"Expected refine of at least 0 steps; got {refine}.")
    x = _packed(task, images)
    side, overlap = _tiling(task, network, tile, size_of(x), with_gradients=refine > 0)

    inputs = len(x)
    if refine:  # what comes back is cut to its own size, and padding there is no matter
        x = torch.cat((x, _kept(task, images, size_of(x), count)))

    def run(piece: Tensor) -> Tensor:
        given = _as_input(piece[:inputs], network)
        y = network(given)
        if refine:
            y = improved(task, network, given, y, refine, piece[inputs:][None].to(y))
        return _to_8_bits(y[0]) if rounded else y[0].float().cpu()

    network = in_evaluation_mode(network)
    with _evaluating(size_of(x)):
        return map_tiles(run, x, tile=side, overlap=overlap, scale=task.scale, progress=progress)


def backward_pixels(
    task: Task,
    network: Any,
    picture: Tensor,
    sizes: Sequence[tuple[int, int]],
    *,
    tile: int | None = None,
    progress: Progress | None = None,
) -> list[Tensor]:
    """Runs a network backwards on the 8-bit forward picture.

    Args:
        task: What the network is for.
        network: See :func:`load_network`.
        picture: Pixels (out_channels, H, W), uint8, or float32 as ``rounded=False`` gives them.
        sizes: The (width, height) of each image that comes back; those after the last one do not.
        tile: See :func:`forward_pixels`.
        progress: Called after every tile.

    Returns:
        What was hidden or converted, each uint8 (3, height, width); float32 in [0, 1] from a float
        picture.
    """
    width, height = (side * task.scale for side in size_of(picture))
    side, overlap = _tiling(task, network, tile, (width, height))

    def run(piece: Tensor) -> Tensor:
        images = task.wanted(network.inverse(_as_input(piece, network)))
        if picture.is_floating_point():
            return torch.cat(images, dim=1)[0].float().clamp(0, 1).cpu()
        return torch.cat([_to_8_bits(image[0]) for image in images])

    network = in_evaluation_mode(network)
    with _evaluating(size_of(picture)):
        back = map_tiles(
            run,
            picture,
            tile=side // task.scale,
            overlap=overlap // task.scale,
            scale=task.scale,
            up=True,
            progress=progress,
        )
    return [
        image[:, : size[1], : size[0]] for image, size in zip(back.split(3), sizes, strict=False)
    ]


def reference_pixels(task: Task, *images: Tensor) -> Tensor:
    """Returns what the forward picture should look like, in 8 bits: (out_channels, H, W)."""

    def run(piece: Tensor) -> Tensor:
        return _to_8_bits(task.reference(piece[None].float() / 255)[0])

    x = _packed(task, images)
    overlap = _BICUBIC_REACH * task.scale
    return map_tiles(run, x, tile=1024, overlap=overlap, scale=task.scale)


def _tiling(
    task: Task,
    network: Any,
    tile: int | None,
    size: tuple[int, int],
    *,
    with_gradients: bool = False,
) -> tuple[int, int]:
    """Side and overlap of the tiles, in pixels of the large picture."""
    reach = receptive_field(network, task.channels[0])
    overlap = _up_to(reach, task.multiple)
    if tile is not None:
        if tile < 1:
            raise WICArgumentError(f"Expected a tile of at least 1 pixel a side; got {tile}.")
        return _up_to(tile, task.multiple), overlap
    held = sum if with_gradients else max
    most = _MOST_BYTES / _bytes_per_pixel(network, task.channels[0], held)
    if with_gradients:
        most *= 8  # tiles that are far smaller than what they have to see would take for ever
    if size[0] * size[1] <= most:
        return _up_to(max(size), task.multiple), overlap
    # a tile smaller than what it has to see would cost more time than it saves memory
    return _up_to(max(int(math.sqrt(most)) - 2 * overlap, overlap, 64), task.multiple), overlap


def _bytes_per_pixel(
    network: Any, channels: int, together: Callable[[list[float]], float]
) -> float:
    """About what a network's convolutions hold, for each pixel of its input.

    ``together``: ``max`` where one runs after the other, ``sum`` where all are kept for gradients.
    """
    held = [1.0]
    for step in flow(network, channels):
        widths = [m.in_channels for m in step.block.modules() if isinstance(m, nn.Conv2d)]
        # its input, its result joined to it, and a copy in oneDNN's own layout
        most = together([float(width) for width in [*widths, *step.channels]])
        held.append(3 * 4 * most * float(step.sizes[0]) ** 2)
    return together(held)


@contextmanager
def _evaluating(size: tuple[int, int]) -> Iterator[None]:
    """Runs the body without gradients."""
    try:
        with torch.no_grad():
            yield
    except (MemoryError, RuntimeError) as error:
        lacking = ("out of memory", "allocate memory")
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in lacking):
            raise
        raise WICError(
            f"There is not enough memory for an image of {size[0]}x{size[1]}; take a smaller "
            f"tile, such as --tile 256 (tile=256)."
        ) from error


def _as_input(pixels: Tensor, network: nn.Module) -> Tensor:
    parameter = next(network.parameters())
    x = pixels[None].to(parameter.device)
    return (x if x.is_floating_point() else x.float() / 255).to(parameter)


def _to_8_bits(x: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise WICError(
            "The network returned numbers that are not finite; its weights are damaged."
        )
    return (quantize(x) * 255).round().to(torch.uint8).cpu()
