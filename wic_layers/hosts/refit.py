"""refit: which sizes a module has to have to take another number of channels, found by trying.

Copies of the module are given other sizes and run on tensors of the new size, until one gives what
it has to. The layers of torch inside it (convolutions, linear layers, normalisations) take what
arrives there; what they give, the module's own tensors and the numbers it holds follow the
channels in the few ways that couplings, 1x1 convolutions and normalisations know.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice, product
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.hosts.trial import twin_of
from wic_layers.layer.conv import WIC

__all__ = ["Fit", "Size", "channels_of", "refit", "tensors_in"]

Call = Callable[[nn.Module], object]
Options = Mapping[int, tuple[int, ...]]

_TRIES = 100
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, nn.modules.batchnorm._NormBase, nn.GroupNorm)
_IS_SIZE = re.compile(
    r"channel|feature|dim|size|shape|split|width|len|plane|num_in|(^|_)n?_?c(h?)$"
)
_NO_SIZE = re.compile(r"kernel|hidden|n_?dim|num_?dim|sum_dim|batch")
_OWN = frozenset(vars(nn.Module()))


@dataclass(frozen=True)
class Size:
    """A parameter, buffer or number of a module whose size follows the channels.

    Attributes:
        name: Its name in the module.
        before: Shape or number today.
        after: What it becomes.
        is_tensor: Whether it is a parameter or buffer, and not a number that the module holds.
    """

    name: str
    before: Any
    after: Any
    is_tensor: bool = True

    def __str__(self) -> str:
        return f"{self.name} {self.before} -> {self.after}"


@dataclass(frozen=True)
class Fit:
    """What came of it.

    Attributes:
        result: What the module gave at the new size; None where nothing ran.
        sizes: What had to become another size; empty where it runs as it is.
        chance: Numbers it holds that are as large as its channels and may mean something else.
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
    arrives: object,
    call_today: Call,
    call_then: Call,
) -> Fit:
    """Finds the sizes with which a module takes what arrives.

    What gives as many numbers as it takes today has to go on doing so; what does not has to give
    the shapes that it gives today.

    Args:
        module: The module; stays as it is.
        today: What it takes and gives.
        arrives: What it has to take.
        call_today: Runs a copy on what it takes today.
        call_then: Runs a copy on what arrives.
    """
    taken, result = today
    pairs = _pairs(taken, arrives)
    sides = {tuple(tensor.shape[1:]) for tensor in tensors_in(today) if tensor.ndim > 1}
    main = next(
        (
            (of_taken, of_result)
            for of_taken, of_result in product((_all, _main), (_all, _first))
            if _numbers(of_taken(taken)) == _numbers(of_result(result)) > 0
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
                found = call_then(twin)
        except Exception:  # whatever somebody else's code says to a size that it does not take
            return None
        if main is not None:
            of_taken, of_result = main
            is_whole = _numbers(of_result(found)) == _numbers(of_taken(arrives))
            return found if is_whole else None
        tensors = [tensor.shape[1:] for tensor in tensors_in(found) if tensor.ndim > 1]
        return found if tensors == shapes else None

    wic = _wic_in(module)
    if wic is not None:
        return _refit_wic(module, wic, pairs, tried)
    numbers = list(_numbers_held(module))
    chance = tuple(
        f"{name} = {value}"
        for name, value, is_size in numbers
        if not is_size and isinstance(value, int) and value in pairs
    )
    is_sized = any(is_size and _has(value, pairs) for _, value, is_size in numbers)
    is_tied = any(
        size in pairs for tensor in _own_tensors(module).values() for size in tensor.shape
    )
    as_it_is = tried(twin_of(module))
    if as_it_is is not None and not is_sized and not is_tied:
        return Fit(as_it_is, (), chance)
    for twin, changed in islice(_variants(module, pairs, sides, call_today), _TRIES):
        found = tried(twin)
        if found is not None:
            return Fit(found, _sizes(module, twin, changed), chance)
    return Fit(as_it_is, (), chance)


def _pairs(taken: object, arrives: object) -> dict[int, int]:
    """The channels that changed: from, to. Empty where one number becomes two."""
    pairs: dict[int, int] = {}
    for old, new in zip(channels_of(taken), channels_of(arrives), strict=False):
        if old != new and pairs.setdefault(old, new) != new:
            return {}
    return pairs


def _wic_in(module: nn.Module) -> WIC | None:
    """The WIC that a module is, or is a shell of."""
    inside = module if isinstance(module, WIC) else getattr(module, "conv", None)
    is_shell = type(module).__module__.startswith("wic_layers.hosts.")
    return inside if isinstance(inside, WIC) and (inside is module or is_shell) else None


def _refit_wic(
    module: nn.Module, wic: WIC, pairs: Mapping[int, int], tried: Callable[[nn.Module], object]
) -> Fit:
    """A WIC is built anew: square ones stay square, others give what they give today."""
    n, m = wic.in_channels, wic.out_channels
    if wic.bijective:
        new_n = new_m = pairs.get(n, n)
    else:
        new_n, new_m = pairs.get(n, n), pairs.get(m, m) if n not in pairs else m
    rows: Any = None
    if new_m < new_n and m < n:
        rows = {n: "n", m: "m"}.get(wic.rows, wic.rows) if wic.layout == "compact" else None
        rows = None if isinstance(rows, int) and rows < new_n else rows
    with torch.random.fork_rng(devices=[]):
        layer = WIC(
            new_n, new_m, rows=rows, layout=wic.layout, parametrization=wic.parametrization,
            dtype=wic.weight.dtype, device=wic.weight.device,
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


def _numbers_held(module: nn.Module) -> Iterator[tuple[str, object, bool]]:
    """Numbers, and short lists of them, that modules but torch's hold; whether they say a size."""
    for prefix, part in module.named_modules():
        if isinstance(part, _LAYERS):
            continue
        for name, value in vars(part).items():
            if name in _OWN or not _are_numbers(value):
                continue
            is_size = bool(_IS_SIZE.search(name.lower())) and not _NO_SIZE.search(name.lower())
            yield f"{prefix}.{name}" if prefix else name, value, is_size


def _are_numbers(value: object) -> bool:
    if isinstance(value, (tuple, list)):
        return 0 < len(value) <= 8 and all(map(_are_numbers, value))
    return isinstance(value, int) and not isinstance(value, bool)


def _has(value: Any, sizes: Mapping[int, Any]) -> bool:
    if isinstance(value, int):
        return value in sizes
    return _has(value[0], sizes) if value else False


def _own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of modules but torch's, and plain ones that they hold, by name."""
    tensors: dict[str, Tensor] = {}
    inside_layers = ()
    for prefix, part in module.named_modules():
        if prefix.startswith(inside_layers) and inside_layers:
            continue
        if isinstance(part, _LAYERS):
            inside_layers = (*inside_layers, f"{prefix}.")
            continue
        for place in (part._parameters, part._buffers, vars(part)):
            for name, value in place.items():
                if isinstance(value, Tensor):
                    tensors[f"{prefix}.{name}" if prefix else name] = value
    return tensors


def _options(module: nn.Module, pairs: Mapping[int, int]) -> Iterator[Options]:
    """Ways in which sizes follow: halves, and uneven parts of which one stays."""
    parts = set()
    for _, value, _is_size in _numbers_held(module):
        parts |= {value} if isinstance(value, int) else set()
        if isinstance(value, (tuple, list)):
            parts |= {entry for entry in value if isinstance(entry, int)}
    base = {old: (new,) for old, new in pairs.items()}
    for old, new in pairs.items():
        for part in sorted(parts):
            rest = old - part
            if rest in parts and 0 < part < rest and new > part:
                yield {**base, part: (part,), rest: (new - part,)}
                if new > rest:
                    yield {**base, rest: (rest,), part: (new - rest,)}
    halved: list[dict[int, tuple[int, ...]]] = [dict(base)]
    for old, new in pairs.items():
        low, high = new // 2, new - new // 2
        if old % 2:
            ways = [{old // 2: (low,), old - old // 2: (high,)}]
        elif low == high:
            ways = [{old // 2: (low,)}]
        else:
            ways = [{old // 2: way} for way in ((low, high), (high, low), (low,), (high,))]
        halved = [{**way, **others} for others in halved for way in ways]
    yield from halved
    yield base


def _variants(
    module: nn.Module,
    pairs: Mapping[int, int],
    sides: Collection[tuple[int, ...]],
    call_today: Call,
) -> Iterator[tuple[nn.Module, list[Size]]]:
    """Copies with other sizes, the likeliest first, and the numbers that were changed in each."""
    if not pairs:
        return
    levels = _last_layers(module, call_today)
    ways = list(_options(module, pairs))
    for only_channels, (numbers, results), ends in product(
        (False, True), sorted(product(ways, ways), key=lambda two: two[0] is not two[1]), levels
    ):
        twin = twin_of(module)
        changed = _set_numbers(twin, sides, numbers)
        _set_tensors(twin, numbers, only_channels=only_channels)
        _set_layers(twin, results, ends)
        yield twin, changed


def _last_layers(module: nn.Module, call_today: Call) -> list[tuple[str, ...]]:
    """Layers of torch whose results leave a network inside, by how deep networks are looked for."""
    twin = twin_of(module)
    stack: list[str] = []
    ends: dict[tuple[str, ...], str] = {}
    for name, part in twin.named_modules():
        if not name:
            continue

        def enter(_part: nn.Module, _args: object, name: str = name) -> None:
            stack.append(name)
            if isinstance(_part, _LAYERS) and not isinstance(
                _part, nn.modules.batchnorm._NormBase
            ):
                for depth in range(1, len(stack) + 1):
                    ends[tuple(stack[:depth])] = name

        def leave(_part: nn.Module, _args: object, _result: object) -> None:
            stack.pop()

        part.register_forward_pre_hook(enter)
        part.register_forward_hook(leave)
    try:
        with torch.no_grad():
            call_today(twin)
    except Exception:  # it runs as a part of the model, and not alone
        return [()]
    levels: list[tuple[str, ...]] = []
    for depth in range(1, max(map(len, ends), default=0) + 1):
        level = tuple(
            dict.fromkeys(
                end
                for path, end in ends.items()
                if len(path) == depth or (len(path) < depth and path[-1] == end)
            )
        )
        if level not in levels:
            levels.append(level)
    return [*levels[:4], ()]


def _set_numbers(
    twin: nn.Module, sides: Collection[tuple[int, ...]], options: Options
) -> list[Size]:
    """Changes the numbers that say a size; those in order take a half's ways in turn."""
    turns = {old: count() for old in options}
    changed = []

    def new(value: Any) -> Any:
        if isinstance(value, int):
            if value not in options:
                return value
            ways = options[value]
            return ways[next(turns[value]) % len(ways)]
        if tuple(value) in sides:  # channels, height, width
            entries = [new(value[0]), *value[1:]]
        else:
            entries = [new(entry) for entry in value]
        return type(value)(entries)

    for name, value, is_size in list(_numbers_held(twin)):
        if not is_size:
            continue
        after = new(value)
        if after != value:
            part, _, attribute = name.rpartition(".")
            setattr(twin.get_submodule(part), attribute, after)
            changed.append(Size(name, value, after, is_tensor=False))
    return changed


def _set_tensors(twin: nn.Module, options: Options, *, only_channels: bool) -> None:
    """Resizes the module's own tensors where a dimension follows."""
    for name, tensor in _own_tensors(twin).items():
        shape = list(tensor.shape)
        for dim, size in enumerate(tensor.shape):
            if size in options:
                shape[dim] = options[size][0]
                if only_channels:
                    break
        if shape != list(tensor.shape):
            _put(twin, name, _resized(tensor, shape))


def _set_layers(twin: nn.Module, options: Options, ends: Sequence[str]) -> None:
    """Lets torch's layers take what arrives, and those at an end give what follows."""
    turns = {old: count() for old in options}
    for name in ends:
        layer: Any = twin.get_submodule(name)
        given = _given(layer)
        unit = _unit(given, options)
        if unit:
            ways = options[unit]
            size = given // unit * ways[next(turns[unit]) % len(ways)]
            if _taken(layer) == given:  # a square one, whose kernel may be read before it runs
                _set_taken(layer, size)
            _set_given(layer, size)
    for layer in twin.modules():
        if isinstance(layer, _LAYERS):
            layer.register_forward_pre_hook(_take)


def _unit(size: int, options: Options) -> int:
    """The number of channels of which a layer gives one or several; 0 where there is none.

    Twice a half is meant where it could be the whole: couplings give a scale and a shift.
    """
    if size % 2 == 0 and size // 2 in options:
        return size // 2
    return next((old for old in sorted(options, reverse=True) if size and size % old == 0), 0)


def _given(layer: Any) -> int:
    return int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))


def _set_given(layer: Any, size: int) -> None:
    old = _given(layer)
    if getattr(layer, "groups", 1) != 1 or size < 1:
        return
    dim = 1 if getattr(layer, "transposed", False) else 0
    for name, tensor in _tensors_of(layer):
        at = dim if tensor.ndim > 1 and tensor.shape[dim] == old else 0
        if tensor.ndim and tensor.shape[at] == old:
            _put(layer, name, _resized(tensor, _with(tensor.shape, at, size)))
    setattr(layer, "out_channels" if hasattr(layer, "out_channels") else "out_features", size)


def _take(layer: Any, args: tuple[Any, ...]) -> None:
    """Before a layer runs: gives it the size of what arrives."""
    new = args[0].shape[-1 if isinstance(layer, nn.Linear) else 1]
    if new == _taken(layer):
        return
    _set_taken(layer, new)
    for hook in list(layer._forward_pre_hooks.values()):
        if type(hook).__module__.startswith("torch.nn.utils"):  # computes the weight anew
            hook(layer, args)


def _taken(layer: Any) -> int:
    names = ("in_channels", "in_features", "num_features", "num_channels")
    return next(int(getattr(layer, name)) for name in names if hasattr(layer, name))


def _set_taken(layer: Any, size: int) -> None:
    old, groups = _taken(layer), getattr(layer, "groups", 1)
    is_each_alone = isinstance(layer, (nn.modules.batchnorm._NormBase, nn.GroupNorm)) or (
        groups > 1 and groups == old == _given(layer)
    )
    if groups > 1 and not is_each_alone:
        return
    dim = 0 if is_each_alone or getattr(layer, "transposed", False) else 1
    for name, tensor in _tensors_of(layer):
        is_scale = name.endswith(("_g", "original0"))  # of a normalised weight
        fits = tensor.ndim > dim and tensor.shape[dim] == old and not (is_scale and dim)
        if fits and not (tensor.ndim == 1 and not is_each_alone):
            _put(layer, name, _resized(tensor, _with(tensor.shape, dim, size)))
    names = ["in_channels", "in_features", "num_features", "num_channels"]
    if is_each_alone:
        names += ["groups", "out_channels"]
    for name in names:
        if getattr(layer, name, None) == old:
            setattr(layer, name, size)


def _with(shape: Sequence[int], dim: int, size: int) -> list[int]:
    return [*shape[:dim], size, *shape[dim + 1 :]]


def _tensors_of(layer: nn.Module) -> list[tuple[str, Tensor]]:
    return [*layer.named_parameters(), *layer.named_buffers()]


def _put(module: nn.Module, name: str, tensor: Tensor) -> None:
    path, _, last = name.rpartition(".")
    part = module.get_submodule(path)
    if last in part._parameters:
        part._parameters[last] = nn.Parameter(tensor, requires_grad=False)
    elif last in part._buffers:
        part._buffers[last] = tensor
    else:
        setattr(part, last, tensor)


def _resized(tensor: Tensor, shape: Sequence[int]) -> Tensor:
    """A tensor of another shape that can be run: permutations and square kernels stay such."""
    if not tensor.is_floating_point() and tensor.ndim == 1:
        return torch.arange(shape[0], dtype=tensor.dtype, device=tensor.device)
    sizes = [size for size in shape if size > 1]
    if tensor.is_floating_point() and len(sizes) == 2 and sizes[0] == sizes[1]:
        eye = torch.eye(sizes[0], dtype=tensor.dtype, device=tensor.device)
        return eye.reshape(tuple(shape))
    for dim, size in enumerate(shape):
        if size != tensor.shape[dim]:
            index = torch.arange(size, device=tensor.device) % tensor.shape[dim]
            tensor = tensor.index_select(dim, index)
    return tensor.clone()


def _sizes(module: nn.Module, twin: nn.Module, changed: Sequence[Size]) -> tuple[Size, ...]:
    """What differs between a module and the copy that ran."""
    after = dict(_tensors_of(twin))
    tensors = [
        Size(name, tuple(tensor.shape), tuple(after[name].shape))
        for name, tensor in _tensors_of(module)
        if name in after and after[name].shape != tensor.shape
    ]
    return (*tensors, *changed)
