"""IICNet, the network that turns any set of images into one and back."""

from __future__ import annotations

from typing import Literal

from torch import nn

from wic_layers.blocks import ChannelMean, Haar, Relation, Squeeze
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network, affine_couplings

__all__ = ["IICNet"]


class IICNet(Network):
    """IICNet, with a WIC in place of its channel squeeze, or as published.

    .. code-block:: none

        images --> [relation] --> [squeeze --> 1x1 WIC] --> couplings --> WIC --> picture
                                  (scale 2)                 drops channels, was: their mean

    The images stand one behind the other in the channels, the one that the result looks like
    first; it is the first half of every coupling. Inputs and outputs are pixels in [0, 1].

    The channel squeeze gives the mean of groups of channels and repeats it on the way back. The
    WIC starts as that mean, see :meth:`~wic_layers.blocks.ChannelMean.as_wic`, and is free to
    become what serves better. Rounding to 8 bits, in training as noise, is the caller's:
    :func:`~wic_layers.quantize`, :func:`~wic_layers.layer.quantization.quantize_by_noise`.

    Args:
        in_channels: Channels of the RGB images together: 6 for a stereo pair.
        out_channels: Channels of the result: 3, or 1 for grey.
        scale: 1 keeps the size, 2 halves it.
        couplings: Affine couplings: the paper's 10, for stereo pairs and a single image 16.
        growth: Width of the dense blocks.
        features: Channels in which the relation module describes an image; 0 for none.
        haar: At a scale of 2, squeeze by the Haar transform, or else by a shuffle of pixels.
        order: At a scale of 2, how the squeezed channels stand: ``"bands"``, each sub-band of all
            images together (the authors' ``hl``), whose first is the first half of every coupling;
            or ``"images"``, all of an image together (their ``ref``), the first image first.
        channel_squeeze: As published: the mean of groups of channels.
        completion: Of the WIC, see :class:`~wic_layers.WIC`; zero when None.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W divisible by
        ``scale``.

    Raises:
        WICArgumentError: If the channels are no RGB images or no groups of ``out_channels``, no
            channels are dropped, or ``channel_squeeze`` comes with a completion.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 3; orders and halves of its code
    """

    closed_by = ("channel_squeeze", False)

    def __init__(
        self,
        in_channels: int = 6,
        out_channels: int = 3,
        *,
        scale: int = 1,
        couplings: int = 10,
        growth: int = 32,
        features: int = 64,
        haar: bool = True,
        order: Literal["bands", "images"] = "bands",
        channel_squeeze: bool = False,
        completion: CompletionName | Completion | None = None,
    ) -> None:
        if in_channels < 3 or in_channels % 3:
            raise WICArgumentError(f"Expected the channels of RGB images; got {in_channels}.")
        if scale not in (1, 2):
            raise WICArgumentError(f"Expected scale 1 or 2 (half the size); got {scale!r}.")
        if order not in ("bands", "images"):
            raise WICArgumentError(f'Expected order "bands" or "images"; got {order!r}.')
        channels = in_channels * scale**2
        if not 0 < out_channels < channels or channels % out_channels:
            raise WICArgumentError(
                f"Expected output channels of which several make up {channels}, which come in at "
                f"scale {scale}; got {out_channels}."
            )
        if channel_squeeze and completion is not None:
            raise WICArgumentError(
                "Expected no completion with channel_squeeze=True, which repeats its result; got "
                f"{completion!r}."
            )
        images = in_channels // 3
        blocks: list[nn.Module] = []
        if features:
            blocks.append(Relation(images, features, growth))
        split = out_channels
        if scale == 2:
            groups = 1 if order == "bands" else images
            squeeze = Haar(groups, mean=True) if haar else Squeeze(2, groups)
            blocks += [squeeze, WIC(channels, channels)]
            split = in_channels if order == "bands" else 4 * out_channels
        blocks += affine_couplings(couplings, channels, growth, split=split)
        mean = ChannelMean(channels // out_channels)
        last = mean if channel_squeeze else mean.as_wic(out_channels, completion)
        super().__init__(*blocks, last)
