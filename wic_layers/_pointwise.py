"""A matrix applied to the channels of a tensor, and when what was made from it has gone stale."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "as_kernel",
    "convolve",
    "is_transformed",
    "is_unchanged",
    "multiply",
    "outside_autocast",
    "snapshot",
]

_CONVOLUTIONS = (None, F.conv1d, F.conv2d, F.conv3d)
_ONES = ((), (1,), (1, 1), (1, 1, 1))


def as_kernel(matrix: Tensor, ndim: int) -> Tensor:
    """Returns a matrix (M, n) with the trailing ones that a convolution needs."""
    return matrix if ndim == 2 else matrix.view(*matrix.shape, *_ONES[ndim - 2])


def convolve(x: Tensor, matrix: Tensor) -> Tensor:
    """Applies a matrix or kernel to the channels of x, in x's dtype and outside autocast."""
    if torch.is_autocast_enabled("cpu" if x.is_cpu else x.device.type):
        with torch.autocast(x.device.type, enabled=False):
            return convolve(x, matrix)
    if matrix.dtype != x.dtype:
        matrix = matrix.to(x.dtype)
    if x.ndim == 2:
        return F.linear(x, matrix)
    if x.is_cuda and x.dtype == torch.float32:
        return multiply(x, matrix)
    kernel = matrix if matrix.ndim == x.ndim else as_kernel(matrix, x.ndim)
    convolution = _CONVOLUTIONS[x.ndim - 2]
    return convolution(x, kernel)  # type: ignore[misc]


def multiply(x: Tensor, matrix: Tensor) -> Tensor:
    """Applies a matrix or kernel to the channels of x as a matrix product.

    On CUDA float32 convolutions round to TF32's ten bits unless told otherwise, products do not.
    """
    return (matrix.flatten(1) @ x.flatten(2)).unflatten(2, x.shape[2:])


def outside_autocast(function: Any, *tensors: Tensor, device: torch.device | None = None) -> Any:
    """Returns ``function(*tensors)``, computed with autocast off on their device."""
    kind = (tensors[0].device if device is None else device).type
    if not torch.is_autocast_enabled(kind):
        return function(*tensors)
    with torch.autocast(kind, enabled=False):
        return function(*tensors)


_peek_transforms = getattr(torch._C._functorch, "peek_interpreter_stack", lambda: None)


def is_transformed() -> bool:
    """Returns whether a functorch transform (vmap, grad, jvp) is at work."""
    return _peek_transforms() is not None


def snapshot(sources: tuple[Tensor, ...]) -> tuple[Tensor | tuple[int, int], ...]:
    """Returns what shows a later edit of a source: on a CPU a copy, elsewhere its version."""
    return tuple(
        source.detach().clone() if source.is_cpu else (source.data_ptr(), source._version)
        for source in sources
    )


def is_unchanged(seen: Tensor | tuple[int, int], source: Tensor) -> bool:
    """Returns whether a source is what :func:`snapshot` saw."""
    if isinstance(seen, Tensor):
        return seen.dtype == source.dtype and torch.equal(seen, source)
    return not source.is_inference() and seen == (source.data_ptr(), source._version)
