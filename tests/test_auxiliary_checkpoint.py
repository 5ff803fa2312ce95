"""Recording under activation checkpointing, and with part of a layer frozen."""

import pytest
import torch
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from wic_layers import WIC, charbonnier, det_loss, record_wic, shift_loss
from wic_layers.blocks import Chain
from wic_layers.errors import WICError


def chain():
    layers = WIC(8, 5), WIC(5, 5)
    return Chain(WIC(3, 8), Chain(*layers), WIC(5, 5), WIC(5, 2, completion="zero"))


def recorded(model):
    with record_wic(model) as records:
        model(torch.randn(2, 3, 4, 4))
    return records


def gradients(model):
    return [parameter.grad.clone() for parameter in model.parameters()]


def losses(model, forward, x, *, is_backward_recorded=False):
    """A training step: one backward for everything."""
    model.zero_grad()
    x = x.clone().requires_grad_()
    with record_wic(model) as records:
        y = forward(x)
    back = model.inverse(y)
    loss = y.square().sum() + back.square().sum() + shift_loss(records) + 0.1 * det_loss(model)
    if is_backward_recorded:
        with record_wic(model) as again:
            loss.backward()
        del again
    else:
        loss.backward()
    return loss.detach(), [x.grad, *gradients(model)]


def by_block(model):
    def run(x):
        for block in model:
            x = checkpoint(block, x, use_reentrant=False)
        return x

    return run


@pytest.mark.parametrize("is_backward_recorded", [False, True])
@pytest.mark.parametrize(
    "wrap", [by_block, lambda m: lambda x: checkpoint(m, x, use_reentrant=False)]
)
def test_checkpointing_changes_nothing(wrap, is_backward_recorded):
    model = chain()
    x = torch.randn(2, 3, 6, 6)
    expected = losses(model, model, x)
    found = losses(model, wrap(model), x, is_backward_recorded=is_backward_recorded)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_backward_inside_the_recorder():
    """The recomputation records a second time; what was recorded first is what counts."""
    model = chain()
    x = torch.randn(2, 3, 6, 6)
    expected = losses(model, model, x)[1][1:]
    model.zero_grad()
    with record_wic(model) as records:
        y = checkpoint(model, x, use_reentrant=False)
        back = model.inverse(y)
        (y.square().sum() + back.square().sum() + 0.1 * det_loss(model)).backward(
            retain_graph=True
        )
    first = records[:2]
    assert [record.name for record in first] == ["1.0", "3"]
    extra = sum(
        charbonnier(r.extra, r.layer.complete(r.output)).sum() / r.extra.shape[0] for r in first
    )
    extra.backward()
    torch.testing.assert_close(gradients(model), expected, rtol=1e-5, atol=1e-5)


def test_reentrant_checkpointing_raises():
    model = chain()
    x = torch.randn(2, 3, 4, 4, requires_grad=True)
    with record_wic(model) as records:
        checkpoint(model, x, use_reentrant=True)
    with pytest.raises(WICError, match=r"layer '1\.0'.*use_reentrant=False"):
        shift_loss(records)
    with torch.no_grad():
        assert torch.isfinite(shift_loss(records))


def test_frozen_layers_and_no_grad_do_not_raise():
    model = chain()
    with torch.no_grad(), record_wic(model) as records:
        model(torch.randn(2, 3, 4, 4))
    with torch.no_grad():
        assert torch.isfinite(shift_loss(records))
    model.requires_grad_(requires_grad=False)
    assert not shift_loss(recorded(model)).requires_grad


def test_a_frozen_kernel_with_a_trained_completion():
    """Its record needs no gradient: the kernel requires none, and the completion gets its own."""
    layer = WIC(6, 3, completion="learned")
    layer.weight.requires_grad_(requires_grad=False)
    with record_wic(layer) as records:
        layer(torch.randn(2, 6, 4, 4))
    shift_loss(records, torch.randn(2, 3, 4, 4)).backward()
    assert layer.completion.layers[-1].bias.grad.abs().sum() > 0


def test_padding_around_is_recorded_with_gradients():
    """A host that does more than call the layer."""
    layer = WIC(12, 3)

    def host(x):
        return F.avg_pool2d(layer(F.pixel_unshuffle(x, 2)), 2)

    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    with record_wic(layer) as records:
        y = checkpoint(host, x, use_reentrant=False)
    (y.sum() + shift_loss(records)).backward()
    assert x.grad.abs().sum() > 0
    assert layer.weight.grad[3:].abs().sum() > 0
