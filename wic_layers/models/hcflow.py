"""HCFlow and DLVHCFlow, hierarchical conditional flows for rescaling."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from wic_layers.blocks import Chain, Haar, Latent
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network
from wic_layers.models.conditional import (
    ActNorm,
    ConditionalFlow,
    ConditionalSplit,
    HalfCoupling,
)
from wic_layers.models.dlv import DualLatent, Z, check_rescaling, closing_z

__all__ = ["DLVHCFlow", "HCFlow"]


class HCFlow(Network):
    """HCFlow for rescaling, with a WIC in place of its random z, or as published.

    .. code-block:: none

        image --> Haar --> steps --> split --> [Haar --> steps --> split] --> small picture
                                       |        (scale 4)            |
                                z <-- flow <------- features ------ flow --> z
                                (dropped)                           (dropped)

    A step normalises each channel and, in turn, changes the other bands by the low one and the low
    band by the others. Each split drops channels through a flow that is conditioned on those that
    stay and on the level below: half of them, at the last level all but the picture. Inputs and
    outputs are pixels in [0, 1].

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the result.
        scale: 2 or 4 (the paper's): how many times smaller the result is; a level for each 2.
        steps: Steps in each level before its split.
        growth: Width of the dense blocks in their couplings.
        conditional_steps: Steps of each conditional flow.
        width: Channels of the features that it is conditioned on, and inside its couplings.
        depth: Residual dense blocks that make these features.
        z: ``"drawn"`` as published: z is dropped, and drawn anew on the way back. ``"zero"``: it
            is zero there, which is HCFlow's own test at a heat of 0. None: a square WIC before
            each split chooses what is kept, and ``completion`` stands for z.
        completion: Of z, see :class:`~wic_layers.WIC`; zero when None.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W divisible by
        ``scale``.

    Raises:
        WICArgumentError: If ``scale`` or ``z`` is another one, no channels are dropped, or a
            completion comes with ``z``.

    References:
        | Hierarchical Conditional Flow: A Unified Framework for Image Super-Resolution and Image
        | Rescaling (Liang et al., 2021), and its code for rescaling by 4. That clamps both
        | pictures to [0, 1]; here the one that is written or judged is.
    """

    closed_by = ("z", None)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        scale: int = 4,
        steps: int = 8,
        growth: int = 32,
        conditional_steps: int = 6,
        width: int = 64,
        depth: int = 3,
        z: Z | None = None,
        completion: CompletionName | Completion | None = None,
    ) -> None:
        check_rescaling(in_channels, out_channels, scale)
        levels = _Levels(
            out_channels, steps, growth, conditional_steps, width, depth, z, completion
        )
        super().__init__(*levels.blocks(in_channels, scale // 2))


class DLVHCFlow(DualLatent, Network):
    """DLV-HCFlow: :class:`HCFlow` with a latent w behind the channels of the image.

    .. code-block:: none

        image --+
                +--> the levels of HCFlow --> small picture
        w ------+

    Args:
        w_channels: Channels C_w of w, per pixel of the input.
        z: See :class:`HCFlow`, as of all others. The DLV paper finds zeros better, for DLV-IRN.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W divisible by
        ``scale``.

    Raises:
        WICArgumentError: As of :class:`HCFlow`, or if ``w_channels`` is less than 1.

    References:
        | Enhancing Image Rescaling using Dual Latent Variables in Invertible Neural Network (Zhang
        | et al., 2022), Section 4.3. It has no drawing of this network: that w is one more image,
        | of which each split keeps as much as of the others, is what its 4.87 million parameters
        | are counted with.
    """

    closed_by = ("z", None)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        scale: int = 4,
        steps: int = 8,
        growth: int = 32,
        conditional_steps: int = 6,
        width: int = 64,
        depth: int = 3,
        w_channels: int = 2,
        z: Z | None = None,
        completion: CompletionName | Completion | None = None,
    ) -> None:
        check_rescaling(in_channels, out_channels, scale)
        levels = _Levels(
            out_channels, steps, growth, conditional_steps, width, depth, z, completion
        )
        blocks = levels.blocks(in_channels + w_channels, scale // 2)
        super().__init__(Latent(w_channels), *blocks)


@dataclass(frozen=True)
class _Levels:
    """The arguments that both networks build their levels from; see :class:`HCFlow`."""

    out_channels: int
    steps: int
    growth: int
    conditional_steps: int
    width: int
    depth: int
    z: Z | None
    completion: CompletionName | Completion | None

    def blocks(self, channels: int, levels: int) -> list[nn.Module]:
        """The blocks of a level; those of the levels below stand inside its split."""
        channels *= 4
        subnet = partial(DenseBlock, growth=self.growth)
        blocks: list[nn.Module] = [Haar(mean=True)]
        for index in range(self.steps):
            is_odd = index % 2 == 1
            blocks.append(ActNorm(channels))
            blocks.append(
                HalfCoupling(channels, self.out_channels, changes_first=is_odd, subnet=subnet)
            )
        split = channels // 2 if levels > 1 else self.out_channels
        flow = ConditionalFlow(
            channels - split,
            split + (self.width if levels > 1 else 0),
            steps=self.conditional_steps,
            width=self.width,
            depth=self.depth,
        )
        mix = WIC(channels, channels, parametrization="free" if self.z is None else "fixed")
        if self.z is None:
            with torch.no_grad():  # the flow's features expect a picture, there from the start
                mix.weight.copy_(torch.eye(channels))
            drop = WIC(channels, split, completion=self.completion, parametrization="fixed")
        else:
            drop = closing_z(channels, split, self.z, self.completion)
        inner = Chain(*self.blocks(split, levels - 1)) if levels > 1 else None
        blocks.append(ConditionalSplit(split, mix=mix, flow=flow, drop=drop, inner=inner))
        return blocks
