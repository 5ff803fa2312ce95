"""WIN and WINNaive, the networks of the WIN paper, which hide, rescale and decolorize."""

from __future__ import annotations

import math
from typing import Literal

from torch import nn

from wic_layers.blocks import (
    Chain,
    ChannelMean,
    Haar,
    InverseHaar,
    LongTermMemory,
    Squeeze,
    Unsqueeze,
)
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network, affine_couplings

__all__ = ["WIN", "WINNaive"]

Layout = Literal["compact", "published"]


def _check(in_channels: int, out_channels: int, scale: int, copies: int) -> None:
    if scale not in (1, 2, 4):
        raise WICArgumentError(
            "Expected scale 1 (same size), 2 (half the size) or 4 (a quarter of it); got "
            f"{scale!r}."
        )
    if copies < 1:
        raise WICArgumentError(f"Expected copies of at least 1; got {copies!r}.")
    if not 0 < out_channels * copies < in_channels * scale**2:
        results = f"{copies} x {out_channels}" if copies > 1 else f"{out_channels}"
        raise WICArgumentError(
            f"Expected fewer output channels than {in_channels * scale**2}, which come in at "
            f"scale {scale}; got {results}."
        )


def _narrow(
    channels: int,
    out_channels: int,
    copies: int,
    completion: CompletionName | Completion | None,
    layout: Layout,
) -> list[nn.Module]:
    """The blocks at the end, which drop channels."""
    last = WIC(channels, out_channels * copies, completion=completion, layout=layout)
    return [last, ChannelMean(copies)] if copies > 1 else [last]


class WINNaive(Network):
    """WIN-Naive: couplings, then one narrowing WIC where others draw random numbers.

    .. code-block:: none

        images --> squeeze --> couplings --> [unsqueeze] --> WIC --> result
                   (twice for x4)            (same size)     drops channels

    Inputs and outputs are pixels in [0, 1].

    Args:
        in_channels: Channels of the input images together: 6 for a cover and one secret, 3 for
            rescaling.
        out_channels: Channels of the result.
        scale: 1 keeps the size, 2 halves it, 4 makes a quarter of it.
        couplings: Number of affine couplings.
        growth: Width of the dense blocks inside them.
        squeezed: Width of squeezed blocks inside them, in place of dense ones; None for those.
        haar: Squeeze by the Haar transform, which sets coarse apart from fine, as IRN and HiNet
            do, in place of the paper's shuffle of pixels. Where the result is smaller, the low
            band, which is the small picture, is then one half of each coupling and all else the
            other. Small networks learn faster with it; after long training the two draw
            together (``benchmarks/completions.py`` compares them).
        completion: See :class:`~wic_layers.WIC`.
        copies: How often the WIC gives the result; their mean goes out, and is repeated on the way
            back. The authors' x4 networks have 4, all others 1.
        layout: See :class:`~wic_layers.WIC`; ``"published"`` agrees with the authors' checkpoints.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W
        divisible by 2, or by ``scale`` if that is larger.

    Raises:
        WICArgumentError: If ``scale`` is not 1, 2 or 4, or no channels are dropped.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (17) and Fig. 6 (b). The text puts square WIC layers between the
        | couplings, its published code does not; neither does this.
        | Haar and uneven halves: Invertible Image Rescaling (Xiao et al., 2020), Section 3.2;
        | HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), Section 3.1
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        scale: int = 1,
        couplings: int = 8,
        growth: int = 32,
        squeezed: int | None = None,
        haar: bool = False,
        completion: CompletionName | Completion | None = None,
        copies: int = 1,
        layout: Layout = "compact",
    ) -> None:
        _check(in_channels, out_channels, scale, copies)
        # at the same size halves are images, such as a cover and what it hides, not bands
        groups = in_channels if scale == 1 else 1
        blocks: list[nn.Module] = [
            Haar(groups) if haar else Squeeze(2) for _ in range(_stages(scale))
        ]
        channels = in_channels * 4 ** len(blocks)
        split = in_channels if haar and scale > 1 else None
        blocks += affine_couplings(couplings, channels, growth, split=split, squeezed=squeezed)
        if scale == 1:
            blocks.append(InverseHaar(groups) if haar else Unsqueeze(2))
            channels = in_channels
        blocks += _narrow(channels, out_channels, copies, completion, layout)
        super().__init__(*blocks)


class WIN(Network):
    """WIN: modules that widen, set memory aside and couple the rest; joined and narrowed.

    .. code-block:: none

        images --> squeeze --> WIC --> module --> coupling --> [unsqueeze] --> WIC --> result
                   (all before the last WIC twice for x4)      (same size)     drops channels

        module:    --> WIC --+-- memory --------------------------+--> joined
                     wider   +-- couplings --> [the next module] -+

    Inputs and outputs are pixels in [0, 1]. The first WIC may widen, so that the network is not
    idempotent: a second round trip changes the picture again, if little.

    Args:
        in_channels: Channels of the input images together: 6 for a cover and one secret, 3 for
            rescaling.
        out_channels: Channels of the result.
        scale: 1 keeps the size, 2 halves it, 4 makes a quarter of it.
        width: Channels n of each module after its widening WIC. Where that is too few for the
            second half of a network for x4, it is the least power of two that is enough.
        split: Fraction of ``width`` that goes through the couplings; the rest is memory.
        modules: Number of modules N.
        couplings: Affine couplings in each module.
        growth: Width of the dense blocks inside them.
        completion: Of the last, narrowing WIC; see :class:`~wic_layers.WIC`.
        copies: How often the last WIC gives the result; their mean goes out, and is repeated on
            the way back. The authors' x4 networks have 4, all others 1.
        layout: Of the last WIC; ``"published"`` agrees with the authors' checkpoints.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W
        divisible by 2, or by ``scale`` if that is larger.

    Raises:
        WICArgumentError: If ``scale`` is not 1, 2 or 4, no channels are dropped, or ``width``
            and ``split`` leave less than 4 * in_channels for the couplings or nothing for the
            memory.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (19)-(20) and Fig. 6 (c)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        scale: int = 1,
        width: int = 32,
        split: float = 0.75,
        modules: int = 2,
        couplings: int = 4,
        growth: int = 32,
        completion: CompletionName | Completion | None = None,
        copies: int = 1,
        layout: Layout = "compact",
    ) -> None:
        _check(in_channels, out_channels, scale, copies)
        blocks: list[nn.Module] = []
        channels = in_channels
        for _ in range(_stages(scale)):
            channels *= 4
            if blocks and int(width * split) < channels:
                width = 2 ** math.ceil(math.log2(channels / split))
            stage, joined = _stage(channels, width, split, modules, couplings, growth)
            blocks += stage
            channels = joined
        if scale == 1:
            if channels % 4:
                raise WICArgumentError(
                    "Expected a number of joined channels divisible by 4 (to unsqueeze); "
                    f"width={width}, split={split} and modules={modules} give {channels}."
                )
            blocks.append(Unsqueeze(2))
            channels //= 4
        blocks += _narrow(channels, out_channels, copies, completion, layout)
        super().__init__(*blocks)


def _stages(scale: int) -> int:
    """How often a network squeezes: hiding does too, to work at half the size."""
    return 2 if scale == 4 else 1


def _stage(
    channels: int, width: int, split: float, modules: int, couplings: int, growth: int
) -> tuple[list[nn.Module], int]:
    """One squeeze of WIN with all that follows at its size, and its number of joined channels."""
    short = int(width * split)
    memory = width - short
    if short < channels or memory < 1:
        raise WICArgumentError(
            f"Expected width * split of at least {channels} (the squeezed channels) and some "
            f"channels left for the memory; got width={width}, split={split}."
        )
    inner: list[nn.Module] = []
    for _ in range(modules):
        # the next module stands inside this one's memory, behind its couplings
        body = affine_couplings(couplings, short, growth)
        inner = [WIC(short, width), LongTermMemory(memory, Chain(*body, *inner))]
    joined = modules * memory + short
    tail = affine_couplings(1, joined, growth)
    return [Squeeze(2), WIC(channels, short), *inner, *tail], joined
