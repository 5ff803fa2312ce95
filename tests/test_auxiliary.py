"""The two losses: their values, and that recording works wherever a forward runs."""

import copy
import gc
import weakref

import pytest
import torch
from cases import LAYERS, NARROWING, ranks
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from wic_layers import WIC, charbonnier, det_loss, record_wic, shift_loss
from wic_layers.blocks import Chain
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.layer.completion import Gaussian
from wic_layers.layer.losses import is_recording, squared


def chain():
    """Two narrowing layers, one of them inside another chain, and a widening one."""
    layers = WIC(8, 5, completion="repeat"), WIC(5, 5)
    return Chain(WIC(3, 8), Chain(*layers), WIC(5, 5), WIC(5, 2, completion="repeat"))


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


# ------------------------------------------------------------------------------------- det_loss


@given(
    st.integers(1, 512),
    st.integers(1, 512),
    st.floats(-3, 3),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_det_loss_is_finite_at_every_size_and_scale(n, m, exponent, dtype):
    n, m = (max(value // 4, 1) if exponent > 0 else value for value in (n, m))
    layer = WIC(n, m, dtype=dtype)
    scale = 10**exponent
    with torch.no_grad():
        layer.weight.mul_(scale)
    loss = det_loss(layer)
    loss.backward()
    expected = 2 * n * abs(exponent) * 2.302585092994046
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-2)
    assert torch.isfinite(layer.weight.grad).all()
    assert layer.weight.grad.dtype == dtype


@pytest.mark.parametrize("channels", [1, 96, 512])
@pytest.mark.parametrize("scale", [1e-3, 0.8, 2.0, 1e3])
def test_det_loss_where_the_determinant_over_and_underflows(channels, scale):
    layer = WIC(channels, channels)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(channels, channels) * scale)
    loss = det_loss(layer)
    loss.backward()
    volume = torch.linalg.slogdet(layer.weight.detach().double())[1]
    assert loss.item() == pytest.approx(2 * abs(float(volume)), rel=1e-4, abs=1e-3)
    gradient = 2 * volume.sign() * torch.linalg.inv(layer.weight.detach().double()).mT
    torch.testing.assert_close(layer.weight.grad.double(), gradient, rtol=1e-3, atol=1e-5)


def test_det_loss_takes_every_stored_row():
    for name, make in LAYERS.items():
        layer = make().double()
        if layer.parametrization != "free":
            continue
        with torch.no_grad():
            layer.weight.add_(0.1 * torch.randn_like(layer.weight))
        kernel = layer.weight.detach()
        gram = kernel.mT @ kernel if kernel.shape[0] >= kernel.shape[1] else kernel @ kernel.mT
        expected = torch.linalg.slogdet(gram)[1].abs()
        torch.testing.assert_close(det_loss(layer).detach(), expected, msg=name)


def test_det_loss_sums_over_layers_and_counts_a_shared_one_once():
    model = chain()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    layers = [module for module in model.modules() if isinstance(module, WIC)]
    torch.testing.assert_close(det_loss(model), sum(det_loss(layer) for layer in layers))
    torch.testing.assert_close(det_loss(nn.Sequential(model, layers[0])), det_loss(model))


def test_det_loss_drives_the_volume_to_one():
    layer = WIC(3, 8)
    with torch.no_grad():
        layer.weight.mul_(3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.01)
    for _ in range(400):
        optimizer.zero_grad()
        det_loss(layer).backward()
        optimizer.step()
    assert layer.log_volume().abs() < 0.1
    assert float(layer.condition_number()) < 2


# ------------------------------------------------------------------------- what is recorded


@pytest.mark.parametrize("name", NARROWING)
def test_records_the_other_rows(name):
    layer = LAYERS[name]()
    for sizes in ranks(layer):
        x = torch.randn(2, layer.in_channels, *sizes)
        plain = layer(x)
        with record_wic(layer) as records:
            y = layer(x)
        assert torch.equal(plain, y)
        (record,) = records
        assert record.name == ""
        assert record.layer is layer
        assert torch.equal(record.output, y)
        other = layer.weight[layer.out_channels :]
        expected = torch.einsum("mn,bn...->bm...", other, x)
        torch.testing.assert_close(record.extra, expected)


def test_widening_and_inverse_calls_record_nothing():
    model = chain()
    x = torch.randn(2, 3, 4, 4)
    with record_wic(model) as records:
        y = model[0](x)
        model.inverse(torch.randn(2, 2, 4, 4))
        model(torch.randn(2, 2, 4, 4), rev=True)
    assert y.shape[1] == 8
    assert len(records) == 0


def test_names_orders_and_two_forwards_in_a_step():
    model = chain()
    with record_wic(model) as records:
        first = model(torch.randn(2, 3, 4, 4))
        second = model(torch.randn(3, 3, 5, 5))
    assert [record.name for record in records] == ["1.0", "3", "1.0", "3"]
    assert records.names == ("1.0", "3")
    assert records[1].output is first
    assert records[3].output is second
    assert "1.0: (2, 3, 4, 4)" in repr(records)


def test_only_layers_of_the_recorded_model():
    model, other = chain(), WIC(8, 5)
    x = torch.randn(1, 3, 4, 4)
    with record_wic(model) as records:
        other(model[0](x))
        model(x)
    assert records.names == ("1.0", "3")
    with record_wic(model[1]) as records:
        model(x)
    assert records.names == ("0",)


def test_nested_recordings():
    model = chain()
    x = torch.randn(1, 3, 4, 4)
    with record_wic(model) as outer:
        model(x)
        with record_wic(model) as inner:
            model(x)
            model(x)
        model(x)
    assert len(outer) == 4
    assert len(inner) == 4
    # the same recorder can be opened again, also inside itself
    recorder = record_wic(model)
    with recorder as first:
        model(x)
        with recorder as second:
            model(x)
    assert not is_recording()
    assert len(second) == 2
    assert len(first) == 2
    with recorder as third:
        pass
    assert len(third) == 0


def test_an_error_inside_closes_the_recording():
    layer = WIC(6, 2)

    def failing():
        with record_wic(layer) as records:
            opened.append(records)
            layer(torch.randn(1, 6, 3, 3))
            layer(torch.randn(1, 5, 3, 3))

    opened = []
    with pytest.raises(WICShapeError):
        failing()
    assert not is_recording()
    assert len(opened[0]) == 1


def test_deepcopy_in_the_middle():
    model = chain()
    x = torch.randn(2, 3, 4, 4)
    with record_wic(model) as records:
        y = model(x)
        copied = copy.deepcopy(model)
        copied(x)
    assert len(records) == 2
    (y.sum() + shift_loss(records)).backward()
    assert all(parameter.grad is None for parameter in copied.parameters())
    torch.testing.assert_close(copied(x), y)


def test_nothing_is_retained():
    model = chain()
    with record_wic(model) as records:
        y = model(torch.randn(2, 3, 4, 4))
    watched = [weakref.ref(record.extra) for record in records] + [weakref.ref(y)]
    loss = shift_loss(records) + y.sum()
    loss.backward()
    del records, y, loss
    gc.collect()
    assert [reference() for reference in watched] == [None] * 3
    # neither does an unclosed use keep anything once it is closed without reading it
    with record_wic(model):
        watched = weakref.ref(model(torch.randn(2, 3, 4, 4)))
    gc.collect()
    assert watched() is None


# ------------------------------------------------------------------------------------ shift_loss


@pytest.mark.parametrize("criterion", [charbonnier, squared, None])
@pytest.mark.parametrize("name", ["zero", "repeat", "shift"])
def test_shift_loss_sums_over_channels_and_pixels_and_averages_the_batch(name, criterion):
    layer = WIC(11, 3, completion=name)
    x, target = torch.randn(4, 11, 5, 6), torch.randn(4, 3, 5, 6, requires_grad=True)
    with record_wic(layer) as records:
        y = layer(x)
    extra = records[0].extra
    arguments = {} if criterion is None else {"criterion": criterion}
    distance = squared if criterion is squared else lambda a, b: ((a - b) ** 2 + 1e-6).sqrt()
    for aim, given_ in ((target, target), (y, None)):
        expected = sum(distance(extra[i], layer.complete(aim)[i]).sum() for i in range(4)) / 4
        torch.testing.assert_close(shift_loss(records, given_, **arguments), expected)
    shift_loss(records, target, **arguments).backward()
    assert target.grad is None


def test_the_target_is_detached_and_the_own_output_is_not():
    layer = WIC(6, 3, completion="repeat", dtype=torch.float64)
    x = torch.randn(1, 6, 2, 2, dtype=torch.float64)
    with record_wic(layer) as records:
        y = layer(x)
    (with_gradient,) = torch.autograd.grad(shift_loss(records), layer.weight, retain_graph=True)
    (without,) = torch.autograd.grad(shift_loss(records, y), layer.weight)
    assert torch.equal(with_gradient[3:], without[3:])
    assert with_gradient[:3].abs().sum() > 0
    assert not without[:3].any()


def test_shift_loss_is_zero_where_the_completion_is_right():
    layer = WIC(12, 3, dtype=torch.float64)
    y = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    with record_wic(layer) as records:
        layer(layer.inverse(y))
    assert shift_loss(records, y, squared) < 1e-20


def test_layers_without_other_rows_add_nothing():
    layer = WIC(7, 3, rows="m")
    with record_wic(layer) as records:
        y = layer(torch.randn(2, 7, 4, 4))
    assert len(records) == 1
    assert records[0].extra.shape == (2, 0, 4, 4)
    loss = shift_loss(records)
    assert loss == 0
    (loss + y.sum()).backward()
    assert shift_loss(records, torch.zeros(2, 3, 4, 4)) == 0


@pytest.mark.parametrize("generator", [None, torch.Generator()])
def test_gaussian_takes_half_the_square(generator):
    layer = WIC(12, 3, completion=Gaussian(3, 9, generator))
    with record_wic(layer) as records:
        layer(torch.randn(4, 12, 3, 3))
    expected = records[0].extra.square().sum() / 2 / 4
    for target in (None, torch.zeros(4, 3, 3, 3)):
        torch.testing.assert_close(shift_loss(records, target), expected)


def test_targets_by_name():
    model = chain()
    with record_wic(model) as records:
        y = model(torch.randn(2, 3, 4, 4))
        model(torch.randn(2, 3, 4, 4))
    both = {"1.0": torch.randn(2, 5, 4, 4), "3": y}
    terms = [
        charbonnier(r.extra, r.layer.complete(both[r.name].detach())).sum() / 2 for r in records
    ]
    torch.testing.assert_close(shift_loss(records, both), sum(terms))
    own = [charbonnier(r.extra, r.layer.complete(r.output)).sum() / 2 for r in records]
    torch.testing.assert_close(
        shift_loss(records, {"3": y}), own[0] + terms[1] + own[2] + terms[3]
    )
    assert shift_loss(records, {"3": y.double()}).dtype == torch.float32


def test_a_completion_sees_targets_in_the_dtype_of_the_output():
    layer = WIC(6, 3, completion=nn.Conv2d(3, 3, 1))
    with record_wic(layer) as records:
        layer(torch.randn(2, 6, 4, 4))
    target = torch.randn(2, 3, 4, 4)
    assert torch.equal(shift_loss(records, target.double()), shift_loss(records, target))


def test_an_empty_batch_adds_nothing():
    layer = WIC(12, 3)
    with record_wic(layer) as records:
        layer(torch.randn(0, 12, 4, 4))
    loss = shift_loss(records)
    assert loss == 0
    loss.backward()
    assert not layer.weight.grad.any()


def recorded(model, times=1, **arguments):
    with record_wic(model, **arguments) as records:
        for _ in range(times):
            model(torch.randn(2, 3, 4, 4))
    return records


def open_recording():
    model = chain()
    with record_wic(model) as records:
        model(torch.randn(2, 3, 4, 4))
        return shift_loss(records)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: det_loss(nn.Conv2d(3, 3, 1)), WICArgumentError, "at least one WIC; Conv2d"),
        (lambda: shift_loss(recorded(WIC(3, 4))), WICArgumentError, "got none.*record_wic"),
        (open_recording, WICArgumentError, "got none.*after it closes"),
        (
            lambda: shift_loss(recorded(chain()), torch.zeros(2, 2, 4, 4)),
            WICArgumentError,
            r"mapping.*2 layers recorded \(1\.0, 3\); got one tensor",
        ),
        (
            lambda: shift_loss(recorded(chain()), {"2": torch.zeros(2, 2, 4, 4)}),
            WICArgumentError,
            r"\(1\.0, 3\); got 2",
        ),
        (
            lambda: shift_loss(recorded(WIC(3, 2)), torch.zeros(2, 3, 4, 4)),
            WICShapeError,
            r"\(2, 2, 4, 4\).*\(2, 3, 4, 4\)",
        ),
        (
            lambda: shift_loss(recorded(chain()), {"3": torch.zeros(2, 2, 4, 5)}),
            WICShapeError,
            r"layer '3'.*\(2, 2, 4, 5\)",
        ),
    ],
)
def test_wrong_arguments(call, error, message):
    with pytest.raises(error, match=message):
        call()
    assert not is_recording()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("completion", ["zero", "shift", "gaussian"])
def test_shift_loss_of_images_in_half_precision(dtype, completion):
    layer, x = WIC(12, 3, completion=completion), torch.rand(2, 12, 128, 128)
    found = []
    for images in (x.to(dtype), x.to(dtype).float()):
        with record_wic(layer) as records:
            layer(images)
        found.append(shift_loss(records))
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(*found, rtol=1e-2, atol=0.0)


def test_a_record_of_no_grad_is_judged_there():
    layer = WIC(12, 3)
    with torch.no_grad(), record_wic(layer) as records:
        layer(torch.rand(1, 12, 4, 4))
    with pytest.raises(WICError, match="Compute the loss under no_grad too"):
        shift_loss(records)
    with torch.no_grad():
        assert shift_loss(records) > 0


def test_a_trained_completion_of_a_fixed_kernel_needs_no_gradient_of_the_record():
    layer = WIC(6, 3, completion="learned", parametrization="fixed")
    x, target = torch.rand(1, 6, 4, 4), torch.rand(1, 3, 4, 4)
    with record_wic(layer) as records:
        layer(x)
    shift_loss(records, target).backward()
    assert all(parameter.grad is not None for parameter in layer.completion.parameters())
    with torch.no_grad(), record_wic(layer) as records:
        layer(x)
    assert shift_loss(records, target) > 0


def test_a_target_in_another_dtype_is_completed_in_that_of_the_layer():
    layer = WIC(6, 3, completion=nn.Conv2d(3, 3, 3, padding=1))
    with record_wic(layer) as records:
        y = layer(torch.rand(1, 6, 4, 4))
    torch.testing.assert_close(shift_loss(records, y.double()), shift_loss(records, y))
