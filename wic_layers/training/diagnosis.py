"""``diagnose``: which part of a model an explosion began in."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from wic_layers.errors import WICError
from wic_layers.layer.kernel import kernels_of

__all__ = ["diagnose"]

_WRAPPERS = ("module", "_forward_module", "_original_module", "_orig_mod")


def _is_bad(value: object) -> bool:
    return (
        isinstance(value, Tensor)
        and value.is_floating_point()
        and not bool(torch.isfinite(value).all())
    )


@torch.no_grad()
def diagnose(model: nn.Module, rerun: Callable[[], object] | None = None) -> str | None:
    """Names the part of a model where numbers that are not finite, or too large, begin.

    Args:
        model: The model, with the gradients of the step in question.
        rerun: Runs the step's forward and reverse pass once more, through ``model``.

    Returns:
        The dotted name: of a WIC whose kernel can no longer be inverted, else of a parameter that
        is not finite, else of the first module whose result is not finite, forward or inverse,
        else of the parameter with the largest gradient (not a finite one, if there is such). None
        if there is nothing to go by.
    """
    for name, layer in kernels_of(model):
        condition = float(layer.condition_number())
        if not condition < 1 / torch.finfo(layer.weight.dtype).eps:
            return f"{_plain(name)} (condition number {condition:.3g})"
    for name, parameter in model.named_parameters():
        if _is_bad(parameter):
            return _plain(name)
    if rerun is not None:
        spoiled: list[str] = []
        with _watched(model, spoiled):
            try:
                rerun()
            except WICError as error:
                spoiled.append(str(error))
        if spoiled:
            return spoiled[0]
    gradients = {
        _plain(name): float(torch.linalg.vector_norm(parameter.grad.float()))
        for name, parameter in model.named_parameters()
        if parameter.grad is not None
    }
    # a gradient that overflows spoils those of all earlier parts: the last one is where it began
    bad = [name for name, norm in gradients.items() if not math.isfinite(norm)]
    if bad:
        return f"{bad[-1]} (gradient)"
    if not gradients:
        return None
    return f"{max(gradients, key=lambda name: gradients[name])} (largest gradient)"


def _plain(name: str) -> str:
    """A dotted name without what compiling and several processes put before it."""
    parts = name.split(".")
    while parts and parts[0] in _WRAPPERS:
        parts = parts[1:]
    return ".".join(parts) or "the model itself"


@contextmanager
def _watched(model: nn.Module, spoiled: list[str]) -> Iterator[None]:
    """Notes the modules whose results are not finite, in the order in which they are computed."""
    undo: list[Callable[[], None]] = []

    def watch(name: str, module: nn.Module) -> None:
        def called(_: nn.Module, __: object, arguments: dict[str, object], result: object) -> None:
            if _is_bad(result):
                spoiled.append(f"{name} ({'inverse' if arguments.get('rev') else 'forward'})")

        undo.append(module.register_forward_hook(called, with_kwargs=True).remove)
        inverse = getattr(module, "inverse", None)
        if not callable(inverse):
            return

        def watched(y: Tensor, *args: object, **kwargs: object) -> object:
            result = inverse(y, *args, **kwargs)
            if _is_bad(result):
                spoiled.append(f"{name} (inverse)")
            return result

        # beside the module's own attributes, where it stands before the method of the class
        module.__dict__["inverse"] = watched
        undo.append(lambda: module.__dict__.pop("inverse", None))

    for name, module in model.named_modules():
        watch(_plain(name), module)
    try:
        yield
    finally:
        for action in undo:
            action()
