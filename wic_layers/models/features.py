"""Features, what a conditional flow sees of the channels that stay."""

from __future__ import annotations

from torch import Tensor, nn

from wic_layers.blocks.dense_block import DenseBlock

__all__ = ["Features"]


class _ResidualDense(nn.Module):
    """Three dense blocks, each and all of them a small change of their input (RRDB)."""

    def __init__(self, channels: int, growth: int) -> None:
        super().__init__()
        for index in range(1, 4):
            block = DenseBlock(channels, channels, growth)
            nn.init.xavier_normal_(block.get_parameter("conv5.weight"), gain=0.1)
            self.add_module(f"block{index}", block)

    def forward(self, x: Tensor) -> Tensor:
        inner = x
        for block in self.children():
            inner = inner + 0.2 * block(inner)
        return x + 0.2 * inner


class Features(nn.Module):
    """What a conditional flow sees of the channels that stay: convolution, trunk, convolution."""

    def __init__(self, in_channels: int, width: int, depth: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        trunk = [_ResidualDense(width, max(width // 4, 1)) for _ in range(depth)]
        self.trunk = nn.Sequential(*trunk)
        self.last = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        out: Tensor = self.last(self.trunk(first)) + first
        return out
