"""What is minimised: the losses of WIN, HiNet, DLV and IICNet; each part can be exchanged."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from wic_layers.blocks import Chain, ChannelMean, Haar
from wic_layers.errors import WICArgumentError
from wic_layers.layer.losses import charbonnier, det_loss, record_wic, shift_loss, squared
from wic_layers.layer.quantization import quantize, quantize_by_noise
from wic_layers.tasks.base import Task

__all__ = [
    "DISTANCES",
    "ROUNDINGS",
    "TERMS",
    "Losses",
    "Objective",
    "Step",
    "frequencies",
    "low_bands",
]

Distance = Callable[[Tensor, Tensor], Tensor]
_Part = TypeVar("_Part")

DISTANCES: dict[str, Distance] = {"l1": charbonnier, "l2": squared}
"""Distances per element by the names that the papers give them."""

ROUNDINGS: dict[str, Callable[[Tensor], Tensor]] = {
    "straight-through": quantize,
    "noise": quantize_by_noise,
}
"""What stands for a file's 8 bits in training: rounding, or noise as large (IICNet)."""

TERMS = ("forward", "reverse", "det", "shift", "low", "invariance", "frequency")
"""The names of the losses, in the order of their weights."""

_DRAWS = 3  # of w, whose forward pictures L_i compares


class Losses(NamedTuple):
    """The losses of a step, unweighted.

    Attributes:
        forward: Distance of the forward picture from its reference.
        reverse: Distance of what came back from what went in.
        det: L_det.
        shift: L_shift.
        low: Distance of the forward picture's low bands from its reference's.
        invariance: How much the forward picture depends on the latent w.
        frequency: Distance of the forward picture's frequencies from its reference's.
    """

    forward: Tensor
    reverse: Tensor
    det: Tensor
    shift: Tensor
    low: Tensor
    invariance: Tensor
    frequency: Tensor


def low_bands(y: Tensor, reference: Tensor) -> Tensor:
    """HiNet's: the squared distance of the low bands of the Haar transform, per element."""
    return squared(*(Haar()(z)[:, : z.shape[1]] for z in (y, reference)))


def frequencies(y: Tensor, reference: Tensor) -> Tensor:
    """IICNet's: the squared distance of the one-sided Fourier transforms, per frequency.

    The transform is orthonormal here, so that a weight means the same for crops of all sizes: with
    the authors' unscaled one the sum is H W times as large, and their weight of 0.001 is 20.7 here
    for their crops of 144, and 4.1 for crops of 64. By Parseval's theorem the sum is half the
    squared distance of the pixels, and for the frequencies that a one-sided transform does not
    leave out (no change, or the fastest, from left to right) the other half too: the loss adds no
    new aim, but weight to the forward picture, most of all to its rows' means.
    """
    difference: Tensor = torch.fft.rfft2(y.float() - reference.float(), norm="ortho")
    return torch.view_as_real(difference).square()


_ON_PICTURES = {"low": low_bands, "frequency": frequencies}


class Objective:
    r"""The paper's objective, computed from one pass forward and one back.

    .. math:: \lambda_f L_f + \lambda_r L_r + \lambda_d L_{det} + \lambda_s L_{shift}
        + \lambda_l L_{low} + \lambda_i L_i + \lambda_q L_{freq}

    Distances are summed over channels and pixels and averaged over the batch. Where the last WIC
    gives copies of the forward picture, :math:`L_f` judges them as well as their mean. The forward
    picture is rounded to 8 bits, with a straight-through gradient, before it runs back.
    :math:`L_{det}` is that of every WIC, :math:`L_{shift}` of the narrowing ones; what completes
    them is up to the network. :math:`L_{low}`, HiNet's, and :math:`L_{freq}`, IICNet's, compare
    the forward picture with its reference once more: :func:`low_bands`, :func:`frequencies`.
    Networks with a latent w (see :class:`~wic_layers.models.DualLatent`) are given one that is
    drawn; :math:`L_i`, DLV's, is the standard deviation of the forward picture over three draws.

    Args:
        task: Gives the reference of the forward picture and its distance (L2 or Charbonnier).
        weights: :math:`\lambda` of forward, reverse, det, shift; a loss of weight 0 takes no part.
        forward: Distance of the forward picture: ``"l1"`` (Charbonnier), ``"l2"``, a function of
            two tensors that gives it per element, or None for the task's own. It is that of
            L_shift too.
        reverse: Distance of what came back; ``"l1"`` is the paper's, ``"l2"`` what PSNR measures.
        rounding: ``"straight-through"``, ``"noise"``, or a function of the forward picture.
        shift_target: What L_shift completes: the ``"reference"``, as the paper's code, or the
            layer's own ``"output"``, as its Eq. (14).
        low: :math:`\lambda_l`, which only HiNet has.
        frequency: :math:`\lambda_q`, which only IICNet has.
        returned: What is judged on the way back: ``"all"`` that went in, or those images that are
            ``"wanted"``: without the cover, as HiNet does.
        invariance: :math:`\lambda_i`, which only DLV-IRN has.
        w: Of networks that have one: ``"drawn"``, or ``"zero"``.

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
        weights: tuple[float, float, float, float] = (2.0, 1.0, 0.1, 1.0),
        *,
        forward: str | Distance | None = None,
        reverse: str | Distance = "l1",
        rounding: str | Callable[[Tensor], Tensor] = "straight-through",
        shift_target: str = "reference",
        low: float = 0.0,
        frequency: float = 0.0,
        returned: str = "all",
        invariance: float = 0.0,
        w: str = "drawn",
    ) -> None:
        if shift_target not in ("reference", "output"):
            raise WICArgumentError(
                f'Expected shift_target "reference" or "output"; got {shift_target!r}.'
            )
        if returned not in ("all", "wanted"):
            raise WICArgumentError(f'Expected returned "all" or "wanted"; got {returned!r}.')
        if w not in ("drawn", "zero"):
            raise WICArgumentError(f'Expected w "drawn" or "zero"; got {w!r}.')
        if invariance and w == "zero":
            raise WICArgumentError(
                f'Expected w="drawn" with invariance, which compares draws; got {w!r}.'
            )
        self.task = task
        self.weights = (*weights, low, invariance, frequency)
        self._draws = w == "drawn"
        self._all_returned = returned == "all"
        chosen = task.forward_criterion if forward is None else forward
        self._forward_distance = _named("forward", chosen, DISTANCES)
        self._reverse_distance = _named("reverse", reverse, DISTANCES)
        self._round = _named("rounding", rounding, ROUNDINGS)
        self._aims_at_reference = shift_target == "reference"

    def __call__(self, model: nn.Module, x: Tensor, reference: Tensor) -> Losses:
        """Runs ``model`` forward and back on packed images ``x`` and returns the losses."""
        draw = getattr(model, "draw", None) if self._draws else None
        given = {} if draw is None else {"w": draw(x)}
        with record_wic(model) as records:
            y = model(x, **given)
        back = model.inverse(self._round(y))  # type: ignore[operator]
        forward = self._forward_distance(y, reference).sum() / len(x)
        aims = {}
        for record in records:
            # what the layer should give for the reference to come out behind it
            found = _before(reference, model, record.layer)
            if found is None:  # inside a block, which has a picture of its own
                continue
            aims[record.name], is_copied = found
            if is_copied:
                copies = self._forward_distance(record.output, aims[record.name])
                forward = forward + copies.sum() / len(x)
        wanted = x
        if not self._all_returned:
            back, wanted = (torch.cat(self.task.restored(z), dim=1) for z in (back, x))
        reverse = self._reverse_distance(back, wanted).sum() / len(x)
        target = aims if self._aims_at_reference else None
        # IICNet as published has no WIC, or none that drops channels
        shift = y.new_zeros(())
        if len(records):
            shift = shift_loss(records, target, self._forward_distance)
        det = det_loss(model) if any(map(_is_wic, model.modules())) else y.new_zeros(())
        low, frequency = (
            distance(y, reference).sum() / len(x) if self._weight(name) else y.new_zeros(())
            for name, distance in _ON_PICTURES.items()
        )
        invariance = y.new_zeros(())
        if self._weight("invariance"):
            if draw is None:
                raise WICArgumentError(
                    f"Expected a network with a latent w, for invariance; got "
                    f"{type(model).__name__}."
                )
            pictures = torch.stack([y, *(model(x, w=draw(x)) for _ in range(_DRAWS - 1))])
            invariance = _deviation(pictures).sum() / len(x)
        return Losses(forward, reverse, det, shift, low, invariance, frequency)

    def _weight(self, name: str) -> float:
        return self.weights[TERMS.index(name)]

    def weighted(self, losses: Losses) -> dict[str, Tensor]:
        """Returns the losses times their weights, by name; their sum is what is minimised."""
        terms = zip(TERMS, losses, self.weights, strict=True)
        return {name: loss * weight for name, loss, weight in terms if weight}


def _deviation(pictures: Tensor) -> Tensor:
    """The standard deviation of each pixel."""
    return pictures.var(dim=0).add(1e-6).sqrt()  # the root has a slope where w changes nothing


def _before(reference: Tensor, model: nn.Module, layer: nn.Module) -> tuple[Tensor, bool] | None:
    """The reference as a layer of a chain should give it; and whether that is several copies."""
    if isinstance(model, Chain) and layer not in list(model):
        return None
    copied = False
    for block in reversed(list(model) if isinstance(model, Chain) else []):
        if block is layer:
            return reference, copied
        reference = block.inverse(reference)  # type: ignore[operator]
        copied = copied or isinstance(block, ChannelMean)
    return reference, copied


def _is_wic(module: nn.Module) -> bool:
    return hasattr(module, "gram_logdet")


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

    def forward(self, x: Tensor, reference: Tensor) -> tuple[Tensor, ...]:
        """Returns :class:`Losses`, as the plain tuple that every wrapper lets through."""
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bf16):
            return tuple(self.objective(self.model, x, reference))
