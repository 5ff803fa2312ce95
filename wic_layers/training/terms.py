"""``Term``, ``Pass``, ``TERMS``: the losses that a training can minimise, a function for each.

A function with ``@term`` is all that a loss needs. Its name is that of the setting in YAML, of the
flag, of the figure in the progress bar and of the curve in TensorBoard; its weight is 0 unless a
training asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wic_layers.blocks import Chain, ChannelMean, Haar
from wic_layers.errors import WICArgumentError
from wic_layers.layer.kernel import kernels_of
from wic_layers.layer.losses import Records, det_loss, shift_loss, squared
from wic_layers.models import Network

__all__ = [
    "OPTIONAL",
    "PAPERS",
    "TERMS",
    "WEIGHTS",
    "Distance",
    "Pass",
    "Term",
    "frequencies",
    "term",
]

Distance = Callable[[Tensor, Tensor], Tensor]
"""Compares two tensors, element by element."""

_DRAWS = 3  # of w, whose forward pictures L_i compares


@dataclass
class Pass:
    """A network's way forward and back on one batch: what the losses are computed from."""

    network: nn.Module
    x: Tensor  # packed images (B, C, H, W), which went in
    reference: Tensor  # what the forward picture should look like
    picture: Tensor  # the forward picture, not rounded
    original: Tensor  # those images that are judged on the way back, (B, 3 * images, H, W)
    restored: Tensor  # what came back of them from the rounded picture
    records: Records  # what narrowing layers dropped
    targets: Mapping[str, Tensor] | None  # what those layers should give, by name; for L_shift
    copies: list[tuple[Tensor, Tensor]]  # copies of the picture, with what they should be
    draw: Callable[[Tensor], Tensor] | None  # draws the latent w for x, if there is one
    forward_distance: Distance
    reverse_distance: Distance

    def per_image(self, elements: Tensor) -> Tensor:
        """Sums over channels and pixels, and averages over the batch."""
        return elements.sum() / len(self.x)

    def zero(self) -> Tensor:
        """A loss that does not apply to this network."""
        return self.picture.new_zeros(())


@dataclass(frozen=True)
class Term:
    """A loss, unweighted."""

    name: str  # in settings, flags, logs and TensorBoard
    weight: float  # where nobody says otherwise; 0 for a loss that takes no part by itself
    help: str  # of the weight's flag; empty for the four of the paper, which share --weights
    compute: Callable[[Pass], Tensor]  # a tensor without dimensions


TERMS: dict[str, Term] = {}
"""The losses by name, in the order in which they are shown."""


def term(
    name: str, help: str = "", *, weight: float = 0.0
) -> Callable[[Callable[[Pass], Tensor]], Callable[[Pass], Tensor]]:
    """Enters a function of a :class:`Pass` into :data:`TERMS`; see :class:`Term`."""

    def enter(compute: Callable[[Pass], Tensor]) -> Callable[[Pass], Tensor]:
        TERMS[name] = Term(name, weight, help, compute)
        return compute

    return enter


@term("forward", weight=2.0)
def _forward(run: Pass) -> Tensor:
    """Distance of the forward picture from its reference, and of copies that it is the mean of."""
    total = run.per_image(run.forward_distance(run.picture, run.reference))
    for copies, reference in run.copies:
        total = total + run.per_image(run.forward_distance(copies, reference))
    return total


@term("reverse", weight=1.0)
def _reverse(run: Pass) -> Tensor:
    """Distance of what came back from what went in."""
    return run.per_image(run.reverse_distance(run.restored, run.original))


@term("det", weight=0.1)
def _det(run: Pass) -> Tensor:
    """L_det of every WIC; IICNet as published has none."""
    has_kernels = any(True for _ in kernels_of(run.network))
    return det_loss(run.network) if has_kernels else run.zero()


@term("shift", weight=1.0)
def _shift(run: Pass) -> Tensor:
    """L_shift of the narrowing WICs, if the network drops channels at all."""
    if not len(run.records):
        return run.zero()
    return shift_loss(run.records, run.targets, run.forward_distance)


@term("low", "weight of the forward picture's low frequencies (HiNet: 1)")
def _low(run: Pass) -> Tensor:
    """HiNet's: the squared distance of the low bands of the Haar transform."""
    bands = (Haar()(z)[:, : z.shape[1]] for z in (run.picture, run.reference))
    return run.per_image(squared(*bands))


@term(
    "invariance",
    "weight of the forward picture's deviation with w (DLV-IRN: a quarter of scale^2)",
)
def _invariance(run: Pass) -> Tensor:
    """DLV's: the standard deviation of the forward picture over three draws of w."""
    if run.draw is None:
        raise WICArgumentError(
            f"Expected a network with a latent w, for invariance; got "
            f"{type(run.network).__name__}."
        )
    others = (run.network(run.x, w=run.draw(run.x)) for _ in range(_DRAWS - 1))
    variance = torch.stack([run.picture, *others]).var(dim=0)
    return run.per_image(variance.add(1e-6).sqrt())  # has a slope where w changes nothing


@term(
    "frequency",
    "weight of the forward picture's frequencies (IICNet: 0.001 times a crop's pixels)",
)
def _frequency(run: Pass) -> Tensor:
    """IICNet's: see :func:`frequencies`."""
    return run.per_image(frequencies(run.picture, run.reference))


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


def before(layer: nn.Module, reference: Tensor, model: nn.Module) -> tuple[Tensor, bool] | None:
    """The reference as a layer of a chain should give it; and whether that is several copies.

    None for a layer inside a block, which has a picture of its own.
    """
    if not isinstance(model, Chain):
        return reference, False
    if layer not in list(model):
        return None
    if isinstance(model, Network):
        reference = model.turn_picture(reference)
    are_copies = False
    for block in reversed(list(model)):
        if block is layer:
            break
        reference = block.inverse(reference)  # type: ignore[operator]
        are_copies = are_copies or isinstance(block, ChannelMean)
    return reference, are_copies


PAPERS = tuple(each for each in TERMS.values() if not each.help)
"""The losses of the paper, which always are computed: ``--weights`` has one number for each."""

WEIGHTS = tuple(each.weight for each in PAPERS)
"""Their weights by default."""

OPTIONAL = tuple(each for each in TERMS.values() if each.help)
"""The losses with a flag of their own, computed where its weight is above 0."""
