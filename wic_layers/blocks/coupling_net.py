"""CouplingNet: what networks of convolutions inside couplings have in common."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import count, takewhile
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from wic_layers.blocks.pieces import run_in_pieces
from wic_layers.layer.cache import KernelCache, computed
from wic_layers.layer.pointwise import is_transformed
from wic_layers.layer.two_way import has_hooks

__all__ = ["CouplingNet", "channels_last"]

# batched gradients (``is_grads_batched``) come without an entry on functorch's stack
_is_batched = getattr(torch._C._functorch, "is_legacy_batchedtensor", lambda x: False)

_Self = TypeVar("_Self", bound="CouplingNet")


class CouplingNet(nn.Module):
    """Base of networks inside couplings: 3x3 convolutions in a row, and LeakyReLU between them.

    They need no inverse. They run in channels-last memory, which their convolutions need to be
    fast, and without gradients large images a piece at a time. For inference :meth:`optimize`
    chooses their precision. Convolutions that were changed or exchanged
    (``conv1.padding_mode = "reflect"``), or that have hooks, are called as they are, without any
    of that.

    A subclass has its convolutions in ``conv1``, ``conv2``, ... and the methods below.

    Attributes:
        slope: Slope of LeakyReLU for negative values.
        cell: What its results' places count from: shifted by so many pixels, an image gives the
            same, shifted.
    """

    cell = 1

    def __init__(self, slope: float) -> None:
        super().__init__()
        self.slope = slope
        self._inference_dtype: torch.dtype | None = None
        self._cache = KernelCache()  # of weights in that dtype

    def add_convolutions(
        self, widths: Sequence[tuple[int, int]], start: Callable[[Tensor], object]
    ) -> None:
        """Adds convolutions of so many inputs and results; the last one is zero at the start.

        ``start`` draws the weights of the others.
        """
        for index, (inputs, outputs) in enumerate(widths, start=1):
            conv = nn.Conv2d(inputs, outputs, 3, padding=1)
            (start if index < len(widths) else nn.init.zeros_)(conv.weight)
            if conv.bias is not None:
                nn.init.zeros_(conv.bias)
            self.add_module(f"conv{index}", conv)

    @property
    def reach(self) -> int:
        """How many pixels it sees to each side."""
        raise NotImplementedError

    @property
    def stored(self) -> int:
        """Channels, of its input's size, that it stores at once without gradients."""
        raise NotImplementedError

    def plain(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
        """The result by the modules, as they are."""
        raise NotImplementedError

    def with_gradients(self, x: Tensor, convolutions: list[nn.Conv2d]) -> Tensor:
        """The result of convolutions that were left as they were built, for autograd alone."""
        return self.plain(x, convolutions)

    def narrowed(
        self, x: Tensor, convolutions: list[nn.Conv2d], dtype: torch.dtype
    ) -> list[tuple[Tensor, Tensor]]:
        """Weights and biases for :meth:`lower` on inputs like ``x``."""
        return [
            (
                conv.weight.to(dtype, memory_format=torch.channels_last),
                cast(Tensor, conv.bias).to(dtype),
            )
            for conv in convolutions
        ]

    def lower(self, x: Tensor, parameters: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The result of weights and biases in a precision of their own, in that of ``x``."""
        raise NotImplementedError

    if TYPE_CHECKING:

        def __call__(self, x: Tensor) -> Tensor: ...

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W)."""
        convolutions = self.convolutions()
        if not (_is_watched_alone(x) and all(map(_is_untouched, convolutions))):
            return self.plain(x, convolutions)
        if torch.is_grad_enabled():
            return self.with_gradients(x, convolutions)
        return run_in_pieces(
            self._without_gradients, x, reach=self.reach, channels=self.stored, cell=self.cell
        )

    def _without_gradients(self, x: Tensor) -> Tensor:
        convolutions = self.convolutions()
        dtype = self._inference_dtype
        if dtype is None or self.training:
            return self.plain(x, convolutions)
        parameters = tuple(each for conv in convolutions for each in conv.parameters())
        narrowed = computed(
            self._cache.entries((), parameters),
            dtype,
            lambda: self.narrowed(x, convolutions, dtype),
        )
        return self.lower(x, narrowed)

    def convolutions(self) -> list[nn.Conv2d]:
        """Its convolutions, in their order."""
        named = (self._modules.get(f"conv{index}") for index in count(1))
        return [cast(nn.Conv2d, each) for each in takewhile(lambda each: each is not None, named)]

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

    @property
    def is_run_in_pieces(self) -> bool:
        """Whether large images are run a piece at a time without gradients."""
        return all(map(_is_untouched, self.convolutions()))

    def train(self: _Self, mode: bool = True) -> _Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Switches between training and evaluation, and forgets cast weights."""
        self._cache.clear()
        return super().train(mode)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_cache": KernelCache()}

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


def _is_watched_alone(x: Tensor) -> bool:
    """Whether nothing but autograd on its way back looks at what happens here."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and not is_transformed()
        and forward_ad._current_level < 0
        and type(x) is Tensor
    )


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


def channels_last(x: Tensor) -> Tensor:
    """In channels-last memory, where it can be."""
    eager = not torch.compiler.is_compiling()
    if is_transformed() or (eager and _is_batched(x)):  # vmap knows no such memory
        return x
    return x.contiguous(memory_format=torch.channels_last)
