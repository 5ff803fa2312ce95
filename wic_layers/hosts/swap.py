"""swap_1x1: a WIC answers for the invertible 1x1 convolutions of a model that exists.

The layers stay the objects they are, with their names, parameters and state dict; only their class
becomes a subclass of its own (:mod:`wic_layers.hosts.engine`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import MethodType
from typing import Any, overload

from torch import Tensor, nn

from wic_layers.errors import IllConditionedError, WICArgumentError
from wic_layers.hosts.answering import class_for, kernel_of, spec_of
from wic_layers.hosts.calls import Call
from wic_layers.hosts.engine import HostKernel, Spec

__all__ = [
    "Left",
    "NothingToSwapError",
    "Swap",
    "SwapReport",
    "register_1x1",
    "swap_1x1",
    "unswap_1x1",
]

_REGISTERED: dict[type[nn.Module], tuple[Callable[[Any], Tensor], Call | None]] = {}
_REGISTER = (
    "wic_layers.hosts.register_1x1({}, kernel=lambda layer: layer.matrix()), with call=Pair(...) "
    "or Flag(...) of wic_layers.hosts.calls if its methods have names of their own"
)


@dataclass(frozen=True, eq=False)
class Swap:
    """One layer for which a WIC answers.

    Attributes:
        names: Its names in the model; several where it is shared.
        layer: The layer, the same object as before.
        new_parameters: Parameters that it did not train before, by name.
        note: What is wrong with the layer's own methods, measured against float64; or "".
        is_new: Whether this call changed it, and not one before.
    """

    names: tuple[str, ...]
    layer: nn.Module
    new_parameters: tuple[tuple[str, nn.Parameter], ...] = ()
    note: str = ""
    is_new: bool = True

    @property
    def wic(self) -> HostKernel:
        """The WIC that answers: its ``weight``, ``condition_number()`` and so on."""
        return kernel_of(self.layer)

    def __str__(self) -> str:
        names, n = ", ".join(self.names) or "(model)", self.wic.in_channels
        text = f"{names}: {type(self.layer).__name__}, WIC({n}, {n})"
        if not self.is_new:
            text += ", since an earlier call"
        if self.new_parameters:
            text += ", now trains " + ", ".join(name for name, _ in self.new_parameters)
        return f"{text}; {self.note}" if self.note else text


@dataclass(frozen=True, eq=False)
class Left:
    """Something that looks like a 1x1 convolution and was left as it is.

    Attributes:
        names: Its names in the model.
        reason: Why.
        advice: What to write.
    """

    names: tuple[str, ...]
    reason: str
    advice: str

    def __str__(self) -> str:
        return f"{', '.join(self.names) or '(model)'}: {self.reason}. {self.advice}".rstrip()


class NothingToSwapError(WICArgumentError):
    """A model has no layers that :func:`swap_1x1` can change.

    Attributes:
        left: What looks like one, with the reason.
    """

    def __init__(self, model: nn.Module, left: Sequence[Left]) -> None:
        listed = "".join(f"\n  {entry}" for entry in left)
        super().__init__(
            f"Expected a model with invertible 1x1 convolutions; {type(model).__name__} has none "
            f"that swap_1x1 recognises. Write {_REGISTER.format('YourClass')}." + listed
        )
        self.left = tuple(left)


class SwapReport(Sequence[Swap]):
    """What :func:`swap_1x1` changed, in the order of the model; prints as a list in words.

    Attributes:
        left: What looks like a 1x1 convolution and stayed as it is, with the reason.
    """

    def __init__(self, swaps: Sequence[Swap], left: Sequence[Left] = ()) -> None:
        self._swaps = tuple(swaps)
        self.left = tuple(left)

    def __len__(self) -> int:
        return len(self._swaps)

    @overload
    def __getitem__(self, index: int) -> Swap: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Swap]: ...
    def __getitem__(self, index: int | slice) -> Swap | Sequence[Swap]:
        return self._swaps[index]

    @property
    def new_parameters(self) -> list[nn.Parameter]:
        """The Parameters that are trained now and were not before, with ``train_fixed=True``.

        Give them to an optimizer that exists:
        ``optimizer.add_param_group({"params": report.new_parameters})``.
        """
        return [parameter for swap in self._swaps for _, parameter in swap.new_parameters]

    def __str__(self) -> str:
        count = len(self)
        if count == 1:
            lines = ["A WIC answers for 1 invertible 1x1 convolution:"]
        else:
            lines = [f"WICs answer for {count} invertible 1x1 convolutions:"]
        lines += [f"  {swap}" for swap in self._swaps]
        if self.left:
            lines.append("Left as they are:")
            lines += [f"  {entry}" for entry in self.left]
        lines.append(
            "Give an existing optimizer what is trained now: "
            'optimizer.add_param_group({"params": report.new_parameters}).'
            if self.new_parameters
            else "Parameters, their names and checkpoints are what they were."
        )
        return "\n".join(lines)

    __repr__ = __str__


def register_1x1(
    kind: type[nn.Module], kernel: Callable[[Any], Tensor], call: Call | None = None
) -> None:
    """Teaches :func:`swap_1x1` a class of invertible 1x1 convolutions that it does not recognise.

    Args:
        kind: The class; its subclasses are not meant, as they may do something else.
        kernel: Returns the kernel of a layer of that class, shape (n, n) or (n, n, 1, ...), as a
            differentiable function of the layer's own tensors: what its forward multiplies the
            channels by, from the left.
        call: How it is called; by default found from its methods. One of
            :class:`~wic_layers.hosts.calls.Flag`, :class:`~wic_layers.hosts.calls.Pair` and
            :class:`~wic_layers.hosts.calls.Transform`, or a subclass of
            :class:`~wic_layers.hosts.calls.Call` of your own.

    Raises:
        WICArgumentError: If ``kind`` is no class of modules.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from wic_layers import swap_1x1
        >>> from wic_layers.hosts import register_1x1
        >>> from wic_layers.hosts.calls import Pair
        >>> class Mix(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.w = nn.Parameter(torch.eye(3))
        ...     def mix(self, x):
        ...         return torch.einsum("ij,bjhw->bihw", self.w, x)
        ...     def unmix(self, y):
        ...         return torch.einsum("ij,bjhw->bihw", self.w.inverse(), y)
        >>> register_1x1(Mix, lambda layer: layer.w, Pair("mix", "unmix"))
        >>> print(swap_1x1(nn.Sequential(Mix())))
        A WIC answers for 1 invertible 1x1 convolution:
          0: Mix, WIC(3, 3)
        Parameters, their names and checkpoints are what they were.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise WICArgumentError(f"Expected a subclass of torch.nn.Module; got {kind!r}.")
    if not callable(kernel):
        raise WICArgumentError(f"Expected kernel as a function of the layer; got {kernel!r}.")
    if call is not None and not isinstance(call, Call):
        raise WICArgumentError(
            f"Expected call as a wic_layers.hosts.calls.Call; got {call!r}. Write "
            'Pair("mix", "unmix") or Flag("mix", "reverse").'
        )
    _REGISTERED[kind] = (kernel, call)


def swap_1x1(model: nn.Module, *, train_fixed: bool = False) -> SwapReport:
    """Lets a WIC answer for every invertible 1x1 convolution of a model, in place.

    Outputs, inverses and log-determinants stay what they were (float32: within 1e-5 relative), and
    so does all else: the layers are the same objects of the same classes, with their Parameters,
    hooks and state dict, and optimizers, checkpoints and compiled code go on. The kernel is a
    function of the layer's own parameters, so LU, QR, Householder and torch's parametrizations
    keep their constraint. ``torch.save(model)`` writes the owner's classes, which load without
    this library; call ``swap_1x1`` again then. A layer is recognised by its methods and by trying
    copies of it, and compared with itself in float64 before it counts; :func:`register_1x1`
    adds what is not recognised.

    Args:
        model: The model, or a single layer; layers are searched at every depth.
        train_fixed: Whether fixed permutations become kernels that are trained, which start as the
            permutation and add a Parameter ``kernel_1x1``; fixed kernels are then trained too. A
            model that drops a permutation's log-determinant, as it is zero, must add it then.

    Returns:
        What was changed, what was left and why, and what an existing optimizer must be given.

    Raises:
        NothingToSwapError: If there is nothing to change; a WICArgumentError that says what was
            seen.
        IllConditionedError: If a kernel cannot be inverted; nothing is changed then.
    """
    # what tries layers takes long to import, and is needed here alone
    from wic_layers.hosts.recognition import (
        PERMUTATION,
        fixed_spec,
        is_candidate,
        recognise,
        refuse_stack,
    )
    from wic_layers.hosts.twins import Mismatch, no_traces

    names: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        names.setdefault(module, []).append(name)
    specs: dict[nn.Module, tuple[Spec, str]] = {}
    fixed: dict[nn.Module, Tensor] = {}
    bound = _bound_before(names)
    left: list[Left] = []
    with no_traces(model):
        for module in _outermost(model, specs):
            places = tuple(names[module])
            if spec_of(module) is not None:
                continue
            registered = _REGISTERED.get(type(module))
            try:
                if module in bound and (registered is not None or is_candidate(module)):
                    left.append(Left(places, *_taken(bound[module])))
                    continue
                if registered is not None:
                    specs[module] = recognise(module, *registered)
                elif is_candidate(module):
                    specs[module] = recognise(module)
                else:
                    refuse_stack(module)
                    spec, matrix = fixed_spec(module)
                    if train_fixed:
                        specs[module], fixed[module] = (_checked(spec), ""), matrix
                    else:
                        left.append(Left(places, PERMUTATION, _TRAIN_FIXED))
            except Mismatch as mismatch:
                if str(mismatch):
                    is_fixed = str(mismatch) == PERMUTATION
                    register = f"Write {_REGISTER.format(type(module).__name__)}."
                    advice = "" if is_fixed else register
                    left.append(Left(places, str(mismatch), advice))
            except IllConditionedError as error:
                raise error.inside(places[0]) if places[0] else error from None
    before = {module for module in names if spec_of(module) is not None}
    if not specs and not before:
        raise NothingToSwapError(model, left)
    swaps = []
    for module, places_of in names.items():
        if module in before:
            swaps.append(Swap(tuple(places_of), module, is_new=False))
        elif module in specs:
            spec, note = specs[module]
            new = _trained(module, fixed.get(module)) if train_fixed else ()
            module.__class__ = class_for(spec)
            kernel_of(module)
            swaps.append(Swap(tuple(places_of), module, new, note))
    return SwapReport(swaps, left)


_TRAIN_FIXED = "Write swap_1x1(model, train_fixed=True) to give it a kernel to train."


def _taken(place: str) -> tuple[str, str]:
    return (
        f"{place} is a bound method of it that was taken before, and would run its own code",
        "Put a function there that calls the layer, as lambda *a, **k: layer(*a, **k), then swap.",
    )


def unswap_1x1(model: nn.Module) -> list[str]:
    """Gives every layer that :func:`swap_1x1` changed its own class back.

    Parameters stay; a ``kernel_1x1`` that ``train_fixed=True`` added stays too, without use.

    Args:
        model: The model, or a single layer.

    Returns:
        The names of the layers.
    """
    names = []
    for name, module in model.named_modules():
        spec = spec_of(module)
        if spec is not None:
            module.__class__ = spec.owner
            module.__dict__.pop("_wic_kernel", None)
            names.append(name)
    return names


def _outermost(model: nn.Module, specs: dict[nn.Module, tuple[Spec, str]]) -> Iterator[nn.Module]:
    """All modules, each once, but for what is inside one that was recognised meanwhile."""
    inside: set[nn.Module] = set()
    for module in model.modules():
        if module in inside:
            continue
        yield module
        if module in specs or spec_of(module) is not None:
            inside.update(module.modules())


def _checked(spec: Spec) -> Spec:
    """The spec of a permutation that is to be trained, if its likelihood would know of it."""
    from wic_layers.hosts.twins import Mismatch

    if all(result.log_det is None for entry in spec.entries for result in entry.results):
        raise Mismatch(
            "a fixed permutation that returns no log-determinant, which a trained kernel needs"
        )
    return spec


def _trained(module: nn.Module, matrix: Tensor | None) -> tuple[tuple[str, nn.Parameter], ...]:
    """What a fixed layer trains from now on."""
    if matrix is not None:
        like = next(module.parameters(), next(module.buffers(), matrix))
        module.kernel_1x1 = nn.Parameter(matrix.to(like.device))
        return (("kernel_1x1", module.kernel_1x1),)
    own = [(n, p) for n, p in module.named_parameters() if p.is_floating_point()]
    if any(parameter.requires_grad for _, parameter in own):
        return ()
    kernels = [(name, parameter) for name, parameter in own if parameter.ndim >= 2][:1]
    for _, parameter in kernels:
        parameter.requires_grad_()
    return tuple(kernels)


def _bound_before(names: dict[nn.Module, list[str]]) -> dict[object, str]:
    """Layers of which some module took a method before, which runs the owner's code; and where."""
    return {
        value.__self__: f"{places[0]}.{attribute}".strip(".")
        for module, places in names.items()
        for attribute, value in vars(module).items()
        if isinstance(value, MethodType) and value.__self__ in names
        if value.__self__ is not module
    }
