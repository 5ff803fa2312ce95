"""Call, Flag, Pair, Transform, Lazy: how a layer of somebody else's model is called, both ways.

A call says which methods of a layer run it forward and back, and where in their arguments the
tensor, the direction and a running log-determinant stand. What a method returns is found by
running it (:mod:`wic_layers.hosts.trial`).
"""

from __future__ import annotations

import dis
import inspect
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn

from wic_layers.hosts.results import Result

__all__ = ["Call", "Entry", "Flag", "Lazy", "Pair", "Transform", "calls_of"]

REQUIRED = inspect.Parameter.empty
FLAGS = ("reverse", "rev", "inverse", "invert", "inv", "reversed", "backward", "mode", "direction")
_FORWARDS = ("forward", "_forward_and_log_det_jacobian")
_INVERSES = ("inverse", "reverse", "backward", "invert", "_inverse")
_RUNNING = re.compile(r"log_?det|ldj|log_?df|logp|objective", re.IGNORECASE)


class Answering(Protocol):
    """What answers for a layer: its kernel, or a constant in its place."""

    def run(
        self, x: Tensor, *, rev: bool, with_volume: bool = True, lowers: bool = True
    ) -> tuple[Tensor, Tensor | None, Tensor]:
        """The result, the log-volume of one position, and the input with the channels first."""
        ...

    def volume(self, x: Tensor) -> tuple[Tensor | None, Tensor]:
        """The log-volume alone, and the input with the channels first."""
        ...


@dataclass(frozen=True)
class Entry:
    """One method that is answered, and where in its arguments everything stands.

    Attributes:
        method: Its name.
        names: Names of its parameters; the first is the tensor.
        defaults: Theirs; ``REQUIRED`` where there is none.
        takes_any: Whether further keywords are taken, and not used.
        rev: The direction of a method that has one; None where a flag says it.
        flag: Index of the flag.
        running: Index of the log-determinant that is added to.
        mask: Index of the mask of positions.
        wrapped: Whether the tensor comes in a tuple or list.
        is_masking: Whether the result is zero where the mask is.
        options: Indices of what else it reads; a call that gives one runs the owner's code.
        maker: The method whose result has this one, where the layer makes a transform.
        prepare: What has to be done to the layer before this method alone runs.
        results: Of the host's forward and of its way back.
    """

    method: str
    names: tuple[str, ...]
    defaults: tuple[object, ...] = field(compare=False)  # may be lists, which have no hash
    takes_any: bool
    rev: bool | None = None
    flag: int | None = None
    running: int | None = None
    mask: int | None = None
    wrapped: bool = False
    is_masking: bool = False
    options: tuple[int, ...] = ()
    maker: str = ""
    prepare: Callable[[Any], None] | None = None
    results: tuple[Result, Result] = (Result(), Result())

    @property
    def directions(self) -> tuple[bool, ...]:
        """The values of ``rev`` that the method can run."""
        return (False, True) if self.rev is None else (self.rev,)

    @property
    def unknown(self) -> str:
        """A parameter that may change the kernel from call to call; empty without one."""
        roles = {0, self.flag, self.running, self.mask}
        for index, (name, default) in enumerate(zip(self.names, self.defaults, strict=True)):
            is_read = default is None and index in self.options
            if index not in roles and (is_read or default is REQUIRED):
                return name
        return ""

    def run(
        self,
        layer: nn.Module,
        x: Tensor,
        *,
        rev: bool,
        owner: type[nn.Module] | None = None,
        running: Any = None,
        mask: Any = None,
    ) -> object:
        """What the layer's method, or that of its owner's class, makes of a tensor."""
        if self.prepare is not None:
            self.prepare(layer)
        target: Any = layer
        kind: Any = type(layer) if owner is None else owner
        if self.maker:
            target = getattr(kind, self.maker)(layer)
            kind = type(target)
        method = getattr(target, self.method) if self.maker else getattr(kind, self.method)
        method = method if self.maker else method.__get__(target)
        if self.results[0].is_log_det:
            return method(x, target._call(x))
        if running is None and self.running is not None:
            running = x.new_zeros(()) if self.defaults[self.running] is REQUIRED else None
        given: dict[int | None, object] = {self.running: running, self.mask: mask}
        if self.flag is not None:
            given[self.flag] = self._flag_value(rev=rev)
        arguments = {
            self.names[index]: value
            for index, value in given.items()
            if index is not None and (value is not None or self.defaults[index] is REQUIRED)
        }
        return method((x,) if self.wrapped else x, **arguments)

    def _flag_value(self, *, rev: bool) -> object:
        default = self.defaults[self.flag or 0]
        if isinstance(default, str) or self.names[self.flag or 0] in ("mode", "direction"):
            return "inverse" if rev else (default if isinstance(default, str) else "direct")
        return rev

    def answer(self, wic: Answering, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:
        """What the method returns, from the kernel."""
        values = self._bound(args, kwargs)
        flag = self.rev if self.flag is None else values[self.flag]
        rev = flag == "inverse" if isinstance(flag, str) else bool(flag)
        result = self.results[rev]
        x = values[0]
        if self.wrapped:
            (x,) = x
        mask = None if self.mask is None else values[self.mask]
        running = None if self.running is None else values[self.running]
        log_det: Any = None
        needs_log_det = result.log_det is not None and (
            self.running is None or running is not None
        )
        with_volume = needs_log_det and bool(result.log_det and result.log_det.sign)
        y: Any = None
        if result.is_log_det:
            volume, folded = wic.volume(x)
        else:
            y, volume, folded = wic.run(x, rev=rev, with_volume=with_volume, lowers=result.lowers)
        if result.log_det is not None and needs_log_det:
            positions: Any = math.prod(folded.shape[2:])
            if mask is not None and result.log_det.is_masked:
                groups = positions // max(x.shape[-1], 1)
                positions = mask.reshape(mask.shape[0], -1).sum(1) * groups
            log_det = result.log_det.of(volume, folded, positions)
            if self.running is not None:
                log_det = running + log_det if result.log_det.sign else running
        if mask is not None and self.is_masking:
            y = y * mask
        return result.packed(y, log_det)

    def is_beyond(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether a call gives what only the owner's code can make something of."""
        if not self.options:
            return False
        values = self._bound(args, kwargs)
        return any(
            values[index] is not self.defaults[index]
            and values[index] is not None
            and not (isinstance(values[index], (tuple, list)) and not values[index])
            for index in self.options
        )

    def _bound(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        """The values of all parameters; cheaper than a signature's bind."""
        values = [*args, *self.defaults[len(args) :]]
        for name, value in kwargs.items():
            if name in self.names[len(args) :]:
                values[self.names.index(name)] = value
            elif not self.takes_any:
                raise TypeError(f"{self.method}() got an unexpected keyword argument '{name}'")
        for index in range(len(args), len(values)):
            if values[index] is REQUIRED:
                name = self.names[index]
                raise TypeError(f"{self.method}() missing a required argument: '{name}'")
        return values


class Call:
    """How a class of layers is called; a base for ways of your own.

    Attributes:
        is_inner: Whether the methods are part of a larger block, which may hold networks besides.

    A subclass says in :meth:`entries` which methods are answered. Three ways that cover most code
    bases are ready: :class:`Flag`, :class:`Pair` and :class:`Transform`.
    """

    is_inner = False

    def entries(self, kind: type[nn.Module]) -> tuple[Entry, ...]:
        """The methods of a class that are answered; none where it is not called so."""
        raise NotImplementedError(f"{type(self).__name__} has no entries.")


class Flag(Call):
    """One method for both directions: ``forward(x, reverse=False)``.

    Args:
        method: Its name.
        flag: The parameter that says the direction, true (or ``"inverse"``) for the way back; by
            default whichever of the usual names the method has.
    """

    def __init__(self, method: str = "forward", flag: str | None = None) -> None:
        self.method, self.flag = method, flag

    def entries(self, kind: type[nn.Module]) -> tuple[Entry, ...]:
        """The one method."""
        entry = entry_of(kind, self.method, rev=None)
        if entry is None:
            return ()
        flags = FLAGS if self.flag is None else (self.flag,)
        index = next((entry.names.index(flag) for flag in flags if flag in entry.names[1:]), None)
        if index is None:
            return ()
        options = tuple(option for option in entry.options if option != index)
        return (replace(entry, flag=index, options=options),)


class Inner(Flag):
    """A method inside a block, whose other code goes on: FrEIA's ``AllInOneBlock._permute``."""

    is_inner = True

    def __init__(self) -> None:
        super().__init__("_permute")

    def entries(self, kind: type[nn.Module]) -> tuple[Entry, ...]:
        """The one method."""
        return tuple(replace(entry, prepare=_reflect) for entry in super().entries(kind))


def _reflect(block: Any) -> None:
    """What the block's forward does before: it makes its matrix of reflections anew."""
    if getattr(block, "householder", 0):
        block.w_perm = block._construct_householder_permutation()
        block.w_perm_inv = block.w_perm.transpose(0, 1).contiguous()


class Pair(Call):
    """A method for each direction: ``forward(x)`` and ``inverse(z)``.

    Args:
        forward: Name of the one.
        inverse: Name of the other.
    """

    def __init__(self, forward: str = "forward", inverse: str = "inverse") -> None:
        self.forward, self.inverse = forward, inverse

    def entries(self, kind: type[nn.Module]) -> tuple[Entry, ...]:
        """Both methods."""
        pair = (entry_of(kind, self.forward, rev=False), entry_of(kind, self.inverse, rev=True))
        return tuple(entry for entry in pair if entry is not None) if all(pair) else ()


class Transform(Call):
    """A transform of torch: ``_call``, ``_inverse`` and ``log_abs_det_jacobian``."""

    _METHODS: ClassVar = {"_call": False, "_inverse": True, "log_abs_det_jacobian": False}

    def entries(self, kind: type[nn.Module]) -> tuple[Entry, ...]:
        """The three methods."""
        if not issubclass(kind, torch.distributions.Transform):
            return ()
        entries = []
        for method, rev in self._METHODS.items():
            entry = entry_of(kind, method, rev=rev)
            if entry is None:
                return ()
            if method == "log_abs_det_jacobian":
                result = Result(is_log_det=True)
                entry = replace(entry, defaults=(REQUIRED, None), results=(result, result))
            entries.append(entry)
        return tuple(entries)


class Lazy(Call):
    """A method that makes a transform of ``torch.distributions``, as zuko's layers have it.

    Args:
        method: Its name.
    """

    def __init__(self, method: str = "forward") -> None:
        self.method = method

    def entries(self, kind: type[nn.Module]) -> tuple[Entry, ...]:
        """The three methods of the transform."""
        function = getattr(kind, self.method, None)
        if not inspect.isfunction(function) or str(function.__module__).startswith("torch."):
            return ()
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if any(p.default is REQUIRED and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters):
            return ()
        result = Result(is_log_det=True)
        ends = (("_call", False), ("_inverse", True))
        entries = [
            Entry(name, ("x",), (REQUIRED,), takes_any=False, rev=rev, maker=self.method)
            for name, rev in ends
        ]
        ladj = Entry(
            "log_abs_det_jacobian",
            ("x", "y"),
            (REQUIRED, None),
            takes_any=False,
            rev=False,
            maker=self.method,
            results=(result, result),
        )
        return (*entries, ladj)


def entry_of(kind: type[nn.Module], method: str, *, rev: bool | None) -> Entry | None:
    """A method of a class by its signature; None where it has none of its own or no tensor."""
    function = getattr(kind, method, None)
    if not inspect.isfunction(function) or str(function.__module__).startswith("torch.nn.modules"):
        return None
    parameters = list(inspect.signature(function).parameters.values())[1:]
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return None
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    parameters = [
        parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD
    ]
    names = tuple(parameter.name for parameter in parameters)
    if not names or names[0] in FLAGS:
        return None

    def place(pattern: re.Pattern[str] | str) -> int | None:
        matches = (index for index, name in enumerate(names) if index and re.search(pattern, name))
        return next(matches, None)

    entry = Entry(
        method,
        names,
        tuple(parameter.default for parameter in parameters),
        takes_any,
        rev=rev,
        running=place(_RUNNING),
        mask=place("mask"),
    )
    read = {step.argval for step in dis.get_instructions(function) if "LOAD" in step.opname}
    roles = {0, entry.running, entry.mask}
    options = (i for i, name in enumerate(names) if i not in roles and name in read)
    return replace(entry, options=tuple(options))


def calls_of(kind: type[nn.Module]) -> tuple[Call, ...]:
    """The ways in which a class may be meant to be called, by what its methods take."""
    key: Any = kind
    return _calls_of(key)


@cache
def _calls_of(kind: Any) -> tuple[Call, ...]:
    candidates = [
        Inner(),
        Transform(),
        Lazy(),
        Flag(),
        *(Pair(a, b) for a in _FORWARDS for b in _INVERSES),
    ]
    return tuple(call for call in candidates if call.entries(kind))
