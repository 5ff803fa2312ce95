"""HiNetFormat, HiNet as its authors' code names it: ``inv1`` to ``inv16``, nets f, y and r."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from wic_layers.models.base import Network
from wic_layers.models.hinet import HiNet
from wic_layers.models.official.format import Format

__all__ = ["HiNetFormat"]

_NETS = {"F": "f", "G": "y", "H": "r"}


class HiNetFormat(Format):
    """The code of HiNet."""

    networks = (HiNet,)
    mark = r"^inv1\."
    published = "random_z"

    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network that the names and shapes of a state dict are for."""
        self._refuse(out_channels=out_channels, copies=copies)
        hidden = state["inv1.f.conv1.weight"].shape[1]  # f sees the secrets' sub-bands
        cover = len(state["inv1.f.conv5.bias"])
        return HiNet(
            (cover + hidden) // 4,
            cover // 4,
            couplings=max(int(key.split(".")[0].removeprefix("inv")) for key in state),
            growth=len(state["inv1.f.conv1.bias"]),
            random_z=True,
        )

    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs."""
        names = {}
        for key in model.state_dict():
            place, net, *rest = key.split(".")
            if net in _NETS:
                names[key] = f"inv{place}.{_NETS[net]}.{'.'.join(rest)}"
        return names
