"""Kernels held as orthogonal ones or LU factors: what they keep, and where they travel."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from wic_layers import WIC

SHAPES = [(5, 5), (4, 7), (7, 4), (1, 1)]
HELD = ["free", "orthogonal", "lu", "fixed"]


class Twice(nn.Module):
    def forward(self, kernel):
        return 2 * kernel


class Named(WIC):
    """A subclass of a user's."""


def trained(layer):
    """The layer after a few steps, so that its parameters are no longer those of the start."""
    optimizer = torch.optim.SGD(layer.parameters(), 0.1)
    for _ in range(3):
        x = torch.randn(4, layer.in_channels, 3, 3, dtype=layer.weight.dtype)
        y = layer(x)
        loss = (y - torch.ones_like(y)).square().mean() + layer.inverse(y.detach()).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return layer


@pytest.mark.parametrize("rows", [None, "m"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_orthogonal_kernels_stay_orthogonal_while_they_are_trained(shape, rows, dtype):
    if rows and shape[1] >= shape[0]:
        pytest.skip("rows are for narrowing layers")
    start = WIC(*shape, rows=rows, parametrization="orthogonal", dtype=dtype)
    before = start.weight.detach().clone()
    layer = trained(start)
    kernel = layer.weight.detach().double()
    if min(kernel.shape) > 1:
        assert not torch.equal(layer.weight, before)
    gram = kernel.mT @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.mT
    assert torch.allclose(
        gram, torch.eye(len(gram), dtype=gram.dtype), atol=8 * torch.finfo(dtype).eps
    )


def test_weight_decay_does_not_spoil_an_orthogonal_kernel():
    layer = WIC(4, 7, parametrization="orthogonal", dtype=torch.float64)
    optimizer = torch.optim.AdamW(layer.parameters(), 0.1, weight_decay=5.0)
    for _ in range(20):
        optimizer.zero_grad()
        layer(torch.randn(4, 4, dtype=torch.float64)).sum().backward()
        optimizer.step()
    kernel = layer.weight.detach()
    assert torch.allclose(kernel.mT @ kernel, torch.eye(4, dtype=torch.float64), atol=1e-12)


def test_an_assigned_kernel_is_the_orthogonal_one_and_draws_no_random_numbers():
    layer = WIC(4, 7, parametrization="orthogonal", dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(7, 4, dtype=torch.float64))[0]
    state = torch.get_rng_state()
    layer.weight = turn
    assert torch.allclose(layer.weight, turn, atol=1e-12)
    assert torch.equal(state, torch.get_rng_state())


class Onward(WIC):
    """A subclass of a user's that knows one direction by its forward."""

    def forward(self, x):
        return super().forward(x)


@pytest.mark.parametrize("kind", [WIC, Onward])
def test_hooks_see_the_way_back_where_forward_takes_rev(kind):
    layer, calls = kind(4, 4), []
    y = torch.randn(1, 4)
    expected = layer.inverse(y)
    layer.register_forward_hook(lambda *_: calls.append(1))
    assert torch.equal(layer.inverse(y), expected)
    assert len(calls) == (kind is WIC)


@pytest.mark.parametrize("shape", [(5, 5), (6, 3)])
def test_a_pruned_kernel_is_current_on_the_way_back(shape):
    layer = WIC(*shape, dtype=torch.float64)
    prune.random_unstructured(layer, "weight", amount=1)
    x = torch.randn(2, shape[0], 3, 3, dtype=torch.float64)
    for _ in range(2):
        with torch.no_grad():
            layer.weight_orig.mul_(1.5)
        kernel = (layer.weight_orig * layer.weight_mask).detach()
        same = WIC.from_kernel(kernel, shape[1])
        y = same(x)
        assert torch.allclose(layer.inverse(y), same.inverse(y))
        assert torch.allclose(
            layer.with_log_det(y, rev=True, log_det="volume")[1],
            same.with_log_det(y, rev=True, log_det="volume")[1],
        )


def passed_on(layer, how, tmp_path):
    if how == "pickle":
        return pickle.loads(pickle.dumps(layer))
    if how == "deepcopy":
        return copy.deepcopy(layer)
    if how == "copy":
        return copy.copy(layer)
    torch.save(layer, tmp_path / "whole.pt")
    return torch.load(tmp_path / "whole.pt", weights_only=False)


@pytest.mark.parametrize("how", ["pickle", "deepcopy", "copy", "torch.save"])
@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("kind", [WIC, Named])
def test_a_layer_goes_whole_through_pickle(held, how, kind, tmp_path):
    layer = kind(6, 3, parametrization=held, dtype=torch.float64)
    if held != "fixed":
        trained(layer)
    layer.eval()
    y = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        expected = layer.inverse(y)  # it is cached now, which is not to travel
    other = passed_on(layer, how, tmp_path)
    assert isinstance(other, kind)
    assert other.training is False
    assert list(other.state_dict()) == list(layer.state_dict())
    with torch.no_grad():
        assert torch.equal(other.inverse(y), expected)
    if held != "fixed" and how != "copy":  # it trains on, apart from the first
        before = layer.weight.detach().clone()
        trained(other.train())
        assert not torch.equal(other.weight, before)
        assert torch.equal(layer.weight, before)


@pytest.mark.parametrize("held", ["free", "lu"])
def test_a_parametrization_of_the_users_own_goes_through_pickle(held):
    layer = WIC(3, 5, parametrization=held, dtype=torch.float64)
    parametrize.register_parametrization(layer, "weight", Twice())
    network = pickle.loads(pickle.dumps(nn.Sequential(layer)))
    assert torch.equal(network[0].weight, layer.weight)
    parametrize.remove_parametrizations(network[0], "weight", leave_parametrized=True)
    assert type(network[0]) is WIC
    assert torch.equal(network[0].weight, layer.weight)


def _inverse_in_a_process(layer, y, queue):
    with torch.no_grad():
        queue.put(layer.inverse(y).numpy())


@pytest.mark.slow
@pytest.mark.parametrize("held", ["orthogonal", "lu"])
def test_a_layer_reaches_a_spawned_process(held):
    context = torch.multiprocessing.get_context("spawn")
    layer, y, queue = WIC(4, 4, parametrization=held), torch.randn(1, 4), context.Queue()
    process = context.Process(target=_inverse_in_a_process, args=(layer, y, queue))
    process.start()
    result = queue.get(timeout=120)
    process.join()
    with torch.no_grad():  # as there: with gradients the last digit is another on some processors
        assert torch.equal(torch.from_numpy(result), layer.inverse(y))


@pytest.mark.parametrize("held", ["orthogonal", "lu"])
@pytest.mark.parametrize("calls", [("inverse",), ("inverse", "forward")])
def test_a_parametrization_on_top_is_seen_after_a_cached_call(held, calls):
    layer = WIC(4, 4, parametrization=held, dtype=torch.float64).eval()
    y = torch.randn(2, 4, 3, 3, dtype=torch.float64)
    with torch.no_grad():
        once = {name: getattr(layer, name)(y) for name in calls}
        _, volume = layer.with_log_det(y, rev=True, log_det="volume")
        parametrize.register_parametrization(layer, "weight", Twice())
        for name, factor in (("inverse", 0.5), ("forward", 2.0)):
            if name in calls:
                assert torch.allclose(getattr(layer, name)(y), factor * once[name])
        expected = volume - 9 * 4 * torch.tensor(2.0, dtype=torch.float64).log()
        assert torch.allclose(layer.with_log_det(y, rev=True, log_det="volume")[1], expected)
        # one in place of another of the same kind, with tensors of the same values
        layer.parametrizations["weight"][1] = nn.Identity()
        assert torch.allclose(layer.inverse(y), once["inverse"])
        layer.parametrizations["weight"][1] = Twice()
        assert torch.allclose(layer.inverse(y), 0.5 * once["inverse"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_log_determinants_of_half_precision_kernels_are_those_of_the_numbers_stored(dtype):
    layer = WIC(48, 48, parametrization="lu").to(dtype).requires_grad_(False)
    layer.parametrizations["weight"].original2 += 0.4
    expected = layer.parametrizations["weight"].original2.double().sum()
    x = torch.randn(2, 48, 64, 64).to(dtype)
    for is_training in (True, False):
        layer.train(is_training)
        _, log_det = layer.with_log_det(x, log_det="volume")
        assert log_det.dtype == torch.float32
        assert torch.allclose(log_det.double(), expected * 4096, rtol=1e-6)
        assert torch.allclose(layer.with_log_det(x, rev=True, log_det="volume")[1], -log_det)
    assert torch.allclose(layer.log_volume().double(), expected, rtol=1e-6)
    assert torch.allclose(layer.gram_logdet().double(), 2 * expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(48, 64), (64, 48), (48, 48)])
def test_log_volumes_of_free_half_precision_kernels(shape, dtype):
    layer = WIC(*shape, dtype=dtype)
    with torch.no_grad():
        layer.weight.mul_(1.5)
    same = WIC.from_kernel(layer.weight.double().detach(), shape[1])
    assert torch.allclose(layer.log_volume().double(), same.log_volume(), rtol=1e-6)
    assert torch.allclose(layer.gram_logdet().double(), same.gram_logdet(), rtol=1e-6)
    _, log_det = layer.with_log_det(
        torch.randn(1, shape[0], 64, 64, dtype=dtype), log_det="volume"
    )
    assert torch.allclose(log_det.double(), 4096 * same.log_volume(), rtol=1e-6)
