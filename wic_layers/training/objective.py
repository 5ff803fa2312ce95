"""What is minimised: the four losses of the WIN paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wic_layers.auxiliary import charbonnier, det_loss, record_wic, shift_loss, squared
from wic_layers.quantization import quantize
from wic_layers.tasks.base import Task

__all__ = ["Losses", "Objective"]


@dataclass(frozen=True)
class Losses:
    """The four losses of a step, unweighted, and their weighted sum.

    Attributes:
        forward: Distance of the forward picture from its reference.
        reverse: Distance of what came back from what went in.
        det: L_det.
        shift: L_shift.
        total: Their weighted sum: the one scalar to call ``backward`` on.
    """

    forward: Tensor
    reverse: Tensor
    det: Tensor
    shift: Tensor
    total: Tensor


class Objective:
    r"""The paper's objective, computed from one pass forward and one back.

    .. math:: \lambda_f L_f + \lambda_r L_r + \lambda_d L_{det} + \lambda_s L_{shift}

    Distances are summed over channels and pixels and averaged over the batch. The forward picture
    is rounded to 8 bits, with a straight-through gradient, before it runs back.

    Args:
        task: Gives the reference of the forward picture and its distance (L2 or Charbonnier).
        weights: :math:`\lambda` of forward, reverse, det, shift.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (18); weights and distances of its code
    """

    def __init__(
        self, task: Task, weights: tuple[float, float, float, float] = (2.0, 1.0, 0.1, 1.0)
    ) -> None:
        self.task = task
        self.weights = weights
        self._forward_distance: Callable[[Tensor, Tensor], Tensor] = (
            squared if task.forward_criterion == "l2" else charbonnier
        )

    def __call__(self, model: nn.Module, x: Tensor, reference: Tensor) -> Losses:
        """Runs ``model`` forward and back on packed images ``x`` and returns the losses."""
        with record_wic(model) as records:
            y = model(x)
        back = model.inverse(quantize(y))  # type: ignore[operator]
        forward = self._forward_distance(y, reference).sum() / len(x)
        reverse = charbonnier(back, x).sum() / len(x)
        det = det_loss(model)
        shift = shift_loss(records, reference, self._forward_distance)
        terms = torch.stack((forward, reverse, det, shift))
        total = (terms * terms.new_tensor(self.weights)).sum()
        return Losses(forward, reverse, det, shift, total)
