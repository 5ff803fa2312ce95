"""Blocks of a user's own: what works by defaults, and what a block may say of itself."""

from fractions import Fraction

import pytest
import torch
from cases import shaken
from torch import nn

from wic_layers import WIC
from wic_layers.blocks import AffineCoupling, Chain, InvertibleBlock, LongTermMemory, save_memory
from wic_layers.deploy import fuse
from wic_layers.models import Network
from wic_layers.models.inspection import flow, receptive_field


class Twice(InvertibleBlock):
    """Two directions and nothing else: every channel twice, sides halved by the first pixel."""

    def _forward(self, x):
        return torch.cat((x, x), dim=1)[..., ::2, ::2]

    def _inverse(self, y):
        return y[:, : y.shape[1] // 2].repeat_interleave(2, -1).repeat_interleave(2, -2)


class Plain(nn.Module):
    """A module that knows nothing of this library: a 5x5 network added to a part of channels."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(2, 2, 5, padding=2), nn.Conv2d(2, 4, 3, padding=1))

    def forward(self, x):
        return torch.cat((x[:, :2], x[:, 2:] + self.net(x[:, :2])), dim=1)

    def inverse(self, y):
        return torch.cat((y[:, :2], y[:, 2:] - self.net(y[:, :2])), dim=1)


class Additive(InvertibleBlock):
    """The same, that says what it knows of itself."""

    is_exact = True
    reach = 3
    networks = ("net",)

    def __init__(self):
        super().__init__()
        self.net = Plain().net

    def _forward(self, x):
        return torch.cat((x[:, :2], x[:, 2:] + self.net(x[:, :2]).to(x.dtype)), dim=1)

    def _inverse(self, y):
        return torch.cat((y[:, :2], y[:, 2:] - self.net(y[:, :2]).to(y.dtype)), dim=1)


class Needy(nn.Module):
    """A block that cannot be run on a tensor alone."""

    def forward(self, x):
        return x * float(x.sum() > 0)

    def inverse(self, y):
        return y


class Own(Network):
    """A network of such blocks."""

    def __init__(self, in_channels=3, out_channels=3, scale=2):
        inner = Chain(WIC(4, 6), block(), WIC(6, 4))
        super().__init__(Twice(), LongTermMemory(2, inner), WIC(2 * in_channels, out_channels))


def block(kind=Plain):
    return shaken(kind())


def test_a_network_of_own_blocks_prints_what_they_do():
    rows = repr(Own()).splitlines()[1:]
    assert rows[0].split() == [*"0 Twice() 3 x H x W -> 6 x H/2 x W/2".split()]
    assert [row.split("  ")[0] for row in rows] == [
        "0", "1", "1.inner.0", "1.inner.1", "1.inner.2", "2"
    ]  # fmt: skip
    assert "6 x H/2 x W/2" in rows[3]
    assert rows[3].split()[-1] == f"{sum(p.numel() for p in Plain().parameters())}"


def test_what_cannot_be_measured_keeps_channels_and_sides():
    (step,) = flow(Chain(Needy()), 3)
    assert step.channels == (3, 3)
    assert step.sizes == (Fraction(1), Fraction(1))


def test_measuring_leaves_the_block_as_it_was():
    norm = nn.BatchNorm2d(3)
    norm.inverse = lambda y: y
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    flow(Chain(norm), 3)
    assert norm.num_batches_tracked == 0
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("kind", [Plain, Additive])
def test_tiles_see_as_far_as_all_convolutions_or_what_the_block_says(kind):
    assert receptive_field(Chain(kind()), 6) == 3
    # twice as many pixels of the input where the sides are halved
    assert receptive_field(Chain(Twice(), kind()), 3) == 6
    inside = Chain(kind())  # of a block that says nothing of what it holds
    holder = Holder(inside)
    assert receptive_field(Chain(holder), 6) == 3


class Holder(InvertibleBlock):
    """Blocks inside a block."""

    def __init__(self, inside):
        super().__init__()
        self.first = inside[0]

    def _forward(self, x):
        return self.first(x)

    def _inverse(self, y):
        return self.first.inverse(y)


@pytest.mark.parametrize("kind", [Plain, Additive])
def test_memory_is_saved_where_a_block_says_that_it_is_exact(kind):
    model = shaken(Chain(block(kind), AffineCoupling(6), block(kind))).double()
    x, results = torch.rand(1, 6, 8, 8, dtype=torch.float64, requires_grad=True), []
    for enabled in (False, True):
        save_memory(model, enabled=enabled)
        y = model(x)
        back = model.inverse(y)
        inputs = [x, *model.parameters()]
        loss = y.square().sum() + (back * torch.linspace(0, 1, 8)).sum()
        results.append(torch.autograd.grad(loss, inputs, allow_unused=True))
    torch.testing.assert_close(*results)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        model(x)
    weights = {p.data_ptr() for p in model.parameters()}
    activations = {t.data_ptr() for t in kept} - weights
    assert (len(activations) == 1) is (kind is Additive)  # what came out of all


@pytest.mark.parametrize("direction", ["forward", "reverse"])
@torch.no_grad()
def test_export_takes_own_blocks(direction):
    model = shaken(Own()).eval()
    x = torch.rand(1, 3, 16, 24)
    given = x if direction == "forward" else model(x)
    wanted = model(x) if direction == "forward" else model.inverse(given)
    fused = fuse(model, direction)
    torch.testing.assert_close(fused(given), wanted)
    exported = torch.export.export(fused, (given,)).module()
    torch.testing.assert_close(exported(given), wanted)


def test_a_subclass_of_a_coupling_gets_its_own_gradients():
    class Doubled(AffineCoupling):
        def _forward(self, x):
            return 2 * super()._forward(x)

        def _inverse(self, y):
            return super()._inverse(y / 2)

    model = shaken(Chain(Doubled(4), WIC(4, 4))).double()
    x, results = torch.rand(1, 4, 4, 4, dtype=torch.float64, requires_grad=True), []
    for enabled in (False, True):
        save_memory(model, enabled=enabled)
        results.append(torch.autograd.grad(model(x).square().sum(), [x, *model.parameters()]))
    torch.testing.assert_close(*results)
