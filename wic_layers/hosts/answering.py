"""class_for: the class of a layer that is answered from its kernel; ``kernel_of`` such a layer.

A layer that :func:`~wic_layers.swap_1x1` changed stays the object it is. Its class becomes a
subclass of its own, made here, whose methods ask a :class:`~wic_layers.hosts.engine.HostKernel`.
"""

from __future__ import annotations

import copy
import copyreg
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from wic_layers.hosts.calls import Answering, Entry
from wic_layers.hosts.engine import HostKernel, Spec

__all__ = ["CONSTANT", "class_for", "kernel_of", "spec_of"]

_ENGINE = "_wic_kernel"
CONSTANT = "wic_constant"


def spec_of(module: nn.Module) -> Spec | None:
    """What is known of a layer that was changed; None for another."""
    spec: Spec | None = getattr(type(module), "_wic_spec", None)
    return spec


def _answering(entry: Entry, original: Callable[..., Any]) -> Callable[..., Any]:
    """A method that answers from the kernel."""

    def answered(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if entry.is_beyond(args, kwargs):
            return original(self, *args, **kwargs)
        return entry.answer(_answerer(self), args, kwargs)

    answered.__name__ = entry.method
    answered.__doc__ = original.__doc__
    vars(answered)["__wrapped__"] = original  # for inspect.signature
    return answered


def _making(entries: tuple[Entry, ...], original: Callable[..., Any]) -> Callable[..., Any]:
    """A method that makes a transform which answers from the kernel."""

    def made(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        wic = _answerer(self)
        if CONSTANT in self._modules:  # the owner's code may hold algebra
            own = wic.kind.__new__(wic.kind)
            torch.distributions.Transform.__init__(own)
        else:
            own = original(self, *args, **kwargs)
            # once for all calls, and while FSDP has gathered the parameters
            wic = _Transformer(wic)
        for entry in entries:  # the transform is the owner's, and lives for one call
            setattr(own, entry.method, partial(_transformed, entry, wic))
        return own

    made.__name__ = original.__name__
    made.__doc__ = original.__doc__
    vars(made)["__wrapped__"] = original
    return made


class _Transformer:
    """What answers for a transform: the layer's kernel as it is when the transform is made."""

    def __init__(self, kernel: HostKernel) -> None:
        reading = kernel.read(whole=True)
        self.run = partial(kernel.run, reading=reading)
        self.volume = partial(kernel.volume, reading=reading)


def _transformed(entry: Entry, wic: Answering, *args: Any) -> Any:
    return entry.answer(wic, args, {})


def kernel_of(layer: Any) -> HostKernel:
    """The HostKernel of a layer that was changed; a copy of the layer gets one of its own."""
    kernel: HostKernel | None = layer.__dict__.get(_ENGINE)
    if kernel is None or kernel._modules["host"] is not layer:
        kernel = layer.__dict__[_ENGINE] = HostKernel(layer, type(layer)._wic_spec)
    return kernel


def _answerer(layer: nn.Module) -> Any:
    """The layer's HostKernel, or the constant that fuse put in its place."""
    return layer._modules.get(CONSTANT) or kernel_of(layer)


def _state(layer: nn.Module, state: Any) -> Any:
    """The state of a layer without what the swap put there."""
    if isinstance(state, dict):
        return {key: value for key, value in state.items() if key != _ENGINE}
    return state


def _rebuilt(layer: nn.Module, memo: dict[int, Any] | None) -> nn.Module:
    """A copy of a layer that is changed like it; deep with a memo."""
    kind = type(layer)
    spec: Spec = kind._wic_spec  # type: ignore[attr-defined]
    reduced: Any = spec.owner.__reduce_ex__(layer, 4)
    function, args = reduced[:2]
    state = reduced[2] if len(reduced) > 2 else None
    twin: Any = function(*args)
    state = _state(layer, state)
    if memo is not None:
        memo[id(layer)] = twin
        state = copy.deepcopy(state, memo)
    if state is not None:
        twin.__setstate__(state)
    twin.__class__ = kind
    return twin


@cache
def class_for(spec: Spec) -> type[nn.Module]:
    """The class of a layer that is answered from its kernel: a subclass of its own."""
    owner = spec.owner

    def deepcopied(self: nn.Module, memo: dict[int, Any]) -> nn.Module:
        own: Any = getattr(owner, "__deepcopy__", None)  # torch's parametrized classes have one
        if own is None:
            return _rebuilt(self, memo)
        kernel = self.__dict__.pop(_ENGINE, None)
        try:
            twin: nn.Module = own(self, memo)
        finally:
            if kernel is not None:
                self.__dict__[_ENGINE] = kernel
        return twin

    def copied(self: nn.Module) -> nn.Module:
        return _rebuilt(self, None)

    def reduced(self: nn.Module, protocol: Any) -> Any:
        # a file knows the owner's class alone, and is read without this library
        reduction: Any = owner.__reduce_ex__(self, protocol)
        function, args = reduction[:2]
        state = reduction[2] if len(reduction) > 2 else None
        if function.__name__ == "__newobj__":  # which takes no other class than the object's
            function, args = vars(copyreg)["_reconstructor"], (owner, object, None)
        args = tuple(owner if arg is type(self) else arg for arg in args)
        return function, args, _state(self, state), *reduction[3:]

    def trained(self: nn.Module, mode: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - torch's
        kernel_of(self).clear_cache()
        return owner.train(self, mode)

    def applied(self: nn.Module, fn: Any, recurse: bool = True) -> nn.Module:  # noqa: FBT001, FBT002 - torch's
        kernel_of(self).clear_cache()
        return owner._apply(self, fn, recurse)

    def loaded(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        kernel_of(self).clear_cache()
        owner._load_from_state_dict(self, *args, **kwargs)

    def described(self: nn.Module) -> str:
        own = owner.extra_repr(self)
        mark = f"wic={spec.layout.size}"
        return f"{own}, {mark}" if own else mark

    namespace: dict[str, Any] = {
        "__module__": owner.__module__,
        "__qualname__": owner.__qualname__,
        "__doc__": owner.__doc__,
        "__deepcopy__": deepcopied,
        "__copy__": copied,
        "__reduce_ex__": reduced,
        "_wic_spec": spec,
        "_wic": property(kernel_of),
        "train": trained,
        "_apply": applied,
        "_load_from_state_dict": loaded,
        "extra_repr": described,
    }
    makers = {entry.maker for entry in spec.entries if entry.maker}
    for maker in makers:
        namespace[maker] = _making(spec.entries, getattr(owner, maker))
    for entry in () if makers else spec.entries:
        namespace[entry.method] = _answering(entry, getattr(owner, entry.method))
    metaclass: Any = type(owner)
    kind: type[nn.Module] = metaclass(owner.__name__, (owner,), namespace)
    return kind
