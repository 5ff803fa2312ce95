"""The layer in nn.DataParallel, by torch's own replicate with the broadcast replaced by clones."""

import importlib

import pytest
import torch
from torch import nn

from wic_layers import WIC, WellPosed
from wic_layers.blocks import AffineCoupling, Chain, LongTermMemory, Squeeze


@pytest.fixture
def replicas(monkeypatch):
    """Makes two replicas of a module as nn.DataParallel does, on the CPU."""

    replication = importlib.import_module("torch.nn.parallel.replicate")

    def broadcast(tensors, devices, detach=False):
        return [[t.detach().clone() if detach else t.clone() for t in tensors] for _ in devices]

    monkeypatch.setattr(replication, "_broadcast_coalesced_reshape", broadcast)
    monkeypatch.setattr(replication, "_get_all_device_indices", lambda *_: [0, 1], raising=False)

    def make(module):
        return replication.replicate(module, [0, 1])

    return make


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.mix = nn.Conv2d(12, 12, 1)

    def forward(self, x, rev=False):
        return x + 1 if not rev else x - 1


KINDS = {
    "free": lambda: WIC(6, 4),
    "shift": lambda: WIC(6, 4, completion="shift"),
    "learned": lambda: WIC(6, 4, completion="learned"),
    "lu": lambda: WIC(6, 6, parametrization="lu"),
    "lu, narrowing": lambda: WIC(6, 4, parametrization="lu"),
    "orthogonal": lambda: WIC(4, 6, parametrization="orthogonal"),
    "fixed": lambda: WIC(6, 4, parametrization="fixed"),
    "closed, learned": lambda: WellPosed(
        Net(), in_channels=12, out_channels=3, completion="learned"
    ),
    "blocks": lambda: Chain(
        Squeeze(2),
        WIC(12, 16, parametrization="lu"),
        LongTermMemory(4, AffineCoupling(12)),
        WIC(16, 3, parametrization="orthogonal"),
    ),
}


@pytest.mark.parametrize("is_training", [True, False])
@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_replicas_do_what_the_module_does(kind, gradients, is_training, replicas):
    module = KINDS[kind]().train(is_training)
    x = torch.randn(2, 3 if kind == "blocks" else getattr(module, "in_channels", 12), 4, 4)
    with torch.set_grad_enabled(gradients):
        y = module(x)
        back = module(y, rev=True)
        for replica in replicas(module):
            assert torch.allclose(replica(x), y)
            assert torch.allclose(replica(y, rev=True), back, atol=1e-6)
            assert torch.allclose(replica.inverse(y), back, atol=1e-6)


@pytest.mark.parametrize("kind", ["free", "lu", "orthogonal", "learned"])
def test_gradients_of_replicas_reach_the_parameters(kind, replicas):
    module = KINDS[kind]()
    nn.init.normal_(next(module.parameters()))
    y = torch.randn(2, module.out_channels, 4, 4)
    module(y, rev=True).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in module.parameters()]
    module.zero_grad()
    halves = [one(part, rev=True) for one, part in zip(replicas(module), y.split(1), strict=True)]
    torch.cat(halves).square().sum().backward()
    for parameter, gradient in zip(module.parameters(), expected, strict=True):
        assert torch.allclose(parameter.grad, gradient, atol=1e-4)


@pytest.mark.parametrize("kind", ["lu", "orthogonal", "free"])
def test_replicas_see_every_step(kind, replicas):
    module = KINDS[kind]().eval()
    y = torch.randn(1, module.out_channels, 4, 4)
    with torch.no_grad():
        module.inverse(y)
        replicas(module)[1].inverse(y)
        for parameter in module.parameters():
            parameter.data.add_(0.1 * torch.randn_like(parameter))
        fresh = replicas(module)[1].inverse(y)
        assert torch.allclose(fresh, module.inverse(y), atol=1e-6)
