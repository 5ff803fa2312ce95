"""The layer where its numbers cannot be read: meta, fake, make_fx, forward derivatives."""

import pytest
import torch
import torch.autograd.forward_ad as fwAD
from cases import LAYERS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from wic_layers import WIC, WellPosed, det_loss, record_wic, shift_loss

KINDS = [
    ((4, 6), {}),
    ((5, 5), {}),
    ((6, 4), {"completion": "shift"}),
    ((6, 4), {"rows": "m"}),
    ((6, 4), {"rows": 9}),
    ((6, 4), {"completion": "learned"}),
    ((6, 4), {"layout": "published"}),
    ((5, 5), {"parametrization": "lu"}),
    ((6, 4), {"parametrization": "orthogonal"}),
    ((6, 4), {"parametrization": "fixed"}),
]


def passes(layer, device):
    """Every public call, and the losses, on a device."""
    n, m = layer.in_channels, layer.out_channels
    x, y = torch.empty(2, n, 6, 4, device=device), torch.empty(2, m, 6, 4, device=device)
    assert layer(x).shape == y.shape
    assert layer.inverse(y).shape == x.shape
    for rev, one in ((False, x), (True, y)):
        out, log_det = layer.with_log_det(one, rev=rev, log_det="volume")
        assert out.device == log_det.device == one.device
        assert log_det.shape == (2,)
    with record_wic(layer) as records:
        layer(x)
    losses = [det_loss(layer), layer.log_volume(), layer.condition_number()]
    if m < n:
        losses.append(shift_loss(records))
    assert all(loss.ndim == 0 and loss.device == x.device for loss in losses)


@pytest.mark.parametrize(("shape", "arguments"), KINDS)
@pytest.mark.parametrize("is_training", [True, False])
def test_meta_layers_run_in_both_directions(shape, arguments, is_training):
    layer = WIC(*shape, **arguments, device="meta").train(is_training)
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            passes(layer, torch.device("meta"))
    state = WIC(*shape, **arguments).state_dict()
    assert {key: value.shape for key, value in layer.state_dict().items()} == {
        key: value.shape for key, value in state.items()
    }
    real = layer.to_empty(device="cpu")
    real.load_state_dict(state)
    y = torch.randn(1, shape[1], 4, 4)
    expected = WIC(*shape, **arguments)
    expected.load_state_dict(state)
    assert torch.equal(real.inverse(y), expected.inverse(y))


@pytest.mark.parametrize(("shape", "arguments"), KINDS)
@pytest.mark.parametrize("is_training", [True, False])
def test_fake_layers_run_in_both_directions(shape, arguments, is_training):
    with FakeTensorMode():
        layer = WIC(*shape, **arguments).train(is_training)
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                passes(layer, torch.device("cpu"))


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
@pytest.mark.parametrize(("shape", "arguments"), KINDS)
def test_make_fx_traces_both_directions(shape, arguments, mode, gradients):
    layer = WIC(*shape, **arguments).eval()
    x, y = torch.randn(2, shape[0], 6, 4), torch.randn(2, shape[1], 6, 4)
    with torch.no_grad():
        layer.inverse(y)  # what is cached must not become a constant of the graph

    def both(x, y):
        with torch.set_grad_enabled(gradients):
            return layer(x), layer.inverse(y)

    graph = make_fx(both, tracing_mode=mode, _allow_non_fake_inputs=True)(x, y)
    for result, expected in zip(graph(x, y), both(x, y), strict=True):
        assert torch.allclose(result, expected, atol=1e-5)
    names = [str(node.target) for node in graph.graph.nodes]
    is_computed = arguments.get("parametrization") != "fixed"
    assert any("linalg" in name or "inv" in name for name in names) or not is_computed


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_forward_derivatives_carry_the_tangent_of_the_kernel(kind, direction):
    layer = LAYERS[kind]().double().eval()
    weights = {name: value.detach() for name, value in layer.named_parameters()}
    if not weights or "gaussian" in kind:
        pytest.skip("nothing to derive by, or another result each time")
    torch.manual_seed(1)
    tangents = {name: torch.randn_like(value) for name, value in weights.items()}
    channels = layer.in_channels if direction == "forward" else layer.out_channels
    sizes = (4, 6) if getattr(layer.completion, "rank", 2) == 2 else (4,)
    x = torch.randn(2, channels, *sizes, dtype=torch.float64)
    arguments = {"rev": direction == "inverse"}

    def at(step):
        moved = {name: value + step * tangents[name] for name, value in weights.items()}
        return torch.func.functional_call(layer, moved, (x,), arguments)

    with torch.no_grad():
        at(0.0)  # caches where it may
        expected = (at(1e-6) - at(-1e-6)) / 2e-6
        with fwAD.dual_level():
            dual = {name: fwAD.make_dual(weights[name], tangents[name]) for name in weights}
            result = torch.func.functional_call(layer, dual, (x,), arguments)
            tangent = fwAD.unpack_dual(result).tangent
    assert tangent is not None
    assert torch.allclose(
        tangent, expected, rtol=1e-5, atol=1e-7 * float(expected.abs().max() + 1)
    )


def test_log_determinants_carry_the_tangent_too():
    layer = WIC(4, 4, dtype=torch.float64).eval()
    x, tangent = torch.randn(1, 4, 2, 2, dtype=torch.float64), torch.randn(4, 4).double()
    with torch.no_grad():
        layer.with_log_det(x, rev=True, log_det="volume")
        with fwAD.dual_level():
            dual = {"weight": fwAD.make_dual(layer.weight.detach(), tangent)}
            with torch.nn.utils.stateless._reparametrize_module(layer, dual):
                _, log_det = layer.with_log_det(x, rev=True, log_det="volume")
            slope = fwAD.unpack_dual(log_det).tangent
    expected = -4 * torch.trace(torch.linalg.inv(layer.weight) @ tangent)
    assert torch.allclose(slope, expected)


def test_a_closed_network_is_built_on_the_meta_device():
    class Net(torch.nn.Module):
        def forward(self, x, rev=False):
            return x

    network = WellPosed(Net(), in_channels=12, out_channels=3).to("meta")
    assert network(torch.empty(1, 12, 4, 4, device="meta"), rev=False).shape == (1, 3, 4, 4)
    assert network(torch.empty(1, 3, 4, 4, device="meta"), rev=True).shape == (1, 12, 4, 4)
