"""Refinement: more comes back from the same file size, it looks as before, and files agree."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import nn

from wic_layers import cli, tasks
from wic_layers.cli.command import refining_steps
from wic_layers.codec.refining import BEST, MOMENTUM, RATE, refine
from wic_layers.codec.running import (
    backward_pixels,
    forward_pixels,
    load_network,
    reference_pixels,
)
from wic_layers.errors import WICArgumentError
from wic_layers.models import WINNaive
from wic_layers.pictures import as_pixels, psnr
from wic_layers.tasks import TASKS


def photograph(size=64):
    return as_pixels(data.astronaut())[:, 40 : 40 + size, 180 : 180 + size].clone()


@pytest.mark.parametrize("name", ["rescaling-x2", "rescaling-x4", "hiding-1", "decolorization"])
def test_more_comes_back_and_it_looks_as_before(name):
    task = TASKS[name]
    _, network = load_network((task,), None)
    images = [photograph(), as_pixels(data.coffee())[:, 100:164, 200:264].clone()][: task.images]
    sizes = [(64, 64)] * task.restored_count
    wanted = images[-task.restored_count :]
    x, found = task.packed(*images), []
    for steps in (0, 10):
        picture = forward_pixels(task, network, x, refine=steps)
        back = backward_pixels(task, network, picture, sizes)
        found.append((psnr(picture, reference_pixels(task, x)), psnr(back[0], wanted[0])))
    plain, refined = found
    assert refined[1] > plain[1] + {"rescaling-x4": 0.02}.get(name, 0.15)
    assert refined[0] > plain[0] - 0.1


class Echo(nn.Module):
    """Gives the picture itself back, so that the way down is known."""

    def inverse(self, y):
        return torch.cat((y, y), dim=1)


@pytest.mark.parametrize("part", [1.0, 0.5])
def test_a_step_is_of_one_length_and_moves_what_is_wanted_alone(part):
    """The secret and the cover are brighter: every pixel of what is wanted goes up alike."""
    y = torch.rand(1, 3, 16, 32) * 0.5
    x = torch.cat((y + 0.1, y + 0.2), dim=1)
    kept = torch.zeros_like(y)
    kept[..., : int(32 * part)] = 1
    found = refine(TASKS["hiding-1"], Echo(), x, y, 1, None if part == 1 else kept)
    length = RATE * (1 + MOMENTUM)
    assert length == pytest.approx(0.057 / 255)
    assert torch.allclose(found, y + length * kept, atol=length * 0.05, rtol=0)
    assert torch.equal(found * (1 - kept), y * (1 - kept))


def test_nothing_better_leaves_it_as_it_was():
    task = TASKS["rescaling-x2"]
    network = WINNaive(3, 3, scale=2, couplings=1, growth=4, completion="zero").eval()
    x = torch.zeros(1, 3, 8, 8)
    y = network(x)
    assert refine(task, network, x, y, 3) is y  # a black image comes back as it was
    assert all(p.requires_grad and p.grad is None for p in network.parameters())


def test_gradients_reach_nobody_and_modes_stay():
    task, network = load_network((TASKS["rescaling-x2"],), None)
    network.requires_grad_(True).train()
    with torch.no_grad():
        forward_pixels(task, network, task.packed(photograph()), refine=1)
    assert network.training
    assert all(p.grad is None for p in network.parameters())


def test_the_command_says_what_it_wrote(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photograph(49).permute(1, 2, 0).numpy()).save("a.png")
    assert cli.main(["down", "a.png", "-o", "plain.png"]) == 0
    assert cli.main(["down", "a.png", "-o", "small.png", "--refine", "6"]) == 0
    plain, refined = (
        [float(found) for found in re.findall(r"([0-9.]+) dB", line)]
        for line in capsys.readouterr().out.splitlines()
    )
    assert refined[1] > plain[1]
    assert cli.main(["up", "small.png", "-o", "again.png"]) == 0
    with Image.open("small.png") as small, Image.open("again.png") as again:
        assert again.size == (49, 49)
        expected = tasks.down(photograph(49), refine=6)
        assert np.array_equal(np.asarray(small), expected.permute(1, 2, 0).numpy())
    assert cli.main(["down", "a.png", "-o", "b.png", "--refine", "-1"]) == 2
    assert "Expected refine of at least 0 steps; got -1" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["up", "small.png", "-o", "b.png", "--refine", "2"])


def test_tiles_are_refined_too():
    task, network = load_network((TASKS["decolorization"],), None)
    x = task.packed(photograph())
    picture = forward_pixels(task, network, x, refine=4, tile=32)
    back = backward_pixels(task, network, picture, [(64, 64)])[0]
    plain = backward_pixels(task, network, forward_pixels(task, network, x), [(64, 64)])
    assert psnr(back, photograph()) > psnr(plain[0], photograph())


def test_bad_steps():
    with pytest.raises(WICArgumentError, match="refine of at least 0 steps; got -2"):
        tasks.gray(photograph(), refine=-2)


@pytest.mark.parametrize("place", [(200, 350), (150, 300)])
def test_a_small_secret_is_not_given_for_its_padding(place):
    task = TASKS["hiding-1"]
    _, network = load_network((task,), None)
    top, left = place
    secret = as_pixels(data.coffee())[:, top : top + 16, left : left + 16].clone()
    x, found = task.packed(photograph(128), secret), []
    for steps in (0, 5):
        picture = forward_pixels(task, network, x, [(16, 16)], refine=steps)
        (back,) = backward_pixels(task, network, picture, [(16, 16)])
        found.append(psnr(back, secret))
    assert found[1] > found[0] + 0.1
    # in tiles the padding of some is all there is
    tiled = forward_pixels(task, network, x, [(16, 16)], refine=5, tile=64)
    (back,) = backward_pixels(task, network, tiled, [(16, 16)])
    assert psnr(back, secret) > found[0] + 0.1


def test_best_is_a_number_of_steps_and_other_words_are_refused(capsys):
    assert refining_steps("best") == BEST == 24
    assert refining_steps("3") == 3
    with pytest.raises(SystemExit):
        cli.main(["down", "a.png", "-o", "small.png", "--refine", "more"])
    assert "a number of steps, or best; got 'more'" in capsys.readouterr().err
