"""What a network costs, by counts that do not depend on the machine's speed."""

from collections import Counter

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from wic_layers.models import HiNet, WINNaive


class Counting(TorchDispatchMode):
    """Counts operators and the bytes of what they allocate."""

    def __init__(self):
        super().__init__()
        self.calls, self.bytes = Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        if isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() not in given:
            self.bytes += out.untyped_storage().nbytes()
        self.calls[function.overloadpacket.__name__] += 1
        return out


def counted(function, x):
    with torch.no_grad(), Counting() as counting:
        function(x)
    return counting


COUPLINGS = 2
CASES = {
    "rescaling": (lambda: WINNaive(3, 3, scale=2, couplings=COUPLINGS, growth=8, haar=True), 3),
    "hiding": (lambda: HiNet(couplings=COUPLINGS, growth=8), 6),
}


@pytest.mark.parametrize("way", ["forward", "inverse"])
@pytest.mark.parametrize("name", CASES)
def test_operators_of_inference(name, way):
    make, channels = CASES[name]
    model, x = make().eval(), torch.rand(1, channels, 32, 32)
    with torch.no_grad():
        y = model(x)
        model.inverse(y)  # into the cache: a kernel is inverted once
    calls = counted(
        model if way == "forward" else model.inverse, x if way == "forward" else y
    ).calls
    dense = 3 * COUPLINGS
    assert calls["convolution"] in (5 * dense, 5 * dense + 1)  # the last is WIC's, or a product
    assert calls["leaky_relu"] == 4 * dense
    assert calls["cat"] <= 4 * dense + COUPLINGS + 2  # dense blocks, halves, Haar, completion
    assert calls["clone"] + calls["_to_copy"] + calls["copy_"] <= 2 * dense + 3  # layouts
    for word in ("linalg", "inverse", "qr", "triangular", "item", "_local_scalar_dense"):
        assert not [call for call in calls if word in call], word


def test_bytes_of_inference():
    """Against the results of the convolutions, which nothing can do without."""
    growth, side, couplings = 8, 64, 2
    model = WINNaive(3, 3, scale=2, couplings=couplings, growth=growth, haar=True).eval()
    pixels = (side // 2) ** 2
    # of a dense block: four results, and as many concatenations that grow by one of them
    results = 4 * growth
    kept = sum(growth * k for k in range(1, 5))
    floor = 4 * pixels * couplings * 3 * (results + kept)
    found = counted(model, torch.rand(1, 3, side, side)).bytes
    # layouts, inputs of the blocks (3 and 9 channels) in every concatenation, halves, exponentials
    assert floor < found < 2.4 * floor


def test_bfloat16_halves_them():
    model = WINNaive(3, 3, scale=2, couplings=2, growth=32, haar=True).eval()
    x = torch.rand(1, 3, 64, 64)
    full = counted(model, x).bytes
    model.optimize()
    with torch.no_grad():
        model(x)  # casts the weights
    found = counted(model, x)
    assert found.bytes < 0.6 * full
    assert found.calls["leaky_relu"] == 0 < found.calls["leaky_relu_"]


@pytest.mark.parametrize("name", CASES)
def test_no_graph_break(name):
    make, channels = CASES[name]
    model, x = make().eval(), torch.rand(1, channels, 16, 16)
    for function, given in ((model.forward, x), (model.inverse, model(x).detach())):
        torch._dynamo.reset()
        explained = torch._dynamo.explain(function)(given)
        assert explained.graph_break_count == 0, explained.break_reasons
        assert explained.graph_count == 1
