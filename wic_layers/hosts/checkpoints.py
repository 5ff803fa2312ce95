"""from_before, load_optimizer_state: what was saved before a network was closed, read after it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError

__all__ = ["from_before", "load_optimizer_state"]


def from_before(state_dict: dict[str, Any], prefix: str, net: nn.Module, wic: nn.Module) -> None:
    """Renames a bare network's keys to those of the closed one, and leaves others alone.

    A state dict is the bare network's if it has one of its keys and none of the closed one's.

    Args:
        state_dict: Changed in place.
        prefix: Of the closed network in it.
        net: The network inside.
        wic: The layer that closes it, which stays as it is.
    """
    own = [key[len(prefix) :] for key in net.state_dict(prefix=prefix)]
    closed = {f"net.{key}" for key in own}.difference(own)
    if any(f"{prefix}{key}" in state_dict for key in closed):
        return
    values = {key: state_dict.pop(prefix + key) for key in own if prefix + key in state_dict}
    if values:
        state_dict.update({f"{prefix}net.{key}": value for key, value in values.items()})
        state_dict.update(wic.state_dict(prefix=f"{prefix}wic."))


def load_optimizer_state(optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
    """Loads the state of an optimizer from before a network was closed, or from after it.

    Every parameter keeps what the optimizer knows of it (its moments and steps), and the options
    of its group. The kernel, which was not there, starts with none. Which parameters are the new
    ones is read from the shapes of what is stored, in their order.

    Args:
        optimizer: The optimizer of the closed network.
        state: What ``state_dict()`` of the earlier optimizer gave.

    Raises:
        WICArgumentError: If the parameters are fewer, in fewer groups, or of other shapes.

    Example:
        >>> from wic_layers import WellPosed
        >>> from wic_layers.blocks import AffineCoupling, Chain, Squeeze
        >>> net = Chain(Squeeze(2), AffineCoupling(12))
        >>> state = torch.optim.Adam(net.parameters()).state_dict()
        >>> optimizer = torch.optim.Adam(WellPosed(net, 12, 3).parameters())
        >>> load_optimizer_state(optimizer, state)
    """
    current = optimizer.state_dict()
    before, groups = state["param_groups"], current["param_groups"]
    if len(before) > len(groups):
        raise WICArgumentError(
            f"Expected the state of an optimizer with at most {len(groups)} groups of parameters; "
            f"got {len(before)}. Build the optimizer as it was built then."
        )
    entries: dict[int, Any] = {}
    loaded = []
    for index, group in enumerate(groups):
        if index >= len(before):
            loaded.append(group)
            continue
        old = before[index]
        parameters = optimizer.param_groups[index]["params"]
        stored = [state["state"].get(number, {}) for number in old["params"]]
        places = _places(stored, parameters)
        if places is None:
            raise WICArgumentError(
                f"Expected the state of the {len(parameters)} parameters of group {index}, or of "
                f"some of them in the same order; got that of {len(stored)}, of other shapes. "
                "Build the optimizer as it was built then, around the closed network."
            )
        entries |= {group["params"][place]: stored[i] for i, place in enumerate(places)}
        own = {key: group[key] for key in ("params", "param_names") if key in group}
        options = {key: value for key, value in old.items() if key != "param_names"}
        loaded.append({**options, **own})
    entries = {number: entry for number, entry in entries.items() if entry}
    optimizer.load_state_dict({**current, **state, "state": entries, "param_groups": loaded})


def _places(stored: Sequence[Mapping[str, Any]], parameters: Sequence[Tensor]) -> list[int] | None:
    """Which parameters the stored entries are of: the first ones, or the first that fit."""
    if len(stored) > len(parameters):
        return None
    if all(map(_fits, stored, parameters)):
        return list(range(len(stored)))
    places, start = [], 0
    for entry in stored:
        fitting = (i for i in range(start, len(parameters)) if _fits(entry, parameters[i]))
        place = next(fitting, None)
        if place is None:
            return None
        places.append(place)
        start = place + 1
    return places


def _fits(entry: Mapping[str, Any], parameter: Tensor) -> bool:
    """Whether what is stored of a parameter may be of this one, by the shape of its moments."""
    shapes = [value.shape for value in entry.values() if isinstance(value, Tensor) and value.ndim]
    return not shapes or parameter.shape in shapes
