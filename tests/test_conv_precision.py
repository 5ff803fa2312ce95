"""How well a narrowing layer is undone where its algebra is no more precise than it is itself."""

import pytest
import torch
from cases import kernel_of

from wic_layers import WIC
from wic_layers.testing import check_round_trip


def consistent(layer, y):
    """The largest errors of both round trips of a narrowing layer, in eps * condition."""
    extra = layer.complete(y)
    scale = torch.finfo(torch.float64).eps * float(layer.condition_number())
    x = layer.inverse(y)
    again = layer(x)
    there = (again - y).abs().max() / torch.cat((y, extra), dim=1).abs().max() / scale
    back = (layer.inverse(again) - x).abs().max() / x.abs().max() / scale
    return float(there), float(back)


@pytest.mark.parametrize("spread", ["even", "small", "large", "half"])
@pytest.mark.parametrize("condition", [1e2, 1e4, 1e6, 1e7])
@pytest.mark.parametrize(("n", "m"), [(8, 7), (12, 3), (32, 20), (64, 61)])
def test_narrowing_in_float64_is_undone_to_a_small_multiple_of_the_precision(
    n, m, condition, spread
):
    kernel = kernel_of(n, n, condition, spread="even" if spread == "half" else spread)
    if spread == "half":
        u, s, v = torch.linalg.svd(kernel)
        kernel = (u * torch.where(torch.arange(n) < n // 2, s[0], s[-1])) @ v
    layer = WIC.from_kernel(kernel, m)
    y = torch.randn(4, m, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        there, back = consistent(layer, y)
    assert there <= 8
    assert back <= 16
    round_trip = check_round_trip(layer)
    assert round_trip.error <= round_trip.limit
