"""What a network does to channels and sizes, how far it sees, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from wic_layers._probe import in_evaluation_mode, random_numbers_restored
from wic_layers.blocks import (
    AffineCoupling,
    Chain,
    ChannelMean,
    Haar,
    InverseHaar,
    Latent,
    LearnedSqueeze,
    LongTermMemory,
    Relation,
    Squeeze,
    Unsqueeze,
)
from wic_layers.layer.completion import Shift
from wic_layers.layer.conv import WIC
from wic_layers.models.conditional import ConditionalSplit

__all__ = ["Inspection", "Step", "flow", "flow_table", "inspect", "receptive_field"]

_NESTED = (LongTermMemory, ConditionalSplit)  # blocks whose parts are steps of their own


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
        model: A network of these blocks; others must keep channels and size.
        in_channels: Channels of its input.
    """
    return _flow(model, "", in_channels, Fraction(1))[0]


def _flow(
    block: nn.Module, name: str, channels: int, size: Fraction
) -> tuple[list[Step], int, Fraction]:
    """The steps of a block, and the channels and size of its result."""
    inside: list[Step] = []
    after, resized = channels, size
    if isinstance(block, Chain):
        for index, part in enumerate(block):
            place = f"{name}.{index}" if name else f"{index}"
            steps, after, resized = _flow(part, place, after, resized)
            inside += steps
        return inside, after, resized
    if isinstance(block, Unsqueeze):
        after, resized = channels // block.factor**2, size * block.factor
    elif isinstance(block, (Squeeze, LearnedSqueeze)):
        after, resized = channels * block.factor**2, size / block.factor
    elif isinstance(block, InverseHaar):
        after, resized = channels // 4, size * 2
    elif isinstance(block, Haar):
        after, resized = channels * 4, size / 2
    elif isinstance(block, WIC):
        after = block.out_channels
    elif isinstance(block, Latent):
        after = channels + block.channels
    elif isinstance(block, ChannelMean):
        after = channels // block.groups
    elif isinstance(block, LongTermMemory):
        rest = channels - block.channels
        inside, rest, resized = _flow(block.inner, f"{name}.inner", rest, size)
        after = block.channels + rest
    elif isinstance(block, ConditionalSplit):
        dropped = channels - block.kept
        inside = [
            Step(f"{name}.mix", block.mix, (channels, channels), (size, size)),
            Step(f"{name}.flow", block.flow, (dropped, dropped), (size, size)),
        ]
        after = block.kept
        if block.inner is not None:
            below, after, resized = _flow(block.inner, f"{name}.inner", after, size)
            inside += below
    return [Step(name, block, (channels, after), (size, resized)), *inside], after, resized


def flow_table(steps: Sequence[Step], conditions: dict[str, float] | None = None) -> str:
    """Returns the steps as lines of text; equal ones in a row are written as one."""
    rows: list[list[str]] = []
    previous: tuple[Any, ...] | None = None
    for step in steps:
        depth = step.name.count(".inner")
        what = f"{'  ' * depth}{_title(step.block)}"
        before, after = (
            f"{channels} x {_side('H', size)} x {_side('W', size)}"
            for channels, size in zip(step.channels, step.sizes, strict=True)
        )
        parameters = 0 if isinstance(step.block, _NESTED) else _count(step.block)
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


def _title(block: nn.Module) -> str:
    name = type(block).__name__
    if isinstance(block, WIC):
        completion = "" if block.completion is None else f", {type(block.completion).__name__}"
        return f"{name}({block.in_channels}, {block.out_channels}{completion.lower()})"
    if isinstance(block, AffineCoupling):
        return f"{name}({block.sizes[0]} + {block.sizes[1]})"
    return f"{name}({block.extra_repr()})"


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
        model: A network of the blocks in :mod:`wic_layers.blocks`.
        in_channels: Channels of its input.
    """
    total = Fraction(0)
    for step in flow(model, in_channels):
        if isinstance(step.block, AffineCoupling):
            seen = _reach(step.block.F) + max(_reach(step.block.G), _reach(step.block.H))
        elif isinstance(step.block, Relation):  # whose images stand beside each other
            seen = step.block.there.reach
        elif isinstance(step.block, (Squeeze, ChannelMean, *_NESTED)):
            seen = 0
        elif isinstance(step.block, WIC):
            seen = 0 if step.block.completion is None else _reach(step.block.completion)
        else:
            seen = _reach(step.block)
        total += seen / step.sizes[0]
    return math.ceil(total)


def _reach(module: object) -> int:
    """How far a network of convolutions sees, all of them taken to stand in a row."""
    if isinstance(module, Shift):
        return module.reach
    if not isinstance(module, nn.Module):
        return 0
    return sum(
        max(d * (k - 1) // 2 for d, k in zip(conv.dilation, conv.kernel_size, strict=True))
        for conv in module.modules()
        if isinstance(conv, nn.Conv2d)
    )


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
        conditions={
            name: float(module.condition_number())
            for name, module in model.named_modules()
            if isinstance(module, WIC)
        },
    )
