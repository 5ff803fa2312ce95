"""What the layer refuses: kernels without an inverse, and arguments that mean nothing."""

import pytest
import torch
from cases import kernel_of

from wic_layers import WIC
from wic_layers.errors import IllConditionedError, WICArgumentError, WICError, WICShapeError


def spoiled(shape, how, **arguments):
    layer = WIC(*shape, **arguments)
    with torch.no_grad():
        if how == "nan":
            layer.weight[0, 0] = torch.nan
        elif how == "infinite":
            layer.weight[0, 0] = torch.inf
        elif how == "zero":
            layer.weight.zero_()
        elif how == "rank":
            layer.weight.copy_(torch.ones(layer.rows, 1) @ torch.randn(1, layer.in_channels))
        else:
            kernel = kernel_of(layer.rows, layer.in_channels, 1)
            (kernel[-1] if layer.rows < layer.in_channels else kernel[:, -1]).mul_(1e-17)
            layer.weight.copy_(kernel)
    return layer


@pytest.mark.parametrize("how", ["nan", "infinite", "zero", "rank", "condition"])
@pytest.mark.parametrize(
    ("shape", "arguments"),
    [((5, 5), {}), ((3, 8), {}), ((8, 3), {}), ((8, 3), {"rows": "m"}), ((8, 3), {"rows": 11})],
)
@pytest.mark.parametrize("is_training", [True, False])
def test_a_kernel_without_inverse_raises_by_name_and_number(shape, arguments, how, is_training):
    layer = spoiled(shape, how, **arguments).train(is_training)
    y = torch.randn(2, shape[1], 3, 3)
    number = (
        r"1 of the kernel's \d+" if how in ("nan", "infinite") else r"condition number (\d|inf)"
    )
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            with pytest.raises(
                IllConditionedError, match=rf"WIC\({shape[0]}, {shape[1]}.*{number}"
            ):
                layer.inverse(y)
            layer(torch.randn(2, shape[0], 3, 3))  # the other way is still a convolution


def test_exact_rows_without_inverse_raise_too():
    layer = WIC(4, 2, rows=6)
    with torch.no_grad():
        layer.weight[1] = layer.weight[0]
    assert layer.condition_number() < 100
    with pytest.raises(IllConditionedError, match="condition number"):
        layer.inverse(torch.randn(1, 2, 3, 3))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_limit_of_the_condition_number_is_that_of_the_algebra(dtype):
    limit = 1 / torch.finfo(torch.float64).eps
    large = 2.0**15  # both entries are exact, in float16 too
    for factor, raises in ((0.3, False), (3.0, True)):
        small = large / (factor * limit)
        if small < torch.finfo(dtype).smallest_normal:
            continue
        layer = WIC(2, 2, dtype=dtype)
        with torch.no_grad():
            layer.weight.copy_(torch.tensor([[large, 0.0], [0.0, small]], dtype=torch.float64))
        y = torch.ones(1, 2, 1, 1)
        if raises:
            with pytest.raises(IllConditionedError, match=r"WIC\(2, 2\).*past 4\.5e\+15.*float64"):
                layer.inverse(y)
        else:
            assert torch.isfinite(layer.inverse(y)).all()


@pytest.mark.parametrize(
    ("dtype", "condition"),
    [(torch.bfloat16, 200.0), (torch.float16, 1500.0), (torch.float32, 3e8)],
)
@pytest.mark.parametrize("out", [6, 3])
def test_a_small_dtype_holds_kernels_that_float64_inverts(dtype, condition, out):
    layer = WIC(6, out, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(kernel_of(6, 6, 1))
        layer.weight[:, -1] /= condition
    assert layer.condition_number().dtype == torch.float32
    assert float(layer.condition_number()) > 0.8 / torch.finfo(dtype).eps
    y = torch.randn(2, out, 3, 3, dtype=torch.float64)
    assert torch.allclose(layer(layer.inverse(y)), y, atol=1e-6)
    single = torch.func.vmap(lambda one: layer.inverse(one[None])[0])
    assert torch.allclose(single(y), layer.inverse(y))


X = torch.ones(2, 3, 4, 4)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: WIC(0, 3), WICArgumentError, "in_channels as an int of at least 1; got 0"),
        (lambda: WIC(3, -1), WICArgumentError, "out_channels.*got -1"),
        (lambda: WIC(3.0, 3), WICArgumentError, r"in_channels.*got 3\.0"),
        (lambda: WIC(True, 3), WICArgumentError, "in_channels.*got True"),
        (lambda: WIC(3, 3, rows="n"), WICArgumentError, "rows.*dropped.*'n'.*3 -> 3"),
        (lambda: WIC(3, 5, rows=7), WICArgumentError, "rows.*dropped.*7.*3 -> 5"),
        (lambda: WIC(7, 3, rows=6), WICArgumentError, "in_channels = 7; got 6"),
        (lambda: WIC(7, 3, rows="k"), WICArgumentError, "in_channels = 7; got 'k'"),
        (lambda: WIC(7, 3, rows=7.0), WICArgumentError, r"in_channels = 7; got 7\.0"),
        (lambda: WIC(7, 3, rows=True), WICArgumentError, "in_channels = 7; got True"),
        (
            lambda: WIC(7, 3, rows="m", completion="shift"),
            WICArgumentError,
            """"zero" with rows="m".*got 'shift'""",
        ),
        (
            lambda: WIC(7, 3, rows="m", completion=torch.tanh),
            WICArgumentError,
            '"zero" with rows="m".*got <',
        ),
        (
            lambda: WIC(7, 3, layout="published", rows="n"),
            WICArgumentError,
            "layout=\"published\".*ceil.*got 'n'",
        ),
        (lambda: WIC(7, 3, layout="paper"), WICArgumentError, "layout.*got 'paper'"),
        (lambda: WIC(7, 3, completion="noise"), WICArgumentError, "'zero'.*got 'noise'"),
        (lambda: WIC(3, 7, completion="noise"), WICArgumentError, "'zero'.*got 'noise'"),
        (lambda: WIC(7, 3, completion=3), WICArgumentError, "callable; got 3"),
        (lambda: WIC(3, 3, parametrization="qr"), WICArgumentError, "parametrization.*got 'qr'"),
        (lambda: WIC(3, 3, dtype=torch.int8), WICArgumentError, r"float32.*got torch\.int8"),
        (lambda: WIC(3, 3, dtype=torch.cfloat), WICArgumentError, r"got torch\.complex64"),
        (lambda: WIC(4, 3)(X), WICShapeError, r"WIC\(4, 3.*\(B, 4, .*got \(2, 3, 4, 4\)"),
        (lambda: WIC(3, 4).inverse(X), WICShapeError, r"\(B, 4, .*got \(2, 3, 4, 4\)"),
        (lambda: WIC(3, 4)(X, rev=True), WICShapeError, r"\(B, 4, .*got \(2, 3, 4, 4\)"),
        (lambda: WIC(3, 4)(X[0, 0, 0]), WICShapeError, r"got \(4,\)"),
        (lambda: WIC(3, 4)(X[..., None, None]), WICShapeError, r"0 to 3 spatial.*got \(2, 3, 4"),
        (lambda: WIC(3, 4)(X.byte()), WICArgumentError, r"uint8.*float\(\) / 255"),
        (lambda: WIC(3, 4)(X.cfloat()), WICArgumentError, "complex64"),
        (lambda: WIC(4, 3).inverse(X.long()), WICArgumentError, "int64"),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message) as caught:
        call()
    assert isinstance(caught.value, WICError)
    assert isinstance(caught.value, ValueError)
