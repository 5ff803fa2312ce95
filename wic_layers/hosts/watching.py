"""run_watched: a model runs on a copy, and what its modules take and give is recorded.

With other channels at one layer every module behind it takes what arrives, with other sizes if it
has to (:mod:`wic_layers.hosts.refit`); the model's own code between the modules runs as it is.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.blocks import Chain, LongTermMemory
from wic_layers.errors import WICArgumentError
from wic_layers.hosts.refit import Fit, channels_of, refit, tensors_in
from wic_layers.hosts.twins import Mismatch, twin_of
from wic_layers.hosts.well_posed import WellPosed

__all__ = [
    "Record",
    "Run",
    "Watch",
    "all_shapes",
    "default_run",
    "known_name",
    "listed",
    "run_watched",
    "whole_of",
]

Run = Callable[[Any, Any], object]

_OPEN = (nn.Sequential, nn.ModuleList, nn.ModuleDict, Chain, LongTermMemory, WellPosed)
_OPEN_CODE = ("FrEIA.framework", "normflows.core")


@dataclass
class Record:
    """One run of a module."""

    name: str
    module: nn.Module
    inputs: object
    result: object
    fit: Fit | None = None
    is_replaced: bool = False


@dataclass
class Watch:
    """What ran, in order."""

    calls: list[Record]
    result: object = None
    error: Exception | None = None
    own_error: Exception | None = None


def whole_of(model: object) -> nn.Module:
    """A model, or one of a list of layers.

    Raises:
        WICArgumentError: If it is neither.
    """
    whole = nn.ModuleList(model) if isinstance(model, (list, tuple)) else model
    if isinstance(whole, nn.Module):
        return whole
    raise WICArgumentError(f"Expected a model or a list of layers; got {type(model).__name__}.")


def known_name(model: nn.Module, name: str) -> str:
    """The first name of a module; a node of FrEIA's graph is named by its module.

    Raises:
        WICArgumentError: If there is no such module.
    """
    places = dict(model.named_modules(remove_duplicate=False))
    nodes = {getattr(node, "name", None): node.module for node in getattr(model, "node_list", ())}
    module = places.get(name, nodes.get(name))
    if name and module is not None:
        return next(place for place, known in places.items() if known is module)
    outer = [place for place in places if place and place.count(".") < 2]
    raise WICArgumentError(
        f"Expected the name of a layer of {type(model).__name__}; got {name!r}. There are "
        f"{listed(outer)}."
    )


def listed(names: Sequence[str], most: int = 20) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _units(model: nn.Module, name: str, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that are looked at from outside."""
    for part, module in model.named_children():
        full = f"{prefix}{part}"
        is_open = isinstance(module, _OPEN) or type(module).__module__.startswith(_OPEN_CODE)
        if full != name and (is_open or name.startswith(f"{full}.")):
            yield from _units(module, name, f"{full}.")
        else:
            yield full, module


def _methods(module: nn.Module) -> list[str]:
    """Names of the public methods that its own class, and not torch's, has; and forward."""
    names = []
    for method in dir(type(module)):
        function = inspect.getattr_static(type(module), method)
        is_own = inspect.isfunction(function) and not hasattr(nn.Module, method)
        if method == "forward" or (is_own and not method.startswith("_")):
            names.append(method)
    return names


def run_watched(
    model: nn.Module,
    name: str,
    x: Any,
    run: Run,
    change: tuple[Sequence[Record], int] | None,
) -> Watch:
    """Runs a copy, and notes what its modules take and give.

    With ``change``, today's calls and the layer's new channels, every module takes what arrives.
    """
    try:
        twin = twin_of(model)
    except Mismatch as mismatch:
        raise WICArgumentError(
            f"Expected a model that can be copied; {type(model).__name__}: {mismatch}."
        ) from mismatch
    watch = Watch([])
    originals = dict(model.named_modules(remove_duplicate=False))
    inside: list[str] = []  # the module that runs, whose inner calls do not count
    units: dict[nn.Module, str] = {}
    for full, module in _units(twin, name):
        units.setdefault(module, full)
    for module, full in units.items():
        for method in _methods(module):
            original = getattr(module, method)

            def recorded(
                *args: Any,
                full: str = full,
                method: str = method,
                original: Callable[..., object] = original,
                **kwargs: Any,
            ) -> object:
                if inside or not tensors_in((args, kwargs)):
                    return original(*args, **kwargs)
                inside.append(full)
                try:
                    inputs = _copied((args, kwargs))
                    if change is None:
                        result = original(*args, **kwargs)
                        call = Record(full, originals[full], inputs, _copied(result))
                    else:
                        call = _call_then(
                            originals[full], full, method, inputs, watch, change, name
                        )
                        result = _copied(call.result)
                    watch.calls.append(call)
                finally:
                    inside.clear()
                return result

            setattr(module, method, recorded)
    try:
        watch.result = _copied(run(twin, x))
    except Exception as error:  # of somebody else's code, which is shown to the caller
        watch.error = error
    if watch.own_error is not None:  # is no matter of the model's
        raise watch.own_error
    return watch


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(entry) for entry in value)
    return value


def _call_then(
    module: nn.Module,
    full: str,
    method: str,
    inputs: Any,
    watch: Watch,
    change: tuple[Sequence[Record], int],
    name: str,
) -> Record:
    """A call of the second run: what the module gives for what arrives."""
    calls, out_channels = change
    turn = sum(call.name == full for call in watch.calls)
    same = [call for call in calls if call.name == full]
    if turn >= len(same):
        raise RuntimeError(f"{full} runs more often than with the channels of today")
    before = same[turn]

    def run_on(arguments: Any) -> Callable[[nn.Module], object]:
        args, kwargs = arguments

        def run_copy(copy: Any) -> object:
            function = copy if method == "forward" else getattr(copy, method)  # with its hooks
            return function(*_copied(args), **_copied(kwargs))

        return run_copy

    is_same = all_shapes(inputs) == all_shapes(before.inputs)
    if full == name and is_same:
        result = _with_channels(before.result, [out_channels])
        return Record(full, module, inputs, result, is_replaced=True)
    if is_same:
        return Record(full, module, inputs, run_on(inputs)(twin_of(module)))
    today = (before.inputs, before.result)
    try:
        fit = refit(module, today, inputs, run_on(before.inputs), run_on(inputs))
    except Exception as error:
        watch.own_error = error
        raise
    result = fit.result
    if result is None:
        result = _with_channels(before.result, _guessed(before, inputs))
    return Record(full, module, inputs, result, fit)


def all_shapes(value: object) -> list[torch.Size]:
    """The shapes of all tensors in nested tuples, lists and dicts."""
    return [tensor.shape for tensor in tensors_in(value)]


def _guessed(before: Record, inputs: object) -> list[int]:
    """What a module that did not run would have to give: as many channels as it takes."""
    old, new = channels_of(before.inputs), channels_of(inputs)
    changed = dict(zip(old, new, strict=False))
    return [changed.get(channels, channels) for channels in channels_of(before.result)]


def _with_channels(result: Any, channels: list[int]) -> Any:
    """A result with other channels, cut or repeated."""
    left = list(channels)

    def resized(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.ndim < 2 or not left:
                return value
            index = torch.arange(left.pop(0), device=value.device) % value.shape[1]
            return value.index_select(1, index)
        if type(value) in (tuple, list):
            return type(value)(resized(entry) for entry in value)
        return value

    return resized(result)


def default_run(model: Any, x: Any) -> object:
    """Runs a model as its kind is run: a list layer by layer, normflows' from the data."""
    if type(model).__module__.startswith("normflows.core") and hasattr(model, "log_prob"):
        takes_y = "y" in inspect.signature(model.log_prob).parameters
        return model.log_prob(x, None) if takes_y else model.log_prob(x)
    if not isinstance(model, nn.ModuleList):
        return model(x)
    for layer in model:
        x = layer(x)
        while isinstance(x, (tuple, list)):
            x = x[0]
    return x
