"""Layers, blocks and hosts as a user writes them: what checkers of types must know of each call.

Nothing here runs: mypy (``make types``) and pyright read it. ``assert_type`` fails where a type is
lost, and each ``type: ignore`` stands at a mistake that a checker has to find.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from typing_extensions import assert_type

import wic_layers
from wic_layers import WIC, WellPosed, det_loss, quantize, record_wic, shift_loss, swap_1x1
from wic_layers.blocks import AffineCoupling, Chain, DenseBlock, InvertibleBlock, Squeeze
from wic_layers.deploy import fuse
from wic_layers.hosts import ResizePlan, SwapReport, plan_resize
from wic_layers.layer.completion import Shift
from wic_layers.testing import check


def one_layer(x: Tensor) -> Tensor:
    layer = WIC(3, 12, parametrization="orthogonal")
    narrow = WIC(12, 3, completion="shift")
    custom = WIC(12, 3, completion=lambda y: y.repeat(1, 3, 1, 1))
    assert_type(layer(x), Tensor)
    assert_type(layer(x, rev=True), Tensor)
    assert_type(layer.inverse(x), Tensor)
    assert_type(layer.weight, Tensor)
    assert_type(WIC.from_kernel(torch.eye(3)), WIC)
    assert_type(layer.with_log_det(x), tuple[Tensor, Tensor])
    assert_type(Shift(3, 9)(x), Tensor)
    assert_type(wic_layers.layer.WIC(3, 3)(x), Tensor)
    check(custom)
    return narrow(layer(x))


def losses(model: nn.Module, x: Tensor) -> Tensor:
    with record_wic(model) as records:
        model(x)
    return det_loss(model) + shift_loss(records) + quantize(x).sum()


class Half(InvertibleBlock):
    """A block of the user's own."""

    is_exact = True
    keeps_shape = True

    def _forward(self, x: Tensor) -> Tensor:
        return x / 2

    def _inverse(self, y: Tensor) -> Tensor:
        return y * 2


def blocks(x: Tensor) -> Tensor:
    chain = Chain(Squeeze(2), AffineCoupling(12, subnet=DenseBlock), Half(), WIC(12, 3))
    assert_type(chain(x), Tensor)
    assert_type(chain.inverse(x), Tensor)
    assert_type(chain[1:], Chain)
    assert_type(Half()(x, rev=True), Tensor)
    assert_type(DenseBlock(3, 12)(x), Tensor)
    assert_type(fuse(chain), Chain)
    assert_type(fuse(chain, "reverse"), nn.Module)
    return chain(x)


def hosts(model: nn.Module, x: Tensor) -> Tensor:
    closed = WellPosed(model, in_channels=12, out_channels=3)
    assert_type(swap_1x1(model), SwapReport)
    assert_type(plan_resize(model, "conv", x, 24), ResizePlan)
    assert_type(closed(x), Tensor)
    return closed(x)


def mistakes(x: Tensor) -> None:
    layer = WIC(3, 12)
    layer("picture.png")  # type: ignore[arg-type]
    layer(x, reverse=True)  # type: ignore[call-arg]
    layer(x).save("picture.png")  # type: ignore[attr-defined]
    WIC(12, 3, completion="shfit")  # type: ignore[arg-type]
    WIC(12, 3, rows="k")  # type: ignore[arg-type]
    Chain(layer)(x, x, x)  # type: ignore[arg-type, call-arg]
    fuse(layer, "back")  # type: ignore[call-overload]
