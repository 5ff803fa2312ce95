"""IRN, the network for invertible rescaling and decolorization."""

from __future__ import annotations

import torch
from torch import nn

from wic_layers.blocks import Haar, LearnedSqueeze
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network, affine_couplings, closing

__all__ = ["IRN"]

# brightness and two differences of colours, Y, U and V of analogue television
_YUV = ((0.299, 0.587, 0.114), (-0.147, -0.289, 0.436), (0.615, -0.515, -0.100))


class IRN(Network):
    """IRN, with a WIC in place of its random z, or as published.

    .. code-block:: none

        image --> Haar --> couplings --> [Haar --> couplings] --> WIC --> small picture
                  (scale 2)              (scale 4)                drops channels, was: z

    Rescaling by 3 squeezes once by a learned transform; decolorization, at the same size, starts
    with a 1x1 convolution of the colours in its place. The first half of every coupling is the
    picture to be, the second all else. Inputs and outputs are pixels in [0, 1].

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the result: 3, or 1 for decolorization.
        scale: 1 (decolorization), 2, 3 or 4: how many times smaller the result is.
        couplings: Affine couplings in each of the stages; there are two for a scale of 4, one
            otherwise. The paper's: 8, for a scale of 3 12.
        growth: Width of the dense blocks inside them.
        random_z: As published: the picture is in the first channels, the others are dropped, and
            drawn anew on the way back.
        completion: Of the WIC, see :class:`~wic_layers.WIC`; zero when None.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W divisible by
        ``scale``.

    Raises:
        WICArgumentError: If ``scale`` is another number, no channels are dropped, or ``random_z``
            comes with a completion.

    References:
        | Invertible Image Rescaling (Xiao et al., 2020), Section 3; its code for a scale of 3 and
        | for decolorization
    """

    closed_by = ("random_z", False)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        scale: int = 2,
        couplings: int = 8,
        growth: int = 32,
        random_z: bool = False,
        completion: CompletionName | Completion | None = None,
    ) -> None:
        if scale not in (1, 2, 3, 4):
            raise WICArgumentError(f"Expected scale 1 (decolorization), 2, 3 or 4; got {scale!r}.")
        if not 0 < out_channels < in_channels * scale**2:
            raise WICArgumentError(
                f"Expected fewer output channels than {in_channels * scale**2}, which come in at "
                f"scale {scale}; got {out_channels}."
            )
        blocks: list[nn.Module] = []
        channels = in_channels
        for squeeze, factor in _squeezes(in_channels, scale):
            blocks.append(squeeze)
            channels *= factor**2
            blocks += affine_couplings(couplings, channels, growth, split=out_channels)
        last = closing(channels, out_channels, random_z=random_z, completion=completion)
        super().__init__(*blocks, last)


def _squeezes(in_channels: int, scale: int) -> list[tuple[nn.Module, int]]:
    """What stands before the couplings of each stage, and by how much it squeezes."""
    if scale == 1:
        colours = WIC(in_channels, in_channels)
        if in_channels == 3:
            with torch.no_grad():
                colours.weight.copy_(torch.tensor(_YUV))
        return [(colours, 1)]
    if scale == 3:
        return [(LearnedSqueeze(3), 3)]
    return [(Haar(mean=True), 2) for _ in range(scale // 2)]
