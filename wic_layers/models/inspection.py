"""inspect, flow and receptive_field: what a network does to channels and sides, sees and costs."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from wic_layers._probe import random_numbers_restored
from wic_layers.blocks import Chain
from wic_layers.blocks.block import as_block
from wic_layers.layer.kernel import kernels_of

__all__ = [
    "Inspection",
    "Step",
    "flow",
    "flow_table",
    "in_evaluation_mode",
    "inspect",
    "pixel_grid",
    "receptive_field",
]

_Module = TypeVar("_Module", bound=nn.Module)


@dataclass(frozen=True)
class Step:
    """One block on the way forward.

    Attributes:
        name: Its name in the network, as in the state dict.
        block: The block itself.
        channels: Channels that come in and go out.
        sizes: Its sides over those of the network's input, before and after.
    """

    name: str
    block: nn.Module
    channels: tuple[int, int]
    sizes: tuple[Fraction, Fraction]


@dataclass(frozen=True)
class Inspection:
    """What :func:`inspect` found.

    Attributes:
        parameters: Number of parameters.
        flops: Floating-point operations per pixel of the network's input, forward and back; a
            multiplication and an addition are two. Inverting the kernels, which is done once, is
            not among them.
        receptive_field: Side of the square of input pixels that one result can depend on.
        conditions: Condition number of every kernel, by the name of its layer.
    """

    parameters: int
    flops: tuple[float, float]
    receptive_field: int
    conditions: dict[str, float]


def flow(model: Chain, in_channels: int) -> list[Step]:
    """Returns the blocks in the order in which they run forward, memories and chains opened.

    Args:
        model: A network of blocks; what a user's own block does to channels and sides is measured
            if it does not say so by ``shape_after``.
        in_channels: Channels of its input.
    """
    return _flow(model, "", in_channels, Fraction(1))


def _flow(block: nn.Module, name: str, channels: int, side: Fraction) -> list[Step]:
    own = as_block(block)
    steps = []
    if not isinstance(block, Chain):  # of which the parts are all there is
        after, resized = own.shape_after(channels, side)
        steps.append(Step(name, block, (channels, after), (side, resized)))
    for part, inner, before, smaller in own.parts(channels, side):
        steps += _flow(inner, f"{name}.{part}" if name else part, before, smaller)
    return steps


def flow_table(steps: Sequence[Step], conditions: dict[str, float] | None = None) -> str:
    """Returns the steps as lines of text; equal ones in a row are written as one."""
    rows: list[list[str]] = []
    previous: tuple[object, ...] | None = None
    for step in steps:
        depth = step.name.count(".inner")
        title = f"{type(step.block).__name__}({as_block(step.block).summary()})"
        what = f"{'  ' * depth}{title}"
        before, after = (
            f"{channels} x {_side('H', size)} x {_side('W', size)}"
            for channels, size in zip(step.channels, step.sizes, strict=True)
        )
        is_nested = any(as_block(step.block).parts(step.channels[0], step.sizes[0]))
        parameters = 0 if is_nested else _count(step.block)
        condition = (conditions or {}).get(step.name)
        key = (what, before, after, parameters)
        if key == previous and condition is None:
            rows[-1][0] = f"{rows[-1][0].split(' - ')[0]} - {step.name.rpartition('.')[2]}"
            rows[-1][-1] = str(int(rows[-1][-1]) + 1)
            continue
        previous = key
        note = "" if condition is None else f"condition {condition:.3g}"
        flows = before if before == after else f"{before} -> {after}"
        rows.append([step.name, what, flows, f"{parameters:,}" if parameters else "", note, "1"])
    for row in rows:
        times = int(row.pop())
        if times > 1:
            row[1] += f" (x{times})"
            row[3] += " each"
    widths = [max(len(row[column]) for row in rows) for column in range(5)] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _side(letter: str, size: Fraction) -> str:
    if size.denominator > 1:
        return f"{letter}/{size.denominator}"
    return letter


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def receptive_field(model: Chain, in_channels: int) -> int:
    """Returns how many pixels of its input a network sees, to one side and in both directions.

    A pixel of the forward picture depends on no pixel of the input farther than that from the
    square of pixels that it stands for, and the same holds the other way.

    Args:
        model: A network of blocks; of a user's own one all convolutions are taken to stand in a
            row, if it has no ``reach``.
        in_channels: Channels of its input.
    """
    steps = flow(model, in_channels)
    return math.ceil(sum(as_block(step.block).reach / step.sizes[0] for step in steps))


def pixel_grid(model: Chain, in_channels: int) -> int:
    """Returns by how many pixels an image can be shifted, so that its results only shift too.

    A network that squeezes treats the pixels of a square each in its own way; so do networks
    inside couplings that squeeze once more. Tiles of an image have to begin at such places.

    Args:
        model: A network of blocks.
        in_channels: Channels of its input.
    """
    grid = 1
    for step in flow(model, in_channels):
        cells = [getattr(module, "cell", 1) for module in step.block.modules()]
        for side in (*(cell / step.sizes[0] for cell in cells), 1 / step.sizes[1]):
            grid = math.lcm(grid, max(math.ceil(side), 1))
    return grid


def in_evaluation_mode(model: _Module) -> _Module:
    """Returns a model that evaluates, without a change to the one that is passed.

    Other threads may train it or run it meanwhile, so its own mode is never switched.

    Returns:
        The model itself if all of its modules are in evaluation mode; else a copy that is, with
        the same parameters, buffers and hooks.

    Raises:
        TypeError: If a copy is needed and cannot be made.
    """
    modules = list(model.modules())
    if not any(module.training for module in modules):
        return model
    shared: list[object] = []
    for module in modules:
        own = chain(vars(module).values(), module._parameters.values(), module._buffers.values())
        shared += [value for value in own if isinstance(value, Tensor)]
        for name, value in vars(module).items():
            if name.endswith("_hooks"):
                shared += value.values()
    try:
        twin = copy.deepcopy(model, {id(value): value for value in shared})
    except (TypeError, RuntimeError, pickle.PicklingError) as error:
        raise TypeError(
            f"Expected a {type(model).__name__} in evaluation mode, or one that can be copied "
            f"({error}). Call its eval() first."
        ) from error
    return twin.eval()


@torch.no_grad()
def inspect(model: Any, side: int = 36) -> Inspection:
    """Measures a network.

    Args:
        model: A :class:`~wic_layers.models.Network`.
        side: Side of the image that is run to count operations; they do not depend on it.

    Example:
        >>> from wic_layers.models import WINNaive
        >>> inspect(WINNaive.from_preset("rescaling-x2-naive-tiny")).receptive_field
        82
    """
    from torch.utils.flop_counter import FlopCounterMode

    channels = model.config["in_channels"]
    cell = max(model.config.get("scale", 1), 2)
    parameter = next(model.parameters())
    counted = []
    network = in_evaluation_mode(model)
    with random_numbers_restored(parameter):
        x = torch.rand(1, channels, side, side, dtype=parameter.dtype, device=parameter.device)
        network.inverse(
            network(x)
        )  # into the cache: a kernel is inverted once, whatever the pixels
        for function in (network, network.inverse):
            with FlopCounterMode(display=False) as counter:
                x = function(x)
            counted.append(counter.get_total_flops() / side**2)
    return Inspection(
        parameters=_count(model),
        flops=(counted[0], counted[1]),
        receptive_field=2 * receptive_field(model, channels) + cell,
        conditions={name: float(layer.condition_number()) for name, layer in kernels_of(model)},
    )
