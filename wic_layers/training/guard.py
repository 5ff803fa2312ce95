"""``Guard`` around an optimizer: steps that explode are not taken; ``Incident`` says why."""

from __future__ import annotations

import copy
import math
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wic_layers.errors import WICArgumentError, WICError
from wic_layers.training.diagnosis import diagnose
from wic_layers.training.optimizers import own_optimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.distributed.checkpoint.stateful import Stateful

__all__ = ["Guard", "Incident"]

FEW, MANY = 5, 100  # losses whose medians are compared
SPIKE = 10.0  # how many times the usual a loss is when it has exploded
SLOWER = 0.5  # what the learning rate is multiplied by after an incident
PATIENCE = 3  # incidents in a row that end the training

State = dict[str, Any]
"""What ``state_dict`` returns."""


@dataclass(frozen=True)
class Incident:
    """A step that was not taken.

    Attributes:
        step: Its number, from 0.
        reason: What was wrong, as a sentence.
        losses: The names of the losses that were not finite or had grown the most; none where the
            gradient was not finite.
        layer: The part of the model where it began, by its dotted name; None if it cannot be told.
        back_to: The number of steps to which the state returned.
        rate: What learning rates are multiplied by from now on.
    """

    step: int
    reason: str
    losses: tuple[str, ...]
    layer: str | None
    back_to: int
    rate: float

    def __str__(self) -> str:
        losses = f" ({', '.join(self.losses)})" if self.losses else ""
        where = f"; it began in {self.layer}" if self.layer else ""
        return (
            f"Step {self.step} was not taken: {self.reason.rstrip('.')}{losses}{where}. Back to "
            f"step {self.back_to}, learning rate times {self.rate:g}."
        )


class Guard:
    """Takes the steps of an optimizer, except those that would ruin the model.

    A step whose loss or gradient is not finite, or whose loss has exploded (the median of the last
    5 losses is more than ten times that of the last 100), is not taken. The model and the
    optimizer return to the last good state, which is kept in memory every ``every`` steps, and the
    learning rate is halved from there on, whatever a scheduler sets. A state from which no step
    can be taken was not good: the one before it takes its place. Three times without getting to a
    good state beyond the step in question ends the training with an error; the model then holds
    the last good state.

    Args:
        model: The model, plain, compiled, or wrapped for several processes.
        optimizer: Its optimizer. :meth:`step` calls its ``step`` and ``zero_grad``.
        every: Steps between good states; None if they are marked by :meth:`mark_good` alone.
        clip: Largest gradient norm.
        also: Other things with ``state_dict`` and ``load_state_dict`` that must return too, such
            as the averaged weights.
        fabric: The Lightning Fabric that runs the processes, if any: it runs ``backward`` and
            averages what is judged, so that all processes judge alike.
        report: Called with each :class:`Incident`.

    Raises:
        WICArgumentError: If a number is out of range.

    Example:
        >>> from wic_layers import WIC
        >>> model = WIC(4, 2)
        >>> guard = Guard(model, torch.optim.Adam(model.parameters(), 1e-3))
        >>> guard.step(model(torch.ones(1, 4)).square().sum())
        True
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        every: int | None = 100,
        clip: float = 10.0,
        also: Sequence[Stateful] = (),
        fabric: Fabric | None = None,
        report: Callable[[Incident], None] | None = None,
    ) -> None:
        if every is not None and every < 1:
            raise WICArgumentError(f"Expected every of at least 1; got {every!r}.")
        if clip <= 0:
            raise WICArgumentError(f"Expected clip above 0; got {clip!r}.")
        self.model = model
        self.optimizer = optimizer
        self.every = every
        self.clip = clip
        self.also = tuple(also)
        self.fabric = fabric
        self.report = report
        self.steps = 0
        self.rate = 1.0
        self.in_a_row = 0
        self._losses: deque[float] = deque(maxlen=MANY)
        self._usual: dict[str, float] = {}
        # the last good state, and the one before it, for where the last one was none
        self._good: State = {}
        self._earlier: State = {}
        self._is_returned = False
        self._stuck_at = -1  # the step of the latest incident
        self.mark_good()

    def step(
        self,
        loss: Tensor | Mapping[str, Tensor],
        *,
        rerun: Callable[[], object] | None = None,
    ) -> bool:
        """Runs ``backward`` and takes the step, unless it would ruin the model.

        Args:
            loss: The loss, or several by name, whose sum is minimised.
            rerun: Computes the losses once more; it is called after an incident only, to find the
                layer where it began. Without it, the gradients tell less.

        Returns:
            Whether the step was taken. If not, :attr:`steps` says where the training is now.

        Raises:
            WICError: After too many incidents in a row.
        """
        terms = dict(loss) if isinstance(loss, Mapping) else {"loss": loss}
        total = torch.stack(list(terms.values())).sum()
        if self.fabric is None:
            total.backward()
        else:
            self.fabric.backward(total)
        gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
        # they stay as they are until they are judged: a bad one tells where it began
        norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        judged = torch.stack([x.detach().float().mean() for x in (*terms.values(), total)])
        if self.fabric is not None:
            judged = cast(Tensor, self.fabric.all_reduce(judged, reduce_op="mean"))
        # one wait for the device
        *values, whole, length = torch.cat((judged, norm.detach().float()[None])).tolist()
        named = dict(zip(terms, values, strict=True))
        reason = self._what_is_wrong(named, whole, length)
        if reason is not None:
            self._go_back(reason, named, rerun)
            return False
        torch._foreach_mul_(gradients, (self.clip / (norm + 1e-6)).clamp(max=1))
        with self._slowed():
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        self._is_returned = False
        if self.every is not None and self.steps % self.every == 0:
            self.mark_good()
        return True

    def fail(self, reason: str, *, layer: str | None = None) -> None:
        """Does what :meth:`step` does with a step that it does not take, for one without a loss.

        A kernel that can no longer be inverted raises before there is one.

        Args:
            reason: What was wrong, as a sentence.
            layer: Where; looked for if it is not known.

        Raises:
            WICError: After too many incidents in a row.
        """
        self._go_back(reason, {}, None, layer)

    @property
    def loss(self) -> float:
        """The median of the last 100 losses; NaN before the first one."""
        return statistics.median(self._losses) if self._losses else math.nan

    def mark_good(self) -> None:
        """Keeps the state as one to return to."""
        if self.steps > self._stuck_at:
            self.in_a_row = 0
        self._is_returned = False
        self._earlier = self._good
        self._good = copy.deepcopy(
            {
                "model": self.model.state_dict(),
                "optimizer": own_optimizer(self.optimizer).state_dict(),
                "also": [thing.state_dict() for thing in self.also],
                "guard": self._past(),
            }
        )

    def state_dict(self) -> State:
        """What a checkpoint needs, beside the model's state and the optimizer's.

        The two states to return to are in it, each as large as those of model and optimizer
        together: a training that goes on from here does what it would have done without a stop,
        whatever happens to it. Where processes share out the optimizer's state or the parameters,
        no process has them whole and they are left out.
        """
        whole = not _is_shared_out(self.model, self.optimizer)
        return {
            **self._past(),
            "rate": self.rate,
            "in_a_row": self.in_a_row,
            "is_returned": self._is_returned,
            "stuck_at": self._stuck_at,
            "good": self._good if whole else {},
            "earlier": self._earlier if whole else {},
        }

    def load_state_dict(self, state: State) -> None:
        """Goes on from what :meth:`state_dict` gave; load model and optimizer before it.

        Args:
            state: What it gave. Where it holds no state to return to, that is what is loaded; from
                before the load, none is kept.
        """
        self._load(state)
        self.rate = state["rate"]
        self.mark_good()
        self._good = state.get("good") or self._good
        self._earlier = state.get("earlier") or {}
        self.in_a_row = state.get("in_a_row", 0)
        self._is_returned = state.get("is_returned", False)
        self._stuck_at = state.get("stuck_at", -1)

    def _past(self) -> State:
        """What returns with the model."""
        return {
            "steps": self.steps,
            "losses": list(self._losses),
            "usual": dict(self._usual),
        }

    def _load(self, state: State) -> None:
        self.steps = state["steps"]
        self._losses = deque(state["losses"], maxlen=MANY)
        self._usual = dict(state["usual"])

    def _what_is_wrong(self, named: dict[str, float], whole: float, length: float) -> str | None:
        """A sentence, or None after the losses were remembered."""
        if not math.isfinite(whole):
            return f"the loss is {whole:g}"
        if not math.isfinite(length):
            return f"the gradient's norm is {length:g}"
        self._losses.append(whole)
        recent = statistics.median(list(self._losses)[-FEW:])
        usual = statistics.median(self._losses)
        if len(self._losses) == MANY and recent > SPIKE * usual > 0:
            return f"the loss rose from {usual:.4g} to {recent:.4g}"
        for name, value in named.items():
            self._usual[name] = 0.98 * self._usual.get(name, value) + 0.02 * value
        return None

    def _go_back(
        self,
        reason: str,
        named: dict[str, float],
        rerun: Callable[[], object] | None,
        layer: str | None = None,
    ) -> None:
        bad = tuple(name for name, value in named.items() if not math.isfinite(value))
        if not bad and named and not reason.startswith("the gradient"):
            growth = {name: v / max(self._usual.get(name, v), 1e-30) for name, v in named.items()}
            bad = (max(growth, key=lambda name: growth[name]),)
        layer = layer or diagnose(self.model, rerun)
        self.optimizer.zero_grad(set_to_none=True)
        self.in_a_row += 1
        if self._is_returned and self._earlier:  # it explodes at once: it was not good
            self._good, self._earlier = self._earlier, {}
        self._is_returned = True
        self.rate *= SLOWER
        step = self.steps
        self._stuck_at = max(self._stuck_at, step)
        self.model.load_state_dict(self._good["model"])
        own_optimizer(self.optimizer).load_state_dict(copy.deepcopy(self._good["optimizer"]))
        for thing, state in zip(self.also, self._good["also"], strict=True):
            thing.load_state_dict(copy.deepcopy(state))
        self._load(self._good["guard"])
        incident = Incident(step, reason, bad, layer, self.steps, self.rate)
        if self.report is not None:
            self.report(incident)
        if self.in_a_row >= PATIENCE:
            raise WICError(
                f"The training exploded {self.in_a_row} times in a row and was ended; the model "
                f"holds its last good state. {incident} Start again with a lower learning rate."
            )

    @contextmanager
    def _slowed(self) -> Iterator[None]:
        groups = self.optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] = group["lr"] * self.rate
        try:
            yield
        finally:
            for group, rate in zip(groups, rates, strict=True):
                group["lr"] = rate


def _is_shared_out(model: nn.Module, optimizer: Optimizer) -> bool:
    """Whether a process has its share of the state only: ZeroRedundancyOptimizer's, or FSDP's."""
    return hasattr(optimizer, "consolidate_state_dict") or any(
        hasattr(parameter, "device_mesh") for parameter in model.parameters()
    )
