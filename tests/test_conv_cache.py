"""The cached inverse: when there is one, and everything that has to make it forgotten."""

import copy

import pytest
import torch
from cases import LAYERS, ranks
from torch import nn
from torch.func import functional_call

from wic_layers import WIC
from wic_layers.layer.cache import _is_unchanged, _trace


def fresh_inverse(layer, y):
    """The inverse of the kernel as it is, by a copy that never cached one."""
    torch.manual_seed(1)
    return copy.deepcopy(layer).inverse(y).detach()


def cached(layer):
    return bool(layer._cache)


@pytest.fixture
def layer():
    return WIC(12, 3, completion="zero").eval()


Y = torch.linspace(-1, 1, 2 * 3 * 16).view(2, 3, 4, 4)


@torch.no_grad()
def test_second_call_computes_no_inverse(layer, monkeypatch):
    calls = []
    original = layer._inverse_matrix
    monkeypatch.setattr(layer, "_inverse_matrix", lambda *a: calls.append(1) or original(*a))
    first = layer.inverse(Y)
    for _ in range(3):
        assert torch.equal(layer.inverse(Y), first)
    assert len(calls) == 1
    # another dtype or rank is another kernel
    layer.inverse(Y.double())
    layer.inverse(Y[..., 0])
    assert len(calls) == 3


@pytest.mark.parametrize("name", LAYERS)
@torch.no_grad()
def test_cached_inverse_is_the_inverse(name):
    layer = LAYERS[name]().eval()
    for sizes in ranks(layer):
        y = torch.randn(2, layer.out_channels, *sizes)
        with torch.enable_grad():
            torch.manual_seed(1)
            expected = layer.inverse(y).detach()
        for _ in range(2):
            torch.manual_seed(1)
            torch.testing.assert_close(layer.inverse(y), expected)
        assert cached(layer)


def edit_in_place(layer):
    layer.weight.mul_(2)


def edit_data(layer):
    layer.weight.data.mul_(2)


def edit_data_attribute(layer):
    layer.weight.data = layer.weight.data * 2


def edit_numpy(layer):
    layer.weight.detach().numpy()[:] *= 2


def edit_vector(layer):
    vector = nn.utils.parameters_to_vector(layer.parameters())
    nn.utils.vector_to_parameters(vector * 2, layer.parameters())


def edit_swapped_parameter(layer):
    layer.weight = nn.Parameter(layer.weight * 2)


def edit_one_element(layer):
    layer.weight.data[-1, -1] += 1e-3


def edit_reset(layer):
    layer.reset_parameters()


def edit_load(layer):
    layer.load_state_dict(WIC(12, 3, completion="zero").state_dict())


def edit_load_assign(layer):
    layer.load_state_dict(WIC(12, 3, completion="zero").state_dict(), assign=True)


def edit_by_optimizer(layer, fused=True, kind=torch.optim.AdamW):
    layer.weight.grad = torch.randn_like(layer.weight)
    kind(layer.parameters(), lr=0.1, fused=fused).step()


def edit_by_adam(layer):
    edit_by_optimizer(layer, kind=torch.optim.Adam)


def edit_by_sgd(layer):
    edit_by_optimizer(layer, kind=torch.optim.SGD)


def edit_by_plain_optimizer(layer):
    edit_by_optimizer(layer, fused=False)


EDITS = [value for name, value in dict(globals()).items() if name.startswith("edit_")]


@pytest.mark.parametrize("edit", EDITS)
@torch.no_grad()
def test_no_edit_is_missed_on_a_cpu(layer, edit):
    before = layer.inverse(Y)
    assert cached(layer)
    edit(layer)
    after = layer.inverse(Y)
    assert torch.equal(after, fresh_inverse(layer, Y))
    assert not torch.equal(after, before)


@pytest.mark.parametrize("parametrization", ["orthogonal", "lu"])
@torch.no_grad()
def test_no_edit_of_a_parametrized_kernel_is_missed(parametrization):
    layer = WIC(6, 6, parametrization=parametrization).eval()
    y = torch.randn(2, 6, 4, 4)
    before = layer.inverse(y)
    assert torch.equal(layer.inverse(y), before)
    for parameter in layer.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
        after = layer.inverse(y)
        assert torch.equal(after, fresh_inverse(layer, y))
    assert not torch.equal(after, before)


@torch.no_grad()
def test_a_nan_kernel_is_not_hidden_by_the_cache(layer):
    layer.inverse(Y)
    layer.weight.data[0, 0] = torch.nan
    with pytest.raises(ArithmeticError, match="not finite"):
        layer.inverse(Y)


@pytest.mark.parametrize(
    "forget",
    [
        lambda layer: layer.train(),
        lambda layer: layer.eval(),
        lambda layer: nn.Sequential(layer).train(),
        lambda layer: nn.Sequential(layer).eval(),
        lambda layer: layer.to(torch.float32),
        lambda layer: layer.double(),
        lambda layer: nn.Sequential(layer).to("cpu"),
        lambda layer: layer.load_state_dict(layer.state_dict()),
        lambda layer: nn.Sequential(layer).load_state_dict(nn.Sequential(layer).state_dict()),
        lambda layer: layer.reset_parameters(),
        lambda layer: layer.clear_cache(),
        lambda layer: layer.requires_grad_().apply(lambda module: module.train()),
    ],
)
@torch.no_grad()
def test_forgotten_by(layer, forget):
    layer.inverse(Y)
    assert cached(layer)
    forget(layer)
    assert not cached(layer)


def test_only_with_gradients_off(layer):
    layer.inverse(Y)
    assert not cached(layer)
    with torch.no_grad():
        layer.train().inverse(Y)
        assert cached(layer)
        layer.eval()
        assert not cached(layer)
        layer.inverse(Y)
    assert cached(layer)
    # and it is not used where gradients are wanted
    layer.inverse(Y).sum().backward()
    assert layer.weight.grad.abs().sum() > 0


@torch.no_grad()
def test_only_in_eval_off_the_cpu(layer, monkeypatch):
    """There a kernel is compared by its version, which a fused optimizer does not move."""
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False))
    layer.train().inverse(Y)
    assert not cached(layer)
    layer.eval().inverse(Y)
    assert cached(layer)


@pytest.mark.parametrize("fused", [True, False])
def test_samples_between_steps_of_a_training_are_of_the_kernel_as_it_is(fused):
    """A fused optimizer moves no version counter."""
    layer = WIC(3, 3).train()
    optimizer = torch.optim.Adam(layer.parameters(), 1e-1, fused=fused)
    for _ in range(3):
        optimizer.zero_grad()
        layer(torch.ones(2, 3)).square().sum().backward()
        optimizer.step()
        with torch.no_grad():
            expected = torch.linalg.inv(layer.weight.double()) @ torch.ones(3, dtype=torch.float64)
            torch.testing.assert_close(layer.inverse(torch.ones(1, 3))[0], expected.float())
            assert cached(layer)


@torch.no_grad()
def test_not_filled_nor_used_under_transforms(layer):
    y = Y[None].expand(2, *Y.shape)

    def inverse(weight, y):
        return functional_call(layer, {"weight": weight}, (y,), {"rev": True})

    weights = torch.stack((layer.weight, 2 * layer.weight))
    expected = torch.stack([fresh_inverse(layer, Y), fresh_inverse(layer, Y) / 2])
    torch.testing.assert_close(torch.func.vmap(inverse)(weights, y), expected)
    assert not cached(layer)
    layer.inverse(Y)
    torch.testing.assert_close(torch.func.vmap(inverse)(weights, y), expected)
    grad = torch.func.grad(lambda w: inverse(w, Y).square().sum())(layer.weight)
    assert grad.abs().sum() > 0
    # a call with other weights, without a transform, sees those weights
    torch.testing.assert_close(inverse(2 * layer.weight, Y), expected[1])
    torch.testing.assert_close(layer.inverse(Y), expected[0])


@torch.no_grad()
def test_not_filled_while_compiling(layer):
    compiled = torch.compile(layer.inverse, fullgraph=True, backend="eager")
    expected = fresh_inverse(layer, Y)
    torch.testing.assert_close(compiled(Y), expected)
    assert not cached(layer)
    layer.weight.data.mul_(2)
    torch.testing.assert_close(compiled(Y), expected / 2)


def test_inference_mode(layer):
    with torch.inference_mode():
        first = layer.inverse(Y)
        assert torch.equal(layer.inverse(Y), first)
    # a kernel cached there is an ordinary tensor, which autograd may save
    y = Y.clone().requires_grad_()
    with torch.no_grad():
        layer.inverse(Y)
    layer.inverse(y).sum().backward()
    with torch.inference_mode():
        layer.weight.data.mul_(2)
        torch.testing.assert_close(layer.inverse(Y), first / 2)


def test_inference_tensors_are_never_cached():
    with torch.inference_mode():
        layer = WIC(12, 3, completion="zero").eval()
        first = layer.inverse(Y)
        assert not cached(layer)
        layer.weight.mul_(2)
        torch.testing.assert_close(layer.inverse(Y), first / 2)
    with torch.no_grad():
        torch.testing.assert_close(layer.inverse(Y), first / 2)
    assert not cached(layer)


@torch.no_grad()
def test_another_completion_is_seen(layer):
    layer.inverse(Y)
    layer.completion = nn.Sequential(nn.Identity(), type("Ones", (nn.Module,), {
        "forward": lambda self, y: y.new_ones(y.shape[0], 9, *y.shape[2:])
    })())  # fmt: skip
    assert torch.equal(layer.inverse(Y), fresh_inverse(layer, Y))


@torch.no_grad()
def test_survives_neither_in_the_state_nor_in_a_copy(layer):
    layer.inverse(Y)
    assert list(layer.state_dict()) == ["weight"]
    assert not cached(copy.deepcopy(layer))
    assert not cached(copy.copy(layer))


@pytest.mark.parametrize("way", ["functional_call", "another parameter"])
@torch.no_grad()
def test_a_kernel_at_the_address_of_an_earlier_one_is_another(way, monkeypatch):
    # as off the CPU, where versions are compared and not numbers
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False))
    layer, y = WIC(64, 64).eval(), torch.ones(1, 64)
    for scale in range(1, 41):
        kernel = nn.Parameter(torch.eye(64) * scale)
        if way == "functional_call":
            found = functional_call(layer, {"weight": kernel}, (y,), {"rev": True})
        else:
            layer.weight = kernel
            found = layer.inverse(y)
        del kernel
        torch.testing.assert_close(found, y / scale)


@torch.no_grad()
def test_versions_are_seen_off_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda tensor: False))
    layer, y = WIC(4, 4).eval(), torch.ones(1, 4)
    first = layer.inverse(y)
    entries = layer._cache._entries
    assert torch.equal(layer.inverse(y), first)
    assert entries
    assert layer._cache._entries is entries
    layer.weight.mul_(2)
    torch.testing.assert_close(layer.inverse(y), first / 2)


def test_a_kernel_on_another_device_is_another():
    kernel = torch.eye(3)
    trace = _trace(kernel)
    assert _is_unchanged(trace, kernel)
    assert not _is_unchanged(trace, kernel.to("meta"))
