"""DenseBlock: the network inside couplings. It needs no inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wic_layers.blocks.block import reach_of
from wic_layers.blocks.coupling_net import CouplingNet, channels_last
from wic_layers.layer.pointwise import outside_autocast

__all__ = ["DenseBlock"]


class DenseBlock(CouplingNet):
    """Five 3x3 convolutions, each fed with every result before it; zero at the start.

    In training it keeps its input and results once, and puts them together again on the way back,
    in place of every concatenation. What else it does is that of :class:`CouplingNet`.

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
        super().__init__(slope)
        widths = [
            (in_channels + index * growth, growth if index < 4 else out_channels)
            for index in range(5)
        ]
        self.add_convolutions(widths, _start_small)

    @property
    def reach(self) -> int:
        """How many pixels it sees to each side."""
        return sum(map(reach_of, self.convolutions()))

    @property
    def stored(self) -> int:
        """Channels of what the last convolution sees."""
        return self.convolutions()[-1].in_channels

    def plain(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
        """The result by the modules, as they are."""
        features = channels_last(x)
        for conv in convolutions[:-1]:
            features = torch.cat((features, F.leaky_relu(conv(features), self.slope)), dim=1)
        out: Tensor = convolutions[-1](features)
        return out

    def with_gradients(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
        """The same, with what autograd needs kept once."""
        parameters = _parameters(convolutions)
        kind = x.device.type
        is_double = torch.float64 in (x.dtype, parameters[0].dtype)  # autocast leaves it alone
        if torch.is_autocast_enabled(kind) and not is_double:
            dtype = torch.get_autocast_dtype(kind)
            with torch.autocast(kind, enabled=False):
                narrow = [_to(each, dtype) for each in parameters]
                blocks = _block_size(kind, dtype)
                padded = _pad_channels(x.to(dtype), blocks)
                out: Tensor = _Dense.apply(padded, self.slope, *_in_blocks(narrow, x, blocks))
                return out[:, : len(parameters[-1])]
        out = _Dense.apply(x, self.slope, *parameters)
        return out  # noqa: RET504 - the type checker wants it named

    def narrowed(
        self, x: Tensor, convolutions: list[nn.Conv2d], dtype: torch.dtype
    ) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases in ``dtype``, with channels of zeros where those make it faster."""
        narrow = [each.to(dtype) for each in _parameters(convolutions)]
        pairs = _paired(_in_blocks(narrow, x, _block_size(x.device.type, dtype)))
        return [(_to(weight, dtype), bias) for weight, bias in pairs]

    def lower(self, x: Tensor, parameters: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The result in the parameters' precision, in that of ``x``."""
        dtype = parameters[0][0].dtype
        features = x.to(dtype, memory_format=torch.channels_last)
        features = _pad_channels(features, _block_size(x.device.type, dtype))
        out, _ = _convolved(features, self.slope, parameters, F.leaky_relu_)
        return out[:, : self.convolutions()[-1].out_channels].to(x.dtype)


def _start_small(weight: Tensor) -> None:
    nn.init.xavier_normal_(weight)
    with torch.no_grad():
        weight.mul_(0.1)


def _parameters(convolutions: list[nn.Conv2d]) -> list[Tensor]:
    """Weights and biases in turn."""
    return [cast(Tensor, each) for conv in convolutions for each in (conv.weight, conv.bias)]


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In another dtype; weights in channels-last memory."""
    if x.ndim == 4:
        return x.to(dtype, memory_format=torch.channels_last)
    return x.to(dtype)


def _convolved(
    features: Tensor,
    slope: float,
    convolutions: Sequence[tuple[Tensor, Tensor]],
    activation: Callable[[Tensor, float], Tensor],
) -> tuple[Tensor, Tensor]:
    """The result of a dense block's weights and biases, and the last one's input."""
    *hidden, (last, last_bias) = convolutions
    for weight, bias in hidden:
        new = activation(F.conv2d(features, weight, bias, padding=1), slope)
        features = torch.cat((features, new), dim=1)
    return F.conv2d(features, last, last_bias, padding=1), features


def _block_size(kind: str, dtype: torch.dtype) -> int:
    """In what multiples of channels convolutions are fast: tensor cores read 16 bytes at once."""
    return 8 if kind == "cuda" and dtype.itemsize == 2 else 1


def _pad_channels(x: Tensor, blocks: int) -> Tensor:
    """Channels of zeros behind those of ``x``, up to a multiple of ``blocks``."""
    more = -x.shape[1] % blocks
    return F.pad(x, (0, 0, 0, 0, 0, more)) if more else x


def _in_blocks(parameters: Sequence[Tensor], x: Tensor, blocks: int) -> list[Tensor]:
    """Weights and biases in turn, for an input of ``x``'s channels and zeros behind them."""
    inputs = x.shape[1]
    *padded, bias = parameters
    if inputs % blocks:
        for index, weight in enumerate(padded):
            if weight.ndim == 4:
                first = _pad_channels(weight[:, :inputs], blocks)
                padded[index] = torch.cat((first, weight[:, inputs:]), dim=1)
    more = -len(bias) % blocks
    if more:
        padded[-1] = F.pad(padded[-1], (0, 0) * 3 + (0, more))
        bias = F.pad(bias, (0, more))
    return [*padded, bias]


def _paired(parameters: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return list(zip(parameters[::2], parameters[1::2], strict=True))


class _Dense(torch.autograd.Function):
    """The convolutions of a dense block; keeps the last one's input, which holds all others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: float, *parameters: Tensor) -> Tensor:
        first = x.contiguous(memory_format=torch.channels_last)
        out, features = _convolved(first, slope, _paired(parameters), F.leaky_relu_)
        ctx.save_for_backward(features, x, *parameters)  # x for gradients of higher order
        ctx.slope = slope
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        # in the precision of what was kept, also where a caller's autocast is still on
        of_x, of_parameters = outside_autocast(partial(_back, ctx), *gradients)
        return (of_x, None, *of_parameters)


Gradients = tuple[Tensor | None, list[Tensor | None]]
"""Those of a dense block's input and of its parameters in their order, where they are needed."""


def _back(ctx: Any, gradient: Tensor) -> Gradients:
    """The gradients, from what forward kept.

    Whatever a convolution sees, all later ones see too, so the way back is a dense block as well:
    the gradient of what one of them gave is one convolution of all later gradients, put together.
    """
    features, x, *parameters = ctx.saved_tensors
    needs = ctx.needs_input_grad
    if torch.is_grad_enabled():  # of higher order
        return _again(x, ctx.slope, parameters, gradient, [needs[0], *needs[2:]])
    weights = parameters[::2]
    of_parameters: list[Tensor | None] = []
    newest = later = channels_last(gradient)
    below = features.shape[1]  # channels that a convolution sees
    for index in range(len(weights) - 1, -1, -1):
        weight, bias = _of_convolution(
            newest, features[:, :below], weights[index], needs[2 + 2 * index : 4 + 2 * index]
        )
        of_parameters += [bias, weight]
        start = below - len(weights[index - 1]) if index else 0
        if index or needs[0]:
            back = F.conv2d(later, _turned(weights[index:], slice(start, below)), padding=1)
        if index:
            # copied first: a CPU goes through few channels fast where they lie together
            result = channels_last(features[:, start:below])
            newest = channels_last(
                torch.ops.aten.leaky_relu_backward(back, result, ctx.slope, True)  # noqa: FBT003
            )
            later = torch.cat((later, newest), dim=1)
            below = start
    return (back if needs[0] else None), of_parameters[::-1]


def _of_convolution(
    gradient: Tensor, seen: Tensor, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a convolution's weight and bias, where they are needed."""
    if not any(needs):
        return None, None
    _, *both = torch.ops.aten.convolution_backward(
        gradient, channels_last(seen), weight, [len(weight)], [1, 1], [1, 1], [1, 1], False,  # noqa: FBT003
        [0, 0], 1, (False, *needs),
    )  # fmt: skip
    return both[0], both[1]


def _turned(weights: Sequence[Tensor], channels: slice) -> Tensor:
    """The weight that takes results' gradients, the last result first, to those of channels."""
    seen = torch.cat([weight[:, channels] for weight in reversed(weights)])
    return seen.flip(2, 3).transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _again(
    x: Tensor,
    slope: float,
    parameters: list[Tensor],
    gradient: Tensor,
    needs: Sequence[bool],
) -> Gradients:
    """The same by plain autograd, which can be differentiated again."""
    out, _ = _convolved(x, slope, _paired(parameters), F.leaky_relu)
    inputs = [each for each, is_needed in zip([x, *parameters], needs, strict=True) if is_needed]
    gradients = iter(torch.autograd.grad(out, inputs, gradient, create_graph=True))
    first, *others = (next(gradients) if is_needed else None for is_needed in needs)
    return first, others
