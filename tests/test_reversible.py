"""Training without activations: the same gradients, in little memory."""

import copy

import pytest
import torch
from cases import NETWORKS, shaken
from torch._dynamo.testing import CompileCounterWithBackend

from wic_layers import WIC, WellPosed, det_loss, record_wic, shift_loss
from wic_layers.blocks import AffineCoupling, Chain, Haar, InvertibleBlock
from wic_layers.blocks.reversible import save_memory
from wic_layers.errors import WICError
from wic_layers.models import WIN, HiNet


def gradients(model, x, *, autocast=False, records=True):
    """The loss of a step both ways, and every gradient."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), record_wic(model) as recorded:
        y = model(x)
        back = model.inverse(y.clamp(0, 1))
    loss = y.square().sum() + (back - x.detach()).square().sum() + det_loss(model)
    if records:
        loss = loss + shift_loss(recorded)
    loss.backward()
    return loss.detach(), [x.grad, *(p.grad for p in model.parameters())]


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_those_of_autograd(name):
    make, shape = NETWORKS[name]
    model, x = shaken(make()).double(), torch.rand(shape, dtype=torch.float64)
    other = copy.deepcopy(model)
    save_memory(other)
    (loss, expected), (same, found) = gradients(model, x), gradients(other, x)
    assert torch.equal(loss, same)
    for one, two in zip(expected, found, strict=True):
        torch.testing.assert_close(two, one, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("autocast", [False, True])
def test_gradients_in_the_precision_of_training(autocast):
    torch.manual_seed(0)
    model = shaken(WIN(6, 3, width=32, couplings=2, growth=8))
    x = torch.rand(2, 6, 32, 32)
    other = copy.deepcopy(model)
    save_memory(other)
    (_, expected), (_, found) = (gradients(m, x, autocast=autocast) for m in (model, other))
    for one, two in zip(expected, found, strict=True):
        assert (one - two).norm() <= (2e-2 if autocast else 1e-4) * one.norm()


def test_frozen_parts_and_inputs_without_gradient():
    model = shaken(HiNet(2, 1, couplings=3, growth=4)).double()
    model[2].requires_grad_(requires_grad=False)
    other = copy.deepcopy(model)
    save_memory(other)
    x = torch.rand(1, 2, 6, 4, dtype=torch.float64)
    for network in (model, other):
        network(x).square().sum().backward()
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert (one.grad is None) == (two.grad is None) == (not one.requires_grad)
        if one.requires_grad:
            torch.testing.assert_close(two.grad, one.grad)


def test_a_block_that_is_used_twice_gets_both_gradients():
    shared = shaken(AffineCoupling(4)).double()
    model = Chain(Haar(), shared, WIC(4, 4).double(), shared)
    x = torch.rand(1, 1, 6, 4, dtype=torch.float64)
    model(x).square().sum().backward()
    expected = [p.grad.clone() for p in model.parameters()]
    model.zero_grad()
    save_memory(model)
    model(x).square().sum().backward()
    for one, two in zip(expected, model.parameters(), strict=True):
        torch.testing.assert_close(two.grad, one)


def test_nothing_but_results_is_kept():
    def kept(network, x):
        held = {}

        def pack(tensor):
            storage = tensor.untyped_storage()
            held[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            network.inverse(network(x))
        return sum(held.values()) - 4 * sum(p.numel() for p in network.parameters())

    model, x = shaken(HiNet(couplings=8, growth=16)), torch.rand(1, 6, 64, 64)
    plain = kept(model, x)
    save_memory(model)
    assert kept(model, x) < 0.05 * plain
    save_memory(model, enabled=False)
    assert kept(model, x) == plain


def test_evaluation_and_errors_are_those_of_the_chain():
    model = shaken(WIN(2, 1, width=16, couplings=1, growth=4)).eval()
    x = torch.rand(1, 2, 6, 8)
    with torch.no_grad():
        expected = model(x), model.inverse(model(x))
        save_memory(model)
        assert torch.equal(model(x), expected[0])
        assert torch.equal(model.inverse(model(x)), expected[1])
    with pytest.raises(WICError, match=r"^0: Squeeze.*divisible"):
        model(x[..., :5])
    with torch.no_grad():
        model[3].inner[1].weight.fill_(torch.inf)
    with pytest.raises(WICError, match=r"^3\.inner\.1: WIC\(12, 16\)"):
        model.inverse(torch.rand(1, 1, 6, 8, requires_grad=True))


class Rough(InvertibleBlock):
    """Halves; its inverse forgets to double."""

    is_exact = True

    def _forward(self, x):
        return x / 2

    def inverse(self, y):
        return y


def test_check_names_a_block_whose_inverse_is_not_one():
    model = Chain(Haar(), Rough(), AffineCoupling(4))
    save_memory(model, check=True)
    y = model(torch.rand(1, 1, 4, 4, requires_grad=True))
    with pytest.raises(WICError, match=r"^1: expected what went in .* off by"):
        y.sum().backward()
    good = Chain(Haar(), AffineCoupling(4))
    save_memory(good, check=True)
    good(torch.rand(1, 1, 4, 4, requires_grad=True)).sum().backward()


def test_foreign_modules_keep_their_activations():
    model = WellPosed(Chain(Haar(), AffineCoupling(4)), 4, 1)
    save_memory(model)
    y = model(torch.rand(1, 1, 4, 4))
    (model(y, rev=True) + 0).sum().backward()
    assert model.wic.weight.grad is not None


def test_weights_that_change_before_the_way_back_are_an_error():
    model = shaken(Chain(Haar(), AffineCoupling(12), WIC(12, 12)))
    for enabled in (False, True):
        save_memory(model, enabled=enabled)
        y = model(torch.rand(1, 3, 8, 8))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.5)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            y.square().sum().backward()


def test_networks_of_a_coupling_that_share_their_weights():
    shared = torch.nn.Conv2d(6, 6, 3, padding=1)
    model = Chain(Haar(), AffineCoupling(12, subnet=lambda inputs, outputs: shared)).double()
    x, found = torch.rand(1, 3, 8, 8, dtype=torch.float64), []
    for enabled in (False, True):
        save_memory(model, enabled=enabled)
        found.append(torch.autograd.grad(model(x).square().sum(), model.parameters()))
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(two, one)


def test_a_hook_that_changes_what_a_block_gives_counts_in_the_gradients():
    model = shaken(Chain(Haar(), AffineCoupling(4), Chain(WIC(4, 4), AffineCoupling(4)))).double()
    for block in (model[1], model[2], model[2][0]):
        block.register_forward_hook(lambda module, given, out: out.sin())
    x, results = torch.rand(1, 1, 6, 4, dtype=torch.float64), []
    for enabled in (False, True):
        save_memory(model, enabled=enabled)
        results.append(gradients(model, x, records=False))
    torch.testing.assert_close(*results)


def test_an_optimized_network_trains_in_the_precision_of_its_input():
    model = shaken(HiNet(2, 1, couplings=2, growth=8)).optimize(torch.bfloat16)
    x, results = torch.rand(1, 2, 8, 8), []
    for enabled in (False, True):
        save_memory(model, enabled=enabled)
        results.append(gradients(model, x))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(*results, rtol=1e-4, atol=1e-4)


def test_the_way_back_runs_in_the_precision_of_the_way_forward():
    model = shaken(Chain(Haar(), AffineCoupling(4)))
    save_memory(model)
    seen = []
    model[1].F.conv1.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    for first, then, dtype in ((True, False, torch.bfloat16), (False, True, torch.float32)):
        with torch.autocast("cpu", torch.bfloat16, enabled=first):
            y = model(torch.rand(1, 1, 6, 4))
        with torch.autocast("cpu", torch.bfloat16, enabled=then):
            y.sum().backward()
        assert seen == [dtype] * 2
        seen.clear()


def test_gradients_of_second_order_are_an_error():
    model = shaken(Chain(Haar(), AffineCoupling(4)))
    save_memory(model)
    x = torch.rand(1, 1, 6, 4, requires_grad=True)
    (first,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_transforms_and_compiled_code_run_as_before():
    torch._dynamo.reset()
    model = shaken(Chain(Haar(), AffineCoupling(4), WIC(4, 4))).double()
    x = torch.rand(3, 1, 1, 4, 4, dtype=torch.float64)

    def loss(x):
        return model(x).square().sum()

    expected = torch.stack([torch.autograd.functional.jacobian(loss, one) for one in x])
    y = model(x[0])
    save_memory(model)
    torch.testing.assert_close(torch.func.vmap(torch.func.grad(loss))(x), expected)
    counter = CompileCounterWithBackend("eager")
    compiled, one = torch.compile(model, fullgraph=True, backend=counter), x[0].requires_grad_()
    torch.testing.assert_close(compiled(one), y)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(one).square().sum(), one)[0], expected[0]
    )
    names = {node.name for graph in counter.graphs for node in graph.graph.nodes}
    assert any(name.startswith("conv2d") for name in names)  # and no function around them


class Lost(Rough):
    """Its inverse is not finite."""

    def inverse(self, y):
        return y * torch.nan


def test_check_sees_an_inverse_that_is_not_finite():
    model = Chain(Haar(), Lost(), AffineCoupling(4))
    save_memory(model, check=True)
    y = model(torch.rand(1, 1, 4, 4, requires_grad=True))
    with pytest.raises(WICError, match=r"^1: expected what went in .* off by nan"):
        y.sum().backward()
