"""SqueezedBlock: a network inside couplings that works at half the size."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from wic_layers.blocks.coupling_net import CouplingNet, channels_last
from wic_layers.errors import WICArgumentError

__all__ = ["SqueezedBlock"]


class SqueezedBlock(CouplingNet):
    """3x3 convolutions on squares of pixels; zero at the start.

    Squares of ``factor`` by ``factor`` pixels are made channels, and the result's channels squares
    again. So it has several times the parameters of a :class:`~wic_layers.blocks.DenseBlock` with
    as many operations, and sees farther; ``benchmarks/structures.py`` compares what both learn.
    Sides that ``factor`` does not divide are filled with zeros.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        width: Channels between the convolutions.
        depth: Number of convolutions, at least 2.
        factor: Sides of the squares.
        slope: Slope of LeakyReLU for negative values.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H, W).

    Raises:
        WICArgumentError: If there are fewer than 2 convolutions.

    References:
        | Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel
        | Convolutional Neural Network (Shi et al., 2016), Section 2.2: the shuffle
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        width: int = 64,
        *,
        depth: int = 4,
        factor: int = 2,
        slope: float = 0.2,
    ) -> None:
        if depth < 2:
            raise WICArgumentError(f"Expected a depth of at least 2; got {depth}.")
        super().__init__(slope)
        self.cell = factor
        inputs, outputs = in_channels * factor**2, out_channels * factor**2
        widths = [inputs, *[width] * (depth - 1), outputs]
        self.add_convolutions(list(pairwise(widths)), partial(nn.init.kaiming_normal_, a=slope))

    @property
    def reach(self) -> int:
        """So many squares as it has convolutions, from any pixel of one to any of another."""
        return (len(self.convolutions()) + 1) * self.cell - 1

    @property
    def stored(self) -> int:
        """Of a convolution's input and result, over the pixels of a square."""
        widest = max(conv.in_channels + conv.out_channels for conv in self.convolutions())
        return -(-widest // self.cell**2)

    def plain(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
        """The result by the modules, as they are."""
        features = self._squares(x)
        for conv in convolutions[:-1]:
            features = F.leaky_relu(conv(features), self.slope)
        return self._pixels(convolutions[-1](features), x)

    def with_gradients(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
        """The same; what goes into a LeakyReLU is not kept."""
        features = self._squares(x)
        for conv in convolutions[:-1]:
            features = F.leaky_relu_(conv(features), self.slope)
        return self._pixels(convolutions[-1](features), x)

    def lower(self, x: Tensor, parameters: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The result in the parameters' precision, in that of ``x``."""
        *hidden, (last, last_bias) = parameters
        features = self._squares(x.to(last.dtype))
        for weight, bias in hidden:
            features = F.leaky_relu_(F.conv2d(features, weight, bias, padding=1), self.slope)
        return self._pixels(F.conv2d(features, last, last_bias, padding=1), x).to(x.dtype)

    def _squares(self, x: Tensor) -> Tensor:
        down, across = (-side % self.cell for side in x.shape[-2:])
        return channels_last(F.pixel_unshuffle(F.pad(x, (0, across, 0, down)), self.cell))

    def _pixels(self, features: Tensor, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        return F.pixel_shuffle(features, self.cell)[..., :height, :width]

    def extra_repr(self) -> str:
        return f"factor={self.cell}, slope={self.slope}"
