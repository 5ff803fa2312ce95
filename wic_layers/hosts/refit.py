"""refit: which sizes a module has to have to take another number of channels, found by trying.

Copies of the module with other sizes (:mod:`wic_layers.hosts.variants`) run on tensors of the new
size, until one gives what it has to.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Any, cast

import torch
from torch import Tensor, nn

from wic_layers.hosts.twins import twin_of
from wic_layers.hosts.variants import Size, numbers_of, own_tensors, sizes_of, tupled, variants
from wic_layers.layer.completion import Learned
from wic_layers.layer.conv import WIC

__all__ = ["Fit", "channels_of", "refit", "tensors_in"]

Call = Callable[[nn.Module], object]

_TRIES = 200


@dataclass(frozen=True)
class Fit:
    """What came of it.

    Attributes:
        result: What the module gave at the new size; None where nothing ran.
        sizes: What had to become another size; empty where it runs as it is.
        chance: What it holds that is as large as its channels and may mean something else.
    """

    result: object = None
    sizes: tuple[Size, ...] = ()
    chance: tuple[str, ...] = ()


def tensors_in(value: object) -> list[Tensor]:
    """All tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return [tensor for entry in value for tensor in tensors_in(entry)]
    return []


def channels_of(value: object) -> tuple[int, ...]:
    """The channels of every tensor with any: dimension 1."""
    return tuple(tensor.shape[1] for tensor in tensors_in(value) if tensor.ndim > 1)


def _first(value: object) -> object:
    """The first entry with a tensor: what a module takes beside conditions and masks."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return next((entry for entry in value if tensors_in(entry)), ())
    return value


def _all(value: object) -> object:
    return value


def _main(call: Any) -> object:
    """The first argument of a call."""
    args, kwargs = call
    return _first(args if tensors_in(args) else kwargs)


def _numbers(value: object) -> int:
    return sum(tensor.numel() for tensor in tensors_in(value) if tensor.ndim > 1)


def refit(
    module: nn.Module,
    today: tuple[object, object],
    new_inputs: object,
    call_today: Call,
    call_then: Call,
) -> Fit:
    """Finds the sizes with which a module takes what arrives.

    What gives as many numbers as it takes today has to go on doing so; what does not has to give
    the shapes that it gives today.

    Args:
        module: The module; stays as it is.
        today: What it takes and gives.
        new_inputs: What it has to take.
        call_today: Runs a copy on what it takes today.
        call_then: Runs a copy on what arrives.
    """
    inputs, result = today
    pairs = _pairs(inputs, new_inputs)
    sides = {tuple(tensor.shape[1:]) for tensor in tensors_in(today) if tensor.ndim > 1}
    main = next(
        (
            (of_inputs, of_result)
            for of_inputs, of_result in product((_all, _main), (_all, _first))
            if _numbers(of_inputs(inputs)) == _numbers(of_result(result)) > 0
        ),
        None,
    )
    if main is not None and len(pairs) == 1:
        ((old, new),) = pairs.items()
        for channels in channels_of(result):
            if channels * new % old == 0:
                pairs.setdefault(channels, channels * new // old)
    shapes = [tensor.shape[1:] for tensor in tensors_in(result) if tensor.ndim > 1]

    def tried(twin: nn.Module) -> object:
        try:
            with torch.no_grad():
                output = call_then(twin)
        except Exception:  # whatever somebody else's code says to a size that it does not take
            return None
        if main is not None:
            of_inputs, of_result = main
            is_whole = _numbers(of_result(output)) == _numbers(of_inputs(new_inputs))
            return output if is_whole else None
        tensors = [tensor.shape[1:] for tensor in tensors_in(output) if tensor.ndim > 1]
        return output if tensors == shapes else None

    wic = _wic_in(module)
    if wic is not None:
        return _refit_wic(module, wic, pairs, tried)
    numbers = list(numbers_of(module))
    chance = tuple(
        f"{name} = {value}"
        for name, value, is_size in numbers
        if not is_size and isinstance(value, int) and value in pairs
    )
    tied = [
        f"{name} = {value}" for name, value, is_size in numbers if is_size and _has(value, pairs)
    ]
    tied += [
        f"{name} of shape {tuple(tensor.shape)}"
        for name, tensor in own_tensors(module).items()
        if any(size in pairs for size in tensor.shape)
    ]
    as_it_is = tried(twin_of(module))
    lists = _lists(inputs, new_inputs) | _lists(_main(inputs), _main(new_inputs))
    if as_it_is is not None:
        lists |= _lists(result, as_it_is) | _lists(_first(result), _first(as_it_is))
    in_lists = [name for name, value, is_size in numbers if is_size and tupled(value) in lists]
    if as_it_is is not None and not tied and not in_lists:
        return Fit(as_it_is, (), chance)
    if as_it_is is not None and set(pairs) == {1}:  # what has one entry may be for all channels
        return Fit(as_it_is, (), (*chance, *tied))
    for twin, changed in islice(variants(module, pairs, sides, lists, call_today), _TRIES):
        output = tried(twin)
        if output is not None:
            return Fit(output, sizes_of(module, twin, changed), chance)
    return Fit(as_it_is, (), () if as_it_is is None else (*chance, *tied))


def _lists(before: object, after: object) -> dict[object, object]:
    """Shapes and channels of several tensors that changed, as a module may hold them."""
    old, new = ([t for t in tensors_in(value) if t.ndim > 1] for value in (before, after))
    if not old or len(old) != len(new):
        return {}
    shapes = (tuple(tuple(tensor.shape[1:]) for tensor in tensors) for tensors in (old, new))
    lists: dict[object, object] = {next(shapes): next(shapes)}
    if len(old) > 1:
        lists[channels_of(old)] = channels_of(new)
    return {today: then for today, then in lists.items() if today != then}


def _pairs(inputs: object, new_inputs: object) -> dict[int, int]:
    """The channels that changed: from, to. Empty where one number becomes two."""
    pairs: dict[int, int] = {}
    for part in (_main, _all):
        for old, new in zip(
            channels_of(part(inputs)), channels_of(part(new_inputs)), strict=False
        ):
            if pairs.setdefault(old, new) != new and part is _main:
                return {}
    return {old: new for old, new in pairs.items() if old != new}


def _wic_in(module: nn.Module) -> WIC | None:
    """The WIC that a module is, or is a shell of."""
    inside = module if isinstance(module, WIC) else getattr(module, "conv", None)
    is_shell = type(module).__module__.startswith("wic_layers.hosts.")
    return inside if isinstance(inside, WIC) and (inside is module or is_shell) else None


def _refit_wic(
    module: nn.Module, wic: WIC, pairs: Mapping[int, int], tried: Callable[[nn.Module], object]
) -> Fit:
    """A WIC is built anew: square ones stay square, others give what they give today."""
    n, m, layout = wic.in_channels, wic.out_channels, cast(Any, wic.layout)
    if wic.bijective:
        new_n = new_m = pairs.get(n, n)
    else:
        new_n, new_m = pairs.get(n, n), pairs.get(m, m) if n not in pairs else m
    rows: Any = None
    if new_m < new_n and m < n:
        rows = {n: "n", m: "m"}.get(wic.rows, wic.rows) if layout == "compact" else None
        rows = None if isinstance(rows, int) and rows < new_n else rows
    completion: Any = "learned" if isinstance(wic.completion, Learned) and rows == "n" else None
    with torch.random.fork_rng(devices=[]):
        layer = WIC(
            new_n, new_m, completion=completion, rows=rows, layout=layout,
            parametrization=wic.parametrization, dtype=wic.weight.dtype, device=wic.weight.device,
        ).eval()  # fmt: skip
    twin: Any = twin_of(module)
    prefix = ""
    if module is wic:
        twin = layer
    else:
        prefix = "conv."
        twin.conv = layer
        if hasattr(twin, "_channels"):
            twin._channels = new_n
    after = {f"{prefix}{name}": tuple(t.shape) for name, t in layer.named_parameters()}
    sizes = [
        Size(name, tuple(tensor.shape), after[name])
        for name, tensor in module.named_parameters()
        if name in after and after[name] != tuple(tensor.shape)
    ]
    held = (("in_channels", n, new_n), ("out_channels", m, new_m))
    sizes += [Size(prefix + name, a, b, is_tensor=False) for name, a, b in held if a != b]
    return Fit(tried(twin), tuple(sizes))


def _has(value: Any, sizes: Mapping[int, Any]) -> bool:
    if isinstance(value, int):
        return value in sizes
    return _has(value[0], sizes) if value else False
