"""What becomes of a model's layers in one direction: the rules behind ``deploy.fuse``."""

from __future__ import annotations

import copy
import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers._probe import naming
from wic_layers.blocks import (
    AffineCoupling,
    Chain,
    ChannelMean,
    Haar,
    InverseHaar,
    Latent,
    LearnedSqueeze,
    LongTermMemory,
    Relation,
    Squeeze,
    Unsqueeze,
)
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.deploy.one_way import (
    Bands,
    Completed,
    Couple,
    Lower,
    Matrix,
    Mean,
    Memory,
    Pixels,
    Related,
    Repeated,
    Shifted,
    Uncouple,
    WithLatent,
    WithoutLatent,
    joined,
)
from wic_layers.errors import WICArgumentError, WICError
from wic_layers.hosts.swap import _converter, swap_1x1
from wic_layers.hosts.well_posed import WellPosed
from wic_layers.layer.completion import Gaussian, Learned, Shift
from wic_layers.layer.conv import WIC
from wic_layers.models.dlv import DualLatent

__all__ = ["Memo", "one_way"]

Memo = dict[int, Any]
"""What was copied already, as :func:`copy.deepcopy` keeps it: what is shared stays shared."""


def one_way(block: Any, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    """Returns the parts that a block becomes, in the order in which they run.

    Args:
        block: A layer, block, network or module of another code base.
        reverse: The direction.
        memo: Empty at the first call.
    """
    kind = type(block)
    if isinstance(block, WIC):
        return [_inverted(block, memo) if reverse else _applied(block)]
    if isinstance(block, Chain) and _is_plain(kind):
        parts: list[nn.Module] = []
        for name, part in block._blocks()[:: -1 if reverse else 1]:
            with naming(name):
                parts += one_way(part, reverse, memo)
        return parts
    if kind is WellPosed:
        ends = [(block.net, "net"), (block.wic, "wic")]
        parts = []
        for part, name in ends[:: -1 if reverse else 1]:
            with naming(name):
                parts += one_way(part, reverse, memo)
        return parts
    convert = _CONVERTERS.get(kind)
    return [_hosted(block, reverse, memo)] if convert is None else convert(block, reverse, memo)


def _is_plain(kind: type[Chain]) -> bool:
    """Whether a subclass runs its blocks in a row, as a chain does; DLV's does without a w."""
    return (
        kind.forward in (Chain.forward, DualLatent.forward)
        and kind._forward is Chain._forward
        and kind.inverse is Chain.inverse
        and kind._inverse is Chain._inverse
    )


def _stored(layer: WIC) -> torch.dtype:
    """The dtype of a layer's constants; not less than float32, as their inverse is no kernel."""
    return torch.promote_types(layer.weight.dtype, torch.float32)


def _applied(layer: WIC) -> nn.Module:
    return Matrix(layer.weight.detach()[: layer.out_channels].double(), _stored(layer))


def _inverted(layer: WIC, memo: Memo) -> nn.Module:
    completion = layer.completion
    if isinstance(completion, Gaussian):
        raise WICArgumentError(
            f"{layer._title()}: expected a completion that computes the dropped channels; this "
            "one draws random numbers, which have no place in a deployed network. Train with "
            'completion="zero" or another.'
        )
    matrix, dtype = layer._folded(layer._checked_inverse(None)), _stored(layer)
    if matrix.shape[1] == layer.out_channels:
        return Matrix(matrix, dtype)
    if type(completion) is Shift:
        return Shifted(matrix, completion, dtype)
    completion = _copied(completion, memo)
    if type(completion) is Learned:
        completion = Lower(completion.layers, dtype)
    return Completed(matrix, completion, dtype)


def _copied(part: Any, memo: Memo) -> Any:
    """A copy in which every WIC is a constant; a function is taken as it is."""
    if not isinstance(part, nn.Module):
        return part
    return with_constants(copy.deepcopy(part, memo), reverse=False)


def _squeezed(block: Squeeze, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    into_channels = isinstance(block, Unsqueeze) == reverse
    if block.groups is not None:  # what single pixels become is what they are
        same = torch.eye(block.factor**2, dtype=torch.float64)
        kind = Bands if into_channels else Pixels
        return [kind(same, block.factor, block.groups, torch.float32)]
    return [(nn.PixelUnshuffle if into_channels else nn.PixelShuffle)(block.factor)]


def _transformed(block: Haar, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    # the matrix as what the transform makes of single pixels and bands
    units, transform = torch.eye(4, dtype=torch.float64), Haar(mean=block.mean)
    if isinstance(block, InverseHaar) == reverse:
        matrix = transform(units.view(4, 1, 2, 2)).flatten(1).mT
        return [Bands(matrix, 2, block.groups, torch.float32)]
    matrix = transform.inverse(units[..., None, None]).flatten(1).mT
    return [Pixels(matrix, 2, block.groups, torch.float32)]


def _learned_squeeze(
    block: LearnedSqueeze,
    reverse: bool,  # noqa: FBT001
    memo: Memo,
) -> list[nn.Module]:
    with naming("wic"):
        constant: Any = _inverted(block.wic, memo) if reverse else _applied(block.wic)
    kind = Pixels if reverse else Bands
    return [kind(constant.matrix, block.factor, 1, constant.stored)]


def _averaged(block: ChannelMean, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    return [(Repeated if reverse else Mean)(block.groups)]


def _latent(block: Latent, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    return [(WithoutLatent if reverse else WithLatent)(block.channels, block.groups)]


def _related(block: Relation, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    return [Related(_copied(block.back if reverse else block.there, memo))]


def _coupled(block: AffineCoupling, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    return [(Uncouple if reverse else Couple)(_copied(block, memo))]


def _remembered(block: LongTermMemory, reverse: bool, memo: Memo) -> list[nn.Module]:  # noqa: FBT001
    with naming("inner"):
        return [Memory(block.channels, joined(one_way(block.inner, reverse, memo)))]


_CONVERTERS: dict[type, Callable[[Any, bool, Memo], list[nn.Module]]] = {
    AffineCoupling: _coupled,
    ChannelMean: _averaged,
    Haar: _transformed,
    Latent: _latent,
    InverseHaar: _transformed,
    LearnedSqueeze: _learned_squeeze,
    LongTermMemory: _remembered,
    Relation: _related,
    Squeeze: _squeezed,
    Unsqueeze: _squeezed,
}


class Constant(nn.Module):
    """A WIC inside a host's code: both directions, and the log-volume, as constants.

    Args:
        layer: The layer.
        backward: Whether its inverse is sure to be needed, so that the lack of one is an error
            here and not where it is called.
    """

    def __init__(self, layer: WIC, *, backward: bool) -> None:
        super().__init__()
        self.in_channels = layer.in_channels
        self.out_channels = layer.out_channels
        self.there = joined([_applied(layer)])
        self.back = nn.Sequential()
        self.refused = ""
        memo: Memo = {}  # the completion is copied once
        try:
            self.back = joined([_inverted(layer, memo)])
        except WICError as error:
            if backward:
                raise
            self.refused = str(error)
        # not log_volume, which rounds to the kernel's dtype
        pixel = torch.zeros(1, layer.in_channels, dtype=torch.float32, device=layer.weight.device)
        self.volume = float(layer.with_log_det(pixel)[1])
        drawn = isinstance(layer.completion, Gaussian)
        self.completion = None if drawn else _copied(layer.completion, memo)

    def complete(self, y: Tensor) -> Tensor:
        """See :meth:`wic_layers.WIC.complete`."""
        if self.refused:
            raise WICArgumentError(self.refused)
        return y[:, :0] if self.completion is None else self.completion(y).to(y.dtype)

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - as WIC
        """Maps (B, in_channels, *spatial) to (B, out_channels, *spatial), or back."""
        if rev:
            return self.inverse(x)
        found: Tensor = self.there(x)
        return found

    def inverse(self, y: Tensor) -> Tensor:
        """Maps (B, out_channels, *spatial) to (B, in_channels, *spatial)."""
        if self.refused:
            raise WICArgumentError(self.refused)
        found: Tensor = self.back(y)
        return found

    def with_log_det(self, x: Tensor, *, rev: bool = False) -> tuple[Tensor, Tensor]:
        """See :meth:`wic_layers.WIC.with_log_det`."""
        volume = -self.volume if rev else self.volume
        dtype = torch.promote_types(x.dtype, torch.float32)
        pixels = x.new_full((x.shape[0],), math.prod(x.shape[2:]), dtype=dtype)
        return self(x, rev), pixels * volume


class Hosted(nn.Module):
    """A module that keeps its own code, as it is called forward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """What the module makes of x."""
        found: Tensor = self.module(x)
        return found


class HostedInverse(Hosted):
    """A module's ``inverse``."""

    def forward(self, x: Tensor) -> Tensor:
        """What the module's ``inverse`` makes of x."""
        found: Tensor = self.module.inverse(x)  # type: ignore[operator]
        return found


class HostedReverse(Hosted):
    """A module's ``forward(x, rev=True)``."""

    def forward(self, x: Tensor) -> Tensor:
        """What the module makes of x with ``rev=True``."""
        found: Tensor = self.module(x, rev=True)
        return found


class First(Hosted):
    """The first of what a module returns, without the log-determinant behind it."""

    def forward(self, x: Tensor) -> Tensor:
        """The first of what the module makes of x."""
        found: Tensor = self.module(x)[0]
        return found


class Graph(Hosted):
    """A FrEIA module, without log-determinants."""

    def __init__(self, module: nn.Module, *, reverse: bool) -> None:
        super().__init__(module)
        self.reverse = reverse

    def forward(self, x: Any, *conditions: Tensor) -> Any:
        """What the graph makes of one tensor, or a tuple of them, and its conditions."""
        given = {"c": list(conditions)} if conditions else {}
        return self.module(x, rev=self.reverse, jac=False, **given)[0]


def _hosted(module: nn.Module, reverse: bool, memo: Memo) -> nn.Module:  # noqa: FBT001
    """A module of another code base, in one direction."""
    made = copy.deepcopy(module, memo)
    if any(_converter(part) is not None for part in made.modules()):
        swap_1x1(made)
    made = with_constants(made, reverse=reverse)
    _start(made)
    taken = inspect.signature(made.forward).parameters
    if "jac" in taken:
        return Graph(made, reverse=reverse)
    if not reverse:
        called: nn.Module = Hosted(made)
    elif callable(getattr(made, "inverse", None)):
        called = HostedInverse(made)
    elif "rev" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        called = HostedReverse(made)
    else:
        raise WICArgumentError(
            "Expected a model that runs backwards, by inverse(y) or forward(x, rev=True); got "
            f"{type(module).__name__}."
        )
    normflows = sys.modules.get("normflows")
    is_flow = normflows is not None and isinstance(made, normflows.flows.Flow)
    return First(called) if is_flow else called


def with_constants(model: nn.Module, *, reverse: bool) -> nn.Module:
    """Exchanges every WIC in a host's module, in place, and forgets what ``optimize`` set.

    Args:
        model: The module.
        reverse: In which of the module's directions it will run.
    """
    made: dict[WIC, Constant] = {}
    for path, parent in list(model.named_modules()):
        # what normflows calls forward, from latent to data, is the way back of a WIC
        turned = type(parent).__module__ == "wic_layers.hosts.normflows"
        for name, child in parent._modules.items():
            if isinstance(child, WIC):
                with naming(f"{path}.{name}" if path else name):
                    if child not in made:
                        made[child] = Constant(child, backward=reverse != turned)
                parent._modules[name] = made[child]
            elif isinstance(child, DenseBlock):
                child.optimize(None)
    return model


def _start(model: nn.Module) -> None:
    """Takes the wait for a first batch out of a host's layers, which would stay in what is made.

    Raises:
        WICArgumentError: If one still waits.
    """
    normflows = sys.modules.get("normflows")
    for name, module in model.named_modules():
        waits = getattr(module, "init_on_next_batch", False)  # FrEIA's
        is_norm = normflows is not None and type(module) is normflows.flows.ActNorm
        if waits or (is_norm and not module.data_dep_init_done):
            raise WICArgumentError(
                f"{name}: expected a layer that has seen its first batch; {type(module).__name__} "
                "still waits for it. Run the model once before it is fused."
            )
        if is_norm:
            module.__class__ = normflows.flows.AffineConstFlow  # type: ignore[union-attr]
