"""``refine``: a forward picture improved step by step, so that more of its image comes back."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from wic_layers.codec.carrier import CARRIER, Carrier
from wic_layers.models import Network
from wic_layers.tasks.base import Task

__all__ = ["BEST", "refine"]

BEST = 24
"""Steps after which little is gained (``benchmarks/refining.py``)."""

RATE, MOMENTUM = 0.03 / 255, 0.9  # a step's root mean square, falling to none; Nesterov's
CLOSENESS = 2.0  # how much a forward picture that moves away from its reference counts
_LEAST = 1e-8  # mean squared error below which nothing is gained
_TINY = 1e-20


def refine(
    task: Task,
    network: Network,
    x: Tensor,
    y: Tensor,
    steps: int,
    mask: Tensor | None = None,
    *,
    carrier: Carrier = CARRIER,
) -> Tensor:
    """Returns a forward picture from which more comes back, and which looks as before.

    A network maps all images alike; the picture that its own inverse does best with, for one
    image, is another one. It is looked for by gradient descent on the picture, through the
    rounding and the network's inverse: the error of what comes back relative to what it was, plus
    what the forward picture's error from its reference grew by. The way back needs nothing of it.
    Steps are of one length, whatever the gradient's: unlike Adam's they move the pixels that
    matter more than others.

    Args:
        task: What the network is for.
        network: The network.
        x: Its packed input (B, C, H, W) in [0, 1].
        y: What it makes of that.
        steps: Steps of descent; each takes the time of about three runs of the network.
        mask: 1 for what is part of the images that come back, 0 for what is cut off, (B, 3 *
            images, H, W); all of it when None.
        carrier: What the picture will go through.

    Returns:
        The improved picture, of the shape of ``y``; ``y`` itself where nothing better was found.
    """
    reference, originals = task.reference(x), torch.cat(task.restored(x), dim=1)

    def errors(picture: Tensor) -> tuple[Tensor, Tensor]:
        rounded = carrier.through(picture)
        back = torch.cat(task.restored(network.inverse(rounded)), dim=1)
        off = (back - originals).square()
        of_back = off.mean() if mask is None else (off * mask).sum() / mask.sum().clamp(min=1)
        return of_back, (rounded - reference).square().mean()

    with torch.no_grad():
        first = [error.clamp(min=_LEAST) for error in errors(y.detach())]

    def objective(picture: Tensor) -> Tensor:
        back, forward = errors(picture)
        return back / first[0] + CLOSENESS * (forward / first[1] - 1).relu()

    # what comes back from a part of the picture alone is no reason to move that part farther
    rate = RATE if mask is None else RATE * float(mask.mean().sqrt())
    picture = best = y
    least = math.inf
    speed = torch.zeros_like(y)
    for step in range(steps):
        with torch.enable_grad():
            leaf = picture.detach().requires_grad_()
            value = objective(leaf)
            (gradient,) = torch.autograd.grad(value, leaf)
        if value.item() < least:
            best, least = picture, value.item()
        gradient /= gradient.square().mean().sqrt().clamp(min=_TINY)
        speed = MOMENTUM * speed + gradient
        picture = leaf.detach() - rate * (1 - step / steps) * (gradient + MOMENTUM * speed)
    with torch.no_grad():
        return picture if objective(picture).item() < least else best
