"""The dense block: its precision for inference, and that nothing stale is used."""

import copy

import pytest
import torch
from cases import shaken

from wic_layers.models import WINNaive
from wic_layers.subnets import DenseBlock


def block():
    return shaken(DenseBlock(5, 7, growth=8)).eval()


def test_float64_inference_is_that_of_float64():
    net, x = block(), torch.rand(2, 5, 9, 6)
    exact = copy.deepcopy(net).double()
    net.optimize(torch.float64)
    with torch.no_grad():
        assert torch.equal(net(x), exact(x.double()).float())
        assert net(x).dtype == torch.float32


def test_only_inference_changes():
    net, x = block(), torch.rand(1, 5, 8, 8)
    expected = net(x)
    net.optimize(torch.bfloat16)
    assert torch.equal(net(x), expected)  # gradients are on
    with torch.no_grad():
        found = net(x)
        assert not torch.equal(found, expected)
        torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
        assert torch.equal(net.train()(x), expected)
        traced = torch.export.export(net.eval(), (x,)).module()
        assert torch.equal(traced(x), expected)
        net.optimize(None)
        assert torch.equal(net(x), expected)


@pytest.mark.parametrize("change", ["load", "to", "eval", "copy", "pickle"])
def test_cast_weights_are_not_stale(change, tmp_path):
    net, other, x = block(), block(), torch.rand(1, 5, 8, 8)
    net.optimize(torch.bfloat16)
    other.optimize(torch.bfloat16)
    with torch.no_grad():
        net(x)
        expected = other(x)
        if change == "load":
            net.load_state_dict(other.state_dict())
        elif change == "to":
            for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
                mine.copy_(theirs)
            net.to(torch.float32)
        elif change == "eval":
            for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
                mine.copy_(theirs)
            net.eval()
        elif change == "copy":
            net = copy.deepcopy(other)
        else:
            torch.save(other, tmp_path / "b.pt")
            net = torch.load(tmp_path / "b.pt", weights_only=False)
        assert torch.equal(net(x), expected)


def test_a_network_in_bfloat16_stays_close_and_runs_both_ways():
    torch.manual_seed(0)
    model = shaken(WINNaive(3, 3, scale=2, couplings=2, growth=8)).eval()
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        y, back = model(x), model.inverse(model(x))
        assert model.optimize() is model
        for found, expected in ((model(x), y), (model.inverse(y), back)):
            error = (found - expected).square().mean() / expected.square().mean()
            assert 0 < error < 10**-5
            assert found.dtype == torch.float32
        assert torch.equal(model.optimize(None)(x), y)
