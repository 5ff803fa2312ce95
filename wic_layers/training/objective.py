"""What is minimised: the four losses of the WIN paper."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wic_layers.auxiliary import charbonnier, det_loss, record_wic, shift_loss, squared
from wic_layers.errors import WICArgumentError
from wic_layers.quantization import quantize
from wic_layers.tasks.base import Task

__all__ = ["DISTANCES", "Losses", "Objective"]

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l1": charbonnier, "l2": squared}
"""Distances per element by the names that the papers give them."""


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

    Distances are summed over channels and pixels and averaged over the batch. Where the last WIC
    gives copies of the forward picture, :math:`L_f` judges them as well as their mean. The forward
    picture is rounded to 8 bits, with a straight-through gradient, before it runs back.

    Args:
        task: Gives the reference of the forward picture and its distance (L2 or Charbonnier).
        weights: :math:`\lambda` of forward, reverse, det, shift.
        reverse: Distance of what came back: ``"l1"`` (Charbonnier), the paper's, or ``"l2"``,
            which is what PSNR measures.

    Raises:
        WICArgumentError: If ``reverse`` is neither.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (18); weights and distances of its code
    """

    def __init__(
        self,
        task: Task,
        weights: tuple[float, float, float, float] = (2.0, 1.0, 0.1, 1.0),
        *,
        reverse: str = "l1",
    ) -> None:
        if reverse not in DISTANCES:
            raise WICArgumentError(f'Expected reverse "l1" or "l2"; got {reverse!r}.')
        self.task = task
        self.weights = weights
        self._forward_distance = DISTANCES[task.forward_criterion]
        self._reverse_distance = DISTANCES[reverse]

    def __call__(self, model: nn.Module, x: Tensor, reference: Tensor) -> Losses:
        """Runs ``model`` forward and back on packed images ``x`` and returns the losses."""
        with record_wic(model) as records:
            y = model(x)
        back = model.inverse(quantize(y))  # type: ignore[operator]
        # a network whose last WIC gives copies of the result has the reference for each of them
        aims = {
            record.name: reference.repeat(1, record.output.shape[1] // reference.shape[1], 1, 1)
            for record in records
        }
        forward = self._forward_distance(y, reference).sum() / len(x)
        for record in records:
            if record.output.shape != y.shape:
                copies = self._forward_distance(record.output, aims[record.name])
                forward = forward + copies.sum() / len(x)
        reverse = self._reverse_distance(back, x).sum() / len(x)
        det = det_loss(model)
        shift = shift_loss(records, aims, self._forward_distance)
        terms = torch.stack((forward, reverse, det, shift))
        total = (terms * terms.new_tensor(self.weights)).sum()
        return Losses(forward, reverse, det, shift, total)
