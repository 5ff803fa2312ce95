"""Rounding inside a training step: what a file can hold, at any number of levels."""

import pytest
import torch

from wic_layers import quantize
from wic_layers.layer.quantization import quantize_by_noise


@pytest.mark.parametrize("levels", [255, 15, 1])
@pytest.mark.parametrize("gradients", [True, False])
def test_the_nearest_of_as_many_levels_as_are_asked_for(levels, gradients):
    x = torch.linspace(-0.5, 1.5, 4001, requires_grad=gradients)
    y = quantize(x, levels)
    inside = x.detach().double().clamp(0, 1)
    allowed = torch.arange(levels + 1, dtype=torch.float64) / levels
    distance = (y.detach().double()[:, None] - allowed).abs().min(dim=1).values
    assert distance.max() < 1e-6
    assert (y.detach() - inside).abs().max() <= 0.5 / levels + 1e-6


@pytest.mark.parametrize("levels", [255, 15])
def test_noise_is_half_a_step_at_most_and_leaves_what_a_file_can_hold(levels):
    x = torch.cat((torch.rand(20_000), torch.zeros(1000), torch.ones(1000)))
    y = quantize_by_noise(x, levels)
    assert y.min() >= 0
    assert y.max() <= 1
    off = (y - x)[:20_000] * levels
    assert off.abs().max() <= 0.5 + 1e-4
    assert off.std() == pytest.approx(12**-0.5, rel=0.05)
