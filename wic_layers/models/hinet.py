"""HiNet, the network that hides images in the Haar domain."""

from __future__ import annotations

from torch import nn

from wic_layers.blocks import Haar, InverseHaar
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.models.base import Network, affine_couplings, closing

__all__ = ["HiNet", "hiding_images", "hinet_couplings"]

_CLAMP, _SLOPE, _SPREAD = 2.0, 0.01, 0.01


class HiNet(Network):
    """HiNet, with a WIC in place of its random z, or as published.

    .. code-block:: none

        cover   --+
                  +--> Haar --> couplings --> WIC --> inverse Haar --> stego image
        secrets --+                           drops channels, was: z

    In the Haar domain the cover's sub-bands are the first half of every coupling, the secrets' the
    second; what leaves the WIC are the sub-bands of the stego image. Inputs and outputs are pixels
    in [0, 1].

    Args:
        in_channels: Channels of cover and secrets together: 6 for one secret.
        out_channels: Channels of the stego image.
        couplings: Number of affine couplings, the paper's invertible blocks.
        growth: Width of the dense blocks inside them.
        random_z: As published: the secrets' sub-bands are dropped, and drawn anew on the way back.
        completion: Of the WIC, see :class:`~wic_layers.WIC`; zero when None.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H, W); H and W even.

    Raises:
        WICArgumentError: If the channels are no images of ``out_channels``, or ``random_z`` comes
            with a completion.

    References:
        | HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), Section 3; clamp,
        | slope and start of its code
    """

    closed_by = ("random_z", False)

    def __init__(
        self,
        in_channels: int = 6,
        out_channels: int = 3,
        *,
        couplings: int = 16,
        growth: int = 32,
        random_z: bool = False,
        completion: CompletionName | Completion | None = None,
    ) -> None:
        images = hiding_images(in_channels, out_channels)
        channels, cover = 4 * in_channels, 4 * out_channels
        blocks = [Haar(images), *hinet_couplings(couplings, channels, cover, growth)]
        last = closing(channels, cover, random_z=random_z, completion=completion)
        super().__init__(*blocks, last, InverseHaar())

    @property
    def image_channels(self) -> int:
        """Channels of each image: the cover's, and as many of every secret."""
        channels: int = self.config["out_channels"]
        return channels


def hiding_images(in_channels: int, out_channels: int) -> int:
    """Returns how many images a network hides and hides in, if the channels are those of some."""
    if out_channels < 1 or in_channels % out_channels or in_channels <= out_channels:
        raise WICArgumentError(
            f"Expected the channels of several images of {out_channels} channels, the first "
            f"of them the cover; got {in_channels}."
        )
    return in_channels // out_channels


def hinet_couplings(number: int, channels: int, split: int, growth: int) -> list[nn.Module]:
    """Returns HiNet's couplings, with its clamp, its slopes and its small random start."""
    blocks = affine_couplings(number, channels, growth, split=split, clamp=_CLAMP, slope=_SLOPE)
    for block in blocks:
        for name, parameter in block.named_parameters():
            if "conv5" not in name:  # the last ones are zero
                nn.init.normal_(parameter, std=_SPREAD)
    return blocks
