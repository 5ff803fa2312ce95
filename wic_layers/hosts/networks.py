"""NetworkCall: how somebody else's network is called, both ways, and what it returns.

Everything is decided from signatures when it is built; nothing is tried, nothing is remembered.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError, WICWarning
from wic_layers.hosts.calls import FLAGS, REQUIRED

__all__ = ["NetworkCall", "Split", "Way", "call_of", "tensors_in"]

Split: TypeAlias = "Sequence[int | Split]"
"""Channels of the tensors that a network returns; in a list where the network has a list."""

Way: TypeAlias = "str | Callable[..., Any]"
"""A direction of a network: the name of a method, or a function of the network and a tensor."""

_WORDS = ("mode", "direction")  # flags that are true or false only where their default is
_METHODS = ("inverse", "reverse", "invert", "backward")
_BACK = re.compile("rev|inv|back|undo|decod|upscal|restor")
_ORDINARY = frozenset(dir(nn.Module))
_BOTH = (
    "give both directions, as names of methods or as functions: forward=lambda net, x: ..., "
    "inverse=lambda net, y: ..."
)


@dataclass(frozen=True)
class NetworkCall:
    """Where in a network's arguments and results everything stands.

    Attributes:
        ways: The two directions.
        names: Parameters of the way forward, and of the way back.
        required: Those of the way back that have no default, but for the tensor and the flag.
        flag: The parameter that says the direction; empty where there are two methods.
        needs_flag: Whether it has no default.
        takes_any: Whether arguments beyond the names are taken by position.
        picture: The parameter that takes the tensor on the way back.
        split: Channels of the tensors that the way back takes in place of one.
        is_list: Whether it takes them in a list where it has one parameter for them.
        pick: Where in what the network returns its output is.
    """

    ways: tuple[Way, Way]
    names: tuple[tuple[str, ...], tuple[str, ...]]
    required: tuple[str, ...] = ()
    flag: str = ""
    needs_flag: bool = False
    takes_any: bool = False
    picture: str = ""
    split: tuple[Any, ...] | None = None
    is_list: bool = False
    pick: int | str | None = None

    def bound(
        self, inputs: tuple[Any, ...], options: Mapping[str, Any], *, rev: bool
    ) -> tuple[bool, dict[str, Any]]:
        """The direction that a call asks for, and its arguments by name but for the flag."""
        named = self._named(self.names[0], inputs, options)
        rev = bool(named.pop(self.flag or "rev", rev))
        if rev and not self.flag:
            own = inputs[: len(self.names[0])]  # behind them stood True
            named = self._named(self.names[1], own, options)
            named.pop("rev", None)
        if rev and self.picture not in named:  # by position it went to the other tensor's place
            if self.names[0][0] not in named:
                raise TypeError(f"Expected the picture as {self.picture}; got none.")
            named[self.picture] = named.pop(self.names[0][0])
        return rev, named

    def forward(self, net: nn.Module, named: dict[str, Any]) -> Any:
        """What the network returns on the way forward."""
        flag = {self.flag: False} if self.needs_flag else {}
        return self._called(net, {**named, **flag}, rev=False)

    def back(self, net: nn.Module, y: Tensor, named: dict[str, Any]) -> Any:
        """What the network returns on the way back, of the picture and the rest in one tensor."""
        options: dict[str, Any] = {**named, self.picture: y}
        if self.flag:
            options[self.flag] = True
        if self.split is not None:
            places = [name for name in self.required if name not in named]
            if not places and "z" in self.names[1] and self.picture != "z" and "z" not in named:
                places = ["z"]
            pieces = _pieces(y, self.split)
            if places and len(places) + 1 == len(pieces):
                options.update(zip((self.picture, *places), pieces, strict=True))
            elif self.is_list and not places:
                options[self.picture] = pieces
        if torch.compiler.is_compiling():
            return self._called(net, options, rev=True)
        try:
            return self._called(net, options, rev=True)
        except Exception as error:
            if hasattr(error, "add_note"):  # from Python 3.11 on
                error.add_note(
                    f"{type(net).__name__} was given {', '.join(options)} on the way back, "
                    f"{self.picture} of shape {_shapes(options[self.picture])}. If it takes "
                    "something else there, say split=, or inverse= with a function."
                )
            raise

    def output(self, net: nn.Module, result: Any, in_channels: int, out_channels: int) -> Tensor:
        """The one tensor that stands in what the network returned on the way forward."""
        result = self._picked(result)
        if isinstance(result, Tensor):
            return result
        tensors = list(tensors_in(result))
        several = [x for x in tensors if x.ndim > 1 and x.shape[1:].numel() > 1]
        whole = [x for x in several if x.shape[1] == in_channels]
        rest = [x for x in several if x.shape[1] != in_channels]
        if len(whole) == 1 and not _adds_up(rest, in_channels):
            alike = (out_channels, *whole[0].shape[2:])
            if not torch.compiler.is_compiling() and any(x.shape[1:] == alike for x in rest):
                warnings.warn(
                    f"{type(net).__name__} returns a tensor with {in_channels} channels, whose "
                    f"first {out_channels} are taken for the picture, and another one with "
                    f"{out_channels}. If that is the picture, {_BOTH}; if not, pick= with the "
                    "place of the first (pick=0) says so.",
                    WICWarning,
                    stacklevel=2,
                )
            return whole[0]
        sums = [sum(x.shape[1] for x in several[:count]) for count in range(len(several) + 1)]
        if whole or not _adds_up(several, in_channels) or out_channels not in sums:
            raise WICArgumentError(
                f"Expected {type(net).__name__} to return one tensor with {in_channels} channels, "
                f"or several that have as many together, the picture's {out_channels} first; got "
                f"{_described(result, tensors)}. {_advice(several)}"
            )
        split = _channels(result)
        if isinstance(self.ways[1], str) and split != self.split:
            raise WICArgumentError(
                f"Expected to know the tensors that {type(net).__name__} takes on the way back; "
                f"it returns {_described(result, tensors)}. Say it: split={split}."
            )
        return torch.cat(several, dim=1)

    def input(self, net: nn.Module, result: Any, y: Tensor) -> Any:
        """What went into the network, in what it returned on the way back for ``y``.

        It has as many numbers as ``y``, in one tensor or in several.
        """
        result = self._picked(result)
        if isinstance(result, Tensor):
            return result
        tensors = list(tensors_in(result))
        size = y.shape[1:].numel()
        whole = [x for x in tensors if x.shape[1:].numel() == size]
        if len(whole) == 1:
            return whole[0]
        if isinstance(result, (tuple, list)) and not whole:
            for count in range(1, len(result) + 1):
                if sum(x.shape[1:].numel() for x in tensors_in(result[:count])) == size:
                    return result[:count]
        raise WICArgumentError(
            f"Expected {type(net).__name__} to return {size} numbers a sample on the way back, as "
            f"many as go in; got {_described(result, tensors)}. {_advice(tensors)}"
        )

    def _named(
        self, names: tuple[str, ...], inputs: tuple[Any, ...], options: Mapping[str, Any]
    ) -> dict[str, Any]:
        places = names if self.flag else (*names, "rev")
        surplus = inputs[len(places) :]
        named = dict(zip(places, inputs, strict=False))
        twice = [name for name in named if name in options]
        if twice or (surplus and not self.takes_any):
            wrong = f"{twice[0]} twice" if twice else f"{len(inputs)} by position"
            raise TypeError(f"Expected the arguments {', '.join(places)}; got {wrong}.")
        if surplus:
            named["*"] = surplus
        return {**named, **options}

    def _called(self, net: nn.Module, options: dict[str, Any], *, rev: bool) -> Any:
        options, first = dict(options), []
        for name in self.names[rev]:  # by position as far as it goes, for hooks of the owner's
            if name == self.flag or name not in options:
                break
            first.append(options.pop(name))
        surplus, way = options.pop("*", ()), self.ways[rev]
        if not isinstance(way, str):
            return way(net, *first, *surplus, **options)
        function = net if way == "forward" else getattr(net, way)
        return function(*first, *surplus, **options)

    def _picked(self, result: Any) -> Any:
        if self.pick is None or isinstance(result, Tensor):
            return result
        try:
            return result[self.pick]
        except (KeyError, IndexError, TypeError):
            raise WICArgumentError(
                f"Expected pick={self.pick!r} to be in what the network returns; got "
                f"{_described(result, list(tensors_in(result)))}."
            ) from None


def call_of(
    net: nn.Module,
    channels: tuple[int, int],
    *,
    rev: str | None = None,
    forward: Way | None = None,
    inverse: Way | None = None,
    split: Split | None = None,
    pick: int | str | None = None,
) -> NetworkCall:
    """Decides from a network's signatures how it is called.

    Args:
        net: The network.
        channels: Of its output, and of the picture in it.
        rev: The flag, or the method of the way back.
        forward: The way forward.
        inverse: The way back.
        split: Channels of the tensors that it returns and takes back.
        pick: Where its output is in what it returns.
    """
    if not isinstance(net, nn.Module):
        raise WICArgumentError(f"Expected a network, a torch.nn.Module; got {net!r}.")
    if (forward is not None and inverse is None) or (rev is not None and inverse is not None):
        raise WICArgumentError("Expected rev=, or inverse= with or without forward=.")
    flag = ""
    if inverse is None:
        flag, inverse = _way_back(net, rev)
    ways = (forward or "forward", inverse)
    there, back = (_parameters(net, way) for way in ways)
    is_list = split is not None
    if is_list and _sum(split) != channels[0]:
        raise WICArgumentError(
            f"Expected split= with {channels[0]} channels together; got {split}."
        )
    names = (_names(there), _names(back))
    picture = "lr" if flag and {"hr", "lr"} <= {*names[1]} else names[1][0]
    required = tuple(
        p.name
        for p in back
        if p.default is REQUIRED and p.name in names[1] and p.name not in (flag, picture)
    )
    if split is None:
        takes_rest = required or ("z" in names[1] and picture != "z")
        split = (channels[1], channels[0] - channels[1]) if takes_rest else None
    return NetworkCall(
        ways,
        names,
        required,
        flag,
        needs_flag=any(p.name == flag and p.default is REQUIRED for p in back),
        takes_any=any(p.kind is p.VAR_POSITIONAL for p in there),
        picture=picture,
        split=_tuples(split),
        is_list=is_list,
        pick=pick,
    )


def _way_back(net: nn.Module, rev: str | None) -> tuple[str, str]:
    """The flag and the method of the way back; a flag alone where forward has one."""
    parameters = _parameters(net, "forward")
    names = _names(parameters)
    flags = [p.name for p in parameters if p.name in names[1:] and not isinstance(p.default, str)]
    own = [name for name in dir(type(net)) if name not in _ORDINARY and name[0] != "_"]
    methods = [name for name in own if callable(getattr(type(net), name, None))]
    booleans = [p.name for p in parameters if isinstance(p.default, bool)]
    usual = [flag for flag in FLAGS if flag in (booleans if flag in _WORDS else flags)]
    if rev is not None:
        if rev in flags:
            return rev, "forward"
        if rev in methods:
            return "", rev
    elif usual:
        return usual[0], "forward"
    else:
        for method in _METHODS:
            if method in methods:
                return "", method
        if any(p.kind is p.VAR_KEYWORD for p in parameters):
            return "rev", "forward"
    likely = [name for name in (*booleans, *flags, *methods) if _BACK.search(name)] or booleans
    has_forward = type(net).forward is not nn.Module.forward
    proposal = f'say it: rev="{likely[0]}", or ' if likely and has_forward else ""
    raise WICArgumentError(
        "Expected a network that runs both ways, as by forward(x, rev=False) or inverse(y)"
        + (f", and rev= with the name of the flag or the method, not {rev!r}" if rev else "")
        + f"; got {type(net).__name__} with "
        + (f"forward({', '.join(names)}) and " if has_forward else "no forward and ")
        + (f"the methods {', '.join(methods)}" if methods else "no other method")
        + f". If it does, {proposal}{_BOTH}."
    )


def _parameters(net: nn.Module, way: Way) -> list[inspect.Parameter]:
    """Of a direction, but for the network; of what is wrapped where the wrapper takes anything."""
    while True:
        function = getattr(net, way, None) if isinstance(way, str) else way
        if not callable(function):
            raise WICArgumentError(
                f"Expected a function or the name of a method of {type(net).__name__}; got "
                f"{way!r}."
            )
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except (TypeError, ValueError):
            parameters = list(inspect.signature(_anything).parameters.values())
        inner = getattr(net, "module", getattr(net, "_orig_mod", None))
        is_open = all(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
        if not (isinstance(inner, nn.Module) and is_open):
            return parameters if isinstance(way, str) else parameters[1:]
        net = inner


def _anything(*_inputs: object, **_options: object) -> None:
    pass


def _names(parameters: Sequence[inspect.Parameter]) -> tuple[str, ...]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return tuple(p.name for p in parameters if p.kind not in kinds) or ("x",)


def _tuples(split: Any) -> Any:
    return tuple(map(_tuples, split)) if isinstance(split, Sequence) else split


def tensors_in(result: Any) -> Iterator[Tensor]:
    """The tensors in what a network returns, in tuples, lists and dicts."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list, Mapping)):
        for part in result.values() if isinstance(result, Mapping) else result:
            yield from tensors_in(part)


def _channels(result: Any) -> tuple[Any, ...]:
    """The structure of a result, of those tensors that have channels."""
    parts: list[Any] = []
    for part in result:
        if isinstance(part, (tuple, list)):
            parts.append(_channels(part))
        elif isinstance(part, Tensor) and part.ndim > 1 and part.shape[1:].numel() > 1:
            parts.append(part.shape[1])
    return tuple(parts)


def _pieces(y: Tensor, split: tuple[Any, ...]) -> list[Any]:
    """The channels of a tensor in pieces, in lists where the split has some."""
    pieces, start = [], 0
    for part in split:
        size = _sum(part)
        piece = y.narrow(1, start, size)
        pieces.append(piece if isinstance(part, int) else _pieces(piece, part))
        start += size
    return pieces


def _sum(split: Any) -> int:
    return split if isinstance(split, int) else sum(map(_sum, split))


def _adds_up(tensors: Sequence[Tensor], channels: int) -> bool:
    """Whether tensors are of one size, and have so many channels together."""
    sizes = {(x.shape[0], *x.shape[2:]) for x in tensors}
    return len(sizes) == 1 and sum(x.shape[1] for x in tensors) == channels


def _described(result: Any, tensors: Sequence[Tensor]) -> str:
    kind = type(result).__name__
    if not tensors:
        return f"a {kind} without tensors"
    return f"a {kind} with tensors of shape {_shapes(tensors)}"


def _shapes(tensors: Any) -> str:
    return ", ".join(str(tuple(x.shape)) for x in tensors_in(tensors))


def _advice(tensors: Sequence[Tensor]) -> str:
    if len({x.shape[2:] for x in tensors}) > 1:
        return (
            "Their sizes differ, so that no 1x1 layer acts on all of them. If one of them is all "
            f"that is needed, say pick= with its place (pick=0); else {_BOTH}, with one tensor."
        )
    return f"Say which with pick= and its place (pick=0), or {_BOTH}."
