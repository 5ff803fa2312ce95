"""``load_network``, ``forward_pixels``, ``backward_pixels``: networks on 8-bit pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from wic_layers.codec.carrier import CARRIER, Carrier
from wic_layers.codec.refining import refine as improved
from wic_layers.codec.tiles import Progress, Tiling
from wic_layers.codec.work import counted, part
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.models import PRESETS, Network, from_pretrained
from wic_layers.models.inspection import in_evaluation_mode
from wic_layers.pictures import size_of
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
    least = 1 if task.fewer_will_do else task.restored_count
    if not least <= len(sizes) <= task.restored_count:
        or_fewer = " or fewer" if task.fewer_will_do else ""
        what = task.titles[1] if task.images > 1 else "image"
        raise WICShapeError(
            f"Expected {task.restored_count}{or_fewer} sizes, one for each {what}; got "
            f"{len(sizes)}."
        )
    for size in sizes:
        if task.restored_count == task.images:
            padded = tuple(side // task.scale for side in task.padded(size))
            if min(size) < 1 or padded != (width, height):
                smallest, largest = (
                    tuple(side * task.scale - lack for side in (width, height))
                    for lack in (task.multiple - 1, 0)
                )
                raise WICShapeError(
                    f"An image of {size[0]}x{size[1]} cannot come back from {name} of "
                    f"{width}x{height}; expected {smallest[0]} to {largest[0]} by "
                    f"{smallest[1]} to {largest[1]}."
                )
        elif min(size) < 1 or size[0] > width or size[1] > height:
            raise WICShapeError(
                f"A secret of {size[0]}x{size[1]} cannot come back from {name} of "
                f"{width}x{height}."
            )


def _mask(task: Task, x: Tensor, sizes: Sequence[tuple[int, int]]) -> Tensor:
    """Which pixels of every channel that comes back are part of it: 1, elsewhere 0."""
    mask = x.new_zeros(3 * task.restored_count, *x.shape[1:])
    for index, (width, height) in enumerate(sizes):
        mask[3 * index : 3 * index + 3, :height, :width] = 1
    return mask


def forward_pixels(
    task: Task,
    network: Network,
    x: Tensor,
    sizes: Sequence[tuple[int, int]] | None = None,
    *,
    tile: int | None = None,
    progress: Progress | None = None,
    rounded: bool = True,
    refine: int = 0,
    carrier: Carrier = CARRIER,
) -> Tensor:
    """Runs a network forward on 8-bit images.

    Args:
        task: What the network is for.
        network: See :func:`load_network`.
        x: The images as :meth:`~wic_layers.tasks.Task.packed` gives them, uint8 (C, H, W).
        sizes: The (width, height) of each image that comes back, for ``refine``; all of it when
            None.
        tile: Side of the tiles in pixels of the large picture; by default as large as
            200 megabytes allow. See :class:`~wic_layers.codec.tiles.Tiling`.
        progress: Called after every tile.
        rounded: Whether the picture is rounded to 8 bits, as every file is; without, it is what
            papers judge that have no file.
        refine: Steps that improve the picture for this very image; see
            :func:`~wic_layers.codec.refining.refine`. Tiles then are no longer the same as the
            whole, as each is improved for itself.
        carrier: What the picture will go through, for ``refine``.

    Returns:
        The forward picture on the CPU, uint8 (out_channels, H / scale, W / scale). If not
        ``rounded``, float32 as the network gives it.

    Raises:
        WICArgumentError: If ``tile`` is less than 1, or ``refine`` less than 0.
    """
    if refine < 0:
        raise WICArgumentError(f"Expected refine of at least 0 steps; got {refine}.")
    inputs = len(x)
    tiling = Tiling.of(task, network, tile, x[0].numel(), with_gradients=refine > 0)
    is_masked = refine > 0 and sizes is not None
    if sizes is not None and is_masked:  # what comes back is cut to its own size
        x = torch.cat((x, _mask(task, x, sizes)))

    def run(piece: Tensor) -> Tensor:
        packed = _as_input(piece[:inputs], network)
        with counted(network, 1 + (refine + 2 if refine else 0)):
            y = network(packed)
            if refine:
                mask = piece[inputs:][None].to(y) if is_masked else None
                y = improved(task, network, packed, y, refine, mask, carrier=carrier)
        return _as_pixels(y[0]) if rounded else y[0].float().cpu()

    network = in_evaluation_mode(network)
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
    tiling, run = _backward(task, network, picture, tile)
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
    tiling, run = _backward(task, network, picture, side)
    tiles = []
    for done, (top, left) in enumerate(corners, start=1):
        with part(1 / len(corners)):
            tile = tiling.run_one(run, picture, (top // task.scale, left // task.scale))
        tiles.append(tile)
        if progress is not None:
            progress(done, len(corners))
    return tiles


def _backward(
    task: Task, network: Network, picture: Tensor, tile: int | None
) -> tuple[Tiling, Callable[[Tensor], Tensor]]:
    """The tiles of a picture, and what runs a network backwards on one of them."""
    area = picture[0].numel() * task.scale**2
    tiling = Tiling.of(task, network, tile, area).reversed()
    network, is_exact = in_evaluation_mode(network), picture.is_floating_point()

    def run(piece: Tensor) -> Tensor:
        with counted(network):
            back = network.inverse(_as_input(piece, network))
        images = torch.cat(task.restored(back), dim=1)[0]
        return images.float().clamp(0, 1).cpu() if is_exact else _as_pixels(images)

    return tiling, run


def reference_pixels(task: Task, x: Tensor) -> Tensor:
    """Returns what the forward picture of a packed input should look like, in 8 bits."""

    def run(piece: Tensor) -> Tensor:
        return _as_pixels(task.reference(piece[None].float() / 255)[0])

    tiling = Tiling(1024, _BICUBIC_REACH * task.scale, task.scale)
    return tiling.run(run, x)


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
