"""check_density, which integrates a density: public in :mod:`wic_layers.testing`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import chain

import torch
from torch import Tensor, nn

from wic_layers._probe import left_as_found
from wic_layers.errors import ContractError, WICArgumentError
from wic_layers.layer.injective import decoder_log_volume

__all__ = ["check_density"]

_POINTS = {1: 2001, 2: 161, 3: 41}
_AT_ONCE = 4096


def check_density(
    model: nn.Module,
    latent: Sequence[int],
    *,
    log_prob: Callable[[Tensor], Tensor] | None = None,
    decoder: Callable[[Tensor], Tensor] | None = None,
    low: float = -8.0,
    high: float = 8.0,
    points: int | None = None,
    tolerance: float = 1e-2,
) -> float:
    r"""Checks that a density integrates to 1 over all that the model can make.

    The integral over a grid of latents z of :math:`p(g(z)) \, \sqrt{\det J^\top J}`, with the
    volume of the decoder :math:`g` from its derivatives and nothing of the model's own. It holds
    for square models and for injective ones, whose density is on a manifold. A log-determinant
    that is no density's, or has the wrong sign, shows.

    Args:
        model: A normflows.NormalizingFlow, or any module.
        latent: Shape of one latent, such as ``(2,)`` or ``(3, 1, 1)``: 1 to 3 numbers.
        log_prob: Log-density of data (B, \*data), shape (B,); ``model.log_prob`` when None.
        decoder: Makes data from latents (B, \*latent); ``model.forward`` when None.
        low: Where the grid begins in each dimension; the latents' density must be small outside.
        high: Where it ends.
        points: Of the grid in each dimension; 2001, 161 or 41 by the number of dimensions. Too few
            for the density's finest features show as an integral that is off.
        tolerance: How far from 1 the integral may be.

    Returns:
        The integral.

    Raises:
        WICArgumentError: If the latent has more than 3 numbers or the grid is empty.
        ContractError: If the integral is off.

    Example:
        >>> class Normal(torch.nn.Module):
        ...     def forward(self, z):
        ...         return 2 * z
        ...
        ...     def log_prob(self, x):
        ...         normal = torch.distributions.Normal(0.0, 1.0)
        ...         return (normal.log_prob(x / 2) - math.log(2)).sum(1)
        >>> round(check_density(Normal(), (2,)), 4)
        1.0
    """
    size = math.prod(latent)
    count = _POINTS.get(size, 0) if points is None else points
    if size not in _POINTS or count < 2 or not low < high:
        raise WICArgumentError(
            "Expected a latent of 1 to 3 numbers, at least 2 points and low < high; got "
            f"{tuple(latent)}, {count} points from {low:g} to {high:g}."
        )
    own = next(
        (t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()), None
    )
    like = torch.empty(0) if own is None else own.detach()
    ticks = torch.linspace(low, high, count, dtype=like.dtype, device=like.device)
    grid = torch.cartesian_prod(*[ticks] * size).view(-1, *latent)
    density = model.log_prob if log_prob is None else log_prob
    decode = model.forward if decoder is None else decoder
    total = 0.0
    with left_as_found(model), torch.no_grad():
        model.eval()
        for z in grid.split(_AT_ONCE):
            logarithm = density(decode(z)) + decoder_log_volume(decode, z)  # type: ignore[operator]
            total += float(logarithm.double().exp().sum())
    total *= ((high - low) / (count - 1)) ** size
    if not abs(total - 1) <= tolerance:
        raise ContractError(
            f"{type(model).__name__}: expected a density that integrates to 1 within "
            f"{tolerance:g}; got {total:.4g} on {count} latents from {low:g} to {high:g} in each "
            f"of {size} dimensions. Its log-determinant is not that of the decoder, or the grid "
            "is too small or too coarse: try other low, high and points."
        )
    return total
