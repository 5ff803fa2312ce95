"""HiNetFormat, HiNet as its authors' code names it: ``inv1`` to ``inv16``, nets f, y and r."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.models.base import Network, has_wic
from wic_layers.models.hinet import HiNet
from wic_layers.models.official.format import Format, behind_net

__all__ = ["HiNetFormat"]

_NETS = {"F": "f", "G": "y", "H": "r"}


# of its Adam at the start of a training, by its config.py and train.py
_ADAM: dict[str, Any] = {
    "lr": 10**-4.5, "betas": (0.5, 0.999), "eps": 1e-6, "weight_decay": 1e-5,
}  # fmt: skip


class HiNetFormat(Format):
    """The code of HiNet.

    Its data sets read with Pillow: its networks see red first (``datasets.py``). A checkpoint is
    ``{"opt": ..., "net": ...}``, the network inside a ``DataParallel``; with a WIC it is one
    inside :class:`~wic_layers.WellPosed` there.
    """

    networks = (HiNet,)
    mark = r"^inv1\."
    wic = "wic."

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
            couplings=max(
                int(key.split(".")[0].removeprefix("inv"))
                for key in state
                if key.startswith("inv")
            ),
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
            elif has_wic(model):
                names[key] = f"{self.wic}{'.'.join((net, *rest))}"
        return names

    def checkpoint(self, model: Network, state: dict[str, Tensor]) -> object:
        """The network, and an optimizer that has taken no step yet."""
        inner = {
            key if key.startswith(self.wic) else f"model.{key}": v for key, v in state.items()
        }
        if has_wic(model):
            inner = behind_net(inner, self.wic)
        optimizer = torch.optim.Adam([nn.Parameter(v) for v in state.values()], **_ADAM)
        return {
            "opt": optimizer.state_dict(),
            "net": {f"module.{key}": value for key, value in inner.items()},
        }
