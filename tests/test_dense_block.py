"""The dense block: its precision for inference, and that nothing stale is used."""

import copy

import pytest
import torch
import torch.nn.functional as F
from cases import shaken
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn.utils import prune

from wic_layers.blocks import dense_block
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.models import WINNaive


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


def plain(net, x):
    """The block by autograd's own rules."""
    for index in range(1, 6):
        conv = getattr(net, f"conv{index}")
        new = conv(x)
        x = torch.cat((x, F.leaky_relu(new, net.slope)), 1) if index < 5 else new
    return x


@pytest.mark.parametrize("frozen", [(), ("x",), ("conv3.weight",), ("conv1.bias", "conv5.weight")])
def test_gradients_are_those_of_autograd(frozen):
    net, x = block().double(), torch.randn(2, 5, 7, 6, dtype=torch.float64)
    x.requires_grad_("x" not in frozen)
    for name, parameter in net.named_parameters():
        parameter.requires_grad_(name not in frozen)
    inputs = [each for each in (x, *net.parameters()) if each.requires_grad]
    outs = net(x), plain(net, x)
    torch.testing.assert_close(*outs)
    weights = torch.randn_like(outs[0])
    found, expected = (torch.autograd.grad((out * weights).sum(), inputs) for out in outs)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_higher_order():
    net = shaken(DenseBlock(2, 2, growth=2)).double()
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, (x,))
    assert torch.autograd.gradgradcheck(net, (x,))
    per_sample = torch.func.vmap(torch.func.grad(lambda x: net(x[None]).sum()))
    torch.testing.assert_close(
        per_sample(x.detach()), torch.autograd.grad(plain(net, x).sum(), x)[0]
    )


def test_what_is_kept_for_the_way_back():
    net, x = shaken(DenseBlock(12, 12, growth=32)), torch.rand(1, 12, 64, 64)

    def kept(function):
        held = {}

        def pack(tensor):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            function(x)
        return sum(held.values())

    assert kept(net) < 0.4 * kept(lambda x: plain(net, x))


@pytest.mark.parametrize("dtype", [torch.bfloat16])
def test_autocast(dtype):
    net, x = block(), torch.randn(2, 5, 16, 16, requires_grad=True)
    with torch.autocast("cpu", dtype):
        outs = net(x), plain(net, x)
    assert outs[0].dtype == outs[1].dtype == dtype
    weights = torch.randn(outs[0].shape)
    inputs = (x, *net.parameters())
    found, expected = (torch.autograd.grad((out.float() * weights).sum(), inputs) for out in outs)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.02 * other.norm()


@pytest.mark.parametrize("again", [False, True])
def test_autocast_around_the_way_back_alone_changes_no_gradient(again):
    net, x = shaken(DenseBlock(5, 7, growth=4)), torch.randn(2, 5, 16, 16, requires_grad=True)
    y, inputs = net(x).square().sum(), (x, *net.parameters())
    expected = torch.autograd.grad(y, inputs, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y, inputs, create_graph=again)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.detach(), other)


@pytest.mark.parametrize(("inputs", "outputs"), [(5, 7), (8, 7), (5, 8)])
def test_channels_padded_for_tensor_cores_change_nothing(inputs, outputs, monkeypatch):
    net, x = shaken(DenseBlock(inputs, outputs, growth=8)).eval(), torch.rand(2, inputs, 9, 6)
    probe = torch.rand(2, outputs, 9, 6)
    given = x.clone().requires_grad_()

    def results():
        with torch.autocast("cpu", torch.bfloat16):
            y = net(given)
        gradients = torch.autograd.grad((y * probe).sum(), [given, *net.parameters()])
        net.optimize(torch.bfloat16)
        with torch.no_grad():
            return [y.detach(), net(x), *gradients]

    expected = results()
    monkeypatch.setattr(dense_block, "_block_size", lambda kind, dtype: 8)
    for found, wanted in zip(results(), expected, strict=True):
        assert found.shape == wanted.shape
        torch.testing.assert_close(found, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_bfloat16_on_cuda_is_that_of_a_cpu():
    net, x = block(), torch.rand(2, 5, 9, 6)
    net.optimize(torch.bfloat16)
    with torch.no_grad():
        expected = net(x)
        torch.testing.assert_close(net.cuda()(x.cuda()).cpu(), expected, rtol=0.02, atol=0.02)


def test_what_torch_does_with_parameters():
    net, x = shaken(DenseBlock(3, 3, growth=4)), torch.rand(1, 3, 8, 8)
    vector = nn.utils.parameters_to_vector(net.parameters())
    nn.utils.vector_to_parameters(2 * vector, net.parameters())
    assert torch.equal(nn.utils.parameters_to_vector(net.parameters()), 2 * vector)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)

    def closure():
        optimizer.zero_grad()
        loss = net(x).square().sum()
        loss.backward()
        return loss

    before = float(closure().detach())
    optimizer.step(closure)
    assert float(closure().detach()) < before
    for parameter in net.parameters():
        assert parameter.is_contiguous()
        assert parameter.grad.is_contiguous()


def test_pruning_and_hooks_are_respected():
    net, x = shaken(DenseBlock(3, 3, growth=4)).eval(), torch.rand(1, 3, 8, 8)
    net.optimize(torch.float32)
    prune.l1_unstructured(net.conv1, "weight", amount=0.5)
    seen = []
    net.conv2.register_forward_hook(lambda module, given, out: seen.append(out))
    for wanted in (True, False):
        with torch.set_grad_enabled(wanted):
            torch.testing.assert_close(net(x), plain(net, x))
    assert len(seen) == 4
    net(x).sum().backward()
    assert net.conv1.weight_orig.grad is not None


def test_a_convolution_that_was_exchanged():
    class Bent(nn.Conv2d):
        def forward(self, x):
            return super().forward(x).sin()

    net, x = shaken(DenseBlock(3, 3, growth=4)), torch.rand(1, 3, 8, 8)
    net.conv2 = shaken(nn.Sequential(Bent(7, 4, 3, padding=1)))[0]
    torch.testing.assert_close(net(x), plain(net, x))


def test_float64_stays_float64_under_autocast():
    net, x = block().double(), torch.rand(2, 5, 9, 6, dtype=torch.float64)
    expected = net(x)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(net(x), expected)


def test_derivatives_by_other_ways():
    net, x = shaken(DenseBlock(2, 2, growth=2)).double(), torch.randn(1, 2, 3, 4).double()
    rows = torch.autograd.functional.jacobian(net, x)
    together = torch.autograd.functional.jacobian(net, x, vectorize=True)
    torch.testing.assert_close(together, rows)
    tangent = torch.randn_like(x)
    with forward_ad.dual_level():
        out = forward_ad.unpack_dual(net(forward_ad.make_dual(x, tangent)))
    torch.testing.assert_close(out.primal, net(x))
    torch.testing.assert_close(out.tangent, (rows * tangent).sum((-4, -3, -2, -1)))


def test_weights_of_a_call_and_edits_are_seen_by_an_optimized_block():
    net, x = block(), torch.rand(1, 5, 8, 8)
    other = block()
    net.optimize(torch.bfloat16)
    with torch.no_grad():
        mine = net(x)
        expected = copy.deepcopy(net)
        expected.load_state_dict(other.state_dict())
        assert torch.equal(functional_call(net, other.state_dict(), (x,)), expected(x))
        assert torch.equal(net(x), mine)
        for one, two in zip(net.parameters(), other.parameters(), strict=True):
            one.copy_(two)
        assert torch.equal(net(x), expected(x))
        batch = torch.rand(3, 1, 5, 8, 8)
        mapped = torch.vmap(net)(batch)
        torch.testing.assert_close(mapped, torch.stack([plain(net, x) for x in batch]))
    with torch.inference_mode():
        kept = copy.deepcopy(other)
        kept.optimize(torch.bfloat16)
        first = kept(x)
        kept.conv5.bias.add_(1)
        torch.testing.assert_close(kept(x), first + 1, rtol=0.05, atol=0.05)
