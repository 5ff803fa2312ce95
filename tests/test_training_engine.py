"""The loop: that it learns, and that a stop, an explosion or a second process changes nothing."""

import copy
import json
import math
import multiprocessing
import os
import random
import signal
import time

import photographs
import pytest
import torch
from photographs import network, settings

from wic_layers import quantize
from wic_layers.errors import WICArgumentError, WICError
from wic_layers.evaluation.judging import Judgement
from wic_layers.pictures import find_images, psnr
from wic_layers.tasks import TASKS, down
from wic_layers.training import Muon, Photographs, Training
from wic_layers.training import loop as engine
from wic_layers.training.data import Batches, pack_crops
from wic_layers.training.objective import Objective, Step, capture


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = photographs.write(tmp_path_factory.mktemp("photographs") / "all")
    return Photographs(find_images(folder), smallest=48)


def held_out(task="rescaling-x2"):
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return TASKS[task].pack(*(x.roll(-turn, 0) for turn in range(TASKS[task].images)))


def fit(images, folder, chosen, *, model=None, task="rescaling-x2", warn=None, **more):
    model = model or network(task)
    folder.mkdir(exist_ok=True)
    training = Training(
        model, TASKS[task], images, chosen, folder, held_out=held_out(task), warn=warn
    )
    return training.run(**more)


def start(**changes):
    torch.manual_seed(0)
    return network(**changes)


def rows_of(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_equal(a, b):
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


@pytest.mark.slow
@pytest.mark.no_cover
def test_a_short_training_learns(images, tmp_path):
    """200 steps gain at least 15 dB in both pictures, and what comes back passes bicubic's."""
    whole = torch.tensor(images[0][60:188, 60:188]).permute(2, 0, 1)[None] / 255
    task = TASKS["rescaling-x2"]
    enlarged = torch.nn.functional.interpolate(
        task.reference(whole), scale_factor=2, mode="bicubic"
    )
    bicubic = psnr(quantize(enlarged), whole)
    chosen = settings(steps=200, batch=4, warmup=20, learning_rate=4e-3, every=200)
    model = start()
    before = Judgement(model, task, whole)
    fit(images, tmp_path / "run", chosen, model=model)
    after = Judgement(model, task, whole)
    assert after.psnr_forward > before.psnr_forward + 15
    assert after.psnr_back > before.psnr_back + 15
    assert after.psnr_back > bicubic
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.no_cover
def test_bf16_learns_as_float32(images, tmp_path):
    losses = []
    for bf16 in (False, True):
        chosen = settings(steps=80, batch=2, warmup=5, learning_rate=2e-3, bf16=bf16, every=20)
        fit(images, tmp_path / f"{bf16}", chosen, model=start())
        losses.append([row["loss"] for row in rows_of(tmp_path / f"{bf16}")])
    plain, half = losses
    assert half != plain
    assert half[-1] < 0.5 * half[0]
    for a, b in zip(plain, half, strict=True):
        assert abs(a - b) < 0.1 * a


@pytest.mark.slow
@pytest.mark.no_cover
def test_five_hundred_steps_in_bf16_skip_none(images, tmp_path):
    chosen = settings(steps=500, batch=1, crop=16, learning_rate=2e-3, bf16=True, every=125)
    incidents = []
    fit(images, tmp_path / "run", chosen, warn=incidents.append)
    assert incidents == []
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows] == [125, 250, 375, 500]
    assert rows[-1]["loss"] < rows[0]["loss"]


def test_bf16_is_inside_the_couplings_alone(images, tmp_path):
    """At the start couplings give zero in any precision: all else is float32, so is the loss."""
    found = []
    for bf16 in (False, True):
        chosen = settings(steps=2, bf16=bf16)
        steps = []
        fit(
            images, tmp_path / f"{bf16}", chosen, model=start(),
            report=lambda step, losses, *_, steps=steps: steps.append(losses),
        )  # fmt: skip
        found.append(steps)
    for plain, half in zip(found[0][0].values(), found[1][0].values(), strict=True):
        assert half.dtype == torch.float32
        assert torch.equal(plain, half)
    for plain, half in zip(found[0][1].values(), found[1][1].values(), strict=True):
        torch.testing.assert_close(plain, half, rtol=0.02, atol=0.02)
    assert not torch.equal(found[0][1]["reverse"], found[1][1]["reverse"])


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("killed_at", "changes"),
    [
        (3, {}),
        (5, {"ema": 0.9, "optimizer": "muon"}),
        (6, {"rounding": "noise", "completion": "gaussian"}),
        (1, {"readers": 1, "bf16": True}),
    ],
)
def test_a_stopped_training_resumes_to_the_same_weights(images, tmp_path, killed_at, changes):
    chosen = settings(**changes)
    model = {"completion": changes["completion"]} if "completion" in changes else {}
    expected = fit(images, tmp_path / "whole", chosen, model=start(**model))

    def kill(step, *_):
        if step == killed_at:
            raise Killed

    with pytest.raises(Killed):
        fit(images, tmp_path / "cut", chosen, model=start(**model), report=kill)
    steps = []
    resumed = fit(
        images, tmp_path / "cut", chosen, resume=True,
        model=network(**model), report=lambda step, *_: steps.append(step),
    )  # fmt: skip
    assert steps[0] == killed_at // 2 * 2 + 1
    assert_equal(resumed, expected)
    whole, cut = (
        [{key: value for key, value in row.items() if key != "seconds"} for row in rows]
        for rows in (rows_of(tmp_path / "whole"), rows_of(tmp_path / "cut"))
    )
    assert whole == cut


def _train_on(images, folder, chosen, resume, told, most):
    """Tells of every step; after ``most`` of them it only waits to be killed."""
    torch.set_num_threads(1)
    taken = []

    def report(step, *_):
        told.send(step)
        taken.append(step)
        if len(taken) == most:
            time.sleep(300)

    fit(images, folder, chosen, model=start(), resume=resume, report=report)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills a copy of this process")
def test_killed_at_twenty_random_moments(images, tmp_path):
    """SIGKILL, wherever it hits: the training goes on from a whole checkpoint to the same end."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    chosen = settings(steps=150, crop=16, batch=1, every=2)
    began = time.perf_counter()
    expected = fit(images, tmp_path / "whole", chosen, model=start())
    two_steps = 2 * (time.perf_counter() - began) / 150  # and a checkpoint
    torch.set_num_threads(threads)
    folder, chance = tmp_path / "cut", random.Random(0)
    folder.mkdir()
    kills = resumed_from = 0
    context = multiprocessing.get_context("fork")
    while True:
        resume = (folder / engine.CHECKPOINT).is_file()
        if resume:
            at = torch.load(folder / engine.CHECKPOINT, weights_only=True)["guard"]["steps"]
            assert at >= resumed_from
            resumed_from = at
        ours, theirs = context.Pipe(duplex=False)
        most = 6 if kills < 20 else None
        process = context.Process(
            target=_train_on, args=(images, folder, chosen, resume, theirs, most)
        )
        process.start()
        theirs.close()
        if kills == 20:
            process.join(300)
            break
        for _ in range(chance.randrange(1, 5)):
            assert ours.poll(300)
            ours.recv()
        time.sleep(two_steps * chance.random())
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        kills += 1
        time.sleep(0.01)
    assert process.exitcode == 0
    assert resumed_from > 20
    state = torch.load(folder / engine.CHECKPOINT, weights_only=True)
    for name, tensor in expected.state_dict().items():
        assert torch.equal(state["model"][name], tensor), name
    assert [row["step"] for row in rows_of(folder)] == list(range(2, 151, 2))


def poison(monkeypatch, step, times):
    """Makes the input of a step overflow, the first so many times."""
    honest, seen = engine.pack_crops, []
    batch = engine.Batches.__getitem__

    def numbered(self, index):
        seen.append(index)
        return batch(self, index)

    def poisoned(*args, **more):
        x, reference = honest(*args, **more)
        bad = seen[-1] == step and seen.count(step) <= times
        return (x * math.inf, reference) if bad else (x, reference)

    monkeypatch.setattr(engine.Batches, "__getitem__", numbered)
    monkeypatch.setattr(engine, "pack_crops", poisoned)
    return seen


def test_an_overflow_is_recovered_from(images, tmp_path, monkeypatch):
    """Back to the last checkpoint, half the rate, and on to the end; the log says where."""
    seen, incidents = poison(monkeypatch, 5, 1), []
    model = fit(images, tmp_path / "run", settings(), warn=incidents.append)
    assert [step for step in seen if step != 6 or seen.count(6) == 1] == [
        0,
        1,
        2,
        3,
        4,
        5,
        4,
        5,
        6,
        7,
    ]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    (incident,) = incidents
    assert (incident.step, incident.back_to, incident.rate) == (5, 4, 0.5)
    assert incident.layer == "0 (forward)"
    rows = rows_of(tmp_path / "run")
    (row,) = (row for row in rows if "not_taken" in row)
    assert (
        row.items() >= {"not_taken": 5, "back_to": 4, "rate": 0.5, "layer": "0 (forward)"}.items()
    )
    assert rows[-1]["step"] == 8


def test_a_kernel_that_cannot_be_inverted_is_recovered_from(images, tmp_path, monkeypatch):
    model, incidents = network(), []

    def break_kernel(step, *_):
        if step == 5 and not incidents:
            with torch.no_grad():
                model[-1].weight[0] = model[-1].weight[1]

    fit(
        images, tmp_path / "run", settings(), model=model, report=break_kernel,
        warn=incidents.append,
    )  # fmt: skip
    (incident,) = incidents
    assert incident.layer == str(len(model) - 1)
    assert "the kernel's condition number" in str(incident)
    assert rows_of(tmp_path / "run")[-1]["step"] == 8


def test_a_hopeless_training_ends_with_its_checkpoint(images, tmp_path, monkeypatch):
    poison(monkeypatch, 5, 99)
    with pytest.raises(WICError, match=r"exploded 3 times in a row.*with a lower learning rate"):
        fit(images, tmp_path / "run", settings())
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert state["guard"]["steps"] == 4
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


@pytest.mark.parametrize(("decay", "second", "third"), [(0.1, 0.9, 0.9), (0.99, 9 / 11, 9 / 12)])
def test_averaged_weights_are_the_result(images, tmp_path, decay, second, third):
    """They follow at once in the first steps, whatever the decay."""
    chosen = settings(steps=3, every=3, ema=decay)
    model, states = start(), []

    def keep(step, *_):
        states.append({name: p.detach().clone() for name, p in model.named_parameters()})

    result = fit(images, tmp_path / "run", chosen, model=model, report=keep)
    for name, found in result.named_parameters():
        expected = states[0][name]
        for state, share in zip(states[1:], (second, third), strict=True):
            expected = expected.lerp(state[name], share)
        torch.testing.assert_close(found, expected)
    judged = Judgement(result, TASKS["rescaling-x2"], held_out())
    row = rows_of(tmp_path / "run")[-1]
    assert (row["psnr_forward"], row["psnr_back"]) == (judged.psnr_forward, judged.psnr_back)


def test_settings_of_a_resumed_training_are_those_of_the_first(images, tmp_path):
    fit(images, tmp_path / "run", settings(steps=2))
    with pytest.raises(WICError, match="another learning_rate; resume with the same"):
        fit(images, tmp_path / "run", settings(steps=2, learning_rate=5e-4), resume=True)
    fit(images, tmp_path / "run", settings(steps=2, readers=1), resume=True)
    path = tmp_path / "run" / "checkpoint.pt"
    state = torch.load(path, weights_only=True)
    del state["settings"]["low"]  # as of before there was such a loss
    torch.save(state, path)
    with pytest.raises(WICError, match="another low; resume with the same"):
        fit(images, tmp_path / "run", settings(steps=2, low=1.0), resume=True)
    fit(images, tmp_path / "run", settings(steps=2), resume=True)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"cut short")
    with pytest.raises(WICError, match=r"checkpoint\.pt cannot be resumed from"):
        fit(images, tmp_path / "run", settings(steps=2), resume=True)


def test_a_compiled_step_gives_the_same_losses(images):
    task, model = TASKS["rescaling-x2"], network()
    step = Step(model, Objective(task))
    x = held_out()
    expected = step(x, task.reference(x))
    found = torch.compile(step, backend="aot_eager", fullgraph=True)(x, task.reference(x))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_a_graph_is_for_one_process_on_cuda(images, tmp_path):
    chosen = settings(steps=2, graph=True, accelerator="cpu")
    with pytest.raises(WICArgumentError, match=r"one process on CUDA .*got 1 on cpu"):
        fit(images, tmp_path, chosen)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_captured_step_trains_as_one_that_is_not():
    task = TASKS["rescaling-x2"]
    x = held_out().cuda()
    found = []
    for is_captured in (False, True):
        torch.manual_seed(0)
        model = network().cuda()
        objective = Objective(task)
        step = Step(model, objective)
        if is_captured:
            capture(step, x, task.reference(x))
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for _ in range(3):
            optimizer.zero_grad()
            sum(objective.weighted(step(x, task.reference(x))).values()).backward()
            optimizer.step()
        found.append(torch.cat([each.detach().flatten() for each in model.parameters()]))
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


def test_devices_that_are_not_there():
    if not torch.cuda.is_available():
        with pytest.raises(WICArgumentError, match=r"Cannot train on 1 device.* of kind 'cuda'"):
            engine.make_fabric(settings(accelerator="cuda"))
    with pytest.raises(WICArgumentError, match="a batch that 3 processes can share; got 2"):
        engine.make_fabric(settings(devices=3))


@pytest.mark.parametrize("ruin", ["nan", "singular"])
def test_a_step_that_ruins_the_weights_reaches_no_checkpoint(images, tmp_path, monkeypatch, ruin):
    """Step 4, before the checkpoint of 4: nobody has run those weights yet."""
    model, incidents = network(), []
    step = torch.optim.AdamW.step
    taken = [0]

    def ruining(self, *arguments, **more):
        found = step(self, *arguments, **more)
        taken[0] += 1
        if taken[0] == 4:
            with torch.no_grad():
                weight = model[-1].weight
                weight[0] = weight[1] if ruin == "singular" else torch.nan
        return found

    monkeypatch.setattr(torch.optim.AdamW, "step", ruining)
    fit(images, tmp_path / "run", settings(), model=model, warn=incidents.append)
    (incident,) = incidents
    assert incident.back_to == 2
    rows = rows_of(tmp_path / "run")
    assert [row["step"] for row in rows if "step" in row] == [2, 4, 6, 8]
    assert all(math.isfinite(row["psnr_back"]) for row in rows if "step" in row)
    state = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["model"].values())


def test_a_training_begun_anew_has_a_log_of_its_own(images, tmp_path):
    for _ in range(2):
        fit(images, tmp_path / "run", settings(steps=2))
    assert [row["step"] for row in rows_of(tmp_path / "run")] == [2]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("weights", (4.0, 3.0, 2.0, 1.0)), ("forward", "l1"), ("reverse", "l2"),
        ("rounding", "noise"), ("shift_target", "output"), ("low", 0.5), ("frequency", 0.25),
        ("returned", "wanted"), ("invariance", 2.0), ("w", "zero"),
    ],
)  # fmt: skip
def test_each_setting_of_the_objective_is_its_own(name, value):
    task = TASKS["rescaling-x2"]
    chosen = vars(settings(**{name: value}).objective(task))
    assert chosen == vars(Objective(task, **{name: value}))
    assert chosen != vars(settings().objective(task))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_optimizer_is_as_the_settings_say(optimizer):
    chosen = settings(optimizer=optimizer, weight_decay=0.3, learning_rate=0.02)
    made = engine.make_optimizer(network(), chosen)
    assert type(made).__name__.lower() == optimizer
    for group in made.param_groups:
        assert (group["weight_decay"], group["lr"], group["fused"]) == (0.3, 0.02, True)


def test_steps_are_made_of_the_crops_and_memory_that_the_settings_ask_for(images, tmp_path):
    task, told = TASKS["rescaling-x2"], []
    chosen = settings(steps=1, saturate=1.0, grey=0.5, save_memory=True, seed=3)
    model = start()
    expected = Objective(task)(
        copy.deepcopy(model),
        *pack_crops(Batches(images, task, chosen, 0, 1)[0], task, saturate=1.0, grey=0.5),
    )
    fit(images, tmp_path / "run", chosen, model=model, report=lambda *what: told.append(what[1]))
    torch.testing.assert_close(told[0], expected, rtol=1e-4, atol=1e-4)
    assert model.runner is not None
    fit(images, tmp_path / "other", settings(steps=1), model=model)
    assert model.runner is None


def test_pictures_are_judged_through_eight_bits():
    task, x = TASKS["rescaling-x2"], held_out()
    model = start()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        y = quantize(model(x))
        expected = {
            "forward": y, "reference": quantize(task.reference(x)),
            "back": quantize(model.inverse(y)), "original": x,
        }  # fmt: skip
    found = Judgement(model, task, x)
    for name, picture in expected.items():
        torch.testing.assert_close(getattr(found, name), picture, rtol=0, atol=1e-6)
    assert found.psnr_back == pytest.approx(psnr(expected["back"], x), abs=1e-3)
    assert found.psnr_forward == pytest.approx(psnr(y, expected["reference"]), abs=1e-3)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_every_step_has_the_rate_of_the_schedule(images, tmp_path, monkeypatch, optimizer):
    """What the optimizer has when it steps, and what is told; halved from an incident on."""
    chosen, rates, told = settings(optimizer=optimizer), [], []
    kind = Muon if optimizer == "muon" else torch.optim.AdamW
    step = kind.step

    def noted(self, *arguments, **more):
        rates.append({group["lr"] for group in self.param_groups})
        return step(self, *arguments, **more)

    monkeypatch.setattr(kind, "step", noted)
    poison(monkeypatch, 4, 1)
    fit(images, tmp_path / "run", chosen, report=lambda *told_of: told.append(told_of[3]))
    # up in two steps, then half a cosine down to the last rate
    cosine = [1e-6 + (1e-3 - 1e-6) * (1 + math.cos(math.pi * k / 5)) / 2 for k in range(6)]
    expected = [5e-4, 1e-3, *cosine]
    assert [chosen.rate(step) for step in range(8)] == pytest.approx(expected)
    expected[4:] = [rate / 2 for rate in expected[4:]]
    assert all(len(each) == 1 for each in rates)
    assert [rate for (rate,) in rates] == pytest.approx(expected)
    assert told == pytest.approx(expected)


def test_gradients_are_clipped_as_the_settings_say(images, tmp_path, monkeypatch):
    norms = []
    step = torch.optim.AdamW.step

    def noted(self, *arguments, **more):
        gradients = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(float(torch.cat([each.flatten() for each in gradients]).norm()))
        return step(self, *arguments, **more)

    monkeypatch.setattr(torch.optim.AdamW, "step", noted)
    fit(images, tmp_path / "run", settings(steps=2, clip=0.25))
    assert norms == pytest.approx([0.25] * 2, rel=1e-3)


def test_what_was_frozen_stays_in_its_mode():
    model = network()
    model[0].eval()
    modes = [module.training for module in model.modules()]
    Judgement(model, TASKS["rescaling-x2"], held_out())
    down(torch.zeros(3, 8, 8, dtype=torch.uint8), model=model)
    assert [module.training for module in model.modules()] == modes
    assert False in modes
    assert True in modes
