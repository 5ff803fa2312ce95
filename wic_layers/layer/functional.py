r"""The algebra of one rectangular kernel, on plain tensors.

A kernel :math:`K` has shape :math:`(\dots, M, n)`: it maps :math:`n` channels to :math:`M`. Every
function factorises the kernel itself, by thin QR or, where it is square and that is enough, by LU;
none forms the Gram matrix :math:`K^\top K`, whose condition number is the square of the kernel's.
Arithmetic is float64, on the CPU where the kernel's device has no float64. Results come back on
the kernel's device: matrices in its dtype, numbers in float32 at least, as smaller dtypes cannot
hold them. Leading dimensions are batches, everything is differentiable and works under
:func:`torch.func.vmap`.

The functions check shapes, never values: a singular kernel gives infinities or NaN, not an error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError, WICShapeError

__all__ = [
    "condition_number",
    "constrained_inverse",
    "gram_logdet",
    "left_inverse",
    "log_volume",
    "right_inverse",
    "square_inverse",
]


# others (MPS, some XPU) lack float64, and many of their versions QR and LU too
_FLOAT64_DEVICES = frozenset({"cpu", "cuda", "meta"})


def to_algebra(tensor: Tensor) -> Tensor:
    """Returns a small matrix in float64: on its own device, or the CPU where that has none."""
    if tensor.device.type in _FLOAT64_DEVICES:
        return tensor.to(torch.float64)
    return tensor.cpu().to(torch.float64)


def from_algebra(result: Tensor, like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Returns a float64 result on the device of ``like`` and in its dtype, or another."""
    # the dtype first: the device may have no float64
    return result.to(like.dtype if dtype is None else dtype).to(like.device)


def _number(result: Tensor, kernel: Tensor) -> Tensor:
    return from_algebra(result, kernel, torch.promote_types(kernel.dtype, torch.float32))


def _checked(kernel: Tensor, name: str = "kernel") -> Tensor:
    if kernel.ndim < 2:
        raise WICShapeError(
            f"Expected {name} with at least 2 dimensions (..., M, n); got shape "
            f"{tuple(kernel.shape)}."
        )
    if not kernel.is_floating_point():
        raise WICArgumentError(
            f"Expected {name} of a real floating-point dtype; got {kernel.dtype}."
        )
    if 0 in kernel.shape[-2:]:
        raise WICShapeError(
            f"Expected {name} with at least one row and column; got {tuple(kernel.shape)}."
        )
    return to_algebra(kernel)


def _tall(kernel: Tensor, use: str) -> Tensor:
    high = _checked(kernel)
    if kernel.shape[-2] < kernel.shape[-1]:
        raise WICShapeError(
            "Expected a kernel with at least as many rows as columns; got shape "
            f"{tuple(kernel.shape)}. {use}"
        )
    return high


def _thin(high: Tensor) -> tuple[Tensor, Tensor]:
    """Thin QR of the tall one of a matrix and its transpose."""
    tall = high if high.shape[-2] >= high.shape[-1] else high.mT
    q, r = torch.linalg.qr(tall, mode="reduced")
    return q, r


def _inverse(r: Tensor) -> Tensor:
    """The inverse of an upper triangle, solved from the right.

    So ``_inverse(r) @ r`` is the identity to eps * condition. Solving ``r x = q.mT`` instead
    promises that of ``r @ x`` only, and loses up to the square of the condition on the other side.
    """
    eye = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device).expand_as(r)
    return torch.linalg.solve_triangular(r, eye, upper=True, left=False)


def left_inverse(kernel: Tensor) -> Tensor:
    r"""Returns the Moore-Penrose left inverse of a tall or square kernel.

    .. math:: K^{+} = (K^\top K)^{-1} K^\top = R^{-1} Q^\top \quad\text{with}\quad K = QR

    Args:
        kernel: :math:`K`, shape :math:`(\dots, M, n)` with :math:`M \ge n`, of full column rank.

    Returns:
        :math:`K^{+}`, shape :math:`(\dots, n, M)`, so that :math:`K^{+} K = I`.

    Raises:
        WICShapeError: If the kernel is wider than tall or has fewer than two dimensions.
        WICArgumentError: If the kernel is not of a real floating-point dtype.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (7)-(8); its code computes it from the Gram matrix

    Example:
        >>> left_inverse(torch.eye(4, 3)).shape
        torch.Size([3, 4])
    """
    q, r = _thin(_tall(kernel, "A wide kernel has a right_inverse."))
    return from_algebra(_inverse(r) @ q.mT, kernel)


def square_inverse(kernel: Tensor) -> Tensor:
    r"""Returns the inverse of a square kernel by LU, which is faster than :func:`left_inverse`.

    :math:`K K^{-1} = I` holds to eps times the condition number, which :func:`left_inverse` does
    not promise; :math:`K^{-1} K = I`, which that promises, is off by up to its square. So it is
    the right one where the kernel runs after its inverse, and where the kernel was stored in a
    smaller dtype than it is inverted in, so that the square stays below what the storage lost.

    Args:
        kernel: :math:`K`, shape :math:`(\dots, n, n)`.

    Returns:
        :math:`K^{-1}`, shape :math:`(\dots, n, n)`.

    Raises:
        WICShapeError: If the kernel is not square.

    Example:
        >>> square_inverse(2 * torch.eye(2))
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
    """
    high = _checked(kernel)
    if kernel.shape[-2] != kernel.shape[-1]:
        raise WICShapeError(f"Expected a square kernel; got shape {tuple(kernel.shape)}.")
    # not inv, which raises; a pivot of zero leaves infinities or NaN
    return from_algebra(torch.linalg.inv_ex(high).inverse, kernel)


def right_inverse(kernel: Tensor) -> Tensor:
    r"""Returns the minimum-norm right inverse of a wide or square kernel.

    .. math:: W^{+} = W^\top (W W^\top)^{-1} = Q R^{-\top} \quad\text{with}\quad W^\top = QR

    Args:
        kernel: :math:`W`, shape :math:`(\dots, m, n)` with :math:`m \le n`, of full row rank.

    Returns:
        :math:`W^{+}`, shape :math:`(\dots, n, m)`, so that :math:`W W^{+} = I`.

    Raises:
        WICShapeError: If the kernel is taller than wide or has fewer than two dimensions.
        WICArgumentError: If the kernel is not of a real floating-point dtype.

    Example:
        >>> right_inverse(torch.eye(3, 4)).shape
        torch.Size([4, 3])
    """
    high = _checked(kernel)
    if kernel.shape[-2] > kernel.shape[-1]:
        raise WICShapeError(
            "Expected a kernel with at most as many rows as columns; got shape "
            f"{tuple(kernel.shape)}. A tall kernel has a left_inverse."
        )
    q, r = _thin(high.mT)
    return from_algebra((_inverse(r) @ q.mT).mT, kernel)


def constrained_inverse(kernel: Tensor, rows: int) -> Tensor:
    r"""Returns the left inverse that is exact in the first rows and fits the others.

    With :math:`W` the first ``rows`` rows of :math:`K` and :math:`K_{inc}` the rest,
    :math:`x = P [y; c]` solves

    .. math:: \min_x \lVert K_{inc} x - c \rVert \quad\text{subject to}\quad W x = y .

    With :math:`K = QR`, :math:`Q = [Q_1; Q_2]` and :math:`u = Rx`, orthonormal columns turn this
    into :math:`\min \lVert u - Q_2^\top c \rVert` subject to :math:`Q_1 u = y`, so that
    :math:`u = Q_2^\top c + Q_1^{+} (y - Q_1 Q_2^\top c)`. For a square kernel :math:`P = K^{-1}`.

    Args:
        kernel: :math:`K`, shape :math:`(\dots, M, n)` with :math:`M \ge n`, of full column rank.
        rows: How many leading rows hold exactly, :math:`1 \le rows \le n`; they must have full row
            rank.

    Returns:
        :math:`P`, shape :math:`(\dots, n, M)`, so that :math:`P K = I` and :math:`W P = [I, 0]`.

    Raises:
        WICShapeError: If the kernel is wider than tall.
        WICArgumentError: If ``rows`` is not in 1..n.

    Example:
        >>> kernel = torch.randn(6, 4)
        >>> torch.allclose(kernel[:3] @ constrained_inverse(kernel, 3), torch.eye(3, 6), atol=1e-4)
        True
    """
    high = _tall(kernel, "All its rows can hold exactly: use right_inverse.")
    n = kernel.shape[-1]
    if not 1 <= rows <= n:
        raise WICArgumentError(
            f"Expected rows in 1..{n}, the kernel's number of columns; got {rows}."
        )
    q, r = _thin(high)
    if kernel.shape[-2] == n:
        u = q.mT
    else:
        q1, q2 = q[..., :rows, :], q[..., rows:, :]
        basis, factor = _thin(q1.mT)
        exact = (_inverse(factor) @ basis.mT).mT
        fit = q2.mT - basis @ (basis.mT @ q2.mT)
        u = torch.cat((exact, fit), dim=-1)
    return from_algebra(_inverse(r) @ u, kernel)


def log_volume(kernel: Tensor) -> Tensor:
    r"""Returns the logarithm of the volume change of a kernel, in nats per pixel.

    .. math:: \tfrac12 \log\det(K^\top K) = \sum_i \log |r_{ii}| \quad\text{(tall)},\qquad
              \tfrac12 \log\det(K K^\top) \quad\text{(wide)}

    Neither over- nor underflows where the determinant itself would. For a square kernel it is
    :math:`\log|\det K|`.

    Args:
        kernel: :math:`K`, shape :math:`(\dots, M, n)`.

    Returns:
        Shape :math:`(\dots)`, float32 at least; of a kernel without full rank :math:`-\infty`,
        or, where rounding hides the lack, a number far below zero.

    Raises:
        WICShapeError: If the kernel has fewer than two dimensions.

    Example:
        >>> round(log_volume(2 * torch.eye(4, 3)).item(), 4)
        2.0794
    """
    high = _checked(kernel)
    if high.shape[-2] == high.shape[-1]:
        return _number(torch.linalg.slogdet(high).logabsdet, kernel)
    _, r = _thin(high)
    return _number(r.diagonal(dim1=-2, dim2=-1).abs().log().sum(-1), kernel)


def gram_logdet(kernel: Tensor) -> Tensor:
    r"""Returns :math:`\log\det` of the smaller Gram matrix: twice :func:`log_volume`."""
    return 2 * log_volume(kernel)


def condition_number(kernel: Tensor) -> Tensor:
    r"""Returns the condition number in the spectral norm.

    .. math:: \kappa(K) = \lVert R \rVert_2 \, \lVert R^{-1} \rVert_2

    from the triangular factor and its inverse, which keeps its relative accuracy where the
    smallest singular value of :math:`K` itself has lost it. The diagonal of :math:`R` alone can be
    off by tens.

    Args:
        kernel: :math:`K`, shape :math:`(\dots, M, n)`.

    Returns:
        Shape :math:`(\dots)`, at least 1; of a singular kernel infinite, or, where rounding hides
        that it is, past 1/eps of float64; infinite of one that is not finite. Float32 at least.

    Raises:
        WICShapeError: If the kernel has fewer than two dimensions.

    Example:
        >>> round(condition_number(torch.diag(torch.tensor([1.0, 100.0]))).item(), 3)
        100.0
    """
    _, r = _thin(_checked(kernel))
    finite = torch.isfinite(r).all(-1).all(-1) & (r.diagonal(dim1=-2, dim2=-1) != 0).all(-1)
    # A matrix that cannot be inverted is replaced before the singular values, which raise on NaN.
    eye = torch.eye(r.shape[-1], dtype=r.dtype, device=r.device)
    safe = torch.where(finite[..., None, None], r, eye)
    inverse = torch.linalg.solve_triangular(safe, eye.expand_as(safe), upper=True)
    reached = finite & torch.isfinite(inverse).all(-1).all(-1)
    inverse = torch.where(reached[..., None, None], inverse, eye)
    product = torch.linalg.matrix_norm(safe, 2) * torch.linalg.matrix_norm(inverse, 2)
    return _number(torch.where(reached, product, torch.full_like(product, torch.inf)), kernel)
