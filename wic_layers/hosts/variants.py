"""variants: copies of a module with the sizes of another number of channels, the likeliest first.

The layers of torch inside (convolutions, linear layers, normalisations) take what arrives there;
what they give, the module's own tensors and the numbers that it holds follow the channels in the
few ways that couplings, 1x1 convolutions and normalisations know: all of them, halves and their
multiples, or a part that stays and the rest.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, product
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.hosts.swap import unswap_1x1
from wic_layers.hosts.twins import twin_of

__all__ = ["Size", "numbers_of", "own_tensors", "sizes_of", "tupled", "variants"]

Call = Callable[[nn.Module], object]
Options = Mapping[int, tuple[int, ...]]

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm)
_LAYERS = (nn.modules.conv._ConvNd, nn.Linear, *_NORMS)
_ENDS = 6  # networks inside whose results may be either half of an odd number
_IS_SIZE = re.compile(
    r"channel|feature|dim|size|shape|split|width|len|plane|num_in|(^|_)n?_?c(h?)$"
)
_NO_SIZE = re.compile(r"kernel|hidden|cond|dims_c|n_?dim|num_?dim|sum_dim|batch")
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


def variants(
    module: nn.Module,
    pairs: Mapping[int, int],
    sides: Collection[tuple[int, ...]],
    lists: Mapping[object, object],
    call_today: Call,
) -> Iterator[tuple[nn.Module, list[Size]]]:
    """Copies with other sizes, the likeliest first, and the numbers that were changed in each.

    Args:
        module: The module.
        pairs: Channels, from and to.
        sides: Shapes without their batch, whose sides stay if a module holds one.
        lists: Shapes or channels of several tensors, from and to, as a module may hold them.
        call_today: Runs a copy on what it takes today.
    """
    if not pairs:
        twin = twin_of(module)
        yield twin, _set_numbers(twin, sides, lists, {})
        return
    levels = _last_layers(module, call_today)
    ways = list(_options(module, pairs, 2))
    for only_channels, ends in product((False, True), levels):
        both = product(ways, _options(module, pairs, len(ends)))
        for numbers, results in sorted(both, key=lambda two: two[0] != two[1]):
            twin = twin_of(module)
            unswap_1x1(twin)  # back to the owner's code, which reads its own parameters
            changed = _set_numbers(twin, sides, lists, numbers)
            _set_tensors(twin, numbers, only_channels=only_channels)
            _set_layers(twin, results, ends)
            yield twin, changed


def numbers_of(module: nn.Module) -> Iterator[tuple[str, object, bool]]:
    """Numbers, and short lists of them, that modules but torch's hold; whether they say a size."""
    for prefix, part in module.named_modules():
        if isinstance(part, _LAYERS):
            continue
        for name, value in vars(part).items():
            if name in _OWN or not _are_numbers(value):
                continue
            is_size = bool(_IS_SIZE.search(name.lower())) and not _NO_SIZE.search(name.lower())
            yield f"{prefix}.{name}" if prefix else name, value, is_size


def _are_numbers(value: Any) -> bool:
    if type(value) in (tuple, list, torch.Size):
        return 0 < len(value) <= 8 and all(map(_are_numbers, value))
    return isinstance(value, int) and not isinstance(value, bool)


def own_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of modules but torch's, and plain ones that they hold, by name."""
    tensors: dict[str, Tensor] = {}
    of_layers: tuple[str, ...] = ()
    for prefix, part in module.named_modules():
        if isinstance(part, _LAYERS):
            of_layers = (*of_layers, f"{prefix}.")
        elif not prefix.startswith(of_layers):
            for place in (part._parameters, part._buffers, vars(part)):
                for name, value in place.items():
                    if isinstance(value, Tensor):
                        tensors[f"{prefix}.{name}" if prefix else name] = value
    return tensors


def _options(module: nn.Module, pairs: Mapping[int, int], halves: int) -> Iterator[Options]:
    """Ways in which sizes follow: halves, and uneven parts of which one stays.

    Of an odd number one half is larger; ``halves`` of them, one after another, are either.
    """
    parts = set()
    for _, value, _is_size in numbers_of(module):
        parts |= {value} if isinstance(value, int) else set()
        if isinstance(value, (tuple, list)):
            parts |= {entry for entry in value if isinstance(entry, int)}
    base = {old: (new,) for old, new in pairs.items()}
    for old, new in pairs.items():
        for part in sorted(parts):
            rest = old - part
            if rest in parts and 0 < part < rest - 1 and new > part:
                yield {**base, part: (part,), rest: (new - part,)}
                if new > rest:
                    yield {**base, rest: (rest,), part: (new - rest,)}
    halved: list[dict[int, tuple[int, ...]]] = [dict(base)]
    for old, new in pairs.items():
        if old < 2:
            continue
        low, high = new // 2, new - new // 2
        ways: list[dict[int, tuple[int, ...]]]
        if old % 2:
            ways = [{old // 2: (low,), old - old // 2: (high,)}]
        elif low == high or not halves:
            ways = [{old // 2: (low,)}]
        else:
            turns = product((low, high), repeat=min(halves, _ENDS))
            ways = [{old // 2: turn} for turn in sorted(turns, key=lambda turn: len({*turn}) == 1)]
        halved = [{**way, **others} for others in halved for way in ways]
    yield from halved
    yield base


def _last_layers(module: nn.Module, call_today: Call) -> list[tuple[str, ...]]:
    """Layers of torch whose results leave a network inside, by the depth of such networks."""
    if isinstance(module, _LAYERS):
        return [("",), ()]
    twin = twin_of(module)
    stack: list[str] = []
    ends: dict[tuple[str, ...], str] = {}
    for name, part in twin.named_modules():
        if not name:
            continue

        def enter(_part: nn.Module, _args: object, name: str = name) -> None:
            stack.append(name)
            if isinstance(_part, _LAYERS) and not isinstance(_part, _NORMS):
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


def tupled(value: Any) -> Any:
    """Nested lists as tuples."""
    return tuple(map(tupled, value)) if isinstance(value, (tuple, list)) else value


def _like(value: Any, after: Any) -> Any:
    """Numbers in the lists and tuples that others are in."""
    if not isinstance(value, (tuple, list)):
        return after
    return type(value)(_like(*two) for two in zip(value, after, strict=True))


def _set_numbers(
    twin: nn.Module,
    sides: Collection[tuple[int, ...]],
    lists: Mapping[object, object],
    options: Options,
) -> list[Size]:
    """Changes the numbers that say a size; those in order take a half's ways in turn."""
    turns = {old: count() for old in options}
    changed = []

    def new(value: Any) -> Any:
        if tupled(value) in lists:
            return _like(value, lists[tupled(value)])
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

    for name, value, is_size in list(numbers_of(twin)):
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
    for name, tensor in own_tensors(twin).items():
        shape = list(tensor.shape)
        dims = [dim for dim, size in enumerate(tensor.shape) if size in options]
        if only_channels:  # those of a batch of one, or the first
            dims = [1] if 1 in dims and tensor.shape[0] == 1 else dims[:1]
        for dim in dims:
            shape[dim] = options[tensor.shape[dim]][0]
        if shape != list(tensor.shape):
            _put(twin, name, _resized(tensor, shape))


def _set_layers(twin: nn.Module, options: Options, ends: Sequence[str]) -> None:
    """Lets torch's layers take what arrives, and those at an end give what follows."""
    turns = {old: count() for old in options}
    for name in ends:
        layer: Any = twin.get_submodule(name)
        outputs = _outputs(layer)
        unit = _unit(outputs, options)
        if unit:
            ways = options[unit]
            size = outputs // unit * ways[next(turns[unit]) % len(ways)]
            if _inputs(layer) == outputs:  # a square one, whose kernel may be read before it runs
                _set_inputs(layer, size)
            _set_outputs(layer, size)
    for layer in twin.modules():
        if isinstance(layer, _LAYERS):
            layer.register_forward_pre_hook(_fit_input)


def _unit(size: int, options: Options) -> int:
    """The number of channels of which a layer gives one or several; 0 where there is none.

    Twice a half is meant where it could be the whole: couplings give a scale and a shift.
    """
    if size % 2 == 0 and size // 2 in options:
        return size // 2
    return next((old for old in sorted(options, reverse=True) if size and size % old == 0), 0)


def _outputs(layer: Any) -> int:
    return int(getattr(layer, "out_channels", getattr(layer, "out_features", 0)))


def _set_outputs(layer: Any, size: int) -> None:
    old = _outputs(layer)
    if getattr(layer, "groups", 1) != 1 or size < 1:
        return
    dim = 1 if getattr(layer, "transposed", False) else 0
    for name, tensor in _tensors_of(layer):
        at = dim if tensor.ndim > 1 and tensor.shape[dim] == old else 0
        if tensor.ndim and tensor.shape[at] == old:
            _put(layer, name, _resized(tensor, _with(tensor.shape, at, size)))
    setattr(layer, "out_channels" if hasattr(layer, "out_channels") else "out_features", size)


def _fit_input(layer: Any, args: tuple[Any, ...]) -> None:
    """Before a layer runs: gives it the size of what arrives."""
    new = args[0].shape[-1 if isinstance(layer, nn.Linear) else 1]
    if new == _inputs(layer):
        return
    _set_inputs(layer, new)
    for hook in list(layer._forward_pre_hooks.values()):
        if type(hook).__module__.startswith("torch.nn.utils"):  # computes the weight anew
            hook(layer, args)


def _inputs(layer: Any) -> int:
    names = ("in_channels", "in_features", "num_features", "num_channels")
    return next(int(getattr(layer, name)) for name in names if hasattr(layer, name))


def _set_inputs(layer: Any, size: int) -> None:
    old, groups = _inputs(layer), getattr(layer, "groups", 1)
    is_each_alone = isinstance(layer, _NORMS) or (groups > 1 and groups == old == _outputs(layer))
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


def sizes_of(module: nn.Module, twin: nn.Module, changed: Sequence[Size]) -> tuple[Size, ...]:
    """What differs between a module and the copy that ran."""
    after = dict(_tensors_of(twin))
    tensors = [
        Size(name, tuple(tensor.shape), tuple(after[name].shape))
        for name, tensor in _tensors_of(module)
        if name in after and after[name].shape != tensor.shape
    ]
    return (*tensors, *changed)
