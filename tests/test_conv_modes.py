"""The layer inside autocast, compiled, exported, and under torch.func."""

import copy
import math
import shutil
import sys

import pytest
import torch
from cases import LAYERS, ranks
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.func import functional_call, grad, stack_module_state, vmap

from wic_layers import WIC, det_loss
from wic_layers.deploy.constants import Constant
from wic_layers.errors import WICArgumentError
from wic_layers.layer import pointwise as _pointwise

COMPILED = [
    "square",
    "square, orthogonal",
    "widen",
    "widen, lu",
    "narrow",
    "narrow, zero",
    "narrow, learned",
    "narrow, gaussian",
    "narrow, rows m",
    "narrow, rows above n",
    "published",
]
ENSEMBLES = {
    "square": lambda: WIC(6, 6),
    "widen": lambda: WIC(3, 8),
    "shift": lambda: WIC(11, 3),
    "zero": lambda: WIC(11, 3, completion="zero"),
    "repeat": lambda: WIC(11, 3, completion="repeat"),
    "rows m": lambda: WIC(7, 3, rows="m"),
    "rows above n": lambda: WIC(7, 3, rows=9),
    "published": lambda: WIC(7, 3, layout="published"),
}


class Inverse(nn.Module):
    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, y):
        return self.layer.inverse(y)


@pytest.fixture(autouse=True)
def _no_graphs_from_before():
    torch._dynamo.reset()


@pytest.mark.parametrize("name", ["square", "widen", "narrow", "narrow, zero", "narrow, lu"])
@pytest.mark.parametrize("gradients", [True, False])
def test_autocast_stays_outside(name, gradients):
    layer = LAYERS[name]().eval()
    x = torch.randn(2, layer.in_channels, 5, 5)
    y = torch.randn(2, layer.out_channels, 5, 5)
    with torch.set_grad_enabled(gradients):
        outside = layer(x), layer.inverse(y), layer.log_volume(), det_loss(layer)
        layer.clear_cache()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = layer(x), layer.inverse(y), layer.log_volume(), det_loss(layer)
            assert torch.is_autocast_enabled("cpu")
            assert layer(x.bfloat16()).dtype == torch.bfloat16
    for a, b in zip(outside, inside, strict=True):
        assert b.dtype == torch.float32
        assert torch.equal(a, b)


def test_autocast_reaches_a_completion_with_weights():
    """A predictor is a network like those inside couplings; what it returns has the dtype of y."""
    layer = WIC(12, 3, completion="learned")
    for parameter in layer.completion.parameters():
        nn.init.normal_(parameter, std=0.1)
    y = torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = layer.inverse(y)
        torch.testing.assert_close(layer(x), y, atol=1e-5, rtol=1e-5)
    assert x.dtype == torch.float32


def test_training_under_autocast_gives_the_gradients_of_float32():
    layer = WIC(12, 3)
    x = torch.randn(2, 12, 5, 5)
    gradients = []
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
            loss = layer.inverse(layer(x)).square().sum()
        loss.backward()
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_compiles_whole_for_all_sizes(name):
    layer = LAYERS[name]().train(len(name) % 2 == 0)
    for function, channels in ((layer, layer.in_channels), (layer.inverse, layer.out_channels)):
        torch._dynamo.reset()
        counter = CompileCounterWithBackend("aot_eager")
        compiled = torch.compile(function, fullgraph=True, backend=counter)
        for batch, *sizes in ((2, 6, 7), (3, 5, 9)):
            tensor = torch.randn(batch, channels, *sizes)
            assert compiled(tensor).shape == function(tensor).shape
            if "gaussian" not in name:
                torch.testing.assert_close(compiled(tensor), function(tensor))
        assert counter.frame_count <= 2


@pytest.mark.parametrize("name", ["square", "widen", "narrow", "narrow, rows above n"])
def test_compiled_gradients_equal_eager_ones(name):
    layer = LAYERS[name]()
    x = torch.randn(2, layer.in_channels, 5, 6)

    def loss(x):
        return layer.inverse(layer(x).tanh()).square().sum()

    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    gradients = []
    for function in (loss, compiled):
        layer.zero_grad()
        function(x).backward()
        gradients.append(layer.weight.grad.clone())
    torch.testing.assert_close(*gradients)


@pytest.mark.slow
@pytest.mark.skipif(
    sys.platform == "win32" or not any(map(shutil.which, ("g++", "clang++", "c++"))),
    reason="inductor needs a C++ compiler",
)
def test_compiles_with_inductor():
    layer = WIC(8, 2)
    x = torch.randn(2, 8, 8, 8)
    there_and_back = torch.compile(lambda x: layer.inverse(layer(x)), fullgraph=True)
    torch.testing.assert_close(there_and_back(x), layer.inverse(layer(x)))


@pytest.mark.parametrize("name", ["square", "widen", "rows m", "rows above n", "zero"])
@pytest.mark.parametrize("fault", ["nan", "rank"])
def test_compiled_inverse_of_a_bad_kernel_is_nan(name, fault):
    layer = ENSEMBLES[name]()
    compiled = torch.compile(layer.inverse, fullgraph=True, backend="aot_eager")
    y = torch.randn(2, layer.out_channels, 3, 3)
    assert torch.isfinite(compiled(y)).all()
    with torch.no_grad():
        layer.weight[:, 0] = torch.nan if fault == "nan" else 0
        layer.weight[0] = 0
    assert compiled(y).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_many_channels_of_a_small_dtype_are_not_taken_for_a_bad_condition(dtype):
    """A kernel that is as good as can be must come through where no exact number is computed."""
    layer = WIC(160, 160, dtype=dtype)
    y = torch.randn(1, 160, 2, 2)
    expected = layer.inverse(y)
    compiled = torch.compile(layer.inverse, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(y), expected)
    weights = layer.weight.detach()[None]
    batched = vmap(lambda w: functional_call(layer, {"weight": w}, (y,), {"rev": True}))(weights)
    torch.testing.assert_close(batched[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ENSEMBLES)
def test_ensembles_of_kernels(name):
    layers = [ENSEMBLES[name]() for _ in range(4)]
    parameters, buffers = stack_module_state(layers)
    base = copy.deepcopy(layers[0]).to("meta")
    x = torch.randn(4, 2, base.in_channels, 4, 5)
    y = torch.randn(4, 2, base.out_channels, 4, 5)
    for rev, tensors in ((False, x), (True, y)):

        def run(parameters, buffers, tensor, rev=rev):
            return functional_call(base, (parameters, buffers), (tensor,), {"rev": rev})

        together = vmap(run)(parameters, buffers, tensors)
        alone = [layer(tensor, rev=rev) for layer, tensor in zip(layers, tensors, strict=True)]
        torch.testing.assert_close(together, torch.stack(alone))
        # gradients of each member
        slopes = vmap(grad(lambda p, b, t, run=run: run(p, b, t).square().sum()))(
            parameters, buffers, tensors
        )
        for index, (layer, tensor) in enumerate(zip(layers, tensors, strict=True)):
            layer.zero_grad()
            layer(tensor, rev=rev).square().sum().backward()
            torch.testing.assert_close(slopes["weight"][index], layer.weight.grad)


@pytest.mark.parametrize("name", ENSEMBLES)
@pytest.mark.parametrize("fault", ["nan", "rank"])
def test_a_bad_kernel_in_an_ensemble_gives_nan_alone(name, fault):
    layers = [ENSEMBLES[name]() for _ in range(3)]
    with torch.no_grad():
        layers[1].weight[:, 0] = torch.nan if fault == "nan" else 0
        layers[1].weight[0] = 0
    parameters, buffers = stack_module_state(layers)
    y = torch.randn(2, layers[0].out_channels, 4, 4)

    def run(parameters, buffers):
        return functional_call(layers[0], (parameters, buffers), (y,), {"rev": True})

    together = vmap(run)(parameters, buffers)
    assert together[1].isnan().all()
    for index in (0, 2):
        torch.testing.assert_close(together[index], layers[index].inverse(y))


def test_exact_rows_of_a_bad_condition_give_nan_in_an_ensemble():
    """All six rows are good together, and the two that hold exactly are not."""
    layer = WIC(4, 2, rows=6)
    good = layer.weight.detach().clone()
    bad = torch.eye(4)[[0, 0, 0, 1, 2, 3]]
    bad[1, 1] = 1e-17
    y = torch.randn(2, 2, 3, 3)

    def run(weight):
        return functional_call(layer, {"weight": weight}, (y,), {"rev": True})

    together = vmap(run)(torch.stack((good, bad)))
    torch.testing.assert_close(together[0], layer.inverse(y))
    assert together[1].isnan().all()


def test_samples_can_be_mapped_too():
    layer = WIC(11, 3)
    y = torch.randn(5, 3, 4, 4)
    mapped = vmap(lambda y: layer.inverse(y[None])[0])(y)
    torch.testing.assert_close(mapped, layer.inverse(y))
    # per-sample gradients, as for private training
    slopes = vmap(
        grad(lambda w, y: functional_call(layer, w, (y[None],), {"rev": True}).sum()),
        in_dims=(None, 0),
    )(dict(layer.named_parameters()), y)
    assert slopes["weight"].shape == (5, 11, 11)


def test_forward_mode_derivatives():
    layer = WIC(4, 4, dtype=torch.float64)
    x = torch.randn(1, 4, 2, 2, dtype=torch.float64)
    _, slope = torch.func.jvp(layer.inverse, (x,), (x,))
    torch.testing.assert_close(slope, layer.inverse(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", COMPILED)
def test_exports_both_directions_for_all_sizes(name):
    layer = LAYERS[name]().eval()
    dims = {0: torch.export.Dim("b"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}
    for module, channels in ((layer, layer.in_channels), (Inverse(layer), layer.out_channels)):
        example = torch.randn(2, channels, 6, 7)
        with torch.set_grad_enabled(len(name) % 2 == 0):
            program = torch.export.export(module, (example,), dynamic_shapes=(dims,))
        for batch, *sizes in ((1, 2, 2), (3, 9, 4)):
            tensor = torch.randn(batch, channels, *sizes)
            torch.manual_seed(1)
            exported = program.module()(tensor)
            torch.manual_seed(1)
            torch.testing.assert_close(exported, module(tensor))


@pytest.mark.filterwarnings("ignore")  # torch's own about tracing, which it deprecates
def test_traces_with_jit():
    layer = WIC(12, 3, completion="zero").eval()
    y = torch.randn(2, 3, 6, 7)
    with torch.no_grad():
        layer.inverse(y)
        traced = torch.jit.trace(Inverse(layer), y)
    torch.testing.assert_close(traced(y), layer.inverse(y))


@pytest.mark.parametrize("spatial", [(7,), (5, 4), (3, 2, 5)])
def test_the_product_that_replaces_cuda_convolutions_is_the_same_map(spatial):
    x, matrix = torch.randn(2, 5, *spatial), torch.randn(8, 5)
    for given in (matrix, _pointwise.as_kernel(matrix, x.ndim)):
        torch.testing.assert_close(
            _pointwise.multiply(x, given), _pointwise.convolve(x, matrix), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("mode", ["training", "eval", "eval without gradients"])
@pytest.mark.parametrize("name", LAYERS)
def test_with_log_det(name, mode):
    layer = LAYERS[name]().train(mode == "training")
    for sizes in ranks(layer):
        x = torch.randn(2, layer.in_channels, *sizes)
        y = torch.randn(2, layer.out_channels, *sizes)
        with torch.set_grad_enabled(mode != "eval without gradients"):
            for _ in range(2):  # the second finds the cache
                torch.manual_seed(1)
                there, log_det = layer.with_log_det(x, log_det="volume")
                back, log_det_back = layer.with_log_det(y, rev=True, log_det="volume")
                torch.manual_seed(1)
                assert torch.equal(there, layer(x))
                assert torch.equal(back, layer.inverse(y))
                assert torch.equal(log_det, -log_det_back)
                pixels = x[0, 0].numel()
                torch.testing.assert_close(log_det, pixels * layer.log_volume().expand(2))
                log_det.detach().add_(1)  # hosts add to it in place


def test_with_log_det_of_an_empty_batch_and_of_wide_inputs():
    layer = WIC(3, 3)
    assert layer.with_log_det(torch.ones(0, 3, 4, 4), log_det="volume")[1].shape == (0,)
    assert (
        layer.with_log_det(torch.ones(1, 3, dtype=torch.float64), log_det="volume")[1].dtype
        == torch.float64
    )
    assert (
        layer.with_log_det(torch.ones(1, 3).bfloat16(), log_det="volume")[1].dtype == torch.float32
    )


@torch.no_grad()
def test_a_cached_log_det_is_in_the_dtype_of_each_input():
    layer = WIC(3, 3).eval()
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        for rev in (False, True):
            log_det = layer.with_log_det(torch.ones(1, 3, dtype=dtype), rev=rev, log_det="volume")[
                1
            ]
            assert log_det.dtype == torch.promote_types(dtype, torch.float32)


def test_rev_by_position_as_older_code_has_it():
    layer = WIC(3, 5)
    y = torch.randn(1, 5, 2, 2)
    assert torch.equal(layer(y, True), layer.inverse(y))


@pytest.mark.parametrize("sizes", [(5,), (4, 3), (2, 3, 2)])
@pytest.mark.parametrize("channels", [(3, 12), (12, 3), (40, 33), (40, 40)])
def test_many_images_go_through_a_product_with_the_same_result(channels, sizes, monkeypatch):
    layer = WIC(*channels, completion="zero")
    x = torch.randn(17, channels[0], *sizes, requires_grad=True)
    results = []
    for is_product in (False, True):
        monkeypatch.setattr(_pointwise, "_is_faster_as_product", lambda *_, p=is_product: p)
        layer.zero_grad()
        x.grad = None
        y = layer(x)
        back = layer.inverse(y)
        (y.square().sum() + back.sin().sum()).backward()
        assert y.is_contiguous()
        results.append([y.detach(), back.detach(), x.grad, layer.weight.grad])
    for product, convolution in zip(*results, strict=True):
        torch.testing.assert_close(product, convolution, atol=1e-4, rtol=1e-5)


def test_when_a_product_is_taken():
    def is_product(x, m=12):
        return _pointwise._is_faster_as_product(x, torch.ones(m, x.shape[1]))

    x = torch.ones(16, 12, 4, 4)
    assert is_product(x)
    assert is_product(torch.ones(16, 96, 4, 4))
    assert not is_product(torch.ones(16, 48, 4, 4), 48)
    assert not is_product(x.contiguous(memory_format=torch.channels_last))
    assert not is_product(x.transpose(2, 3))
    assert is_product(x[:2]) == (torch.get_num_threads() > 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_with_log_det_of_an_image_in_half_precision(dtype, scale):
    layer = WIC.from_kernel(scale * torch.eye(4, dtype=dtype))
    x = torch.zeros(1, 4, 256, 256, dtype=dtype)
    wanted = 4 * 256 * 256 * math.log(scale)
    trained = layer.with_log_det(x, log_det="volume")[1]
    with torch.no_grad():
        remembered = layer.eval().with_log_det(x, log_det="volume")[1]
    for found in (trained, remembered):
        assert found.dtype == torch.float32
        assert float(found.detach()) == pytest.approx(wanted, rel=1e-5)


def test_everything_is_on_the_device_that_was_asked_for():
    layer = WIC(12, 3, completion="learned", device="meta")
    assert {parameter.device.type for parameter in layer.parameters()} == {"meta"}
    same = WIC.from_kernel(torch.empty(12, 12, device="meta"), 3, completion="learned")
    assert {parameter.device.type for parameter in same.parameters()} == {"meta"}


@pytest.mark.parametrize("parametrization", ["free", "lu"])
def test_a_layer_without_memory_is_filled(parametrization):
    with torch.device("meta"):
        layer = WIC(6, 6, parametrization=parametrization)
    layer.to_empty(device="cpu").reset_parameters()
    x = torch.randn(2, 6, 4, 4)
    torch.testing.assert_close(layer.inverse(layer(x)), x, rtol=1e-4, atol=1e-4)


NO_DENSITY = {
    "wider": ((3, 12), {}, "3 -> 12 channels.*belong to no input"),
    "rows n": ((12, 3), {}, '12 -> 3 channels.*write rows="m"'),
    "more rows": ((7, 3), {"rows": 9}, 'write rows="m"'),
    "published": ((7, 3), {"layout": "published"}, 'write rows="m"'),
}


@pytest.mark.parametrize("rev", [False, True])
@pytest.mark.parametrize("name", NO_DENSITY)
def test_a_log_volume_that_is_no_density_is_asked_for_by_name(name, rev):
    channels, arguments, message = NO_DENSITY[name]
    layer = WIC(*channels, **arguments)
    nn.init.normal_(layer.weight)
    x = torch.randn(2, channels[1] if rev else channels[0], 3, 2)
    with torch.no_grad():
        constant = Constant(layer, backward=True)
    for each in (layer, constant):
        with pytest.raises(WICArgumentError, match=rf'{message}.*write log_det="volume"'):
            each.with_log_det(x, rev=rev)
        with pytest.raises(WICArgumentError, match='log_det "exact" or "volume"; got True'):
            each.with_log_det(x, rev=rev, log_det=True)
        found = each.with_log_det(x, rev=rev, log_det="volume")[1]
        torch.testing.assert_close(found, (-6 if rev else 6) * layer.log_volume().expand(2))


@pytest.mark.parametrize("channels", [(3, 3), (12, 3)])
def test_a_log_volume_that_is_a_density_comes_by_either_name(channels):
    layer = WIC(*channels, rows="m") if channels[0] > channels[1] else WIC(*channels)
    x = torch.randn(2, channels[0], 3, 2)
    with torch.no_grad():
        constant = Constant(layer, backward=True)
    for each in (layer, constant):
        exact, named = each.with_log_det(x), each.with_log_det(x, log_det="volume")
        for first, second in zip(exact, named, strict=True):
            assert torch.equal(first, second)
