"""Kernels held other than as free numbers: :class:`Orthogonal`, :class:`LU`, and fixed ones."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wic_layers.layer.functional import from_algebra, to_algebra

__all__ = ["LU", "Orthogonal", "ParametrizationName", "parametrize_kernel"]

ParametrizationName = Literal["free", "orthogonal", "lu", "fixed"]


class Orthogonal(nn.Module):
    r"""A kernel with orthonormal columns (rows, if wide): :math:`K = B \exp(A - A^\top)`.

    The square :math:`B` is fixed by the first kernel; what is trained is the lower triangle
    :math:`A`, which starts at zero. (Householder reflections, torch's default for tall kernels,
    keep signs in a parameter that weight decay turns from 1 into 0, and the kernel with it.)

    Args:
        kernel: The kernel to start from, shape (M, n), of full rank; the nearest by QR where its
            columns or rows are not orthonormal.

    References:
        | Trivializations for Gradient-Based Optimization on Manifolds (Lezcano-Casado, 2019)
    """

    base: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.register_buffer("base", _completed(kernel))

    def forward(self, angles: Tensor) -> Tensor:
        high = to_algebra(angles)
        is_wide = high.shape[0] < high.shape[1]
        lower = (high.mT if is_wide else high).tril(-1)
        size, columns = lower.shape
        square = F.pad(lower, (0, size - columns))
        turn = torch.linalg.matrix_exp(square - square.mT)[:, :columns]
        kernel = to_algebra(self.base) @ turn
        return from_algebra(kernel.mT if is_wide else kernel, angles)

    def right_inverse(self, kernel: Tensor) -> Tensor:
        """Starts anew from a kernel that is assigned to the layer."""
        self.base.copy_(_completed(kernel))
        return torch.zeros_like(kernel, memory_format=torch.contiguous_format)


def _completed(kernel: Tensor) -> Tensor:
    """A square orthogonal matrix that begins with the columns (rows, if wide) of a kernel."""
    high = to_algebra(kernel.detach())
    q, r = torch.linalg.qr(high if high.shape[0] >= high.shape[1] else high.mT, mode="complete")
    signs = F.pad(r.diagonal().sign(), (0, len(q) - r.shape[1]), value=1.0)
    return from_algebra(q * signs, kernel).contiguous()


class LU(nn.Module):
    r"""A kernel as :math:`K = P L (U + \mathrm{diag}(s \, e^{d}))`: Glow's, for any shape.

    The permutation :math:`P` and the signs :math:`s` are fixed by the first kernel; what is
    trained are the unit lower :math:`L`, the strictly upper :math:`U` and :math:`d`, so that no
    step makes it singular.

    Args:
        kernel: The kernel to start from, shape (M, n), of full rank.

    References:
        | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), Eq.
        | (10)
    """

    permutation: Tensor
    sign: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        order, _, upper = torch.linalg.lu(to_algebra(kernel.detach()))
        self.register_buffer("permutation", order.argmax(dim=1).to(kernel.device))
        self.register_buffer("sign", from_algebra(upper.diagonal().sign(), kernel))

    def forward(self, lower: Tensor, upper: Tensor, log_diagonal: Tensor) -> Tensor:
        size, rows, columns = log_diagonal.shape[0], lower.shape[0], upper.shape[1]
        diagonal = torch.diag(self.sign * log_diagonal.exp())
        if columns > size:
            diagonal = F.pad(diagonal, (0, columns - size))
        full = upper.triu(1) + diagonal
        unit = full if rows == size else F.pad(full, (0, 0, 0, rows - size))
        return torch.addmm(unit, lower.tril(-1), full).index_select(0, self.permutation)

    def right_inverse(self, kernel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Factorises a kernel that is assigned to the layer, with pivots of its own."""
        order, lower, upper = torch.linalg.lu(to_algebra(kernel.detach()))
        diagonal = upper.diagonal()
        self.permutation.copy_(order.argmax(dim=1))
        self.sign.copy_(diagonal.sign())
        parts = (lower.tril(-1), upper.triu(1), diagonal.abs().log())
        first, second, third = (from_algebra(part, kernel).contiguous() for part in parts)
        return first, second, third


def parametrize_kernel(module: nn.Module, name: ParametrizationName) -> None:
    """Replaces the free ``weight`` of ``module`` by an orthogonal one, LU factors or a buffer."""
    weight: Any = module.weight
    if name == "orthogonal":
        parametrize.register_parametrization(module, "weight", Orthogonal(weight))
    elif name == "lu":
        parametrize.register_parametrization(module, "weight", LU(weight))
    elif name == "fixed":
        del module.weight
        module.register_buffer("weight", weight.detach())
