"""IRN as its authors' code names it: ``operations.N``, one for each of our blocks but the last."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from wic_layers.blocks import Haar
from wic_layers.errors import WICArgumentError
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network
from wic_layers.models.irn import IRN

__all__ = ["KINDS", "build", "check", "constants", "is_kernel", "names", "recognises"]

KINDS = (IRN,)
_SQUEEZES = ("haar_weights", "conv_weights")
_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


def recognises(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of this code."""
    return any(f"operations.0.{name}" in state for name in _SQUEEZES)


def check(model: Network) -> None:
    """Raises if the authors' code has no such network."""
    if not model.config["random_z"]:
        raise WICArgumentError(
            "Expected an IRN with random_z=True, which is all that the authors' code has; got "
            "one with a WIC. Put their network into wic_layers.WellPosed to use one in their code."
        )


def build(state: Mapping[str, Tensor], out_channels: int | None, copies: int | None) -> Network:
    """The network that the names and shapes of a state dict are for."""
    if out_channels is not None or copies is not None:
        raise WICArgumentError("Expected no out_channels and copies for IRN, whose shapes say.")
    squeezes = sorted(int(key.split(".")[1]) for key in state if key.endswith(_SQUEEZES))
    blocks = max(int(key.split(".")[1]) for key in state) + 1
    if len(squeezes) > 1 and squeezes[1] == squeezes[0] + 1:
        raise WICArgumentError(
            "it squeezes twice before its couplings (down_first), which is not known here"
        )
    depths = [
        end - start - 1 for start, end in zip(squeezes, [*squeezes[1:], blocks], strict=True)
    ]
    if len(set(depths)) > 1:
        raise WICArgumentError(f"its stages have {depths} couplings, not as many each")
    learned = state.get("operations.0.conv_weights")
    if learned is None:
        in_channels = state["operations.0.haar_weights"].shape[0] // 4
        scale = 2 ** len(squeezes)
    else:
        scale = {3: 1, 9: 3}.get(len(learned), 0)
        in_channels = 3
        if not scale:
            raise WICArgumentError(
                f"its learned downsampling has {len(learned)} sub-bands; known are 3 (grey) and 9 "
                "(a scale of 3)"
            )
    return IRN(
        in_channels,
        len(state["operations.1.F.conv5.bias"]),
        scale=scale,
        couplings=depths[0],
        growth=len(state["operations.1.F.conv1.bias"]),
        random_z=True,
    )


def is_kernel(model: Network, key: str) -> bool:
    """Whether a tensor of ours is a kernel that they hold as that of a convolution."""
    return False


def names(model: Network) -> dict[str, str]:
    """Our names of a state dict with theirs; the fixed last kernel has none."""
    found = {}
    for key in model.state_dict():
        place, _, rest = key.partition(".")
        if int(place) == len(model) - 1:
            continue
        is_squeeze = int(place) == 0 and isinstance(
            model.get_submodule(key[: -len(".weight")]), WIC
        )
        found[key] = f"operations.{place}.{'conv_weights' if is_squeeze else rest}"
    return found


def constants(model: Network) -> dict[str, Tensor]:
    """Tensors of theirs that ours has no counterpart of: the Haar transforms, as convolutions."""
    found, channels = {}, model.config["in_channels"]
    for index, block in enumerate(model):
        if isinstance(block, Haar):
            one = torch.tensor(_SIGNS, dtype=torch.float32).view(4, 1, 2, 2)
            found[f"operations.{index}.haar_weights"] = one.repeat(channels, 1, 1, 1)
            channels *= 4
    return found
