"""DenseBlock: the network inside couplings. It needs no inverse."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from wic_layers.layer.cache import KernelCache, computed
from wic_layers.layer.pointwise import is_transformed
from wic_layers.layer.two_way import has_hooks

__all__ = ["DenseBlock"]

# batched gradients (``is_grads_batched``) come without an entry on functorch's stack
_is_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda x: False)

_Self = TypeVar("_Self", bound="DenseBlock")


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each fed with every result before it; zero at the start.

    In training it keeps its input and results once, and puts them together again on the way back,
    in place of every concatenation.

    Runs in channels-last memory, which its convolutions need to be fast. For inference
    :meth:`optimize` chooses their precision. Convolutions that were changed or exchanged
    (``conv1.padding_mode = "reflect"``), or that have hooks, are called as they are, without
    either.

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
        self._inference_dtype: torch.dtype | None = None
        self._cache = KernelCache()  # of weights in that dtype
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

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W)."""
        convolutions = self.convolutions()
        if self._is_watched_alone(x) and all(map(_is_untouched, convolutions)):
            if torch.is_grad_enabled():
                return self._keep_once(x, convolutions)
            if self.is_optimized():
                return self._infer(x, convolutions, cast(torch.dtype, self._inference_dtype))
        features = _channels_last(x)
        for conv in convolutions[:-1]:
            features = torch.cat((features, F.leaky_relu(conv(features), self.slope)), dim=1)
        out: Tensor = convolutions[-1](features)
        return out

    def convolutions(self) -> list[nn.Conv2d]:
        """The five convolutions, in their order."""
        return [cast(nn.Conv2d, self._modules[f"conv{index}"]) for index in range(1, 6)]

    def _is_watched_alone(self, x: Tensor) -> bool:
        """Whether nothing but autograd on its way back looks at what happens here."""
        return (
            not torch.compiler.is_compiling()
            and not torch.jit.is_tracing()  # type: ignore[attr-defined]
            and not is_transformed()
            and forward_ad._current_level < 0
            and type(x) is Tensor
        )

    def _keep_once(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
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

    def optimize(self, dtype: torch.dtype | None) -> None:
        """Sets the precision of the convolutions in ``eval()`` with gradients off.

        The weights are cast once and remembered for as long as the parameters are the same; off
        the CPU an edit through ``.data`` is not seen before ``eval()``. Compiled, exported, traced
        and transformed (``torch.func``) code runs as it did.

        Args:
            dtype: Such as ``torch.bfloat16``; None for that of the input.
        """
        self._inference_dtype = dtype
        self._cache.clear()

    def is_optimized(self) -> bool:
        """Whether the precision with gradients off is one that :meth:`optimize` has set."""
        return self._inference_dtype is not None and not self.training

    def _infer(self, x: Tensor, convolutions: list[nn.Conv2d], dtype: torch.dtype) -> Tensor:
        """The same in ``dtype``; the result is in that of the input."""
        blocks = _block_size(x.device.type, dtype)
        parameters = _parameters(convolutions)

        def narrowed() -> list[tuple[Tensor, Tensor]]:
            narrow = [each.to(dtype) for each in parameters]
            pairs = _paired(_in_blocks(narrow, x, blocks))
            return [(_to(weight, dtype), bias) for weight, bias in pairs]

        pairs = computed(self._cache.entries((), tuple(parameters)), dtype, narrowed)
        features = _pad_channels(x.to(dtype, memory_format=torch.channels_last), blocks)
        out, _ = _convolved(features, self.slope, pairs, F.leaky_relu_)
        return out[:, : len(parameters[-1])].to(x.dtype)

    def train(self: _Self, mode: bool = True) -> _Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Switches between training and evaluation, and forgets cast weights."""
        self._cache.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": KernelCache()}

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


def _parameters(convolutions: list[nn.Conv2d]) -> list[Tensor]:
    """Weights and biases in turn."""
    return [cast(Tensor, each) for conv in convolutions for each in (conv.weight, conv.bias)]


def _is_untouched(conv: nn.Module) -> bool:
    """Whether a convolution is the one that was built, and nobody hooked into it."""
    return (
        type(conv) is nn.Conv2d
        and "forward" not in conv.__dict__
        and conv.bias is not None
        and conv.padding == conv.stride == conv.dilation == (1, 1)
        and conv.groups == 1
        and conv.padding_mode == "zeros"
        and not has_hooks(conv)
    )


def _to(x: Tensor, dtype: torch.dtype) -> Tensor:
    """In another dtype; weights in channels-last memory."""
    if x.ndim == 4:
        return x.to(dtype, memory_format=torch.channels_last)
    return x.to(dtype)


def _channels_last(x: Tensor) -> Tensor:
    eager = not torch.compiler.is_compiling()
    if is_transformed() or (eager and _is_batched(x)):  # vmap knows no such memory
        return x
    return x.contiguous(memory_format=torch.channels_last)


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
        features, x, *parameters = ctx.saved_tensors
        if torch.is_grad_enabled():  # of higher order
            return _again(x, ctx.slope, parameters, gradients[0], ctx.needs_input_grad)
        weights = parameters[::2]
        needs_gradient = ctx.needs_input_grad
        of_parameters: list[Tensor | None] = []
        below, total = features.shape[1], None  # channels that a convolution sees
        for index in range(len(weights) - 1, -1, -1):
            if total is None:
                gradient = _channels_last(gradients[0])
            else:  # that of the result which this convolution gave
                width = weights[index].shape[0]
                below -= width
                gradient = _channels_last(
                    torch.ops.aten.leaky_relu_backward(
                        total[:, below:], features[:, below : below + width], ctx.slope, True,  # noqa: FBT003
                    )
                )  # fmt: skip
                total = total[:, :below]
            needs = (
                needs_gradient[0] or index > 0,
                *needs_gradient[2 + 2 * index : 4 + 2 * index],
            )
            back, weight, bias = torch.ops.aten.convolution_backward(
                gradient, _channels_last(features[:, :below]), weights[index],
                [len(weights[index])], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, needs,  # noqa: FBT003
            )  # fmt: skip
            of_parameters += [bias, weight]
            if back is not None:
                total = back if total is None else back.add_(total)
        return (total if needs_gradient[0] else None, None, *of_parameters[::-1])


def _again(
    x: Tensor,
    slope: float,
    parameters: list[Tensor],
    gradient: Tensor,
    needs_gradient: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """The gradients by plain autograd, which can be differentiated again."""
    out, _ = _convolved(x, slope, _paired(parameters), F.leaky_relu)
    needs = [needs_gradient[0], *needs_gradient[2:]]
    inputs = [each for each, is_needed in zip([x, *parameters], needs, strict=True) if is_needed]
    gradients = iter(torch.autograd.grad(out, inputs, gradient, create_graph=True))
    first, *others = (next(gradients) if is_needed else None for is_needed in needs)
    return (first, None, *others)
