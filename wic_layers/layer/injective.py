r"""Densities of data on a manifold: the volume of a decoder, and losses that do train one.

A decoder :math:`g` makes data of :math:`D` numbers from latents of :math:`d \le D`, an encoder
:math:`f` goes back, and the latents have a density :math:`p_Z`. What :math:`g` makes lies on a
manifold of :math:`d` dimensions, and has there the density

.. math:: \log p(g(z)) = \log p_Z(z) - \tfrac12 \log\det J^\top J,\qquad J = \partial g/\partial z

with respect to the manifold's own volume. :func:`decoder_log_volume` computes the second term for
any decoder, :func:`estimate_log_volume` estimates it where d is large.

Maximum likelihood alone is no way to train such a model: the density of :math:`f(x)` says nothing
of how far x is from the manifold, and is highest where the data vary least, so that the model
turns to their noise. Two ways that work: :func:`joint_loss` adds the error of what comes back
(Caterini et al.); or the manifold is trained first by :func:`reconstruction_loss`, and then the
density on it by :func:`latent_loss` (Brehmer and Cranmer), which needs no volume.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jvp, vjp

from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.layer.functional import from_algebra, log_volume, to_algebra

__all__ = [
    "JointLoss",
    "decoder_log_volume",
    "estimate_log_volume",
    "joint_loss",
    "latent_loss",
    "log_prob_on_manifold",
    "reconstruction_loss",
]

Map = Callable[[Tensor], Tensor]


class JointLoss(NamedTuple):
    """What :func:`joint_loss` returns; each is a scalar.

    Attributes:
        total: The loss: ``weight * reconstruction - log_prob``.
        reconstruction: What :func:`reconstruction_loss` returns.
        log_prob: The mean of :func:`log_prob_on_manifold`, in nats per sample.
    """

    total: Tensor
    reconstruction: Tensor
    log_prob: Tensor


def decoder_log_volume(decoder: Map, z: Tensor) -> Tensor:
    r"""Returns :math:`\tfrac12 \log\det J^\top J` of a decoder at z, exactly, in nats per sample.

    The Jacobian comes from forward-mode derivatives by :mod:`torch.func` and its volume from a QR
    factorisation in float64; :math:`J^\top J` is never formed. Differentiable, by z and by what
    the decoder is computed from. For d up to a few dozen; then :func:`estimate_log_volume`.

    Args:
        decoder: Makes data (B, \*data) from latents (B, \*latent), each sample by itself, of
            operations that :func:`torch.func.jvp` can differentiate. It sees d times the batch.
        z: Latents.

    Returns:
        Shape (B,), float32 at least.

    Raises:
        WICArgumentError: If the data have fewer numbers than the latents.

    References:
        | Rectangular Flows for Manifold Learning (Caterini et al., 2021)
        | Trumpets: Injective Flows for Inference and Inverse Problems (Kothari et al., 2021)

    Example:
        >>> from wic_layers import WIC
        >>> layer = WIC(5, 2, rows="m")
        >>> z = torch.randn(3, 2)
        >>> volume = decoder_log_volume(layer.inverse, z)
        >>> torch.allclose(volume, -layer.log_volume().expand(3), atol=1e-6)
        True
    """
    latents = math.prod(_batch(z).shape[1:])
    axes = torch.eye(latents, dtype=z.dtype, device=z.device).view(-1, *z.shape[1:])
    # many flows write in place, which vmap does not take: each latent once for each direction
    directions = axes.repeat(len(z), *(1 for _ in z.shape[1:]))
    columns = jvp(decoder, (z.repeat_interleave(latents, 0),), (directions,))[1]
    jacobian = columns.flatten(1).unflatten(0, (len(z), latents)).mT
    data = jacobian.shape[1]
    if data < latents:
        raise WICArgumentError(
            f"Expected a decoder to data of at least as many numbers as the latents' {latents}; "
            f"got {data}. Such data have no density on a manifold."
        )
    return log_volume(jacobian)


def estimate_log_volume(
    decoder: Map,
    z: Tensor,
    *,
    probes: int = 4,
    steps: int = 32,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    r"""Estimates :func:`decoder_log_volume` for latents of many numbers, and says how well.

    For signs :math:`\epsilon` drawn at random and :math:`A = J^\top J`,
    :math:`\tfrac12 \epsilon^\top \log(A) \epsilon` has the log-volume as its mean and the variance
    :math:`\tfrac12 \sum_{i \ne j} \log(A)_{ij}^2`. It is computed from products with J and its
    transpose alone, by Lanczos quadrature. The gradient is that of
    :math:`\tfrac12 (A^{-1}\epsilon)^\top A \epsilon` with its first factor fixed, as in conjugate
    gradients after the same steps: its mean is the exact gradient.

    Args:
        decoder: As for :func:`decoder_log_volume`; it sees ``probes`` times the batch.
        z: Latents (B, \*latent).
        probes: Vectors of signs for each sample, at least 2.
        steps: Of Lanczos' method, at most d. Value and gradient are without bias once it has
            converged: after d steps, or about :math:`\sqrt{\kappa(A)}` of them.
        generator: Draws the signs; the global one when None.

    Returns:
        The estimate, shape (B,), with its gradient; and its standard error, from how far the
        probes differ, without one.

    Raises:
        WICArgumentError: If ``probes`` or ``steps`` are too few.

    References:
        | Rectangular Flows for Manifold Learning (Caterini et al., 2021)
        | Fast Estimation of tr(f(A)) via Stochastic Lanczos Quadrature (Ubaru et al., 2017)

    Example:
        >>> from wic_layers import WIC
        >>> layer = WIC(5, 2, rows="m")
        >>> estimate, error = estimate_log_volume(layer.inverse, torch.randn(3, 2), probes=8)
        >>> bool(((estimate + layer.log_volume()).abs() <= 6 * error + 1e-5).all())
        True
    """
    if probes < 2 or steps < 1:
        raise WICArgumentError(
            f"Expected at least 2 probes, whose spread is the error, and 1 step; got {probes} "
            f"and {steps}."
        )
    many = _batch(z).repeat(probes, *(1 for _ in z.shape[1:]))
    signs = torch.empty_like(many, requires_grad=False)
    signs = signs.bernoulli_(0.5, generator=generator).mul_(2).sub_(1)
    with torch.no_grad():
        fixed = many.detach()
        pull = vjp(decoder, fixed)[1]

        def product(vector: Tensor) -> Tensor:
            column = from_algebra(vector, signs).view_as(signs)
            result: Tensor = pull(jvp(decoder, (fixed,), (column,))[1])[0]
            return to_algebra(result).flatten(1)

        value, solution = _lanczos(product, to_algebra(signs).flatten(1), steps)
        solution = from_algebra(solution, signs).view_as(signs)
        value = from_algebra(value, signs, torch.promote_types(z.dtype, torch.float32)) / 2
        error = value.unflatten(0, (probes, -1)).std(0) / math.sqrt(probes)
    if torch.is_grad_enabled():
        first, second = (jvp(decoder, (many,), (side,))[1] for side in (solution, signs))
        surrogate = (first * second).flatten(1).sum(1) / 2
        value = value + (surrogate - surrogate.detach())
    return value.unflatten(0, (probes, -1)).mean(0), error


def _lanczos(product: Map, start: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """The quadrature of ``start @ log(A) @ start``, and A's inverse times ``start``, by rows."""
    length = start.norm(dim=1, keepdim=True)
    basis, diagonal, beside = [start / length], [], []
    for _ in range(min(steps, start.shape[1])):
        vector = basis[-1]
        image = product(vector)
        size = (vector * image).sum(1, keepdim=True)
        # past the last direction that A reaches: a one, which has no part in the result
        diagonal.append(torch.where(vector.any(1, keepdim=True), size, 1.0))
        span = torch.stack(basis, 1)
        for _ in range(2):  # once leaves what rounding makes of it
            image = image - (span.mT @ (span @ image.unsqueeze(2))).squeeze(2)
        rest = image.norm(dim=1, keepdim=True)
        beside.append(rest)
        basis.append(torch.where(rest > 0, image / rest, 0.0))
    above = torch.diag_embed(torch.cat(beside, 1)[:, :-1], 1)
    values, vectors = torch.linalg.eigh(
        torch.diag_embed(torch.cat(diagonal, 1)) + above + above.mT
    )
    first = vectors[:, 0]
    quadrature = length.squeeze(1).square() * (first.square() * values.log()).sum(1)
    weights = (vectors @ (first / values).unsqueeze(2)) * length.unsqueeze(2)
    return quadrature, (torch.stack(basis[:-1], 2) @ weights).squeeze(2)


def log_prob_on_manifold(
    decoder: Map,
    z: Tensor,
    log_prob: Map,
    *,
    volume: Callable[[Map, Tensor], Tensor] | None = None,
) -> Tensor:
    r"""Returns the log-density of ``decoder(z)`` on the decoder's manifold, in nats per sample.

    Args:
        decoder: Makes data from latents.
        z: Latents (B, \*latent).
        log_prob: The log-density of latents, shape (B,).
        volume: :func:`decoder_log_volume` when None; for large latents
            ``lambda decoder, z: estimate_log_volume(decoder, z)[0]``.
    """
    return log_prob(z) - (decoder_log_volume if volume is None else volume)(decoder, z)


def reconstruction_loss(x: Tensor, encoder: Map, decoder: Map) -> Tensor:
    r"""Returns the mean over the batch of :math:`\lVert x-g(f(x)) \rVert^2`; trains a manifold."""
    return _distance(x, decoder(encoder(x)))


def latent_loss(x: Tensor, encoder: Map, log_prob: Map) -> Tensor:
    """Returns the mean of -log_prob of the data's latents; trains a density on a fixed manifold.

    The encoder gets no gradient. The volume of a manifold that does not change is a constant, so
    it is left out: this is not the log-likelihood, :func:`log_prob_on_manifold` is.

    References:
        | Flows for Simultaneous Manifold Learning and Density Estimation (Brehmer and Cranmer,
        | 2020)
    """
    with torch.no_grad():
        z = encoder(x)
    return -log_prob(z).mean()


def joint_loss(
    x: Tensor,
    encoder: Map,
    decoder: Map,
    log_prob: Map,
    *,
    weight: float,
    volume: Callable[[Map, Tensor], Tensor] | None = None,
) -> JointLoss:
    r"""Returns ``weight`` times the error of what comes back, less the manifold's log-density.

    Args:
        x: Data (B, \*data).
        encoder: Makes latents of data.
        decoder: Makes data of latents.
        log_prob: The log-density of latents, shape (B,).
        weight: Of the squared error, against nats. Data within :math:`\sigma` of the manifold in
            every direction ask for about :math:`1 / 2\sigma^2`; too little, and the model turns to
            the noise.
        volume: As for :func:`log_prob_on_manifold`.

    References:
        | Rectangular Flows for Manifold Learning (Caterini et al., 2021)
    """
    z = encoder(x)
    error = _distance(x, decoder(z))
    density = log_prob_on_manifold(decoder, z, log_prob, volume=volume).mean()
    return JointLoss(weight * error - density, error, density)


def _distance(x: Tensor, back: Tensor) -> Tensor:
    if x.shape != back.shape:
        raise WICShapeError(
            f"Expected what comes back in the shape of the data, {tuple(x.shape)}; got "
            f"{tuple(back.shape)}."
        )
    return (x - back).flatten(1).square().sum(1).mean()


def _batch(z: Tensor) -> Tensor:
    if z.ndim < 2:
        raise WICShapeError(f"Expected latents of shape (B, *latent); got {tuple(z.shape)}.")
    return z
