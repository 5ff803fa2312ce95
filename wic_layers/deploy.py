"""Networks for use without this library: one direction, and constants in place of inverses."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from wic_layers._fusing import one_way
from wic_layers._one_way import joined
from wic_layers.errors import WICArgumentError

__all__ = ["Direction", "fuse"]

Direction = Literal["forward", "reverse"]


def fuse(model: nn.Module, direction: Direction = "forward") -> nn.Module:
    r"""Returns one direction of a model as a module of its own, free of linear algebra.

    Every WIC becomes a constant convolution, on the way back together with its completion; a zero,
    repeated or shifted completion is part of the constant. Constants that stand side by side
    become one. What is returned is in ``eval()`` mode and without gradients, goes through
    ``torch.export`` and ``torch.onnx.export`` with any batch, height and width, and gives what the
    model gives, to the rounding of its dtype; what ``Network.optimize`` sets is left behind.

    - Of the networks of :mod:`wic_layers.models`, a :class:`~wic_layers.blocks.Chain`, the blocks,
      a :class:`~wic_layers.WIC` or a :class:`~wic_layers.WellPosed` around them, nothing is left
      but convolutions and reshapes, and ``torch.jit.script`` takes it.
    - Other modules keep their code, with the layers inside exchanged: a FrEIA graph (``reverse``
      is ``rev=True``; conditions follow the input), a normflows model (``forward`` is its own,
      from latent to data, and ``reverse`` its ``inverse``), and whatever has ``inverse(y)`` or
      ``forward(x, rev=False)``. They return tensors without log-determinants. What
      :func:`~wic_layers.swap_1x1` knows is swapped. ``torch.jit.script`` takes them only if it
      takes the host's own code, as it does not take FrEIA's and normflows'; ``torch.jit.trace``
      does.

    Args:
        model: The model, which is not changed.
        direction: ``"forward"`` or ``"reverse"``.

    Returns:
        A module with ``forward(x)``.

    Raises:
        WICArgumentError: For another direction, a model that cannot run backwards, a layer that
            draws random numbers on that way, or a host's layer that waits for a first batch.
        IllConditionedError: If a kernel has no inverse.

    Example:
        >>> from wic_layers import WIC
        >>> from wic_layers.blocks import AffineCoupling, Chain, Squeeze
        >>> net = Chain(Squeeze(2), AffineCoupling(12), WIC(12, 3)).eval()
        >>> reverse = fuse(net, "reverse")
        >>> y = torch.rand(1, 3, 8, 8)
        >>> torch.allclose(reverse(y), net.inverse(y), atol=1e-5)
        True
        >>> [str(part).partition("(")[0] for part in reverse]
        ['Shifted', 'Uncouple', 'PixelShuffle']
    """
    _check_direction(direction)
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected a module; got {type(model).__name__}.")
    with torch.no_grad():
        parts = joined(one_way(model, direction == "reverse", {}))
    fused = parts[0] if len(parts) == 1 else parts
    return fused.eval().requires_grad_(requires_grad=False)


def _check_direction(direction: str) -> None:
    if direction not in get_args(Direction):
        raise WICArgumentError(f'Expected direction "forward" or "reverse"; got {direction!r}.')
