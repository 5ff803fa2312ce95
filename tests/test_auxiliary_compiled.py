"""Recording inside compiled code: the same tensors, gradients, and few graphs."""

import copy

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

from wic_layers import WIC, det_loss, record_wic, shift_loss
from wic_layers.blocks import Chain

X = torch.linspace(-2, 2, 2 * 3 * 36).view(2, 3, 6, 6)


@pytest.fixture(autouse=True)
def _no_graphs_from_before():
    torch._dynamo.reset()


def chain():
    return Chain(WIC(3, 8), Chain(WIC(8, 5)), WIC(5, 2, completion="zero"))


def compiled(model, backend="aot_eager"):
    counter = CompileCounterWithBackend(backend)
    return torch.compile(model, fullgraph=True, backend=counter), counter


def step(model, forward, times=1):
    model.zero_grad()
    with record_wic(model) as records:
        y = sum(forward(X + i) for i in range(times))
    loss = y.square().sum() + shift_loss(records) + det_loss(model)
    loss.backward()
    assert len(records) == 2 * times
    return loss.detach(), [parameter.grad.clone() for parameter in model.parameters()]


def test_twenty_calls_recorded_or_not_in_two_graphs():
    model = chain()
    expected = {times: step(model, model, times) for times in (1, 2, 3)}
    forward, counter = compiled(model)
    for call in range(20):
        times = (0, 1, 0, 2, 3)[call % 5]
        if times:
            torch.testing.assert_close(step(model, forward, times), expected[times])
        else:
            torch.testing.assert_close(forward(X), model(X))
        if call == 9:
            copy.deepcopy(model)
    assert counter.frame_count <= 2


def test_one_layer():
    layer = WIC(3, 2)
    forward, counter = compiled(layer)
    with record_wic(layer) as expected:
        layer(X)
    for _ in range(20):
        with record_wic(layer) as records:
            forward(X)
        assert records.names == ("",)
        torch.testing.assert_close(records[0].extra, expected[0].extra)
        forward(X)
    assert counter.frame_count <= 2


def test_a_whole_step_is_one_graph():
    model = chain()

    def loss_of(x):
        with record_wic(model) as records:
            y = model(x)
        return y.square().sum() + shift_loss(records) + det_loss(model)

    whole, counter = compiled(loss_of)
    results = []
    for function in (loss_of, whole, whole, whole):
        model.zero_grad()
        loss = function(X)
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    for result in results[1:]:
        torch.testing.assert_close(result, results[0])
    assert counter.frame_count == 1


def test_nested_recordings():
    model = chain()
    forward, counter = compiled(model)
    with record_wic(model) as outer:
        forward(X)
        with record_wic(model) as inner:
            forward(X)
            forward(X)
        forward(X)
    assert (len(outer), len(inner)) == (4, 4)
    assert counter.frame_count <= 1


def test_inference_in_eval():
    model = chain().eval()
    forward, counter = compiled(model, "eager")
    with torch.no_grad():
        for _ in range(5):
            with record_wic(model) as records:
                y = forward(X)
            torch.testing.assert_close(y, model(X))
            assert len(records) == 2
            forward(X)
    assert counter.frame_count <= 2
