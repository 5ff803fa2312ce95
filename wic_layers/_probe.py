"""candidates, inputs, require_...: what the contract checks try layers with and compare by."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeGuard, TypeVar

import torch
from torch import Tensor, nn

from wic_layers.errors import ContractError
from wic_layers.layer.completion import Learned
from wic_layers.layer.conv import WIC
from wic_layers.layer.functional import condition_number, to_algebra

__all__: list[str] = []

_Result = TypeVar("_Result")

_SPATIAL: tuple[tuple[int, ...], ...] = ((), (5,), (4, 6), (1, 1), (2, 3, 2))


def is_layer(module: object) -> TypeGuard[WIC]:
    """Whether a module is a WIC, by what it offers."""
    return all(callable(getattr(module, name, None)) for name in ("inverse", "gram_logdet"))


def title(module: nn.Module) -> str:
    """``WIC(12, 3, rows=12)``."""
    return f"{type(module).__name__.removeprefix('Parametrized')}({module.extra_repr()})"


def dtype_name(dtype: torch.dtype) -> str:
    """``float32``."""
    return str(dtype).removeprefix("torch.")


def sizes_for(layer: WIC, spatial: Sequence[tuple[int, ...]] | None) -> list[tuple[int, ...]]:
    """Spatial sizes that the completion takes: of any rank, unless it is made for one."""
    if spatial is not None:
        return [tuple(sizes) for sizes in spatial]
    completion = layer.completion
    if completion is None:
        return list(_SPATIAL)
    if isinstance(completion, Learned):
        return [sizes for sizes in _SPATIAL if len(sizes) == completion.rank]
    own = type(completion).__module__.startswith("wic_layers.")
    if own and getattr(completion, "order", "") != "published":
        return list(_SPATIAL)
    return [sizes for sizes in _SPATIAL if len(sizes) == 2]


def inputs(layer: WIC, sizes: tuple[int, ...], batch: int = 2) -> tuple[Tensor, Tensor]:
    """Normal numbers in the shape of the layer's input and output."""
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn((batch, channels, *sizes), generator=generator, dtype=torch.float64)
        for channels in (layer.in_channels, layer.out_channels)
    )
    return x.to(layer.weight), y.to(layer.weight)


def condition_of(layer: WIC) -> float:
    """The condition number of the stored kernel."""
    return float(condition_number(to_algebra(layer.weight.detach())))


@contextmanager
def random_numbers_restored(*tensors: object) -> Iterator[None]:
    """Leaves the global random numbers of the CPU and of the tensors' devices alone."""
    devices = {
        tensor.device for tensor in tensors if isinstance(tensor, Tensor) and tensor.is_cuda
    }
    with torch.random.fork_rng(devices=sorted(devices, key=str)):
        yield


def seeded(function: Callable[..., _Result], *arguments: object) -> _Result:
    """Calls a function with the same random numbers each time."""
    with random_numbers_restored(*arguments):
        torch.manual_seed(0)
        return function(*arguments)


def is_deterministic(layer: WIC, y: Tensor) -> bool:
    """Whether the completion gives the same for the same input."""
    with torch.no_grad(), random_numbers_restored(y):
        return torch.equal(layer.complete(y), layer.complete(y))


@contextmanager
def left_as_found(model: nn.Module) -> Iterator[None]:
    """Gives every module its training mode back, and the caller its random numbers."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        with random_numbers_restored(*model.parameters()):
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """A copy of the state dict."""
    return {key: value.detach().clone() for key, value in model.state_dict().items()}


def require_state(model: nn.Module, before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    """Raises if two state dicts differ."""
    changed = sorted(before.keys() ^ after.keys())
    changed += [key for key in before.keys() & after.keys() if not before[key].equal(after[key])]
    if changed:
        raise ContractError(
            f"{title(model)}: expected no call to change the state dict; "
            f"{', '.join(changed)} changed."
        )


def copied(layer: WIC) -> WIC:
    """A deepcopy."""
    try:
        return copy.deepcopy(layer)
    except RuntimeError as error:  # what torch says where a tensor with a graph is held
        raise ContractError(f"{title(layer)}: expected deepcopy to work; {error}") from error


def pickled(layer: WIC) -> WIC | None:
    """The layer through pickle, or None where a completion of the user's own cannot be pickled."""
    try:
        return pickle.loads(pickle.dumps(layer))
    except (pickle.PicklingError, AttributeError, RuntimeError, TypeError):
        return None


def relative(difference: Tensor, scale: Tensor) -> float:
    """The largest absolute value of a difference, in units of that of ``scale``."""
    if not difference.numel():
        return 0.0
    largest = float(scale.detach().abs().max())
    error = float(difference.detach().abs().max())
    return error / largest if largest else error


def require_within(layer: WIC, promise: str, error: float, limit: float) -> None:
    """Raises if a promise is broken by more than the limit."""
    if not error <= limit:
        raise ContractError(
            f"{title(layer)}: expected {promise} within {limit:.3g} of the largest; it is off "
            f"by {error:.3g} at condition number {condition_of(layer):.3g}."
        )


def require_equal(module: nn.Module, what: str, a: Tensor, b: Tensor) -> None:
    """Raises if two tensors differ in shape or in a bit."""
    if a.shape != b.shape:
        raise ContractError(
            f"{title(module)}: expected {what} to agree; their shapes are {tuple(a.shape)} "
            f"and {tuple(b.shape)}."
        )
    if not torch.equal(a, b):
        raise ContractError(
            f"{title(module)}: expected {what} to agree; they differ by "
            f"{relative(a - b, a):.3g} of the largest value."
        )


def require_finite(layer: WIC, name: str, loss: Tensor) -> None:
    """Raises if a loss or its gradient is not finite."""
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]
    gradients: tuple[Tensor | None, ...] = ()
    if loss.requires_grad and trained:
        gradients = torch.autograd.grad(loss, trained, allow_unused=True)
    for value in (loss, *gradients):
        if value is not None and not bool(torch.isfinite(value).all()):
            raise ContractError(
                f"{title(layer)}: expected a finite {name} and gradient; got "
                f"{float(loss.detach())} with {int((~torch.isfinite(value)).sum())} of "
                f"{value.numel()} numbers not finite."
            )
