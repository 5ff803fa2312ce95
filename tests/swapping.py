"""What the tests of swap_1x1 share: a model beside its unswapped twin, and what may not change."""

import random
import re
from dataclasses import dataclass
from functools import cache
from types import ModuleType

import numpy as np
import torch
from standins.flows import CASES, Case
from torch import Tensor, nn

from wic_layers import swap_1x1
from wic_layers.errors import WICArgumentError
from wic_layers.hosts import Left, SwapReport

SWAPPED = [case for case in CASES if case.layers]
# the step holds a function of its own layer: a copy of the model would run the first one's layers
CLOSED_OVER = ("lambda",)
COPIED = [case for case in SWAPPED if not any(word in case.name for word in CLOSED_OVER)]
PICKLED = [case for case in SWAPPED if case.pickles]


def named(name: str) -> Case:
    """The case of a name."""
    return next(case for case in CASES if case.name == name)


def built(case: Case, seed: int = 1) -> nn.Module:
    """The model of a case, the same for the same seed."""
    torch.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - which hosts draw from
    random.seed(seed)
    return case.build()


def batch(case: Case, seed: int = 2) -> Tensor:
    """A batch of a case, the same for the same seed."""
    torch.manual_seed(seed)
    return case.x()


@torch.no_grad()
def latent(case: Case, seed: int = 5) -> Tensor:
    """A batch of latents of a case."""
    z, _ = case.forward(moved(case, built(case)), batch(case, seed))
    return z


def layer_batch(case: Case, seed: int = 3) -> Tensor:
    """A batch of a case's first layer, the same for the same seed."""
    torch.manual_seed(seed)
    return case.layer_x()


@torch.no_grad()
def moved(case: Case, model: nn.Module, seed: int = 4) -> nn.Module:
    """The model after a first batch, with other values of all that may train."""
    model.train()  # where hosts drop what they keep in eval()
    case.forward(model, batch(case))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.endswith(case.drifts or ("\0",)):
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.add_(0.05 * noise.to(parameter))
    return model


def _traces(value: object, depth: int = 0) -> object:
    """A value with the numbers that it holds now."""
    if isinstance(value, Tensor):
        grad = None if not value.is_leaf or value.grad is None else value.grad.clone()
        return id(value), value.detach().clone(), value.requires_grad, grad
    if isinstance(value, np.ndarray):
        return id(value), value.copy()
    if isinstance(value, dict):
        return {key: _traces(one, depth + 1) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_traces(one, depth + 1) for one in value]
    is_plain = hasattr(value, "__dict__") and not isinstance(value, (nn.Module, type, ModuleType))
    if is_plain and not callable(value) and depth < 3:
        return id(value), _traces(vars(value), depth + 1)
    return value if isinstance(value, (int, float, str, bool)) else id(value)


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that modules hold, by name, with values: what a trial may not touch."""
    states = {}
    for name, module in model.named_modules(remove_duplicate=False):
        attributes = {key: one for key, one in vars(module).items() if key != "_wic_kernel"}
        states[name] = (id(module), _traces(attributes))
    return states


def randomness() -> list[object]:
    """The states of all random numbers."""
    kind, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().clone(), random.getstate(), kind, keys.copy(), rest]


def require_same(new: object, old: object, place: str = "") -> None:
    """Requires that two snapshots are equal, of tensors bit for bit."""
    assert type(new) is type(old), place
    if isinstance(old, Tensor):
        assert new.shape == old.shape, place
        assert torch.equal(new, old) or (new.isnan() == old.isnan()).all(), place
    elif isinstance(old, np.ndarray):
        assert np.array_equal(new, old), place
    elif isinstance(old, dict):
        assert list(new) == list(old), place
        for key in old:
            require_same(new[key], old[key], f"{place}.{key}")
    elif isinstance(old, (list, tuple)):
        assert len(new) == len(old), place
        for index, (one, other) in enumerate(zip(new, old, strict=True)):
            require_same(one, other, f"{place}[{index}]")
    else:
        assert new == old, place


def require_alike(new: object, old: object, limit: float = 1e-5) -> None:
    """Requires the structure, shapes and dtypes of a result, and values relative to the largest.

    A number may come back as a tensor without dimensions.
    """
    if isinstance(old, (int, float)) and isinstance(new, Tensor) and new.ndim == 0:
        new = type(old)(new)
    assert type(new) is type(old), f"{type(new)} in place of {type(old)}"
    if isinstance(old, Tensor):
        assert new.shape == old.shape
        assert new.dtype == old.dtype
        require_close(new, old, limit)
    elif isinstance(old, (list, tuple)):
        assert len(new) == len(old)
        for one, other in zip(new, old, strict=True):
            require_alike(one, other, limit)
    elif isinstance(old, (int, float)):
        assert abs(new - old) <= limit * max(abs(old), 1)
    else:
        assert old is None, f"{type(old)} is not understood"


def require_close(new: Tensor, old: Tensor, limit: float = 1e-5) -> None:
    """Requires values relative to the largest, or to 1."""
    new, old = new.detach(), old.detach()
    assert new.shape == old.shape
    assert not new.isnan().any()
    if old.numel():
        off = float((new.double() - old.double()).abs().max())
        assert off <= limit * max(float(old.abs().max()), 1.0), f"off by {off:.3g}"


@dataclass
class Swapped:
    """A model that was swapped as its owner had built it, beside its unswapped twin.

    Both have seen their first batch after the swap, and have parameters off their start.
    """

    case: Case
    model: nn.Module
    twin: nn.Module
    report: SwapReport | None
    error: str
    before: tuple
    after: tuple
    classes: dict[nn.Module, type]

    @property
    def left(self) -> dict[str, Left | str]:
        """What was left, by name; of a model with nothing else the lines of the message."""
        if self.report is not None:
            return {name: f"{one.reason}. {one.advice}" for one in self.report.left
                    for name in one.names}  # fmt: skip
        return dict(re.findall(r"^  (\S*): (.*)$", self.error, re.MULTILINE))

    @property
    def layers(self) -> dict[str, nn.Module]:
        """The layers that a WIC answers for, by name."""
        return {name: self.model.get_submodule(name) for name in self.case.layers}


def swapped(case: Case) -> Swapped:
    """The model of a case, swapped before it saw anything. Who changes it gives it back."""
    return _swapped(case.name)


@cache
def _swapped(name: str) -> Swapped:
    case = named(name)
    twin, model = built(case), built(case)
    for index, (module, other) in enumerate(zip(model.modules(), twin.modules(), strict=True)):
        module.training = other.training = index % 3 > 0
    for both in zip(model.parameters(), twin.parameters(), strict=True):
        for parameter in both:
            if parameter.requires_grad:
                parameter.grad = torch.full_like(parameter, 0.5)
    classes = {module: type(module) for module in model.modules()}
    before, report, error = (snapshot(model), randomness()), None, ""
    try:
        report = swap_1x1(model)
    except WICArgumentError as refusal:
        error = str(refusal)
    after = (snapshot(model), randomness())
    for one in (model, twin):
        one.zero_grad()
        moved(case, one).eval()
    return Swapped(case, model, twin, report, error, before, after, classes)


def objective(case: Case, model: nn.Module, x: Tensor) -> Tensor:
    """A loss of latent and log-determinant, as a training has it."""
    z, log_det = case.forward(model, x)
    loss = z.square().mean()
    return loss if log_det is None else loss - 0.1 * log_det.mean() / z[0].numel()


def optimizer_of(case: Case, model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer of all but what makes the host wrong."""
    chosen = [p for n, p in model.named_parameters() if not n.endswith(case.drifts or ("\0",))]
    return torch.optim.Adam([p for p in chosen if p.requires_grad], 1e-2)


def train(case: Case, model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    """Some steps on the same batch."""
    x = batch(case).to(next(p for p in model.parameters() if p.is_floating_point()).dtype)
    for _ in range(steps):
        optimizer.zero_grad()
        objective(case, model, x.clone()).backward()  # some hosts keep the last input's result
        optimizer.step()


@dataclass
class Trained:
    """A model that was swapped in the middle of its training, beside an unswapped twin."""

    case: Case
    model: nn.Module
    twin: nn.Module
    hooks: list[list[str]]
    results: list[tuple[Tensor, Tensor | None, Tensor]]  # latent, log-det, and back


def trained(case: Case) -> Trained:
    """Two steps, the swap, five more steps. Who changes it gives it back."""
    return _trained(case.name)


@cache
def _trained(name: str) -> Trained:
    case = named(name)
    try:
        with torch.no_grad():
            case.forward(built(case).double(), batch(case).double())
    except RuntimeError:  # a host that makes tensors of the default dtype
        torch.set_default_dtype(torch.float64)
    try:
        return _trained_in_float64(case)
    finally:
        torch.set_default_dtype(torch.float32)


def _trained_in_float64(case: Case) -> Trained:
    models, optimizers, calls = [], [], []
    for _ in range(2):
        model = moved(case, built(case)).double()
        optimizers.append(optimizer_of(case, model))
        models.append(model)
        train(case, model, optimizers[-1], 2)
        calls.append([])
        watch(case, model, calls[-1])
    swap_1x1(models[0])
    results = []
    for model, optimizer in zip(models, optimizers, strict=True):
        train(case, model, optimizer, 5)
        x = batch(case).double()
        with torch.no_grad():
            z, log_det = case.forward(model.eval(), x)
            # some hosts keep the inverse of an old kernel, so it is the swapped model's alone
            count = len(calls[len(results)])
            back = x if results else case.inverse(model, z)
            del calls[len(results)][count:]
        results.append((z, log_det, back))
    return Trained(case, *models, calls, results)


def watch(case: Case, model: nn.Module, calls: list[str]) -> None:
    """Hooks of all kinds on the layers, which write down their calls."""
    for name in case.layers:
        layer = model.get_submodule(name)

        def kept(kind, name=name):
            def watched(*_):
                calls.append(f"{kind} of {name}")

            return watched

        layer.register_forward_pre_hook(kept("before forward"))
        layer.register_forward_hook(kept("forward"))
