"""The layer: what it maps, how well it undoes itself, what it keeps and what it refuses."""

import copy
import io
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import DETERMINISTIC, LAYERS, NARROWING, kernel_of, ranks
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from wic_layers import WIC, det_loss
from wic_layers.errors import WICShapeError
from wic_layers.testing import check, log_volume_numerical, round_trip_limit


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", LAYERS)
def test_every_contract_of_every_layer(name, dtype):
    layer = LAYERS[name]().to(dtype)
    trip = check(layer, spatial=ranks(layer))[""]
    if name != "published, more rows":
        assert trip.error <= trip.limit


@st.composite
def layers(draw):
    """A layer of any kind with a kernel of known condition, and sizes of any rank."""
    n, m = draw(st.integers(1, 64), label="n"), draw(st.integers(1, 64), label="m")
    rank = draw(st.integers(0, 3), label="rank")
    sizes = draw(st.lists(st.integers(1, 6), min_size=rank, max_size=rank), label="sizes")
    dtype = draw(st.sampled_from([torch.float32, torch.float64]))
    arguments = {}
    if m < n:
        above = st.integers(n + 1, n + 16)
        arguments["rows"] = draw(st.one_of(st.sampled_from(["n", "m"]), above), label="rows")
        if arguments["rows"] != "m":
            names = st.sampled_from(["zero", "repeat", "shift", "gaussian"])
            arguments["completion"] = draw(names, label="completion")
    condition = 10 ** draw(st.floats(0, 6), label="log10 of the condition number")
    spread = draw(st.sampled_from(["even", "small", "large"]))
    torch.manual_seed(draw(st.integers(0, 1000), label="seed"))
    layer = WIC(n, m, dtype=dtype, **arguments).eval()
    with torch.no_grad():
        layer.weight.copy_(kernel_of(layer.rows, n, condition, spread=spread))
    return layer, tuple(sizes)


@given(layers())
def test_round_trip(layer_and_sizes):
    layer, sizes = layer_and_sizes
    n, m = layer.in_channels, layer.out_channels
    limit = round_trip_limit(layer)
    dtype = layer.weight.dtype
    assume(limit < 8)  # where rows hold exactly beside others, they may be ill-conditioned alone
    with torch.no_grad():
        if m >= n:
            x = torch.randn(2, n, *sizes, dtype=dtype)
            assert (layer.inverse(layer(x)) - x).abs().max() <= limit * x.abs().max()
            return
        y = torch.randn(2, m, *sizes, dtype=dtype)
        torch.manual_seed(1)
        extra = layer.complete(y)
        torch.manual_seed(1)
        x = layer.inverse(y)
        largest = torch.cat((y, extra), dim=1).abs().max()
        assert (layer(x) - y).abs().max() <= limit * largest
        if layer.rows == n and type(layer.completion).__name__ != "Gaussian":
            again = layer.inverse(layer(x))
            # a completion carries the rounding of y into the other channels: twice the limit
            assert (again - x).abs().max() <= 2 * limit * x.abs().max()


@given(layers())
def test_inverse_is_the_inverse_of_the_stored_rows(layer_and_sizes):
    """K x is [y; c(y)] for M = n, and x solves the constrained problem above it."""
    layer, sizes = layer_and_sizes
    n, m = layer.in_channels, layer.out_channels
    assume(n > m and layer.rows >= n and round_trip_limit(layer) < 1e-3)
    layer = layer.double()
    y = torch.randn(2, m, *sizes, dtype=torch.float64)
    torch.manual_seed(1)
    extra = layer.complete(y)
    torch.manual_seed(1)
    with torch.no_grad():
        x = layer.inverse(y)
        kernel = layer.weight
        wanted = torch.cat((y, extra), dim=1).reshape(2, layer.rows, -1)
        scale = wanted.abs().max()
        residual = kernel @ x.reshape(2, n, -1) - wanted
        limit = round_trip_limit(layer)
        assert residual[:, :m].abs().max() <= limit * scale
        # what is left may not be reduced by any step that keeps W x: it is orthogonal to them
        free = torch.linalg.qr(kernel[:m].mT, mode="complete")[0][:, m:]
        slope = (kernel[m:] @ free).mT @ residual[:, m:]
        if slope.numel():
            assert slope.abs().max() <= 64 * limit * scale * torch.linalg.matrix_norm(kernel, 2)


@pytest.mark.parametrize("sizes", [(), (3,), (2, 2), (1, 2, 1)])
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 100))
def test_log_volume_against_the_jacobian(sizes, n, m, seed):
    torch.manual_seed(seed)
    layer = WIC(n, m, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.copy_(kernel_of(layer.rows, n, 30.0))
    x = torch.randn(2, n, *sizes, dtype=torch.float64)
    pixels = x[0, 0].numel()
    expected = (pixels * layer.log_volume()).expand(2)
    torch.testing.assert_close(log_volume_numerical(layer, x), expected)


def test_forward_is_a_convolution_with_the_leading_rows():
    for name in ("square", "widen", "narrow", "narrow, rows above n", "published, more rows"):
        layer = LAYERS[name]()
        x = torch.randn(2, layer.in_channels, 4, 5)
        kernel = layer.weight[: layer.out_channels]
        torch.testing.assert_close(layer(x), torch.einsum("mn,bnhw->bmhw", kernel, x))


def test_minimum_norm_inverse():
    layer = WIC(7, 3, rows="m", dtype=torch.float64)
    y = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = torch.einsum("nm,bmhw->bnhw", torch.linalg.pinv(layer.weight), y)
    torch.testing.assert_close(layer.inverse(y), expected)


def test_published_inverse_is_moore_penrose_of_all_rows():
    layer = WIC(7, 3, layout="published", completion="zero", dtype=torch.float64)
    assert layer.weight.shape == (9, 7)
    y = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    expected = torch.einsum("nm,bmhw->bnhw", torch.linalg.pinv(layer.weight)[:, :3], y)
    torch.testing.assert_close(layer.inverse(y), expected)
    # which is why the published layout does not promise this
    assert (layer(layer.inverse(y)) - y).abs().max() > 1e-3


@pytest.mark.parametrize("rows", ["n", 12])
def test_default_completion_is_zero_or_as_published(rows):
    assert repr(WIC(11, 3, rows=rows).completion).startswith("Zero(3, ")
    assert WIC(11, 3, layout="published").completion.order == "published"
    assert WIC(11, 3, layout="published", completion="shift").completion.order == "published"


@pytest.mark.parametrize("name", LAYERS)
def test_empty_batches_and_their_gradients(name):
    layer = LAYERS[name]()
    for sizes in ranks(layer):
        for function, channels, other in (
            (layer, layer.in_channels, layer.out_channels),
            (layer.inverse, layer.out_channels, layer.in_channels),
        ):
            given_ = torch.zeros(0, channels, *sizes, requires_grad=True)
            out = function(given_)
            assert out.shape == (0, other, *sizes)
            layer.zero_grad()
            out.sum().backward()
            assert given_.grad.shape == given_.shape
            for parameter in layer.parameters():
                assert parameter.grad is None or not parameter.grad.any()


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_gradients_of_both_directions(name):
    layer = LAYERS[name]().double()
    if layer.completion is not None and isinstance(layer.completion, nn.Module):
        for parameter in layer.completion.parameters():
            nn.init.normal_(parameter, std=0.1)
    sizes = next(sizes for sizes in ranks(layer) if sizes)
    sources = list(layer.parameters())

    def run(function, tensor, *values):
        with torch.no_grad():
            kept = [source.clone() for source in sources]
        for source, value in zip(sources, values, strict=True):
            source.requires_grad_(False).copy_(value)
            source.requires_grad_(True)
        out = function(tensor)
        grads = torch.autograd.grad(out.square().sum(), [tensor, *sources], allow_unused=True)
        with torch.no_grad():
            for source, value in zip(sources, kept, strict=True):
                source.copy_(value)
        return out.square().sum().detach(), grads

    for function, channels in ((layer, layer.in_channels), (layer.inverse, layer.out_channels)):
        tensor = torch.randn(1, channels, *sizes, dtype=torch.float64, requires_grad=True)
        values = [source.detach().clone() for source in sources]
        _, grads = run(function, tensor, *values)
        for index, grad in enumerate(grads[1:]):
            if grad is None:
                continue
            assert torch.isfinite(grad).all()
            step = torch.randn_like(values[index])
            step /= step.norm()
            sides = []
            for sign in (1e-5, -1e-5):
                moved = [*values]
                moved[index] = values[index] + sign * step
                sides.append(run(function, tensor, *moved)[0])
            slope = float(sides[0] - sides[1]) / 2e-5
            assert float((grad * step).sum()) == pytest.approx(slope, rel=1e-5, abs=1e-6)


def test_rev_speaks_the_other_direction():
    layer = WIC(12, 3)
    y = torch.randn(2, 3, 4, 5)
    assert torch.equal(layer(y, rev=True), layer.inverse(y))
    with pytest.raises(WICShapeError):
        layer(y)


@pytest.mark.parametrize("name", LAYERS)
def test_state_dict_has_weights_only_and_loads(name):
    layer = LAYERS[name]().eval()
    y = torch.randn(1, layer.out_channels, *ranks(layer)[-1])
    with torch.no_grad():
        layer.inverse(y)
    keys = {key for key in layer.state_dict() if not key.startswith("completion.")}
    if layer.parametrization in ("free", "fixed"):
        assert keys == {"weight"}
    else:
        assert all(key.startswith("parametrizations.weight.") for key in keys)
    torch.manual_seed(9)
    other = LAYERS[name]().eval()
    before = other.inverse(y)
    other.load_state_dict(layer.state_dict())
    torch.manual_seed(1)
    expected = layer.inverse(y)
    torch.manual_seed(1)
    assert torch.equal(other.inverse(y), expected)
    if max(layer.in_channels, layer.out_channels) > 1 and layer.parametrization != "fixed":
        assert not torch.equal(before, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_copies_after_a_cached_inverse(name):
    layer = LAYERS[name]().eval()
    y = torch.randn(1, layer.out_channels, *ranks(layer)[-1])
    with torch.no_grad():
        torch.manual_seed(1)
        expected = layer.inverse(y)
        copies = [copy.deepcopy(layer)]
        if layer.parametrization == "free":  # torch itself refuses to pickle parametrizations
            copies.append(pickle.loads(pickle.dumps(layer)))
            file = io.BytesIO()
            torch.save(layer, file)
            file.seek(0)
            copies.append(torch.load(file, weights_only=False))
        for copied in copies:
            torch.manual_seed(1)
            assert torch.equal(copied.inverse(y), expected)
            for parameter in copied.parameters():
                parameter.mul_(2)
        torch.manual_seed(1)
        assert torch.equal(layer.inverse(y), expected)


def test_copies_with_a_graph_around():
    layer = WIC(12, 3)
    loss = layer.inverse(layer(torch.randn(2, 12, 4, 4))).sum() + det_loss(layer)
    copied = copy.deepcopy(layer)
    loss.backward()
    assert copied.weight.grad is None


def test_starts_with_orthonormal_rows_or_columns():
    for n, m in ((5, 5), (3, 12), (12, 3), (1, 1)):
        weight = WIC(n, m, dtype=torch.float64).weight
        gram = weight.mT @ weight
        torch.testing.assert_close(gram, torch.eye(n, dtype=torch.float64))
    weight = WIC(7, 3, rows="m", dtype=torch.float64).weight
    torch.testing.assert_close(weight @ weight.mT, torch.eye(3, dtype=torch.float64))


@pytest.mark.parametrize("parametrization", ["free", "orthogonal", "lu"])
def test_reset_and_assignment(parametrization):
    layer = WIC(6, 6, parametrization=parametrization).eval()
    before = layer.weight.detach().clone()
    layer.reset_parameters()
    assert not torch.equal(layer.weight, before)
    check(layer)
    if parametrization != "free":
        layer.weight = before
        torch.testing.assert_close(layer.weight.detach(), before)


@pytest.mark.parametrize("shape", [(6, 6), (8, 3), (3, 8)])
def test_orthogonal_stays_orthogonal_and_lu_stays_regular(shape):
    for parametrization in ("orthogonal", "lu"):
        layer = WIC(shape[1], shape[0], rows=None, parametrization=parametrization)
        target = torch.randn(4, layer.out_channels, 3, 3)
        # its weight decay is part of the test: torch's Householder map turns to zeros under it
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.03)
        for _ in range(20):
            optimizer.zero_grad()
            x = torch.randn(4, layer.in_channels, 3, 3)
            (layer(x) - target).square().mean().backward()
            optimizer.step()
        if parametrization == "orthogonal":
            assert float(layer.condition_number()) == pytest.approx(1, abs=1e-4)
        else:
            assert torch.isfinite(layer.gram_logdet())
        check(layer)


def test_meta_device_and_materialising():
    with torch.device("meta"):
        layer = WIC(12, 3)
    assert layer.weight.is_meta
    layer.to_empty(device="cpu").reset_parameters()
    check(layer)


def test_shares_its_kernel_under_other_modules():
    """A layer used twice trains one kernel."""
    layer = WIC(4, 4)
    x = torch.randn(2, 4, 3, 3)
    torch.testing.assert_close(layer.inverse(layer.inverse(layer(layer(x)))), x)
    assert len(list(nn.Sequential(layer, layer).parameters())) == 1


def test_channels_last_images():
    for name in ("square", "widen", "narrow"):
        layer = LAYERS[name]()
        x = torch.randn(2, layer.in_channels, 6, 5)
        last = x.to(memory_format=torch.channels_last)
        torch.testing.assert_close(layer(last), layer(x))
        y = layer(x).detach()
        last = y.to(memory_format=torch.channels_last)
        torch.testing.assert_close(layer.inverse(last), layer.inverse(y))


@pytest.mark.parametrize("kernel", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("tensor", [torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(6, 6), (3, 8), (12, 3)])
def test_kernels_and_inputs_of_different_dtypes(shape, kernel, tensor):
    """The convolution runs in the input's dtype, and the round trip holds to its precision."""
    layer = WIC(*shape, dtype=kernel).eval()
    limit = round_trip_limit(layer, dtype=tensor)
    x = torch.randn(2, shape[0], 3, 3).to(tensor)
    with torch.no_grad():
        if shape[1] < shape[0]:
            x = layer.inverse(layer(x))
        y = layer(x)
        assert y.dtype == tensor
        assert layer.inverse(y).dtype == tensor
        error = (layer.inverse(y) - x).abs().max() / x.abs().max()
    assert error <= limit * (2 if shape[1] < shape[0] else 1)


def test_describes_itself():
    assert repr(WIC(3, 12)) == "WIC(3, 12)"
    assert "12, 3, rows=12" in repr(WIC(12, 3))
    assert 'layout="published"' in repr(WIC(7, 3, layout="published"))
    assert 'parametrization="lu"' in repr(WIC(3, 3, parametrization="lu"))
    assert [WIC(3, m).bijective for m in (2, 3, 4)] == [False, True, False]


def test_narrowing_cases_cover_every_completion():
    kinds = {type(make().completion).__name__ for make in NARROWING.values()}
    assert kinds >= {"Zero", "Repeat", "Shift", "Learned", "Gaussian", "Conv2d", "NoneType"}


def test_agrees_with_a_plain_convolution_on_large_images():
    layer = WIC(12, 12)
    x = torch.rand(1, 12, 64, 48)
    expected = F.conv2d(x, layer.weight[..., None, None])
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("size", [np.int64, np.int32, np.uint8])
def test_sizes_are_what_convolutions_take(size):
    layer = WIC(size(8), size(3), rows=size(9))
    assert (layer.in_channels, layer.out_channels, layer.rows) == (8, 3, 9)
    assert all(type(value) is int for value in (layer.in_channels, layer.out_channels, layer.rows))
    assert WIC(3, np.prod((2, 3))).out_channels == 6
    assert layer.inverse(torch.randn(1, 3, 2, 2)).shape == (1, 8, 2, 2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_learned_completion_has_the_dtype_of_the_layer(dtype):
    layer = WIC(6, 3, completion="learned", dtype=dtype)
    assert {parameter.dtype for parameter in layer.parameters()} == {dtype}
