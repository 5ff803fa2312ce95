"""A matrix applied to the channels of a tensor, outside autocast; what watches the tensors."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.fx.experimental.proxy_tensor import ProxyTorchDispatchMode
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack as _modes

__all__ = [
    "as_kernel",
    "autocast_is_on",
    "convolve",
    "has_values",
    "is_transformed",
    "multiply",
    "outside_autocast",
]

_CONVOLUTIONS = (None, F.conv1d, F.conv2d, F.conv3d)
_ONES = ((), (1,), (1, 1), (1, 1, 1))


def as_kernel(matrix: Tensor, ndim: int) -> Tensor:
    """Returns a matrix (M, n) with the trailing ones that a convolution needs."""
    return matrix if ndim == 2 else matrix.view(*matrix.shape, *_ONES[ndim - 2])


def convolve(x: Tensor, matrix: Tensor) -> Tensor:
    """Applies a matrix or kernel to the channels of x, in x's dtype and outside autocast."""
    on_cpu, dtype, ndim = x.is_cpu, x.dtype, x.ndim
    if autocast_is_on("cpu" if on_cpu else x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return convolve(x, matrix)
    if matrix.dtype != dtype:
        matrix = matrix.to(dtype)
    if ndim == 2:
        return F.linear(x, matrix)
    if dtype == torch.float32 and (_is_faster_as_product(x, matrix) if on_cpu else x.is_cuda):
        return multiply(x, matrix)
    kernel = matrix if matrix.ndim == ndim else as_kernel(matrix, ndim)
    convolution = _CONVOLUTIONS[ndim - 2]
    return convolution(x, kernel)  # type: ignore[misc]


def _is_faster_as_product(x: Tensor, matrix: Tensor) -> bool:
    """Whether a product beats torch's convolution of float32 images on a CPU.

    From 16 images or two threads on that one is oneDNN's, which pads few channels to blocks of 16
    and copies: 1.1 to 10 times as long as the product up to 32 channels, less from 48 on
    (benchmarks/layer.py).
    """
    if torch.compiler.is_compiling() or (x.shape[0] < 16 and torch.get_num_threads() == 1):
        return False
    return (
        min(matrix.shape[:2]) <= 32
        and x.is_contiguous()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined]
        and not is_transformed()
    )


def multiply(x: Tensor, matrix: Tensor) -> Tensor:
    """Applies a matrix or kernel to the channels of x as a matrix product.

    On CUDA float32 convolutions round to TF32's ten bits unless told otherwise, products do not.
    """
    shape = x.shape
    if matrix.ndim > 2:
        matrix = matrix.flatten(1)
    # not matmul, which copies x where it needs a gradient
    product = torch.bmm(matrix.expand(shape[0], *matrix.shape), x.flatten(2))
    return product.view(shape[0], matrix.shape[0], *shape[2:])


def autocast_is_on(kind: str) -> bool:
    """Returns whether autocast is on for a type of device; some, as meta, have none."""
    if kind not in ("cpu", "cuda") and not torch.amp.is_autocast_available(kind):
        return False
    return torch.is_autocast_enabled(kind)


def outside_autocast(function: Any, *tensors: Tensor, device: torch.device | None = None) -> Any:
    """Returns ``function(*tensors)``, computed with autocast off on their device."""
    kind = (tensors[0].device if device is None else device).type
    if not autocast_is_on(kind):
        return function(*tensors)
    with torch.autocast(kind, enabled=False):
        return function(*tensors)


_SYMBOLIC = (FakeTensorMode, ProxyTorchDispatchMode)
_count_modes = torch._C._len_torch_dispatch_stack
_peek_transforms = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: None)


def is_transformed() -> bool:
    """Returns whether a functorch transform (vmap, grad, jvp) is at work."""
    return _peek_transforms() is not None


def has_values(x: Tensor) -> bool:
    """Returns whether Python may read the numbers of a tensor.

    Not those of meta and fake tensors, nor while a transform, ``make_fx``, ``torch.compile`` or
    tracing watches what is done with them.
    """
    return not (
        torch.compiler.is_compiling()
        or torch.jit.is_tracing()  # type: ignore[attr-defined]
        or is_transformed()
        or x.is_meta
        or isinstance(x, FakeTensor)
        or (_count_modes() and any(isinstance(mode, _SYMBOLIC) for mode in _modes()))
    )
