"""``load_network``, ``forward_pixels``, ``backward_pixels``: networks on 8-bit pixels."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from wic_layers._probe import in_evaluation_mode
from wic_layers.codec.carrier import CARRIER
from wic_layers.codec.refining import refine as improved
from wic_layers.codec.tiles import Progress, Tiling
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.models import PRESETS, Network, from_pretrained
from wic_layers.pictures import pad_to, size_of
from wic_layers.tasks.base import Task

__all__ = [
    "backward_pixels",
    "backward_tiles",
    "check_size",
    "forward_pixels",
    "load_network",
    "reference_pixels",
]

_BICUBIC_REACH = 4  # pixels of the small picture that a pixel of the reference depends on


def load_network(
    tasks: Sequence[Task],
    model: str | Path | nn.Module | None,
    device: str | torch.device | None = None,
    *,
    fast: bool = False,
) -> tuple[Task, Network]:
    """Returns the network that ``model`` names and the one of ``tasks`` that it is for.

    Args:
        tasks: What it may be for; the first one where no model is named.
        model: A preset with packaged weights, the folder of weights, or a network; None for the
            first task's own preset.
        device: Where to put it if it is loaded; a network stays where it is.
        fast: Whether the couplings of a network that is loaded run in bfloat16.

    Raises:
        WICArgumentError: If it is for another task, by its channels or by what it was trained for,
            or unknown, or the device is not there.
        WICFileError: If the weights cannot be read.
        TypeError: If a network has no ``inverse`` or no ``config``.
    """
    if isinstance(model, nn.Module):
        network = cast(Network, model)
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
        if fast:
            network.optimize()
    channels = (
        network.config.get("in_channels"),
        network.config.get("out_channels"),
        network.config.get("scale", 1),
    )
    stated = getattr(network, "task", None)
    fitting = [task for task in tasks if task.channels == channels]
    for task in fitting:
        if stated in (None, task.name):
            return task, network
    title = network.preset or (type(model).__name__ if network is model else model)
    if fitting:
        raise WICArgumentError(
            f"Expected a network for {' or '.join(task.name for task in fitting)}; {title} was "
            f"trained for {stated}."
        )
    expected = "; ".join(
        f"{task.name} (channels {task.channels[0]} to {task.channels[1]}, scale {task.scale})"
        for task in tasks
    )
    raise WICArgumentError(
        f"Expected a network for {expected}; {title} has channels {channels[0]} to "
        f"{channels[1]}, scale {channels[2]}."
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
    if not task.min_restored_count <= len(sizes) <= task.restored_count:
        or_fewer = "" if task.min_restored_count == task.restored_count else " or fewer"
        what = task.titles[1] if task.images > 1 else "image"
        raise WICShapeError(
            f"Expected {task.restored_count}{or_fewer} sizes, one for each {what}; got "
            f"{len(sizes)}."
        )
    for size in sizes:
        if task.restored_count == task.images:
            padded = tuple(side // task.scale for side in task.padded(size))
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


def _mask(
    task: Task, images: Sequence[Tensor], size: tuple[int, int], count: int | None
) -> Tensor:
    """Which pixels of every channel that comes back are part of it: 1, elsewhere 0."""
    several = images[-task.restored_count :]
    mask = torch.zeros(3 * len(several), size[1], size[0], dtype=torch.uint8)
    for index, image in enumerate(several[:count]):
        mask[3 * index : 3 * index + 3, : image.shape[1], : image.shape[2]] = 1
    return mask


def _packed(task: Task, images: Sequence[Tensor]) -> Tensor:
    """8-bit images on the CPU, padded to the first one's size and to what the network halves."""
    size = task.padded((images[0].shape[2], images[0].shape[1]))
    return task.pack(*(pad_to(image.cpu(), size)[None] for image in images))[0]


def forward_pixels(
    task: Task,
    network: Network,
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
            gigabyte of activations allows. See :class:`~wic_layers.codec.tiles.Tiling`.
        progress: Called after every tile.
        rounded: Whether the picture is rounded to 8 bits, as every file is; without, it is what
            papers judge that have no file.
        refine: Steps that improve the picture for this very image; see
            :func:`~wic_layers.codec.refining.refine`. Tiles then are no longer the same as the
            whole, as each is improved for itself.
        count: How many of the images that can come back come back, for ``refine``; all when None.

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
    inputs, height, width = x.shape
    tiling = Tiling.of(task, network, tile, height * width, with_gradients=refine > 0)
    if refine:  # what comes back is cut to its own size, and padding there is no matter
        x = torch.cat((x, _mask(task, images, (width, height), count)))

    def run(piece: Tensor) -> Tensor:
        packed = _as_input(piece[:inputs], network)
        y = network(packed)
        if refine:
            y = improved(task, network, packed, y, refine, piece[inputs:][None].to(y))
        return _as_pixels(y[0]) if rounded else y[0].float().cpu()

    network = in_evaluation_mode(network)
    with _evaluating((width, height)):
        return tiling.run(run, x, progress)


def backward_pixels(
    task: Task,
    network: Network,
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
    run = _backward(task, network, picture)
    tiling = _tiling_back(task, network, tile, picture)
    with _evaluating((picture.shape[2], picture.shape[1])):
        back = tiling.run(run, picture, progress)
    return [
        image[:, : size[1], : size[0]] for image, size in zip(back.split(3), sizes, strict=False)
    ]


def backward_tiles(
    task: Task,
    network: Network,
    picture: Tensor,
    corners: Sequence[tuple[int, int]],
    side: int,
    *,
    progress: Progress | None = None,
) -> list[Tensor]:
    """Runs a network backwards on some tiles of the 8-bit forward picture alone.

    Args:
        task: What the network is for.
        network: See :func:`load_network`.
        picture: Pixels (out_channels, H, W), uint8.
        corners: The (top, left) of each tile in what comes back.
        side: Side of the tiles in what comes back, divisible by what the network asks for.
        progress: Called after every tile.

    Returns:
        For each tile the images that come back, below each other in channels (3 * images, h, w),
        as :func:`backward_pixels` gives them there.
    """
    run = _backward(task, network, picture)
    tiling = _tiling_back(task, network, side, picture)
    tiles = []
    with _evaluating((side, side)):
        for done, corner in enumerate(corners, start=1):
            top, left = (length // task.scale for length in corner)
            tiles.append(tiling.run_one(run, picture, (top, left)))
            if progress is not None:
                progress(done, len(corners))
    return tiles


def _backward(task: Task, network: Network, picture: Tensor) -> Callable[[Tensor], Tensor]:
    """What runs a network backwards on a part of the picture."""
    network = in_evaluation_mode(network)

    def run(piece: Tensor) -> Tensor:
        images = task.restored(network.inverse(_as_input(piece, network)))
        if picture.is_floating_point():
            return torch.cat(images, dim=1)[0].float().clamp(0, 1).cpu()
        return torch.cat([_as_pixels(image[0]) for image in images])

    return run


def _tiling_back(task: Task, network: Network, tile: int | None, picture: Tensor) -> Tiling:
    area = picture[0].numel() * task.scale**2
    return Tiling.of(task, network, tile, area).reversed()


def reference_pixels(task: Task, *images: Tensor) -> Tensor:
    """Returns what the forward picture should look like, in 8 bits: (out_channels, H, W)."""

    def run(piece: Tensor) -> Tensor:
        return _as_pixels(task.reference(piece[None].float() / 255)[0])

    tiling = Tiling(1024, _BICUBIC_REACH * task.scale, task.scale)
    return tiling.run(run, _packed(task, images))


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


def _as_input(pixels: Tensor, network: Network) -> Tensor:
    parameter = next(network.parameters())
    x = pixels[None].to(parameter.device)
    return (x if x.is_floating_point() else x.float() / 255).to(parameter)


def _as_pixels(x: Tensor) -> Tensor:
    if not bool(torch.isfinite(x).all()):
        raise WICError(
            "The network returned numbers that are not finite; its weights are damaged."
        )
    return CARRIER.pixels(x).cpu()
