"""Matrix, Completed, Constant: what a WIC becomes where nothing is to be inverted."""

from __future__ import annotations

import math
from fractions import Fraction
from functools import partial

import torch
from torch import Tensor, nn

from wic_layers.blocks import CouplingNet, InvertibleBlock
from wic_layers.blocks.block import run_named
from wic_layers.errors import WICArgumentError, WICError
from wic_layers.hosts.answering import CONSTANT, kernel_of, spec_of
from wic_layers.hosts.engine import HostKernel
from wic_layers.layer.completion import Completion, Gaussian, Shift
from wic_layers.layer.conv import WIC
from wic_layers.layer.functional import from_algebra
from wic_layers.layer.kernel import LogDetName, check_log_det
from wic_layers.layer.pointwise import as_kernel, convolve

__all__ = ["Completed", "Constant", "Lower", "Matrix", "put_constants"]


class Matrix(nn.Module):
    """A constant 1x1 convolution by a matrix (M, n)."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer(
            "matrix", matrix.detach().clone(memory_format=torch.contiguous_format)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, n, *spatial) to (B, M, *spatial)."""
        return convolve(x, as_kernel(self.matrix, x.ndim))

    def extra_repr(self) -> str:
        return f"{self.matrix.shape[1]}, {self.matrix.shape[0]}"


class Completed(nn.Module):
    """A matrix (n, M) on the channels of [y; c(y)], with a completion c."""

    def __init__(self, matrix: Tensor, completion: Completion) -> None:
        super().__init__()
        self.networks = () if isinstance(completion, Shift) else ("completion",)
        self.completion = completion
        self.matrix = Matrix(matrix)

    def forward(self, y: Tensor) -> Tensor:
        """Maps (B, m, *spatial) to (B, n, *spatial)."""
        extra = self.completion(y).to(y.dtype)
        return self.matrix(torch.cat((y, extra), dim=1))


class Constant(nn.Module):
    """A WIC of which both directions, and the log-volume, are constants.

    Args:
        layer: The layer.
        backward: Whether its inverse is sure to be needed, so that the lack of one is an error
            here and not where it is called.
    """

    def __init__(self, layer: WIC, *, backward: bool) -> None:
        super().__init__()
        self.in_channels = layer.in_channels
        self.out_channels = layer.out_channels
        # not less than float32, as an inverse is no kernel
        dtype = torch.promote_types(layer.weight.dtype, torch.float32)
        self.there = Matrix(layer.weight.detach()[: layer.out_channels].to(dtype))
        self.completion = layer.completion
        if isinstance(layer.completion, nn.Module):
            put_constants(layer.completion, reverse=False)
        self.refused = ""
        self.back: nn.Module = nn.Identity()
        try:
            self.back = self._inverted(layer, dtype)
        except WICError as error:
            if backward:
                raise
            self.refused = str(error)
        self.volume = float(layer.log_volume())
        self.log_det_is_exact = layer.log_det_is_exact
        self.title = layer._title()

    def _inverted(self, layer: WIC, dtype: torch.dtype) -> nn.Module:
        completion = layer.completion
        if isinstance(completion, Gaussian):
            raise WICArgumentError(
                f"{layer._title()}: expected a completion that computes the dropped channels; "
                "this one draws random numbers, which have no place in a deployed network. Train "
                'with completion="zero" or another.'
            )
        high = layer._folded(layer._checked_inverse(None))
        matrix = from_algebra(high, layer.weight, dtype)
        if completion is None or matrix.shape[1] == layer.out_channels:
            return Matrix(matrix)
        return Completed(matrix, completion)

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`wic_layers.blocks.InvertibleBlock.shape_after`."""
        return self.out_channels, side

    def complete(self, y: Tensor) -> Tensor:
        """See :meth:`wic_layers.WIC.complete`."""
        if self.refused:
            raise WICArgumentError(self.refused)
        return y[:, :0] if self.completion is None else self.completion(y).to(y.dtype)

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - as WIC
        """Maps (B, in_channels, *spatial) to (B, out_channels, *spatial), or back."""
        if rev:
            return self.inverse(x)
        y: Tensor = self.there(x)
        return y

    def inverse(self, y: Tensor) -> Tensor:
        """Maps (B, out_channels, *spatial) to (B, in_channels, *spatial)."""
        if self.refused:
            raise WICArgumentError(self.refused)
        x: Tensor = self.back(y)
        return x

    def _title(self) -> str:
        return self.title

    def with_log_det(
        self, x: Tensor, *, rev: bool = False, log_det: LogDetName = "exact"
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`wic_layers.WIC.with_log_det`."""
        check_log_det(self, log_det)
        volume = -self.volume if rev else self.volume
        dtype = torch.promote_types(x.dtype, torch.float32)
        pixels = x.new_full((x.shape[0],), math.prod(x.shape[2:]), dtype=dtype)
        return self(x, rev), pixels * volume


def put_constants(model: nn.Module, *, reverse: bool, needs_both: bool = False) -> None:
    """Exchanges every WIC inside a module, in place, and forgets what ``optimize`` set.

    Args:
        model: The module.
        reverse: In which of its directions it will run.
        needs_both: Whether it will run in both, so that what cannot be inverted is an error where
            it is called.
    """
    _exchange(model, "", None if needs_both else reverse, {})


def _exchange(
    parent: nn.Module,
    path: str,
    reverse: bool | None,  # noqa: FBT001
    constants: dict[nn.Module, nn.Module | None],
) -> None:
    # what normflows calls forward, from latent to data, is the way back of a WIC
    turned = type(parent).__module__ == "wic_layers.hosts.normflows"
    networks = parent.networks if isinstance(parent, InvertibleBlock) else ()
    for name, child in parent._modules.items():
        if child is None:
            continue
        place = f"{path}.{name}" if path else name
        backward = reverse is not None and reverse != turned and name not in networks
        if spec_of(child) is not None:
            host_constant = partial(HostConstant, backward=backward)
            child._modules[CONSTANT] = run_named(place, host_constant, kernel_of(child))
        elif isinstance(child, WIC):
            if child not in constants:
                constant = partial(Constant, backward=backward)
                constants[child] = run_named(place, constant, child)
            parent._modules[name] = constants[child]
        elif child not in constants:
            constants[child] = None  # which is kept
            if isinstance(child, CouplingNet):
                child.optimize(None)
            _exchange(child, place, backward, constants)


class HostConstant(nn.Module):
    """What answers for a host's layer where nothing is to be inverted.

    Args:
        wic: The :class:`~wic_layers.hosts.engine.HostKernel` of the layer.
        backward: Whether its inverse is sure to be needed.
    """

    bias: Tensor | None

    def __init__(self, wic: HostKernel, *, backward: bool) -> None:
        super().__init__()
        self.constant = Constant(wic, backward=backward and not wic.spec.turned)
        self.layout, self.turned = wic.spec.layout, wic.spec.turned
        maker = wic.spec.entries[0].maker
        # the class of the transforms that the layer makes, if it does
        self.kind = type(getattr(wic.spec.owner, maker)(wic.host)) if maker else None
        bias = wic.bias
        self.register_buffer("bias", None if bias is None else bias.detach().clone())

    def run(
        self, x: Tensor, *, rev: bool, with_volume: bool = True, lowers: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """See :meth:`wic_layers.hosts.engine.HostKernel.run`."""
        volume, folded = self.volume(x)
        sides = (1,) * (folded.ndim - 2)
        shift = 0 if self.bias is None else self.bias.to(x.dtype).view(-1, *sides)
        if rev != self.turned:
            y = self.constant.inverse(folded - shift)
        else:
            y = self.constant(folded) + shift
        return self.layout.unfold(y), volume, folded

    def volume(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`wic_layers.hosts.engine.HostKernel.volume`."""
        volume = -self.constant.volume if self.turned else self.constant.volume
        dtype = torch.promote_types(x.dtype, torch.float32)
        return x.new_full((), volume, dtype=dtype), self.layout.fold(x)


class Lower(nn.Module):
    """A network that runs in another dtype than what it is given and returns."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        for name, weight in net.named_parameters():
            if weight.isfinite().all() and not weight.to(dtype).isfinite().all():
                raise WICArgumentError(
                    f"Expected weights of at most {torch.finfo(dtype).max:.0f} to run in {dtype}; "
                    f"{name} has {weight.abs().max():.3g}. Stay in float32."
                )
        self.net = net.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Maps x as ``net`` does."""
        y: Tensor = self.net(x.to(self.dtype)).to(x.dtype)
        return y
