"""The guard: what it does not take, where it returns to, and whom it names."""

import copy
import math

import pytest
import torch
from torch import nn

from wic_layers import WIC
from wic_layers.blocks import AffineCoupling, Chain
from wic_layers.errors import WICArgumentError, WICError
from wic_layers.training import Guard, diagnose


def chain():
    return Chain(WIC(4, 6), AffineCoupling(6), WIC(6, 2, completion="zero"))


def loss_of(model, step=0):
    x = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(step))
    y = model(x)
    return {"forward": y.square().mean(), "reverse": (model.inverse(y) - x).square().mean()}


def guarded(model=None, rate=1e-2, **given):
    model = model or chain()
    incidents = []
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, fused=True)
    return Guard(model, optimizer, report=incidents.append, **given), incidents


def equal(a, b):
    return all(torch.equal(x, y) for x, y in zip(a.values(), b.values(), strict=True))


def test_an_unharmed_training_is_what_it_would_be_without_a_guard():
    guard, incidents = guarded(every=3)
    plain = copy.deepcopy(guard.model)
    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-2, fused=True)
    for step in range(8):
        assert guard.step(loss_of(guard.model, step))
        optimizer.zero_grad()
        sum(loss_of(plain, step).values()).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 10.0)
        optimizer.step()
    assert equal(guard.model.state_dict(), plain.state_dict())
    assert (guard.steps, incidents) == (8, [])
    assert all(p.grad is None for p in guard.model.parameters())


def test_a_gradient_is_made_no_longer_than_clip():
    """And a short one stays as it is: SGD's steps show the gradients."""
    model = nn.Linear(3, 1, bias=False)
    guard = Guard(model, torch.optim.SGD(model.parameters(), lr=1.0), clip=0.5)
    for x, length in (([[3.0, 4.0, 0.0]], 0.5), ([[0.03, 0.04, 0.0]], 0.05)):
        before = model.weight.detach().clone()
        assert guard.step(model(torch.tensor(x)).sum())
        moved = before - model.weight.detach()
        torch.testing.assert_close(moved, torch.tensor([[0.6, 0.8, 0.0]]) * length)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_goes_back(bad):
    guard, incidents = guarded(every=3)
    states = []
    for step in range(5):
        states.append(copy.deepcopy(guard.model.state_dict()))
        assert guard.step(loss_of(guard.model, step))
    losses = loss_of(guard.model, 5)
    assert not guard.step({**losses, "reverse": losses["reverse"] * bad})
    (incident,) = incidents
    assert (incident.step, incident.back_to, incident.rate) == (5, 3, 0.5)
    assert incident.losses == ("reverse",)
    assert str(incident).startswith(
        f"Step 5 was not taken: the loss is {bad:g} (reverse); it began in "
    )
    assert guard.steps == 3
    assert equal(guard.model.state_dict(), states[3])
    assert guard.step(loss_of(guard.model, 3))


def test_the_rate_is_halved_whatever_a_scheduler_sets():
    guard, _ = guarded(nn.Linear(1, 1, bias=False), rate=1.0)
    guard.optimizer = torch.optim.SGD(guard.model.parameters(), lr=1.0)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(guard.optimizer, 0.5)
    guard.mark_good()
    assert not guard.step(guard.model.weight.sum() * math.nan)
    moved = []
    for _ in range(2):
        before = float(guard.model.weight.detach())
        assert guard.step(guard.model.weight.sum())
        moved.append(before - float(guard.model.weight.detach()))
        scheduler.step()
    assert moved == pytest.approx([0.5, 0.25])
    assert guard.optimizer.param_groups[0]["lr"] == 0.25


def test_an_explosion_is_seen_and_a_hard_batch_is_not():
    guard, incidents = guarded(nn.Linear(1, 1), every=50)

    def one(value):
        return guard.step(guard.model(torch.zeros(1, 1)).sum() * 0 + value)

    assert all(one(1.0) for _ in range(100))
    assert one(1000.0)  # alone
    assert all(one(1.0) for _ in range(20))
    taken = [one(50.0) for _ in range(3)]
    assert taken == [True, True, False]
    assert incidents[0].reason == "the loss rose from 1 to 50"
    assert incidents[0].back_to == 100


def test_the_loss_that_grew_the_most_is_named():
    """Not the largest one; and beside what is usual, not beside the step before."""
    guard, incidents = guarded(nn.Linear(1, 1), every=50)

    def one(large, small):
        zero = guard.model(torch.zeros(1, 1)).sum() * 0
        return guard.step({"large": zero + large, "small": zero + small})

    assert all(one(10.0, 0.1) for _ in range(100))
    assert [one(150.0, 50.0) for _ in range(3)] == [True, True, False]
    assert incidents[0].losses == ("small",)


def test_three_in_a_row_end_it_with_the_last_good_state():
    guard, incidents = guarded(every=2)
    for step in range(2):
        guard.step(loss_of(guard.model, step))
    good = copy.deepcopy(guard.model.state_dict())
    for _ in range(2):
        assert not guard.step(loss_of(guard.model)["forward"] * math.nan)
        guard.step(loss_of(guard.model))  # one good step is no good state yet
    with pytest.raises(WICError, match=r"exploded 3 times in a row.*Step 3.*times 0\.125"):
        guard.step(loss_of(guard.model)["forward"] * math.nan)
    assert len(incidents) == 3
    assert equal(guard.model.state_dict(), good)


def test_a_good_state_between_starts_the_count_anew():
    guard, incidents = guarded(every=1)
    for _ in range(5):
        assert not guard.step(loss_of(guard.model)["forward"] * math.nan)
        assert guard.step(loss_of(guard.model))
    assert [incident.rate for incident in incidents] == [0.5**k for k in range(1, 6)]


def test_what_else_has_a_state_returns_too():
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(1, 1))
    guard, _ = guarded(nn.Linear(1, 1), also=[averaged])
    before = copy.deepcopy(averaged.state_dict())
    averaged.update_parameters(guard.model)
    assert not guard.step(guard.model.weight.sum() * math.nan)
    assert equal(averaged.state_dict(), before)


def test_kill_and_resume_gives_the_same_next_losses():
    def run(guard, steps):
        losses = []
        for step in steps:
            found = loss_of(guard.model, step)
            losses.append(float(found["reverse"].detach()))
            guard.step(found if step != 4 or guard.rate < 1 else found["forward"] * math.nan)
        return losses

    guard, _ = guarded(every=2)
    run(guard, range(6))
    saved = copy.deepcopy(
        [guard.model.state_dict(), guard.optimizer.state_dict(), guard.state_dict()]
    )
    expected = run(guard, range(6, 9))
    again, _ = guarded(every=2)
    again.model.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    assert again.rate == 0.5
    assert again.steps == guard.steps - 3
    assert run(again, range(6, 9)) == expected


class Overflow(nn.Module):
    """A block whose result overflows in one direction, or in the backward pass of it."""

    def __init__(self, where):
        super().__init__()
        self.where = where
        self.gain = nn.Parameter(torch.ones(()))

    def _maybe(self, x, here):
        if self.where == f"{here} backward":
            x = x * self.gain
            if x.requires_grad:
                x.register_hook(lambda gradient: gradient * math.inf)
            return x
        return x * self.gain * (math.inf if self.where == here else 1.0)

    def forward(self, x):
        return self._maybe(x, "forward")

    def inverse(self, y):
        return self._maybe(y, "inverse")


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize(
    ("where", "name"),
    [
        ("forward", "1 (forward)"),
        ("inverse", "1 (inverse)"),
        ("forward backward", "1.gain (gradient)"),
    ],
)
def test_the_layer_is_named(where, name, compiled):
    model = Chain(WIC(4, 6), Overflow(where), AffineCoupling(6), WIC(6, 2, completion="zero"))
    wrapped = torch.compile(model, backend="eager") if compiled else model
    guard, incidents = guarded(wrapped)
    state = copy.deepcopy(model.state_dict())
    losses = loss_of(model)
    assert not guard.step(losses, rerun=lambda: loss_of(model))
    assert incidents[0].layer == name
    assert equal(model.state_dict(), state)
    # nothing stays behind
    assert "inverse" not in model[1].__dict__
    assert not model[1]._forward_hooks


@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_a_block_is_named_with_its_direction(direction):
    model = chain()

    def overflow(module, given, arguments, out):
        return out * (math.inf if arguments.get("rev", False) == (direction == "inverse") else 1)

    model[1].register_forward_hook(overflow, with_kwargs=True)
    assert diagnose(model, lambda: loss_of(model)) == f"1 ({direction})"


def test_kernels_and_parameters_are_named_first():
    model = chain()
    with torch.no_grad():
        model[0].weight[:, 1] = model[0].weight[:, 0]
    assert diagnose(model).startswith("0 (condition number ")
    model = chain()
    with torch.no_grad():
        model[1].G.conv3.weight[0] = math.nan
    assert diagnose(model) == "1.G.conv3.weight"
    with torch.no_grad():
        model[2].weight[0] = math.nan
    assert diagnose(model) == "2 (condition number inf)"


def test_without_anything_wrong_the_largest_gradient_is_named():
    model = chain()
    assert diagnose(model) is None
    sum(loss_of(model).values()).backward()
    assert diagnose(model).endswith("(largest gradient)")
    rerun = diagnose(nn.Sequential(model), lambda: loss_of(model))
    assert rerun == "0." + diagnose(model)


@pytest.mark.parametrize("given", [{"every": 0}, {"clip": 0}])
def test_bad_arguments(given):
    with pytest.raises(WICArgumentError, match=f"Expected .*{next(iter(given))}"):
        guarded(**given)


def test_a_state_from_which_no_step_can_be_taken_was_not_good():
    """The step that ruins the model is the one after which a state is kept."""
    guard, incidents = guarded(nn.Linear(2, 1), every=4)
    step, taken = guard.optimizer.step, []

    def ruining():
        step()
        taken.append(guard.steps)
        if len(taken) == 4:
            with torch.no_grad():
                guard.model.weight.fill_(torch.inf)

    guard.optimizer.step = ruining
    results = [guard.step(guard.model(torch.ones(1, 2)).square().sum() + 1) for _ in range(9)]
    assert results == [True] * 4 + [False] * 2 + [True] * 3
    assert [incident.back_to for incident in incidents] == [4, 0]
    assert guard.steps == 3
    assert torch.isfinite(guard.model.weight).all()
