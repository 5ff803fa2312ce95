"""DLVIRN and DLVHiNet, IRN and HiNet with a second latent on the way forward; DualLatent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from wic_layers.blocks import Chain, Haar, InverseHaar, Latent
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network, affine_couplings, closing
from wic_layers.models.hinet import hiding_images, hinet_couplings

__all__ = ["DLVIRN", "DLVHiNet", "DualLatent", "Z", "closing_z"]

Z = Literal["zero", "drawn"]
"""What a published network has in place of the channels that it drops: zeros, or a draw."""


class DualLatent(Chain):
    """What a network has that takes a latent w on the way forward, beside the z on the way back.

    Its first block is a :class:`~wic_layers.blocks.Latent`. What stands there is zero, which is
    the middle of w's distribution, unless w is given: so an image becomes the same file every
    time, in tiles or whole. The paper draws w in training, as ``wic train`` does, and in its tests
    too: that is ``model(x, w=model.draw(x))``. On the way back w is found again, and discarded.

    References:
        | Enhancing Image Rescaling using Dual Latent Variables in Invertible Neural Network (Zhang
        | et al., 2022), Eq. (4) and (9), Section 3.3
    """

    if TYPE_CHECKING:

        def __call__(
            self,
            x: Tensor,
            rev: bool = False,  # noqa: FBT001, FBT002
            w: Tensor | None = None,
        ) -> Tensor: ...

    def forward(
        self,
        x: Tensor,
        rev: bool = False,  # noqa: FBT001, FBT002 - as IRN calls it
        w: Tensor | None = None,
    ) -> Tensor:
        """Maps ``x`` forward, or back with ``rev=True``.

        Args:
            x: Images (B, in_channels, H, W) in [0, 1].
            rev: The way back; takes no ``w``.
            w: The latent (B, w_channels, H, W), standard normal; zeros when None.
        """
        if w is None:
            return super().forward(x, rev)
        if rev:
            raise WICArgumentError("Expected no w with rev=True: the way back finds it by itself.")
        if isinstance(self, Network):  # whose colours may be of another order inside
            return self.turn_picture(self._with(self.turn_images(x), w))
        return self._with(x, w)

    def _with(self, x: Tensor, w: Tensor) -> Tensor:
        first: Latent = self[0]
        return self._through(self._blocks()[1:], first.join(x, w))

    def draw(self, x: Tensor) -> Tensor:
        """Returns a standard normal w for images ``x``: (B, w_channels, H, W)."""
        first: Latent = self[0]
        shape = (x.shape[0], first.channels, *x.shape[2:])
        return torch.randn(shape, dtype=x.dtype, device=x.device)


def closing_z(
    channels: int,
    out_channels: int,
    z: Z | None,
    completion: CompletionName | Completion | None,
) -> WIC:
    """The end of a network that was published with this z: that, or a WIC there."""
    if z not in (None, "zero", "drawn"):
        raise WICArgumentError(f'Expected z "zero", "drawn" or None (a WIC); got {z!r}.')
    if z is not None and completion is not None:
        raise WICArgumentError(
            f"Expected no completion with z={z!r}, which is what completes; got {completion!r}."
        )
    if z == "zero":
        return WIC(channels, out_channels, completion="zero", parametrization="fixed")
    return closing(channels, out_channels, random_z=z == "drawn", completion=completion)


class DLVIRN(DualLatent, Network):
    """DLV-IRN: IRN for rescaling with a latent w, with a WIC in place of its z, or as published.

    .. code-block:: none

        image --+
                +--> Haar --> couplings --> [Haar --> couplings] --> WIC --> small picture
        w ------+    (scale 2)              (scale 4)                drops channels, was: z

    The low band of the image is the first half of every coupling; its other bands and all of w's
    are the second, the mixture branch. Inputs and outputs are pixels in [0, 1].

    Args:
        in_channels: Channels of the input image.
        out_channels: Channels of the result.
        scale: 2 or 4: how many times smaller the result is.
        couplings: Affine couplings in each of the stages; there are two for a scale of 4.
        growth: Width of the dense blocks inside them.
        w_channels: Channels C_w of w, per pixel of the input.
        z: ``"zero"`` as published: the picture is in the first channels, the others are dropped,
            and zero on the way back. ``"drawn"``: drawn anew there, as in the first rows of the
            paper's Table 1. None: a WIC, trained with the network, drops and completes them.
        completion: Of the WIC, see :class:`~wic_layers.WIC`; zero when None.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W divisible by
        ``scale``.

    Raises:
        WICArgumentError: If ``scale``, ``w_channels`` or ``z`` is another one, no channels are
            dropped, or a completion comes with ``z``.

    References:
        | Enhancing Image Rescaling using Dual Latent Variables in Invertible Neural Network (Zhang
        | et al., 2022), Section 3.3 and Fig. 2
    """

    closed_by = ("z", None)

    def __init__(
        self,
        in_channels: int = 3,
        out_channels: int = 3,
        *,
        scale: int = 2,
        couplings: int = 8,
        growth: int = 32,
        w_channels: int = 2,
        z: Z | None = None,
        completion: CompletionName | Completion | None = None,
    ) -> None:
        check_rescaling(in_channels, out_channels, scale)
        blocks: list[nn.Module] = [Latent(w_channels)]
        channels = in_channels + w_channels
        for _ in range(scale // 2):
            channels *= 4
            blocks.append(Haar(mean=True))
            blocks += affine_couplings(couplings, channels, growth, split=out_channels)
        super().__init__(*blocks, closing_z(channels, out_channels, z, completion))


def check_rescaling(in_channels: int, out_channels: int, scale: int) -> None:
    """Checks the arguments of a network for rescaling by 2 or 4."""
    if scale not in (2, 4):
        raise WICArgumentError(f"Expected scale 2 or 4; got {scale!r}.")
    if not 0 < out_channels <= in_channels:
        raise WICArgumentError(
            f"Expected at most as many output channels as input channels, {in_channels}; got "
            f"{out_channels}."
        )


class DLVHiNet(DualLatent, Network):
    """DLV-HiNet: HiNet with a latent w, with a WIC in place of its random z, or as published.

    .. code-block:: none

        cover,   half of w --+
                             +--> Haar --> couplings --> WIC --> inverse Haar --> stego image
        secrets, half of w --+                           drops channels, was: z

    Cover and secrets have an equal share of w's channels behind their own, so that each half of a
    coupling holds some: the cover's the first, the secrets' the second. Besides the secrets'
    sub-bands those of the cover's w are dropped. Inputs and outputs are pixels in [0, 1].

    Args:
        in_channels: Channels of cover and secrets together: 6 for one secret.
        out_channels: Channels of the stego image.
        couplings: Number of affine couplings.
        growth: Width of the dense blocks inside them.
        w_channels: Channels C_w of w, of cover and secrets together.
        z: See :class:`DLVIRN`.
        completion: Of the WIC, see :class:`~wic_layers.WIC`; zero when None.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H, W); H and W even.

    Raises:
        WICArgumentError: If the channels are no images of ``out_channels``, they cannot share
            w's, ``z`` is another one, or a completion comes with it.

    References:
        | Enhancing Image Rescaling using Dual Latent Variables in Invertible Neural Network (Zhang
        | et al., 2022), Section 4.1 (image hiding). It rounds the stego image in training, as
        | all networks here do.
    """

    closed_by = ("z", None)

    def __init__(
        self,
        in_channels: int = 6,
        out_channels: int = 3,
        *,
        couplings: int = 16,
        growth: int = 32,
        w_channels: int = 2,
        z: Z | None = None,
        completion: CompletionName | Completion | None = None,
    ) -> None:
        images = hiding_images(in_channels, out_channels)
        latent = Latent(w_channels, images)
        together = in_channels + w_channels
        # each channel's sub-bands side by side: the picture's come first, then those of its w
        haar = Haar(together)
        couples = hinet_couplings(couplings, 4 * together, 4 * together // images, growth)
        last = closing_z(4 * together, 4 * out_channels, z, completion)
        super().__init__(latent, haar, *couples, last, InverseHaar(out_channels))

    @property
    def image_channels(self) -> int:
        """Channels of each image: the cover's, and as many of every secret."""
        channels: int = self.config["out_channels"]
        return channels
