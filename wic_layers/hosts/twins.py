"""twin_of, perturb, no_traces: copies of a layer to be tried, and the world left as it was."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers._probe import random_numbers_restored

__all__ = [
    "Mismatch",
    "WrongLogDet",
    "no_traces",
    "perturb",
    "run_pre_hooks",
    "twin_of",
    "without_graphs",
]

_HOOKS = ("_forward_hooks", "_backward_hooks", "_backward_pre_hooks")


class Mismatch(Exception):
    """A layer is not what it was tried as; the message says why, empty where it is of no use."""


class WrongLogDet(Mismatch):
    """A layer's log-determinant is none of its matrix, which may hold for some sizes only."""


@contextmanager
def no_traces(model: nn.Module) -> Iterator[None]:
    """Gives torch and numpy their random numbers back."""
    numpy = sys.modules.get("numpy")
    state = None if numpy is None else numpy.random.get_state()
    kinds = {"cpu", *(parameter.device.type for parameter in model.parameters())}
    with ExitStack() as stack:
        stack.enter_context(random_numbers_restored(*model.parameters()))
        for kind in kinds:  # a trial is exact, whatever it is called in
            if torch.amp.is_autocast_available(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield
    if numpy is not None:
        numpy.random.set_state(state)


def twin_of(layer: nn.Module, dtype: torch.dtype | None = None) -> nn.Module:
    """A copy of a layer that nothing else sees, in ``eval()``.

    Args:
        layer: The layer.
        dtype: Of the copy; its own by default.

    Raises:
        Mismatch: If it cannot be copied.
    """
    if any(tensor.is_meta for tensor in (*layer.parameters(), *layer.buffers())):
        raise Mismatch("it has no values yet, on the meta device")
    memo = without_graphs(layer)
    for module in layer.modules():
        for name in _HOOKS:
            memo[id(getattr(module, name))] = type(getattr(module, name))()
    try:
        twin = copy.deepcopy(layer, memo)
    except Exception as error:
        raise Mismatch(f"it cannot be copied to be tried ({error})") from error
    for module in twin.modules():  # those that compute weights stay
        for key, hook in list(module._forward_pre_hooks.items()):
            if not type(hook).__module__.startswith("torch.nn.utils"):
                del module._forward_pre_hooks[key]
    twin.requires_grad_(requires_grad=False).train().eval()  # train() is where hosts drop caches
    return twin if dtype is None else twin.to(dtype)


def without_graphs(model: nn.Module) -> dict[int, Any]:
    """A memo with which a model can be deep-copied that holds results of its last call."""
    values = (value for module in model.modules() for value in _attributes(module))
    return {
        id(value): value.detach().clone()
        for value in values
        if isinstance(value, Tensor) and value.requires_grad
        if not isinstance(value, nn.Parameter)
    }


def run_pre_hooks(twin: nn.Module) -> nn.Module:
    """A copy with the weights that torch's older utilities compute before each call."""
    for hook in twin._forward_pre_hooks.values():
        hook(twin, None)
    return twin


def _attributes(module: nn.Module) -> Iterator[object]:
    """What a module holds, and what plain objects in it (caches of hosts) do."""
    for value in vars(module).values():
        yield value
        if isinstance(value, (list, tuple)):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
        elif not isinstance(value, (nn.Module, type)) and hasattr(value, "__dict__"):
            yield from vars(value).values()


def perturb(twin: nn.Module, layer: nn.Module, seed: int, *, flip: bool = False) -> None:
    """Moves what is trained, so that a layer shows how it depends on it."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for mine, own in zip(twin.parameters(), layer.parameters(), strict=True):
            if not (own.requires_grad and mine.is_floating_point()):
                continue
            scale = 0.3 / max(mine.shape, default=1) ** 0.5
            noise = torch.randn(mine.shape, generator=generator, dtype=torch.float64)
            mine.add_((scale * noise).to(mine))
            if flip and mine.ndim >= 2 and mine.shape[0] == mine.shape[1]:
                mine[0].neg_()
