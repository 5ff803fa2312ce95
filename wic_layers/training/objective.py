"""``Objective``: the weighted sum of losses that a training minimises; ``Step`` runs it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from wic_layers.codec.carrier import CARRIER, EightBit
from wic_layers.errors import WICArgumentError
from wic_layers.layer.losses import charbonnier, log_squared, record_wic, squared
from wic_layers.tasks.base import Task
from wic_layers.training.terms import OPTIONAL, PAPERS, TERMS, WEIGHTS, Distance, Pass, before

__all__ = ["DISTANCES", "ROUNDINGS", "Losses", "Objective", "Step", "capture"]

_Part = TypeVar("_Part")

Losses = dict[str, Tensor]
"""The losses of a step, unweighted, by the names of :data:`~wic_layers.training.terms.TERMS`."""

DISTANCES: dict[str, Distance] = {"l1": charbonnier, "l2": squared, "psnr": log_squared}
"""Distances per element; ``l1`` and ``l2`` are the papers' names."""

ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "straight-through": CARRIER.through,
    "noise": EightBit(noise=True).through,
}
"""What stands for a file's 8 bits in training: rounding, or noise as large (IICNet)."""


class Objective:
    r"""The paper's objective, computed from one pass forward and one back.

    .. math:: \lambda_f L_f + \lambda_r L_r + \lambda_d L_{det} + \lambda_s L_{shift}
        + \lambda_l L_{low} + \lambda_i L_i + \lambda_q L_{freq}

    Distances are summed over channels and pixels and averaged over the batch. Where the last WIC
    gives copies of the forward picture, :math:`L_f` judges them as well as their mean. The forward
    picture is rounded to 8 bits, with a straight-through gradient, before it runs back.
    :math:`L_{det}` is that of every WIC, :math:`L_{shift}` of the narrowing ones; what completes
    them is up to the network. :math:`L_{low}`, HiNet's, and :math:`L_{freq}`, IICNet's, compare
    the forward picture with its reference once more. Networks with a latent w (see
    :class:`~wic_layers.models.DualLatent`) are given one that is drawn; :math:`L_i`, DLV's, is the
    standard deviation of the forward picture over three draws. Each loss is a function in
    :mod:`wic_layers.training.terms`, where another one can be added.

    Args:
        task: Gives the reference of the forward picture and its distance (L2 or Charbonnier).
        weights: :math:`\lambda` of forward, reverse, det, shift; a loss of weight 0 takes no part.
        forward: Distance of the forward picture: ``"l1"`` (Charbonnier), ``"l2"``, ``"psnr"`` (the
            logarithm of an image's l2), a function of two tensors that gives it per element, or
            None for the task's own. It is that of L_shift too.
        reverse: Distance of what came back. ``"l1"`` is the paper's; ``"psnr"`` is what a mean of
            PSNR measures: to ``"l2"`` images that are hard anyway count most.
        rounding: ``"straight-through"``, ``"noise"``, or a function of the forward picture.
        shift_target: What L_shift completes: the ``"reference"``, as the paper's code, or the
            layer's own ``"output"``, as its Eq. (14).
        returned: What is judged on the way back: ``"all"`` that went in, or those images that are
            ``"wanted"``: without the cover, as HiNet does.
        w: Of networks that have one: ``"drawn"``, or ``"zero"``.
        **more: Weights of other losses by name: ``low`` (:math:`\lambda_l`, which only HiNet has),
            ``invariance`` (:math:`\lambda_i`, only DLV-IRN), ``frequency`` (:math:`\lambda_q`,
            only IICNet).

    Raises:
        WICArgumentError: If a name is none of these, or :math:`L_i` has a weight where nothing is
            drawn.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (18); weights and distances of its code. Noise for rounding:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), 3.4
        | L_low: HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), Section 3.4
        | L_i: Enhancing Image Rescaling using Dual Latent Variables in Invertible Neural Network
        | (Zhang et al., 2022), Eq. (12)-(13)
        | L_freq: IICNet, Eq. (11)
    """

    def __init__(
        self,
        task: Task,
        weights: Sequence[float] = WEIGHTS,
        *,
        forward: str | Distance | None = None,
        reverse: str | Distance = "l1",
        rounding: str | Callable[[Tensor], Tensor] = "straight-through",
        shift_target: str = "reference",
        returned: str = "all",
        w: str = "drawn",
        **more: float,
    ) -> None:
        unknown = more.keys() - {term.name for term in OPTIONAL}
        if unknown:
            names = ", ".join(term.name for term in OPTIONAL)
            raise WICArgumentError(
                f"Expected weights of the losses {names}; got one of {', '.join(sorted(unknown))}."
            )
        if w == "zero" and more.get("invariance"):
            raise WICArgumentError(
                f'Expected w="drawn" with invariance, which compares draws; got {w!r}.'
            )
        self.task = task
        self.weights = dict.fromkeys(TERMS, 0.0) | more
        self.weights.update(zip((term.name for term in PAPERS), weights, strict=True))
        self._draws = _named("w", w, {"drawn": True, "zero": False})
        self._all_returned = _named("returned", returned, {"all": True, "wanted": False})
        distance = task.forward_criterion if forward is None else forward
        self._forward_distance = _named("forward", distance, DISTANCES)
        self._reverse_distance = _named("reverse", reverse, DISTANCES)
        self._round = _named("rounding", rounding, ROUNDINGS)
        self._aims_at_reference = _named(
            "shift_target", shift_target, {"reference": True, "output": False}
        )

    def __call__(self, model: nn.Module, x: Tensor, reference: Tensor) -> Losses:
        """Runs ``model`` forward and back on packed images ``x`` and returns the losses."""
        draw = getattr(model, "draw", None) if self._draws else None
        latent = {} if draw is None else {"w": draw(x)}
        with record_wic(model) as records:
            picture = model(x, **latent)
        restored, original = model.inverse(self._round(picture)), x  # type: ignore[operator]
        if not self._all_returned:
            restored, original = (
                torch.cat(self.task.restored(z), dim=1) for z in (restored, original)
            )
        targets, copies = {}, []
        for record in records:
            aim = before(record.layer, reference, model)
            if aim is None:
                continue
            targets[record.name], are_copies = aim
            if are_copies:
                copies.append((record.output, targets[record.name]))
        run = Pass(
            model, x, reference, picture, original, restored, records,
            targets if self._aims_at_reference else None,
            copies, draw, self._forward_distance, self._reverse_distance,
        )  # fmt: skip
        return {
            name: term.compute(run) if self.weights[name] or not term.help else run.zero()
            for name, term in TERMS.items()
        }

    def weighted(self, losses: Losses) -> Losses:
        """Returns the losses times their weights, by name; their sum is what is minimised."""
        return {name: losses[name] * weight for name, weight in self.weights.items() if weight}


def _named(what: str, chosen: str | _Part, known: dict[str, _Part]) -> _Part:
    if not isinstance(chosen, str):
        return chosen
    if chosen not in known:
        names = " or ".join(f'"{name}"' for name in known)
        raise WICArgumentError(f"Expected {what} {names}; got {chosen!r}.")
    return known[chosen]


class Step(nn.Module):
    """A network and its objective as one module, whose ``forward`` gives the losses.

    What runs several processes, compiles or switches precision wraps one ``forward``; a step of
    these networks has a forward and a reverse pass.

    Args:
        model: The network.
        objective: What is minimised.
        bf16: Run the networks inside couplings in bfloat16. Pixels, halves and WIC stay in
            float32, which is why this is autocast and not a conversion of what comes in.
    """

    def __init__(self, model: nn.Module, objective: Objective, *, bf16: bool = False) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.bf16 = bf16

    def forward(self, x: Tensor, reference: Tensor) -> Losses:
        """Returns the losses, unweighted, by name."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return self.objective(self.model, x, reference)


def capture(step: Step, x: Tensor, reference: Tensor) -> None:
    """Makes a step on CUDA one graph forward and one for its gradients, from now on.

    Launching its thousands of small kernels one by one takes longer than they run. Shapes must
    stay those of ``x`` and ``reference``.
    """
    # convolutions are timed, and the fastest kept, before the capture
    with torch.backends.cudnn.flags(enabled=True, benchmark=True):
        torch.cuda.make_graphed_callables(step, (x.clone(), reference.clone()))
