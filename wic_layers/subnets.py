"""The networks inside couplings. They need no inverse."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["DenseBlock"]


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each fed with every result before it; zero at the start.

    Runs in channels-last memory, which its convolutions need to be fast.

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the result.
        growth: Channels of each of the four hidden results.
        slope: Slope of LeakyReLU for negative values: 0.2 in IRN and WIN, 0.01 in HiNet.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H, W).

    References:
        | Invertible Image Rescaling (Xiao et al., 2020), Section 3.2; the start of its published
        | code
    """

    def __init__(
        self, in_channels: int, out_channels: int, growth: int = 32, slope: float = 0.2
    ) -> None:
        super().__init__()
        self.slope = slope
        for index in range(1, 6):
            width = in_channels + (index - 1) * growth
            conv = nn.Conv2d(width, growth if index < 5 else out_channels, 3, padding=1)
            if index < 5:
                nn.init.xavier_normal_(conv.weight)
                with torch.no_grad():
                    conv.weight.mul_(0.1)
            else:
                nn.init.zeros_(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.add_module(f"conv{index}", conv)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W)."""
        convolutions = list(self.children())
        features = x.contiguous(memory_format=torch.channels_last)
        for conv in convolutions[:-1]:
            features = torch.cat((features, F.leaky_relu(conv(features), self.slope)), dim=1)
        out: Tensor = convolutions[-1](features)
        return out

    def extra_repr(self) -> str:
        return f"slope={self.slope}"
