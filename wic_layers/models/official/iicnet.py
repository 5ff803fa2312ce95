"""IICNetFormat, IICNet as its authors' code names it: relation, downscaling and couplings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from wic_layers.blocks import Haar, Relation
from wic_layers.errors import WICArgumentError
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network
from wic_layers.models.iicnet import IICNet
from wic_layers.models.official.format import Format, haar_kernel

__all__ = ["IICNetFormat"]

_SIDES = {"there": "forw_rel", "back": "back_rel"}
_PARTS = {
    "heads": "DB_heads",
    "described": "conv_1x1_heads",
    "merges": "conv_merges",
    "merged": "conv_1x1_tails",
    "tails": "DB_tails",
}
_HEADS = "0.forw_rel.DB_heads."
_HAAR, _KERNEL = "1.operations.0.haar_weights", "1.operations.1.weight"


class IICNetFormat(Format):
    """The code of IICNet.

    Its data sets read with OpenCV and turn nothing: its networks see blue first, in every image
    and in the picture; what it writes is written by OpenCV again (``data/*Dataset.py``,
    ``utils/util.py``). Its grey picture has no order, and is that of the right colours. A network
    with a WIC has it in place of the layer ``cs``, number 3.
    """

    networks = (IICNet,)
    mark = r"^2\.operations\."
    colours = "BGR"
    wic = "3."

    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network that the names and shapes of a state dict are for."""
        self._refuse(copies=copies)
        first = len(state["2.operations.0.F.conv5.bias"])
        channels = first + state["2.operations.0.F.conv1.weight"].shape[1]
        heads = {key.split(".")[3] for key in state if key.startswith(_HEADS)}
        is_halved = _HAAR in state or (heads and channels == 12 * len(heads))
        if is_halved and _KERNEL not in state:
            raise WICArgumentError(
                "it squeezes without a 1x1 convolution behind that (use_conv1x1: false), which is "
                "not known here"
            )
        scale = 2 if _KERNEL in state else 1
        in_channels = channels // scale**2
        order: Literal["bands", "images"] = "bands"
        if scale == 1:
            result = first
        elif first == in_channels:
            result = out_channels or 3
        else:
            order, result = "images", first // 4
        if out_channels not in (None, result):
            raise WICArgumentError(
                f"Expected out_channels of {result}, as the couplings' first half has {first} "
                f"channels; got {out_channels}."
            )
        head = state.get("0.forw_rel.conv_1x1_heads.0.bias")
        return IICNet(
            in_channels,
            result,
            scale=scale,
            couplings=1
            + max(int(k.split(".")[2]) for k in state if k.startswith("2.operations.")),
            growth=len(state["2.operations.0.F.conv1.bias"]),
            features=0 if head is None else len(head),
            haar=_HAAR in state or scale == 1,
            order=order,
            channel_squeeze=True,
        )

    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs."""
        blocks = list(model)
        before = sum(not hasattr(block, "F") for block in blocks[:-1])  # relation, squeeze, 1x1
        names = {}
        for key in model.state_dict():
            place, _, rest = key.partition(".")
            block = blocks[int(place)]
            if isinstance(block, Relation):
                side, part, rest = rest.split(".", 2)
                names[key] = f"0.{_SIDES[side]}.{_PARTS[part]}.{rest}"
            elif block is blocks[-1]:
                names[key] = f"{self.wic}{rest}"
            elif isinstance(block, WIC):
                names[key] = _KERNEL
            else:
                names[key] = f"2.operations.{int(place) - before}.{rest}"
        return names

    def constants(self, model: Network) -> dict[str, Tensor]:
        """The kernel of their Haar transform."""
        if not any(isinstance(block, Haar) for block in model):
            return {}
        return {_HAAR: haar_kernel(model.config["in_channels"])}
