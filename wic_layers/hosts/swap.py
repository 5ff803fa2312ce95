"""swap_1x1: a WIC in place of the square 1x1 convolutions of a model that exists."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.layer.conv import WIC

__all__ = ["Swap", "SwapReport", "register_1x1", "swap_1x1"]


@dataclass(frozen=True, eq=False)
class Swap:
    """One layer that became a WIC.

    Attributes:
        names: Its names in the model; several where it is shared.
        old: What was there.
        new: What is there now: a WIC, or a host's module around one.
        new_parameters: Names (behind the first of ``names``) and Parameters that the old layer did
            not have.
    """

    names: tuple[str, ...]
    old: nn.Module
    new: nn.Module
    new_parameters: tuple[tuple[str, nn.Parameter], ...]

    def __str__(self) -> str:
        layer = _wic_in(self.new)
        made = f"WIC({layer.extra_repr()})"
        if not self.new_parameters:
            kept = "same Parameter objects"
        elif any(parameter.requires_grad for _, parameter in self.new_parameters):
            kept = "new parameters " + ", ".join(name for name, _ in self.new_parameters)
        else:
            kept = "new parameters, not trained, as before"
        return f"{', '.join(self.names)}: {type(self.old).__name__} -> {made}; {kept}"


class SwapReport(Sequence[Swap]):
    """What :func:`swap_1x1` replaced, in the order of the model; prints as a list in words."""

    def __init__(self, swaps: Sequence[Swap]) -> None:
        self._swaps = tuple(swaps)

    def __len__(self) -> int:
        return len(self._swaps)

    def __getitem__(self, index: Any) -> Any:
        return self._swaps[index]

    @property
    def new_parameters(self) -> list[nn.Parameter]:
        """The trained Parameters that an optimizer made before the swap does not hold.

        Give them to it with ``optimizer.add_param_group({"params": report.new_parameters})``.
        """
        return [
            parameter
            for swap in self._swaps
            for _, parameter in swap.new_parameters
            if parameter.requires_grad
        ]

    def __str__(self) -> str:
        if len(self) == 1:
            lines = ["1 square 1x1 convolution became a WIC layer:"]
        else:
            lines = [f"{len(self)} square 1x1 convolutions became WIC layers:"]
        lines += [f"  {swap}" for swap in self._swaps]
        names = [
            f"{swap.names[0]}.{name}"
            for swap in self._swaps
            for name, parameter in swap.new_parameters
            if parameter.requires_grad
        ]
        lines.append(
            f"Give an existing optimizer {', '.join(names)}: "
            'optimizer.add_param_group({"params": report.new_parameters}).'
            if names
            else "An existing optimizer goes on as it is: it holds every trained parameter."
        )
        return "\n".join(lines)

    __repr__ = __str__


_CONVERTERS: dict[type[nn.Module], Callable[[Any], nn.Module]] = {}


def register_1x1(kind: type[nn.Module], convert: Callable[[Any], nn.Module]) -> None:
    """Teaches :func:`swap_1x1` a class of square 1x1 convolutions.

    Args:
        kind: The class; its subclasses are not meant, as they may do something else.
        convert: Turns a layer of that class into its replacement, which must be called in the same
            way: a WIC where the layer has ``forward(x, rev=False)``, otherwise a module of your
            own around one. ``WIC.from_kernel(layer.weight)`` keeps the Parameter.

    Example:
        >>> class Mix(nn.Module):
        ...     def __init__(self):
        ...         super().__init__()
        ...         self.w = nn.Parameter(torch.eye(3))
        ...     def forward(self, x, rev=False):
        ...         return torch.einsum("ij,bjhw->bihw", self.w.inverse() if rev else self.w, x)
        >>> register_1x1(Mix, lambda layer: WIC.from_kernel(layer.w))
        >>> print(swap_1x1(nn.Sequential(Mix())))
        1 square 1x1 convolution became a WIC layer:
          0: Mix -> WIC(3, 3); same Parameter objects
        An existing optimizer goes on as it is: it holds every trained parameter.
    """
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise WICArgumentError(f"Expected a subclass of torch.nn.Module; got {kind!r}.")
    _CONVERTERS[kind] = convert


def swap_1x1(model: nn.Module) -> SwapReport:
    """Replaces every square 1x1 convolution of a model by a WIC with the same matrix, in place.

    Outputs, inverses and log-determinants stay what they were (float32: within 1e-5 relative), and
    training goes on: Parameter objects, what is trained, LU factors, device, dtype and mode stay.
    Known are normflows' ``Invertible1x1Conv`` (with and without LU, also inside ``GlowBlock``),
    FrEIA's ``Fixed1x1Conv``, IICNet's ``InvertibleConv1x1`` (any class of that name with a matrix
    ``weight`` and ``forward(x, rev=False)``), and what :func:`register_1x1` adds. The keys of the
    state dict change: load older checkpoints before the swap.

    Args:
        model: The model; the layers are searched at every depth.

    Returns:
        What was replaced, and which Parameters an existing optimizer must be given.

    Raises:
        WICArgumentError: If there is nothing to replace, or the model itself is such a layer.
        IllConditionedError: If a kernel cannot be inverted; nothing is replaced then.
    """
    if _converter(model) is not None:
        raise WICArgumentError(
            f"Expected a model with square 1x1 convolutions inside; {type(model).__name__} is one "
            "itself, and cannot be replaced in place. Use WIC.from_kernel, or put it into a "
            "module."
        )
    found: dict[nn.Module, list[tuple[nn.Module, str, str]]] = {}
    converters: dict[nn.Module, Callable[[Any], nn.Module]] = {}
    for path, parent in model.named_modules():
        for name, child in parent._modules.items():
            convert = None if child is None else _converter(child)
            if child is not None and convert is not None:
                full = f"{path}.{name}" if path else name
                found.setdefault(child, []).append((parent, name, full))
                converters[child] = convert
    if not found:
        raise WICArgumentError(
            f"Expected a model with square 1x1 convolutions; {type(model).__name__} has none that "
            f"swap_1x1 knows ({', '.join(_known())}). Register the class of yours with "
            "wic_layers.hosts.swap.register_1x1."
        )
    made = {old: _converted(old, converters[old], places[0][2]) for old, places in found.items()}
    for old, places in found.items():
        for parent, name, _ in places:
            parent._modules[name] = made[old]
    for module in model.modules():  # a FrEIA graph runs the modules of its nodes
        for node in getattr(module, "node_list", ()):
            old_one = getattr(node, "module", None)
            if old_one in made:
                node.module = made[old_one]
                node.module_type = type(node.module)
    return SwapReport(
        [
            Swap(
                tuple(full for _, _, full in places),
                old,
                made[old],
                tuple(
                    (name, parameter)
                    for name, parameter in made[old].named_parameters()
                    if not any(parameter is kept for kept in old.parameters())
                ),
            )
            for old, places in found.items()
        ]
    )


def _converted(old: nn.Module, convert: Callable[[Any], nn.Module], name: str) -> nn.Module:
    """The replacement, if it is a square WIC whose kernel has an inverse."""
    new = convert(old)
    if not isinstance(new, nn.Module) or not any(isinstance(part, WIC) for part in new.modules()):
        raise WICArgumentError(
            f"Expected the function registered for {type(old).__name__} to return a module with a "
            f"WIC in it; got {type(new).__name__}."
        )
    layer = _wic_in(new)
    if layer.in_channels != layer.out_channels:
        raise WICShapeError(
            f"{name}: expected a square WIC in place of {type(old).__name__}; got "
            f"{layer.in_channels} -> {layer.out_channels} channels."
        )
    try:
        with torch.no_grad():  # raises where the kernel has no inverse
            layer.eval().inverse(layer.weight.new_zeros(1, layer.out_channels))
    except WICError as error:
        raise error.inside(name) from None
    return new.train(old.training)


def _wic_in(module: nn.Module) -> WIC:
    return next(part for part in module.modules() if isinstance(part, WIC))


def _known() -> list[str]:
    names = ["normflows' Invertible1x1Conv", "FrEIA's Fixed1x1Conv", "IICNet's InvertibleConv1x1"]
    return names + [kind.__name__ for kind in _CONVERTERS]


def _converter(module: nn.Module) -> Callable[[Any], nn.Module] | None:
    """What turns this module into a WIC, or None."""
    kind = type(module)
    if kind in _CONVERTERS:
        return _CONVERTERS[kind]
    # hosts that nobody imported have no modules here
    normflows, freia = sys.modules.get("normflows"), sys.modules.get("FrEIA.modules")
    if normflows is not None and kind is normflows.flows.Invertible1x1Conv:
        return _from_normflows
    if freia is not None and kind is freia.Fixed1x1Conv:
        return _from_freia
    weight = getattr(module, "weight", None)
    if (
        kind.__name__ == "InvertibleConv1x1"
        and isinstance(weight, nn.Parameter)
        and weight.ndim == 2
        and weight.shape[0] == weight.shape[1]
        and list(inspect.signature(module.forward).parameters)[1:] == ["rev"]
    ):
        return lambda layer: WIC.from_kernel(layer.weight)
    return None


def _from_normflows(layer: Any) -> nn.Module:
    from wic_layers.hosts.normflows import WIC as Flow

    if not layer.use_lu:
        return Flow.around(WIC.from_kernel(layer.W))
    with torch.no_grad():
        kernel = layer._assemble_W()
        made = WIC.from_kernel(kernel, parametrization="lu")
        factors: Any = made.parametrizations["weight"]  # type: ignore[index]
        # the same numbers in the same roles: the pivots are the old layer's, too
        factors[0].permutation.copy_(layer.P.argmax(dim=1))
        factors[0].sign.copy_(layer.sign_S)
    factors.original0, factors.original1, factors.original2 = layer.L, layer.U, layer.log_S
    return Flow.around(made)


def _from_freia(layer: Any) -> nn.Module:
    from wic_layers.hosts.freia import WIC as Module

    kernel = layer.M.detach().flatten(1)
    made = WIC.from_kernel(kernel)
    made.requires_grad_(layer.M.requires_grad)
    return Module.around(made, layer.dims_in)
