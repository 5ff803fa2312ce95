"""The loop that a newcomer writes: their own objective and optimizer, with the guard."""

import copy

import photographs
import pytest
import torch
import torch.nn.functional as F

import wic_layers
from wic_layers.models import WIN
from wic_layers.pictures import find_images
from wic_layers.training import Guard, Photographs, arrange

STEPS = 200


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = photographs.write(tmp_path_factory.mktemp("photographs") / "all")
    return Photographs(find_images(folder), smallest=32)


def made():
    torch.manual_seed(0)
    model = WIN.from_preset("hiding-1-small")
    return model, Guard(model, torch.optim.Adam(model.parameters(), 1e-4))


def one_step(model, run, guard, images, step, *, autocast=False):
    """The story's loop body, word for word but for where the pictures come from."""

    def objective(stego, back):
        return F.mse_loss(stego, cover) + F.l1_loss(back, torch.cat((cover, secret), 1))

    cover, secret = arrange(images.crops(step, size=4, crop=16, seed=0)).chunk(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        with wic_layers.record_wic(model) as records:
            stego = run(torch.cat((cover, secret), 1))
        back = model.inverse(wic_layers.quantize(stego))
        loss = (
            objective(stego, back)
            + 0.1 * wic_layers.det_loss(model)
            + wic_layers.shift_loss(records, cover)
        )
    guard.step(loss)
    return float(loss.detach())


@pytest.mark.slow
@pytest.mark.parametrize(("mode", "steps"), [("plain", STEPS), ("bf16", 80), ("compiled", 80)])
def test_many_steps_without_nan(images, mode, steps):
    model, guard = made()
    run = (
        torch.compile(model, backend="aot_eager", fullgraph=True) if mode == "compiled" else model
    )
    losses = [
        one_step(model, run, guard, images, step, autocast=mode == "bf16") for step in range(steps)
    ]
    assert guard.steps == steps  # none was not taken
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert sum(losses[-20:]) < 0.7 * sum(losses[:20])


def test_kill_and_resume_gives_the_same_next_loss(images):
    model, guard = made()
    for step in range(3):
        one_step(model, model, guard, images, step)
    saved = copy.deepcopy([model.state_dict(), guard.optimizer.state_dict(), guard.state_dict()])
    expected = one_step(model, model, guard, images, 3)
    other, again = made()
    other.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])
    again.load_state_dict(saved[2])
    assert one_step(other, other, again, images, again.steps) == expected
