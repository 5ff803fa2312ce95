"""A training that was stopped and one that was not: the same steps and states, at any incident."""

import copy
import io
import json
import math
from collections import deque

import photographs
import pytest
import torch
from torch import nn

from wic_layers.errors import IllConditionedError, WICError
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS
from wic_layers.training import Guard, Photographs, Training, guard
from wic_layers.training import loop as engine


def assert_same(a, b, where=""):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}.{key}")
    elif isinstance(a, (list, tuple, deque)):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}[{index}]")
    else:
        assert a == b or a != a, where


def fields(guard):
    """Every field of a guard that a training changes, and what it guards."""
    own = {k: v for k, v in vars(guard).items() if k not in ("fabric", "report")}
    return {
        **own, "model": guard.model.state_dict(), "optimizer": guard.optimizer.state_dict(),
        "also": [thing.state_dict() for thing in guard.also],
    }  # fmt: skip


class Loop:
    """A loop of one's own, with averaged weights and a scheduler that goes on from its rate."""

    def __init__(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
        self.average = torch.optim.swa_utils.AveragedModel(model)
        self.scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
        self.guard = Guard(model, optimizer, every=4, also=[self.average])

    @property
    def parts(self):
        return self.guard.model, self.average, self.guard.optimizer, self.scheduler, self.guard

    def attempt(self, number, incident):
        """Tries a step; ``incident`` is what happens to it, if anything."""
        x = torch.randn(5, 3, generator=torch.Generator().manual_seed(number))
        y = self.guard.model(x)
        loss = {"near": (y - x.sum(1)).square().mean() + 1, "small": 0.1 * y.square().mean()}
        if incident == "not invertible":
            self.guard.fail("a kernel cannot be inverted", layer="0")
        else:
            if incident == "loss":
                loss["near"] = loss["near"] * math.nan
            elif incident == "gradient":
                y.register_hook(lambda gradient: gradient * math.inf)
            elif incident == "spike":
                loss["small"] = loss["small"] + 1e3
            if self.guard.step(loss):
                self.average.update_parameters(self.guard.model)
        self.scheduler.step()
        return self.guard.steps, self.guard.rate, self.scheduler.get_last_lr()

    def saved(self):
        buffer = io.BytesIO()
        torch.save([part.state_dict() for part in self.parts], buffer)
        return buffer.getvalue()

    @classmethod
    def resumed(cls, saved, without=()):
        loop = cls()
        states = torch.load(io.BytesIO(saved), weights_only=True)
        for name in without:
            del states[-1][name]
        for part, state in zip(loop.parts, states, strict=True):
            part.load_state_dict(state)
        return loop


@pytest.mark.parametrize("incident", ["loss", "gradient", "spike", "not invertible"])
def test_a_loop_goes_on_as_if_it_had_not_been_stopped(incident, monkeypatch):
    """Wherever the stop is: before incidents, between two of them, or after."""
    monkeypatch.setattr(guard, "PATIENCE", 9)
    # alone, twice at once, and so soon after a good state that it was none
    bad = {101, 103, 104, 108, 109, 110, 113}
    if incident == "spike":  # one that is alone is taken
        bad = set(range(101, 108)) | {110, 111, 112, 113}
    first, last = 100, 116
    whole = Loop()
    for number in range(first):
        whole.attempt(number, None)
    saved, taken, seen = {}, {}, {}
    for number in range(first, last):
        saved[number] = whole.saved()
        taken[number] = whole.attempt(number, incident if number in bad else None)
        seen[number] = copy.deepcopy(fields(whole.guard))
    backs = [b for a, b in zip(taken.values(), list(taken.values())[1:], strict=False) if b < a]
    assert len(backs) >= 3
    assert whole.guard.rate < 0.2
    for stop in range(first, last):
        again = Loop.resumed(saved[stop])
        for number in range(stop, last):
            found = again.attempt(number, incident if number in bad else None)
            assert found == taken[number], (stop, number)
            assert_same(fields(again.guard), seen[number], f"{stop}, {number}")


@pytest.mark.parametrize("is_old", [False, True])
def test_what_was_before_a_load_is_not_returned_to(is_old, monkeypatch):
    """Of a checkpoint without good states, too: what was loaded is the only one there is."""
    monkeypatch.setattr(guard, "PATIENCE", 9)
    whole = Loop()
    for number in range(6):
        whole.attempt(number, None)
    later = ("good", "earlier", "in_a_row", "is_returned", "stuck_at")
    loop = Loop.resumed(whole.saved(), later if is_old else later[:2])
    weight = loop.guard.model[0].weight.detach().clone()
    for _ in range(3):
        assert loop.attempt(6, "loss")[0] == 6
        assert torch.equal(loop.guard.model[0].weight, weight)


def test_a_step_that_can_never_be_taken_ends_the_training():
    """Though good states are made again and again on the way to it."""
    loop = Loop()

    def attempts():
        for _ in range(40):
            loop.attempt(loop.guard.steps, "loss" if loop.guard.steps == 8 else None)

    with pytest.raises(WICError, match="exploded 3 times in a row"):
        attempts()


def test_no_process_saves_its_share_of_a_state_as_the_whole():
    loop = Loop()
    loop.guard.optimizer.consolidate_state_dict = None  # as ZeroRedundancyOptimizer has it
    state = loop.guard.state_dict()
    assert (state["good"], state["earlier"]) == ({}, {})


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = photographs.write(tmp_path_factory.mktemp("photographs") / "all")
    return Photographs(find_images(folder), smallest=32)


# what happens, at which step, until the rate is as low as that
PLANS = {
    "loss": [("loss", 4, 0.25), ("loss", 7, 0.125)],
    "gradient": [("gradient", 4, 0.25), ("gradient", 6, 0.125)],
    "spike": [("spike", 5, 0.5), ("spike", 6, 0.25)],
    "not invertible": [("not invertible", 4, 0.25), ("not invertible", 7, 0.125)],
    "judged": [("judged", 4, 0.25), ("loss", 6, 0.125)],
}


class Run:
    """A training with incidents, killed after some of what it tells: steps and incidents."""

    def __init__(self, images, folder, plan, monkeypatch, *, kill_after=None, resume=False):
        self.told, self.plan = [], plan
        run, honest_step, honest_judge = self, engine.Step.forward, Training.judge

        class Seen(Guard):
            def __init__(self, *arguments, **more):
                super().__init__(*arguments, **more)
                run.guard = self

        def forward(step, x, reference):
            losses = honest_step(step, x, reference)
            if run.strikes("not invertible"):
                raise IllConditionedError("planned").inside("0")
            if run.strikes("loss"):
                return {**losses, "forward": losses["forward"] * math.nan}
            if run.strikes("spike"):
                return {**losses, "forward": losses["forward"] * 1e6}
            if torch.is_grad_enabled() and run.strikes("gradient"):  # not when looking back
                losses["forward"].register_hook(lambda gradient: gradient * math.inf)
            return losses

        def judge(*arguments):
            return (None, "planned") if run.strikes("judged") else honest_judge(*arguments)

        folder.mkdir(exist_ok=True)
        torch.manual_seed(0)
        chosen = photographs.settings(batch=1, crop=16, ema=0.9, steps=8)
        with monkeypatch.context() as patch:
            patch.setattr(engine, "Guard", Seen)
            patch.setattr(engine.Step, "forward", forward)
            patch.setattr(Training, "judge", judge)
            patch.setattr("wic_layers.training.guard.FEW", 1)  # eight steps are no hundred
            patch.setattr("wic_layers.training.guard.MANY", 5)
            self.kill_after = kill_after
            try:
                training = Training(
                    photographs.network(), TASKS["rescaling-x2"], images, chosen, folder,
                    held_out=torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(1)),
                    warn=lambda incident: self.tell(str(incident)),
                )  # fmt: skip
                training.run(
                    resume=resume,
                    report=lambda step, losses, judged, rate: self.tell(
                        (step, [float(loss.detach()) for loss in losses.values()], rate)
                    ),
                )
            except Killed:
                self.killed = True
        self.rows = [json.loads(line) for line in (folder / engine.LOG).read_text().splitlines()]
        self.checkpoint = torch.load(folder / engine.CHECKPOINT, weights_only=True)

    def strikes(self, kind):
        return any(
            kind == what and self.guard.steps == step and self.guard.rate > rate
            for what, step, rate in self.plan
        )

    def tell(self, what):
        self.told.append(what)
        if len(self.told) == self.kill_after:
            raise Killed


@pytest.mark.parametrize("plan", PLANS)
def test_a_training_goes_on_as_if_it_had_not_been_killed(images, tmp_path, monkeypatch, plan):
    """The same steps and incidents are told, and checkpoint, log and guard are the same."""
    whole = Run(images, tmp_path / "whole", PLANS[plan], monkeypatch)
    incidents = [index for index, what in enumerate(whole.told) if isinstance(what, str)]
    assert len(incidents) >= 2
    assert whole.checkpoint["average"]["n_averaged"] == 8  # it went back too
    # before the first, upon it, and after the last
    for stop in (incidents[0], incidents[0] + 1, incidents[-1] + 2):
        folder = tmp_path / f"{stop}"
        cut = Run(images, folder, PLANS[plan], monkeypatch, kill_after=stop)
        assert cut.killed
        assert cut.told == whole.told[:stop]
        torch.save({**cut.checkpoint, "seconds": 1000.0}, folder / engine.CHECKPOINT)
        again = Run(images, folder, PLANS[plan], monkeypatch, resume=True)
        assert len(whole.told) - stop <= len(again.told) < len(whole.told)
        assert again.told == whole.told[len(whole.told) - len(again.told) :]
        assert again.checkpoint["seconds"] > 1000
        again.checkpoint["seconds"] = whole.checkpoint["seconds"]
        assert_same(again.checkpoint, whole.checkpoint)
        assert_same(fields(again.guard), fields(whole.guard))
        assert again.rows[-1].pop("seconds") >= 1000
        for run in (whole, again):
            for row in run.rows:
                row.pop("seconds", None)
        assert again.rows == whole.rows
