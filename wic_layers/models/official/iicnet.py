"""IICNet as its authors' code names it: relation, downscaling, couplings, each with a number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from wic_layers.blocks import Haar, Relation
from wic_layers.errors import WICArgumentError
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network
from wic_layers.models.iicnet import IICNet

__all__ = ["KINDS", "build", "check", "constants", "is_kernel", "names", "recognises"]

KINDS = (IICNet,)
_SIDES = {"there": "forw_rel", "back": "back_rel"}
_PARTS = {
    "heads": "DB_heads",
    "described": "conv_1x1_heads",
    "merges": "conv_merges",
    "merged": "conv_1x1_tails",
    "tails": "DB_tails",
}
_HAAR, _KERNEL = "1.operations.0.haar_weights", "1.operations.1.weight"
_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of this code."""
    return any(key.startswith("2.operations.") for key in state)


def check(model: Network) -> None:
    """Raises if the authors' code has no such network."""
    if not model.config["channel_squeeze"]:
        raise WICArgumentError(
            "Expected an IICNet with channel_squeeze=True, which is all that the authors' code "
            "has; got one with a WIC. Put blocks.ChannelMean(...).as_wic(...) in place of their "
            "CSLayer to use one in their code."
        )


def build(state: Mapping[str, Tensor], out_channels: int | None, copies: int | None) -> Network:
    """The network that the names and shapes of a state dict are for."""
    if copies is not None:
        raise WICArgumentError("Expected no copies for IICNet, whose shapes say.")
    first = len(state["2.operations.0.F.conv5.bias"])
    channels = first + state["2.operations.0.F.conv1.weight"].shape[1]
    scale = 2 if _KERNEL in state else 1
    in_channels = channels // scale**2
    order: Any = "bands"
    if scale == 1:
        found = first
    elif first == in_channels:
        found = out_channels or 3
    else:
        order, found = "images", first // 4
    if out_channels not in (None, found):
        raise WICArgumentError(
            f"Expected out_channels of {found}, as the couplings' first half has {first} "
            f"channels; got {out_channels}."
        )
    head = state.get("0.forw_rel.conv_1x1_heads.0.bias")
    return IICNet(
        in_channels,
        found,
        scale=scale,
        couplings=1 + max(int(k.split(".")[2]) for k in state if k.startswith("2.operations.")),
        growth=len(state["2.operations.0.F.conv1.bias"]),
        features=0 if head is None else len(head),
        haar=_HAAR in state or scale == 1,
        order=order,
        channel_squeeze=True,
    )


def is_kernel(model: Network, key: str) -> bool:
    """Whether a tensor of ours is a kernel that they hold as that of a convolution."""
    return False


def names(model: Network) -> dict[str, str]:
    """Our names of a state dict with theirs."""
    blocks = list(model)
    before = sum(not hasattr(block, "F") for block in blocks[:-1])  # relation, squeeze, 1x1
    found = {}
    for key in model.state_dict():
        place, _, rest = key.partition(".")
        block = blocks[int(place)]
        if isinstance(block, Relation):
            side, part, rest = rest.split(".", 2)
            found[key] = f"0.{_SIDES[side]}.{_PARTS[part]}.{rest}"
        elif isinstance(block, WIC):
            found[key] = _KERNEL
        else:
            found[key] = f"2.operations.{int(place) - before}.{rest}"
    return found


def constants(model: Network) -> dict[str, Tensor]:
    """Tensors of theirs that ours has no counterpart of: the Haar transform, as a convolution."""
    if not any(isinstance(block, Haar) for block in model):
        return {}
    one = torch.tensor(_SIGNS, dtype=torch.float32).view(4, 1, 2, 2)
    return {_HAAR: one.repeat(model.config["in_channels"], 1, 1, 1)}
