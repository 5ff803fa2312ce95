"""fuse: a model, or one direction of it, with constants in place of kernels."""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Sequence
from types import CellType, FunctionType
from typing import Any, Literal, TypeVar, get_args, overload

import torch
from torch import Tensor, nn

from wic_layers.blocks import InvertibleBlock, save_memory
from wic_layers.blocks.block import as_block
from wic_layers.deploy.constants import Completed, Constant, Lower, put_constants
from wic_layers.errors import WICArgumentError
from wic_layers.hosts.recognition import PERMUTATION
from wic_layers.hosts.swap import Left, NothingToSwapError, swap_1x1
from wic_layers.hosts.twins import without_graphs
from wic_layers.layer.conv import WIC

__all__ = ["Direction", "check_direction", "fuse", "lowered"]

Direction = Literal["forward", "reverse"]
_Model = TypeVar("_Model", bound=nn.Module)


@overload
def fuse(model: _Model, direction: None = None) -> _Model: ...
@overload
def fuse(model: nn.Module, direction: Direction) -> nn.Module: ...
def fuse(model: nn.Module, direction: Direction | None = None) -> nn.Module:
    r"""Returns a copy of a model in which nothing is left to be inverted.

    Every WIC becomes a constant convolution, on the way back together with its completion; a zero
    or repeated completion is part of the constant. So do the modules of
    :mod:`wic_layers.freia` and :mod:`wic_layers.normflows`, and the invertible 1x1 convolutions of
    other people's models, which :func:`~wic_layers.swap_1x1` finds (the model itself is not
    changed), with their log-determinants. What is returned is in ``eval()`` mode and without
    gradients, and gives what the model gives, to the rounding of its dtype; what
    ``Network.optimize`` sets is left behind.

    Without a direction the copy is a model of the same class, whose methods go on:
    ``model.reverse(z)``, ``model(z, reverse=True)``, ``model.infer(z)``. For ``torch.export`` and
    ONNX, which take a module's forward, see :func:`~wic_layers.deploy.calling`.

    With one it is a module of its own whose ``forward(x)`` is that direction of the model, which
    goes through ``torch.export`` and ``torch.onnx.export`` with any batch, height and width and
    returns tensors without log-determinants. It takes networks of :mod:`wic_layers.models`,
    blocks, a :class:`~wic_layers.WellPosed`, a FrEIA graph (``reverse`` is ``rev=True``;
    conditions follow the input), a normflows model (``forward`` is its own, from latent to data,
    and ``reverse`` its ``inverse``), and whatever has ``inverse(y)`` or ``forward(x, rev=False)``.

    Args:
        model: The model, which is not changed.
        direction: ``"forward"``, ``"reverse"``, or None for both.

    Raises:
        WICArgumentError: For another direction, a model that cannot run backwards, a layer that
            draws random numbers on that way, a host's layer that waits for a first batch, or,
            without a direction, a 1x1 convolution that is not understood; names the layer.
        IllConditionedError: If a kernel has no inverse; without a direction where it is called.

    Example:
        >>> from wic_layers import WIC
        >>> from wic_layers.blocks import AffineCoupling, Chain, Squeeze
        >>> net = Chain(Squeeze(2), AffineCoupling(12), WIC(12, 3)).eval()
        >>> reverse = fuse(net, "reverse")
        >>> y = torch.rand(1, 3, 8, 8)
        >>> torch.allclose(reverse(y), net.inverse(y), atol=1e-5)
        True
        >>> torch.allclose(fuse(net).inverse(y), net.inverse(y), atol=1e-5)
        True
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"Expected a module; got {type(model).__name__}.")
    if direction is not None:
        check_direction(direction)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, WIC) and layer._forward_pre_hooks:  # pruning sets weights there
                layer(layer.weight.new_zeros(1, layer.in_channels))
        whole = _copied(model)
        left = _swapped(whole)
        if direction is None:
            for entry in left:
                if entry.reason != PERMUTATION:
                    raise WICArgumentError(f"Expected layers that can be fused; got {entry}")
            holder = nn.ModuleList([whole])
            put_constants(holder, reverse=False, needs_both=True)
            fused = holder[0]
        else:
            reverse = direction == "reverse"
            fused = OneWay(whole, reverse=reverse)
            if isinstance(whole, WIC):
                fused.module = Constant(whole, backward=reverse)
            else:
                put_constants(whole, reverse=reverse)
    _start(fused.module if isinstance(fused, OneWay) else fused)
    save_memory(fused, enabled=False)
    if isinstance(fused, OneWay):
        as_block(fused.module).keep_one_way(rev=fused.reverse)
    return fused.eval().requires_grad_(requires_grad=False)


def _copied(model: nn.Module) -> nn.Module:
    """A deep copy whose functions, too, call the copy's modules and not the model's."""
    memo = without_graphs(model)
    copied = copy.deepcopy(model, memo)
    for module in copied.modules():
        for name, value in list(vars(module).items()):
            cells = getattr(value, "__closure__", None)
            if isinstance(value, FunctionType) and cells:
                contents = (memo.get(id(cell.cell_contents), cell.cell_contents) for cell in cells)
                module.__dict__[name] = FunctionType(
                    value.__code__, value.__globals__, name, value.__defaults__,
                    tuple(map(CellType, contents)),
                )  # fmt: skip
    return copied


def _swapped(model: nn.Module) -> Sequence[Left]:
    """Swaps what swap_1x1 finds, and returns what it leaves; most models have nothing of both."""
    try:
        return swap_1x1(model).left
    except NothingToSwapError as error:
        return error.left


def check_direction(direction: str) -> None:
    """Raises WICArgumentError for another direction."""
    if direction not in get_args(Direction):
        raise WICArgumentError(f'Expected direction "forward" or "reverse"; got {direction!r}.')


class OneWay(nn.Module):
    """A module of which one direction is called, and tensors alone are returned."""

    def __init__(self, module: nn.Module, *, reverse: bool) -> None:
        super().__init__()
        self.module: Any = module
        self.reverse = reverse
        taken = inspect.signature(module.forward).parameters
        self.is_graph = "jac" in taken  # FrEIA's
        self.has_inverse = callable(getattr(module, "inverse", None))
        normflows = sys.modules.get("normflows")
        self.is_flow = normflows is not None and isinstance(module, normflows.flows.Flow)
        takes_rev = "rev" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values())
        if reverse and not (self.is_graph or self.has_inverse or takes_rev):
            raise WICArgumentError(
                "Expected a model that runs backwards, by inverse(y) or forward(x, rev=True); got "
                f"{type(module).__name__}."
            )

    def forward(self, x: Any, *conditions: Tensor) -> Any:
        """What the module makes of a tensor; of a FrEIA graph's tuple of them and conditions."""
        if self.is_graph:
            given = {"c": list(conditions)} if conditions else {}
            return self.module(x, rev=self.reverse, jac=False, **given)[0]
        if not self.reverse:
            y = self.module(x)
        elif self.has_inverse:
            y = self.module.inverse(x)
        else:
            y = self.module(x, rev=True)
        return y[0] if self.is_flow else y  # without the log-determinant behind it


def _start(model: nn.Module) -> None:
    """Takes the wait for a first batch, which would stay, out of a host's layers."""
    for name, module in model.named_modules():
        if type(module).__module__.startswith(("torch.", "wic_layers.")):
            continue
        flags = {
            key: value
            for key, value in (*vars(module).items(), *module._buffers.items())
            if _STARTED.fullmatch(key) and _is_flag(value)
        }
        waits = getattr(module, "init_on_next_batch", False)  # FrEIA's
        if waits or not all(map(bool, flags.values())):
            raise WICArgumentError(
                f"{name}: expected a layer that has seen its first batch; {type(module).__name__} "
                "still waits for it. Run the model once before it is fused."
            )
        for key in flags.keys() & module._buffers.keys():
            del module._buffers[key]
            module.__dict__[key] = _Flag(1)


_STARTED = re.compile(r"_?(is_)?(data_dep_)?init(ed|iali[sz]ed)?(_done)?")


def _is_flag(value: object) -> bool:
    return isinstance(value, bool) or (isinstance(value, Tensor) and value.numel() == 1)


class _Flag(int):
    """A buffer that said that a layer has started, as a number, on which code may branch."""

    def item(self) -> int:
        """The number, as of a tensor."""
        return int(self)

    def fill_(self, value: object) -> _Flag:
        """Nothing: a layer that has started stays so."""
        return self

    copy_ = fill_


def lowered(fused: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Runs the networks inside couplings and completions in another dtype, in place.

    What is inverted, the halves of couplings and the constants, stays as it is.

    Raises:
        WICArgumentError: If there is no such network.
    """
    networks = [
        (block, name, network)
        for block in fused.modules()
        if isinstance(block, (InvertibleBlock, Completed))
        for name, network in block._modules.items()
        if name in block.networks and network is not None
    ]
    if not networks:
        raise WICArgumentError(
            f"Expected a network of affine couplings to run in {dtype}; this one keeps code of "
            "its own, and stays in float32."
        )
    for block, name, network in networks:
        block._modules[name] = Lower(network, dtype)
    return fused
