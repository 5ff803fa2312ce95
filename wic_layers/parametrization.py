"""Kernels held other than as free numbers: orthogonal, LU, and fixed ones."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

__all__ = ["LU", "ParametrizationName", "parametrize_kernel"]

ParametrizationName = Literal["free", "orthogonal", "lu", "fixed"]


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
        order, _, upper = torch.linalg.lu(kernel.detach().double())
        self.register_buffer("permutation", order.argmax(dim=1))
        self.register_buffer("sign", upper.diagonal().sign().to(kernel.dtype))

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
        order, lower, upper = torch.linalg.lu(kernel.detach().double())
        diagonal = upper.diagonal()
        self.permutation.copy_(order.argmax(dim=1))
        self.sign.copy_(diagonal.sign())
        parts = (lower.tril(-1), upper.triu(1), diagonal.abs().log())
        first, second, third = (part.to(kernel.dtype).contiguous() for part in parts)
        return first, second, third


def parametrize_kernel(module: nn.Module, name: ParametrizationName) -> None:
    """Replaces the free ``weight`` of ``module`` by an orthogonal one, LU factors or a buffer."""
    if name == "orthogonal":
        # torch's own choice for tall kernels, Householder, keeps signs in a parameter that weight
        # decay turns from 1 into 0, and the kernel with it
        parametrizations.orthogonal(module, "weight", orthogonal_map="matrix_exp")
    elif name == "fixed":
        held: Any = module.weight
        del module.weight
        module.register_buffer("weight", held.detach())
    elif name == "lu":
        weight = module.weight
        parametrize.register_parametrization(module, "weight", LU(weight))  # type: ignore[arg-type]
