"""What is asked of a flow after ``swap_1x1``: one function for each column of the table.

Every check takes a case and ``swap``, which is ``swap_1x1`` or does nothing, and raises where
something does not hold. What also raises with nothing swapped is not the swap's doing.
"""

from __future__ import annotations

import copy
import functools
import importlib
import io
import pickle
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from wic_layers import swap_1x1

Swap = Callable[[nn.Module], object]
STEPS = 5


class Difference(Exception):
    """Something is not what it is without the swap."""


def seed(number: int) -> None:
    torch.manual_seed(number)
    np.random.seed(number)  # noqa: NPY002 - some hosts draw from it


def keep(model: nn.Module) -> None:
    """The swap that changes nothing."""


def model_of(case: Any, swap: Swap, moves: int = 1) -> nn.Module:
    """A model that has seen a batch and whose parameters have moved, in eval mode.

    Args:
        case: Its case.
        swap: What is done to it at the end.
        moves: Seed of how they have moved.
    """
    seed(0)
    model = case.build()
    seed(moves)
    with torch.no_grad():
        case.forward(model, case.x())
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and not name.endswith(case.drifts or "/"):
                wide = parameter[0].numel() if parameter.ndim > 1 else 1
                parameter += 0.05 * torch.randn_like(parameter) / wide**0.5
    swap(model)
    return model.eval()


def batch(case: Any, number: int = 2) -> Tensor:
    seed(number)
    return case.x()


def both_ways(case: Any, model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Latent, log-determinant and what comes back, without gradients."""
    with torch.no_grad():
        z, log_det = case.forward(model, x.clone())
        back = case.inverse(model, z.clone())
    return z, torch.as_tensor(0.0 if log_det is None else log_det), back


def off(value: Tensor, expected: Tensor) -> float:
    """Largest error, relative to the largest value (or to 1, for log-determinants near zero)."""
    if value.shape != expected.shape:
        raise Difference(f"shape {tuple(value.shape)}, not {tuple(expected.shape)}")
    value, expected = value.detach().double(), expected.detach().double()
    error = float((value - expected).abs().max())
    return error / max(float(expected.abs().max()), 1.0)


def largest(values: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> float:
    return max(off(a, b) for a, b in zip(values, expected, strict=True))


def require(error: float, limit: float, what: str) -> None:
    if not error <= limit:
        raise Difference(f"{what} off by {error:.1e}")


def loss_of(case: Any, model: nn.Module, x: Tensor) -> Tensor:
    z, log_det = case.forward(model, x)
    loss = z.float().square().mean()
    if log_det is not None:
        loss = loss - torch.as_tensor(log_det).float().mean() / z[0].numel()
    return loss


def trained(case: Any, model: nn.Module, steps: int = STEPS) -> nn.Module:
    """The model after a few steps of SGD with momentum; what makes the host wrong stays."""
    own = dict(model.named_parameters())
    moving = [p for name, p in own.items() if not name.endswith(case.drifts or "/")]
    optimizer = torch.optim.SGD([p for p in moving if p.requires_grad], 1e-2, momentum=0.9)
    model.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss_of(case, model, batch(case, 10 + step)).backward()
        optimizer.step()
    return model


def parameters_off(model: nn.Module, twin: nn.Module) -> float:
    pairs = zip(model.named_parameters(), twin.named_parameters(), strict=True)
    errors = [0.0]
    for (name, value), (twin_name, expected) in pairs:
        if name != twin_name:
            raise Difference(f"parameter {name}, not {twin_name}")
        errors.append(off(value, expected))
    return max(errors)


# Columns


def equal(case: Any, swap: Swap) -> float:
    """Largest error of latent, log-determinant and inverse."""
    x = batch(case)
    models = model_of(case, swap), model_of(case, keep)
    error = largest(*(both_ways(case, model, x) for model in models))
    require(error, 1e-5, "results")
    return error


def training(case: Any, swap: Swap) -> float:
    """Largest difference of a parameter after five steps to a twin that was not swapped."""
    twins = [trained(case, model_of(case, kind)) for kind in (swap, keep)]
    error = parameters_off(*twins)
    require(error, 1e-4, "parameters")
    return error


def checkpoints(case: Any, swap: Swap) -> None:
    """A state dict from before loads after, and the other way round, with the same results."""
    swapped, before = model_of(case, swap), model_of(case, keep, moves=3)
    fresh, x = model_of(case, keep, moves=4), batch(case)
    if [*swapped.state_dict()] != [*before.state_dict()]:
        raise Difference("other keys")
    saved = copy.deepcopy(swapped.state_dict())
    expected = both_ways(case, model_of(case, swap), x)
    fresh.load_state_dict(saved)
    require(largest(both_ways(case, fresh, x), expected), 1e-5, "results of a new checkpoint")
    swapped.load_state_dict(before.state_dict())
    results = both_ways(case, swapped, x)
    require(largest(results, both_ways(case, before, x)), 1e-5, "results of an old checkpoint")


class _WithoutUs(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module.partition(".")[0] == "wic_layers":
            raise Difference(f"the file names {module}.{name}")
        return super().find_class(module, name)


def saved(case: Any, swap: Swap) -> None:
    """``torch.save(model)`` names no class of ours, and what it writes does the same."""
    model, x, file = model_of(case, swap), batch(case), io.BytesIO()
    expected = both_ways(case, model, x)
    torch.save(model, file)
    file.seek(0)
    reader: Any = types.SimpleNamespace(
        Unpickler=_WithoutUs, load=lambda file, **_: _WithoutUs(file).load(), __name__="reader"
    )
    loaded = torch.load(file, weights_only=False, pickle_module=reader)
    require(largest(both_ways(case, loaded, x), expected), 1e-5, "results of the file")
    swap(loaded)
    require(largest(both_ways(case, loaded, x), expected), 1e-5, "results swapped again")


BACK = ("reverse", "inverse", "rev", "backward", "inv", "_inverse")


def compiled(case: Any, swap: Swap, *, whole: bool = True) -> None:
    """A layer's both directions and gradients under ``torch.compile``, in one graph each."""
    names = [*case.layer_calls]
    back = next((name for name in names if name.partition(",")[0] in BACK), names[0])
    torch._dynamo.reset()
    seed(5)
    x, results = case.layer_x(), []
    for is_compiled in (True, False):
        model = model_of(case, swap)
        layer = model.get_submodule(case.layers[0])
        for name in (names[0], back):
            call = functools.partial(case.layer_calls[name], layer)
            if is_compiled:
                call = torch.compile(call, backend="aot_eager", fullgraph=whole)
            results.append(tuple(tensors_in(call(x))))
        sum(value.sum() for value in results[-2]).backward()
        results[-1] += tuple(p.grad for p in layer.parameters() if p.grad is not None)
    require(largest(results[0], results[2]), 1e-5, "results")
    require(largest(results[1], results[3]), 1e-4, "results")


def tensors_in(result: Any) -> Iterator[Tensor]:
    """The tensors of what a layer returns."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, (tuple, list)):
        for part in result:
            yield from tensors_in(part)


def compiled_in_parts(case: Any, swap: Swap) -> None:
    """The same where the owner's own code breaks the graph."""
    compiled(case, swap, whole=False)


@contextmanager
def replicas_on_the_cpu() -> Iterator[Callable[[nn.Module], list[nn.Module]]]:
    """Makes two replicas as ``nn.DataParallel`` does, with clones in place of the broadcast."""
    replication: Any = importlib.import_module("torch.nn.parallel.replicate")
    names = "_broadcast_coalesced_reshape", "_get_all_device_indices"
    before = [getattr(replication, name, None) for name in names]

    def broadcast(tensors: Any, devices: Any, detach: bool = False) -> Any:  # noqa: FBT001, FBT002
        return [[t.detach().clone() if detach else t.clone() for t in tensors] for _ in devices]

    replication._broadcast_coalesced_reshape = broadcast
    replication._get_all_device_indices = lambda *_: [0, 1]
    try:
        yield lambda model: replication.replicate(model, [0, 1])
    finally:
        for name, value in zip(names, before, strict=True):
            setattr(replication, name, value)


def replicated(case: Any, swap: Swap) -> None:
    """Replicas do what the model does, and hand it their gradients."""
    model, twin, x = model_of(case, swap), model_of(case, keep), batch(case)
    expected = both_ways(case, twin, x)
    with replicas_on_the_cpu() as replicas:
        with torch.no_grad():
            copies = replicas(model)
        for one in copies:
            require(largest(both_ways(case, one, x), expected), 1e-5, "results of a replica")
        model.train()
        for one in replicas(model):
            loss_of(case, one, x.clone()).backward()
    twin.train()
    for _ in range(2):
        loss_of(case, twin, x.clone()).backward()
    for (name, value), expected in zip(model.named_parameters(), twin.parameters(), strict=True):
        if name.endswith(case.drifts or "/"):
            continue
        if (value.grad is None) != (expected.grad is None):
            raise Difference(f"{name}: the gradient is there once and once not")
        if value.grad is not None and expected.grad is not None:
            require(off(value.grad, expected.grad), 1e-4, f"gradient of {name}")


def under_autocast(case: Any, swap: Swap) -> None:
    """bfloat16 autocast: the dtypes of before, and no further from float32."""
    x, models = batch(case), (model_of(case, swap), model_of(case, keep))
    exact = both_ways(case, models[1], x)
    results: list[Any] = []
    for model in models:
        try:
            with torch.autocast("cpu", torch.bfloat16):
                results.append(both_ways(case, model, x))
        except RuntimeError:  # most hosts cannot: no inverse in bfloat16
            if model is models[0] or swap is keep:
                raise
    error = largest(results[0], exact)
    if len(results) > 1:
        if [a.dtype for a in results[0]] != [b.dtype for b in results[1]]:
            raise Difference("other dtypes")
        require(error, 1.5 * largest(results[1], exact) + 0.01, "results")
    require(error, 0.3, "results")


def halved(case: Any, swap: Swap) -> None:
    """``model.half()``, both directions."""
    model, x = model_of(case, swap), batch(case)
    exact = both_ways(case, model_of(case, keep), x)
    results = both_ways(case, model.half(), x.half())
    if results[0].dtype != torch.float16 or results[2].dtype != torch.float16:
        raise Difference("other dtypes")
    require(largest(results, exact), 0.05, "results")


def averaged(case: Any, swap: Swap) -> None:
    """An ``AveragedModel`` follows, and is swapped like its model."""
    averages = []
    for kind in (swap, keep):
        model = model_of(case, kind)
        average = AveragedModel(model)
        average.update_parameters(model)
        average.update_parameters(trained(case, model, 2))
        averages.append(average.module.eval())
        names = {name: type(module) for name, module in model.named_modules()}
        others = {name: type(module) for name, module in averages[-1].named_modules()}
        if names != others:
            raise Difference("other classes")
    x = batch(case)
    require(largest(*(both_ways(case, one, x) for one in averages)), 1e-4, "results")


class Shell(nn.Module):
    """A model behind ``forward`` alone, for what calls nothing else.

    Args:
        model: The model.
        case: Its case.
    """

    def __init__(self, model: nn.Module, case: Any) -> None:
        super().__init__()
        self.model, self.case = model, case

    def forward(self, x: Tensor) -> Tensor:
        return loss_of(self.case, self.model, x)


def functional(case: Any, swap: Swap, *, per_sample: bool = True) -> None:
    """``torch.func``: gradients per sample, by vmap, of ``functional_call``."""
    x = batch(case)
    if "masked" in case.notes:  # its mask tells samples apart
        per_sample = False
    gradients = []
    for kind in (swap, keep):
        shell = Shell(model_of(case, kind), case)
        own = {
            name: p.detach()
            for name, p in shell.named_parameters()
            if p.requires_grad and not name.endswith(case.drifts or "/")
        }

        def loss(own: Any, x: Tensor, shell: nn.Module = shell) -> Tensor:
            return torch.func.functional_call(shell, own, (x,))

        gradient = torch.func.grad(loss)
        if per_sample:
            parts = torch.func.vmap(gradient, in_dims=(None, 0))(own, x.unsqueeze(1))
        else:
            parts = gradient(own, x)
        gradients.append(tuple(parts.values()))
    require(largest(*gradients), 1e-4, "gradients")


def functional_at_once(case: Any, swap: Swap) -> None:
    """The same without vmap."""
    functional(case, swap, per_sample=False)


def swapped_names(case: Any) -> tuple[set[str], list[Any]]:
    """Names of the layers that the swap finds in a fresh model, and what it leaves."""
    seed(0)
    report: Any = swap_1x1(case.build())
    return {swap.names[0] for swap in report}, report.left


COLUMNS: dict[str, tuple[tuple[Callable[..., Any], str], ...]] = {
    # each with what is tried where the owner's own model cannot, and the word for that
    "equal": ((equal, ""),),
    "training": ((training, ""),),
    "checkpoints": ((checkpoints, "yes"),),
    "save": ((saved, "yes"),),
    "compile": ((compiled, "yes"), (compiled_in_parts, "in parts")),
    "DataParallel": ((replicated, "yes"),),
    "autocast": ((under_autocast, "yes"),),
    "half": ((halved, "yes"),),
    "EMA": ((averaged, "yes"),),
    "torch.func": ((functional, "yes"), (functional_at_once, "no vmap")),
}
