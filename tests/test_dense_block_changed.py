"""A dense block whose convolutions were changed does the same wherever it runs."""

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import shaken
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from wic_layers.blocks import AffineCoupling, Chain
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.blocks.reversible import save_memory
from wic_layers.deploy import fuse
from wic_layers.models import WINNaive


class Bent(nn.Conv2d):
    """A convolution of a user's own."""

    def forward(self, x):
        return super().forward(x).sin()


class Doubled(nn.Module):
    """A weight twice as large."""

    def forward(self, weight):
        return 2 * weight


def every(**attributes):
    def change(net):
        for conv in net.convolutions():
            for name, value in attributes.items():
                setattr(conv, name, value)

    return change


def dilate(net):
    net.conv3.dilation, net.conv3.padding = (2, 2), (2, 2)


def group(net):
    net.conv2.groups = 4
    net.conv2.weight = nn.Parameter(net.conv2.weight[:, :3].clone())


def bend(net):
    net.conv4.__class__ = Bent


def patch(net):
    plain = net.conv2.forward
    net.conv2.forward = lambda x: plain(x).cos()


def unbias(net):
    net.conv1.bias = None


def exchange(net):
    """The second convolution comes last in the block's list of children."""
    conv = net.conv2
    del net.conv2
    net.add_module("note", nn.Identity())
    net.add_module("conv2", conv)


def shrink(net):
    """Another kernel size, as a user's own convolution."""
    net.conv5 = shaken(nn.Sequential(nn.Conv2d(36, 8, 1)))[0]


CHANGES = {
    "reflected borders": every(padding_mode="reflect"),
    "replicated borders": every(padding_mode="replicate"),
    "circular borders": every(padding_mode="circular"),
    "padding by name": every(padding="same"),
    "dilation": dilate,
    "groups": group,
    "a subclass": bend,
    "another forward": patch,
    "no bias": unbias,
    "another order": exchange,
    "a smaller kernel": shrink,
    "a hook": lambda net: net.conv2.register_forward_hook(lambda module, given, out: 2 * out),
    "a hook before": lambda net: net.conv2.register_forward_pre_hook(lambda _, given: -given[0]),
    "a parametrization": lambda net: parametrize.register_parametrization(
        net.conv3, "weight", Doubled()
    ),
    "weight norm": lambda net: parametrizations.weight_norm(net.conv3),
    "old weight norm": lambda net: weight_norm(net.conv3),
    "old spectral norm": lambda net: spectral_norm(net.conv3).eval(),
}  # fmt: skip


def plain(net, x):
    """The block as its owner reads it: modules that are called."""
    for index in range(1, 6):
        new = getattr(net, f"conv{index}")(x)
        x = torch.cat((x, F.leaky_relu(new, net.slope)), 1) if index < 5 else new
    return x


def changed(name, outputs=8):
    # 4 + 8 channels that a group of 4 divides
    net = shaken(DenseBlock(4, outputs, growth=8)).eval()
    CHANGES[name](net)
    return net


def results(function, net, x):
    """What a function gives, and the gradients of x and of every parameter."""
    x = x.clone().requires_grad_()
    y = function(x)
    inputs = (x, *net.parameters())
    return y.detach(), *torch.autograd.grad(y.float().square().sum(), inputs)


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_training_and_inference_are_the_modules(name, memory):
    net, x = changed(name).double(), torch.rand(2, 4, 7, 6).double()
    x = x.contiguous(memory_format=memory)
    expected = results(lambda x: plain(net, x), net, x)
    for training in (True, False):
        if name != "old spectral norm":  # which turns its vectors while it trains
            net.train(training)
        for found, wanted in zip(results(net, net, x), expected, strict=True):
            torch.testing.assert_close(found, wanted)
        for dtype in (None, torch.float64):
            net.optimize(dtype)
            with torch.no_grad():
                torch.testing.assert_close(net(x), expected[0])


@pytest.mark.parametrize("name", CHANGES)
def test_in_bfloat16(name):
    net, x = changed(name), torch.rand(2, 4, 16, 16)
    with torch.autocast("cpu", torch.bfloat16):
        expected = results(lambda x: plain(net, x), net, x)
        found = results(net, net, x)
    assert found[0].dtype == torch.bfloat16
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() <= 0.03 * other.norm()
    net.optimize(torch.bfloat16)
    with torch.no_grad():
        assert (net(x) - expected[0]).norm() <= 0.03 * expected[0].norm()


@pytest.mark.parametrize("name", [name for name in CHANGES if "spectral" not in name])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_inside_couplings_that_save_memory_and_are_fused(name, direction):
    torch.manual_seed(0)
    model = Chain(AffineCoupling(12, split=4, subnet=lambda n, m: changed(name, m) if n == 4
                                 else shaken(DenseBlock(n, m, growth=8)))).eval()  # fmt: skip
    coupling = model[0]
    x = torch.rand(2, 12, 8, 6)

    def by_hand(x):
        one, two = x.split((4, 8), dim=1)
        if direction == "forward":
            one = one + plain(coupling.F, two)
        scale = 2 * torch.sigmoid(plain(coupling.H, one)) - 1
        if direction == "forward":
            return torch.cat((one, two * scale.exp() + plain(coupling.G, one)), dim=1)
        two = (two - plain(coupling.G, one)) * (-scale).exp()
        return torch.cat((one - plain(coupling.F, two), two), dim=1)

    def run(x):
        return model(x, rev=direction == "reverse")

    expected = results(by_hand, model, x)
    for enabled in (False, True):
        save_memory(model, enabled=enabled)
        for found, wanted in zip(results(run, model, x), expected, strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-4)
    with torch.no_grad():
        model(x)  # old weight norm leaves a weight that can be copied
    fused = fuse(model, direction)
    with torch.no_grad():
        torch.testing.assert_close(fused(x), expected[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("attribute", "value"), [("stride", (2, 2)), ("padding", (0, 0))])
@pytest.mark.parametrize("wanted", [True, False])
def test_a_geometry_that_cannot_be_joined_is_an_error(attribute, value, wanted):
    net, x = shaken(DenseBlock(4, 8, growth=8)).eval(), torch.rand(1, 4, 7, 6)
    setattr(net.conv2, attribute, value)
    for dtype in (None, torch.bfloat16):
        net.optimize(dtype)
        with torch.set_grad_enabled(wanted), pytest.raises(RuntimeError, match="Sizes of tensors"):
            net(x)


def test_a_stride_of_the_last_convolution():
    net, x = shaken(DenseBlock(4, 8, growth=8)).eval(), torch.rand(1, 4, 8, 6)
    net.conv5.stride = 2
    for found, wanted in zip(results(net, net, x), results(lambda x: plain(net, x), net, x),
                             strict=True):  # fmt: skip
        torch.testing.assert_close(found, wanted)
    assert net(x).shape == (1, 8, 4, 3)


def test_reflected_borders_in_a_network_that_trains_and_infers():
    model = shaken(WINNaive(3, 3, scale=2, couplings=1, growth=4))
    before = copy.deepcopy(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "reflect"
    x = torch.rand(1, 3, 16, 16)
    trained = model(x)
    model.eval()
    with torch.no_grad():
        torch.testing.assert_close(model(x), trained)
        torch.testing.assert_close(fuse(model, "forward")(x), trained)
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), trained)
        assert (before(x) - trained).abs().max() > 1e-3


def test_hooks_for_every_module_see_the_convolutions():
    net, x, seen = shaken(DenseBlock(4, 8, growth=8)), torch.rand(1, 4, 8, 6), []
    hook = nn.modules.module.register_module_forward_hook(
        lambda module, _, __: seen.append(module)
    )
    try:
        net(x)
    finally:
        hook.remove()
    assert seen == [*net.convolutions(), net]


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_hook_on_a_dense_block_counts_where_it_is_fused(direction):
    model = Chain(
        AffineCoupling(12, subnet=lambda n, m: shaken(DenseBlock(n, m, growth=4)))
    ).eval()
    model[0].F.register_forward_hook(lambda module, given, out: 2 * out)
    x = torch.rand(2, 12, 8, 6)
    with torch.no_grad():
        expected = model(x, rev=direction == "reverse")
        torch.testing.assert_close(fuse(model, direction)(x), expected)
