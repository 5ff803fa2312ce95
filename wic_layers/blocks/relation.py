"""Relation: what images have to say about each other; CrossImage, the network inside it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wic_layers.blocks.block import InvertibleBlock, title_of
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import WICArgumentError, WICShapeError

__all__ = ["CrossImage", "Relation"]


class CrossImage(nn.Module):
    """Every image described for itself, all descriptions merged anew for every image.

    Each image has a head (a dense block and a 1x1 convolution), a merging 3x3 convolution of the
    features of all heads, and a tail (a 1x1 convolution and a dense block), which is zero at the
    start. No two share weights.

    Args:
        images: How many RGB images stand in the channels.
        features: Channels of a description.
        growth: Width of the dense blocks.

    Shape:
        (B, 3 images, H, W) to the same.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 3.1 (relation module); the layers of its code
    """

    reach = 11
    """How many pixels it sees to each side."""

    def __init__(self, images: int, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        each = range(images)
        self.heads = nn.ModuleList(DenseBlock(3, features, growth) for _ in each)
        self.described = nn.ModuleList(nn.Conv2d(features, features, 1) for _ in each)
        self.merges = nn.ModuleList(
            nn.Conv2d(features * images, features, 3, padding=1) for _ in each
        )
        self.merged = nn.ModuleList(nn.Conv2d(features, features, 1) for _ in each)
        self.tails = nn.ModuleList(DenseBlock(features, 3, growth) for _ in each)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 3 images, H, W) to (B, 3 images, H, W)."""
        images = x.split(3, dim=1)
        heads = zip(images, self.heads, self.described, strict=True)
        features = torch.cat([describe(head(image)) for image, head, describe in heads], dim=1)
        tails = zip(self.merges, self.merged, self.tails, strict=True)
        return torch.cat([tail(mix(merge(features))) for merge, mix, tail in tails], dim=1)


class Relation(InvertibleBlock):
    """What images have to say about each other, added to each: IICNet's relation module.

    ``x + 0.2 there(x)`` forward and ``y + 0.2 back(y)`` on the way back, with two networks of the
    same kind. The second is trained to undo the first and does not do so by its construction: this
    is the one block whose inverse is learned. At the start both directions are the identity.

    Args:
        images: How many RGB images stand in the channels.
        features: Channels in which each is described to the others.
        growth: Width of the dense blocks inside.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Eq.
        | (1), with the factor 0.2 and the layers of its code

    Raises:
        WICArgumentError: If an argument is less than 1.
        WICShapeError: If another number of channels comes in.
    """

    keeps_shape = True
    networks = ("there", "back")
    reach = CrossImage.reach  # in which the images stand beside each other

    def __init__(self, images: int, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        for name, value in (("images", images), ("features", features), ("growth", growth)):
            if value < 1:
                raise WICArgumentError(f"Expected {name} of at least 1; got {value!r}.")
        self.images = images
        self.features = features
        self.there = CrossImage(images, features, growth)
        self.back = CrossImage(images, features, growth)

    def _forward(self, x: Tensor) -> Tensor:
        return self._with(x, self.there)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._with(y, self.back)

    def _with(self, x: Tensor, network: nn.Module) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 * self.images:
            raise WICShapeError(
                f"{title_of(self)}: expected {3 * self.images} channels; got {tuple(x.shape)}."
            )
        return x + 0.2 * network(x).to(x.dtype)

    def keep_one_way(self, *, rev: bool) -> None:
        """Drops the other direction's network."""
        del self._modules["there" if rev else "back"]

    def extra_repr(self) -> str:
        return f"{self.images}, {self.features}"
