"""``Muon``, and the optimizer, sharding and averaged weights that settings ask for."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from wic_layers.errors import WICArgumentError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from wic_layers.training.recipe import Settings

__all__ = [
    "Muon",
    "averaging",
    "bring_steps_home",
    "make_optimizer",
    "orthogonalize",
    "own_optimizer",
]

Group = dict[str, Any]
"""Parameters with the numbers of their steps, as optimizers have them."""

_POLYNOMIAL = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5


def make_optimizer(
    model: nn.Module, settings: Settings, fabric: Fabric | None = None
) -> Optimizer:
    """Returns the optimizer that settings ask for, its state shared out among processes."""
    arguments: Group = {
        "lr": settings.learning_rate,
        "weight_decay": settings.weight_decay,
        "fused": next(model.parameters()).device.type in ("cpu", "cuda"),
    }
    kind: type[Optimizer] = torch.optim.AdamW
    groups: list[Group] = [{"params": list(model.parameters())}]
    if settings.optimizer == "muon":
        kind, groups = Muon, Muon.groups(model)
    if not settings.shard or fabric is None or fabric.world_size == 1:
        return kind(groups, **arguments)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    # every process keeps the moments of its share of the parameters
    return ZeroRedundancyOptimizer(groups, kind, **arguments)


Tensors = tuple[Tensor, ...] | list[Tensor]


def averaging(decay: float) -> Callable[[Tensors, Tensors, Tensor | int], None]:
    """How averaged weights follow: the last tenth of a young training, then at ``decay``.

    At a decay such as 0.999 alone they would hold on to the start for thousands of steps.
    """

    @torch.no_grad()
    def follow(averages: Tensors, weights: Tensors, number: Tensor | int) -> None:
        share = (9 / (10 + torch.as_tensor(number))).clamp(min=1 - decay)  # of the newest
        steps = torch._foreach_sub(weights, averages)
        torch._foreach_mul_(steps, share.to(averages[0].dtype))
        torch._foreach_add_(averages, steps)

    return follow


def own_optimizer(optimizer: Optimizer) -> Optimizer:
    """The optimizer that holds this process' state, inside what Fabric and sharding put around."""
    for name in ("optimizer", "optim"):
        optimizer = getattr(optimizer, name, optimizer)
    return optimizer


def bring_steps_home(optimizer: Optimizer) -> None:
    """Fused optimizers count steps on the parameters' device; sharding loads them on the CPU."""
    optimizer = own_optimizer(optimizer)
    if not all(group.get("fused") for group in optimizer.param_groups):
        return
    for parameter, state in optimizer.state.items():
        if isinstance(state.get("step"), Tensor):
            state["step"] = state["step"].to(parameter.device)


class Muon(Optimizer):
    """Muon (Jordan et al. 2024), with AdamW's learning rates (Liu et al. 2025, section 2.2).

    Each update of a convolution's weight is its Nesterov momentum as a matrix (out_channels,
    in_channels * kernel) with all singular values brought near 1, times
    ``0.2 * sqrt(max(rows, columns))``: as large as AdamW's usual one. Biases, kernels of
    :class:`~wic_layers.WIC` and all that is no convolution are AdamW's. torch's own Muon (from
    2.9 on) takes matrices alone and leaves all others to a second optimizer.

    Args:
        groups: What :meth:`groups` returns.
        lr: Learning rate of both, at least 0.
        weight_decay: Decay of the weights of both, apart from the gradient; at least 0.
        momentum: Of the convolutions, from 0 to below 1.
        fused: Whether AdamW's part is one kernel, on devices that have it.

    Raises:
        WICArgumentError: If a number is out of range, or the groups are others.

    Example:
        >>> net = nn.Conv2d(3, 8, 3)
        >>> optimizer = Muon(Muon.groups(net), lr=1e-3)
        >>> net(torch.ones(1, 3, 8, 8)).square().mean().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        groups: list[Group],
        lr: float = 1e-3,
        *,
        weight_decay: float = 0.01,
        momentum: float = 0.95,
        fused: bool = False,
    ) -> None:
        groups = list(groups)
        if not all(isinstance(group, dict) and "orthogonal" in group for group in groups):
            raise WICArgumentError("Expected the groups that Muon.groups(model) returns.")
        defaults = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "fused": fused}
        super().__init__(groups, defaults)

    def add_param_group(self, param_group: Group) -> None:
        """Adds parameters, such as those of a layer that was frozen.

        Args:
            param_group: One of those that :meth:`groups` returns. Without ``"orthogonal"`` its
                parameters are AdamW's, as it cannot be seen which are weights of convolutions.

        Raises:
            WICArgumentError: If a number is out of range, or orthogonal steps are asked for
                parameters of fewer than two dimensions.
        """
        super().add_param_group({"orthogonal": False, **param_group})
        try:
            _check(self.param_groups[-1])
        except WICArgumentError:
            del self.param_groups[-1]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what ``state_dict`` gave.

        Raises:
            WICArgumentError: If it is that of another optimizer or of other groups, or a number in
                it is out of range.
        """
        saved = state_dict["param_groups"]
        if [group.get("orthogonal") for group in saved] != [
            group["orthogonal"] for group in self.param_groups
        ]:
            raise WICArgumentError(
                "Expected the state of a Muon with the same groups, those that "
                "Muon.groups(model) returns; got that of another optimizer or other groups."
            )
        for group in saved:
            _check({**self.defaults, **group, "params": []})
        super().load_state_dict(state_dict)

    @staticmethod
    def groups(model: nn.Module) -> list[Group]:
        """Returns the parameters in two groups: weights of convolutions, and all others."""
        weights = {
            id(module.weight)
            for module in model.modules()
            if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
        }
        groups: list[Group] = []
        for orthogonal in (True, False):
            chosen = [p for p in model.parameters() if (id(p) in weights) is orthogonal]
            if chosen:
                groups.append({"params": chosen, "orthogonal": orthogonal})
        return groups

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes a step.

        Args:
            closure: Computes the loss again, with gradients.

        Returns:
            What ``closure`` returns.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if group["orthogonal"]:
                self._step_orthogonal(pairs, group)
            elif pairs:
                self._step_adamw(pairs, group)
        return loss

    def _step_orthogonal(self, pairs: list[tuple[Tensor, Tensor]], group: Group) -> None:
        updates: dict[torch.Size, dict[Tensor, Tensor]] = {}
        for p, gradient in pairs:
            state = self.state[p]
            if not state:
                state["momentum_buffer"] = torch.zeros_like(p)
            average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(average, group["momentum"])  # Nesterov's
            updates.setdefault(p.shape, {})[p] = update.flatten(1)
        for shape, alike in updates.items():  # matrices of one shape are one batch
            directions = orthogonalize(torch.stack(list(alike.values())))
            size = 0.2 * math.sqrt(max(directions.shape[1:]))
            for p, direction in zip(alike, directions, strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(direction.view(shape), alpha=-group["lr"] * size)

    def _step_adamw(self, pairs: list[tuple[Tensor, Tensor]], group: Group) -> None:
        parameters, gradients = (list(each) for each in zip(*pairs, strict=True))
        states = [self.state[p] for p in parameters]
        for p, state in zip(parameters, states, strict=True):
            if not state:
                device = p.device if group["fused"] else None
                state["step"] = torch.zeros((), device=device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
        adamw(
            parameters,
            gradients,
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=1e-8,
            maximize=False,
        )


def _check(group: Group) -> None:
    """Raises an error if a number of a group is out of range."""
    for name in ("lr", "weight_decay"):
        if not 0 <= group[name] < math.inf:
            raise WICArgumentError(f"Expected {name} of at least 0; got {group[name]!r}.")
    if not 0 <= group["momentum"] < 1:
        raise WICArgumentError(
            f"Expected a momentum from 0 to below 1; got {group['momentum']!r}."
        )
    thin = [tuple(p.shape) for p in group["params"] if p.ndim < 2]
    if group["orthogonal"] and thin:
        raise WICArgumentError(
            f"Expected weights of convolutions, of two dimensions or more, for orthogonal steps; "
            f"got a parameter of shape {thin[0]}. Use Muon.groups(model)."
        )


def orthogonalize(matrices: Tensor) -> Tensor:
    """Returns matrices with the same singular vectors and singular values of about 1.

    Five steps of a Newton-Schulz iteration with the coefficients of Jordan et al. (2024), which
    leave values from 0.7 to 1.2. Those below about a 500th of the matrix's norm stay smaller: five
    steps grow a value 500 times at most. Of a matrix of zeros, zeros.

    Args:
        matrices: ``(..., rows, columns)``.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=1e-12)
    a, b, c = _POLYNOMIAL
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if is_tall else x
