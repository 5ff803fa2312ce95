"""HiNet as its authors' code names it: ``inv1`` to ``inv16``, each with nets f, y and r."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.models.base import Network
from wic_layers.models.hinet import HiNet

__all__ = ["KINDS", "build", "check", "constants", "is_kernel", "names", "recognises"]

KINDS = (HiNet,)
_NETS = {"F": "f", "G": "y", "H": "r"}


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of this code."""
    return any(key.startswith("inv1.") for key in state)


def check(model: Network) -> None:
    """Raises if the authors' code has no such network."""
    if not model.config["random_z"]:
        raise WICArgumentError(
            "Expected a HiNet with random_z=True, which is all that the authors' code has; got "
            "one with a WIC. Put their network into wic_layers.WellPosed to use one in their code."
        )


def build(state: Mapping[str, Tensor], out_channels: int | None, copies: int | None) -> Network:
    """The network that the names and shapes of a state dict are for."""
    if out_channels is not None or copies is not None:
        raise WICArgumentError("Expected no out_channels and copies for HiNet, whose shapes say.")
    hidden = state["inv1.f.conv1.weight"].shape[1]  # f sees the secrets' sub-bands
    kept = len(state["inv1.f.conv5.bias"])
    return HiNet(
        (kept + hidden) // 4,
        kept // 4,
        couplings=max(int(key.split(".")[0].removeprefix("inv")) for key in state),
        growth=len(state["inv1.f.conv1.bias"]),
        random_z=True,
    )


def is_kernel(model: Network, key: str) -> bool:
    """Whether a tensor of ours is a kernel that they hold as that of a convolution."""
    return False


def names(model: Network) -> dict[str, str]:
    """Our names of a state dict with theirs; the fixed kernel has none."""
    found = {}
    for key in model.state_dict():
        place, net, *rest = key.split(".")
        if net in _NETS:
            found[key] = f"inv{place}.{_NETS[net]}.{'.'.join(rest)}"
    return found


def constants(model: Network) -> dict[str, Tensor]:
    """Tensors of theirs that ours has no counterpart of."""
    return {}
