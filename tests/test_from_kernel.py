"""Layers from kernels that exist, of every shape."""

import pytest
import torch
from torch import nn

from wic_layers import WIC
from wic_layers.errors import WICArgumentError, WICShapeError

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def test_from_kernel_keeps_a_parameter_and_copies_a_tensor():
    parameter, tensor = nn.Parameter(torch.eye(3)), torch.eye(3)
    assert WIC.from_kernel(parameter).weight is parameter
    layer = WIC.from_kernel(tensor)
    with torch.no_grad():
        layer.weight.add_(1)
    assert torch.equal(tensor, torch.eye(3))


@pytest.mark.parametrize(
    ("shape", "out", "arguments", "rows"),
    [
        ((5, 3), None, {}, 5),
        ((4, 4), 2, {}, 4),
        ((2, 5), None, {}, 2),
        ((9, 7), 3, {}, 9),
        ((9, 7), 3, {"layout": "published"}, 9),
        ((4, 4), 4, {"parametrization": "lu"}, 4),
        ((6, 4), None, {"parametrization": "lu"}, 6),
    ],
)
def test_from_kernel_of_every_shape(shape, out, arguments, rows):
    before = torch.get_rng_state()
    kernel = torch.linalg.qr(torch.arange(81.0).sin().view(9, 9))[0][: shape[0], : shape[1]]
    layer = WIC.from_kernel(kernel, out, **arguments)
    assert torch.equal(torch.get_rng_state(), before)
    assert layer.rows == rows
    torch.testing.assert_close(layer.weight.detach(), kernel)
    x = torch.randn(2, shape[1], 3, 3)
    kept = kernel[: layer.out_channels]
    torch.testing.assert_close(layer(x), torch.einsum("mn,bnhw->bmhw", kept, x), **CLOSE)


def test_from_kernel_refuses():
    with pytest.raises(WICShapeError, match=r"shape \(M, n\); got \(3, 3, 1, 1\)"):
        WIC.from_kernel(torch.ones(3, 3, 1, 1))
    with pytest.raises(WICShapeError, match=r"kernel of shape \(9, 7\); got \(8, 7\)"):
        WIC.from_kernel(torch.eye(8, 7), 3, layout="published")


def test_from_kernel_refuses_what_a_parametrization_cannot_hold():
    turn = torch.linalg.qr(torch.randn(5, 3))[0]
    layer = WIC.from_kernel(turn, parametrization="orthogonal")
    torch.testing.assert_close(layer.weight.detach(), turn)
    with pytest.raises(WICArgumentError, match="that this parametrization can hold; got one"):
        WIC.from_kernel(2 * torch.eye(3), parametrization="orthogonal")


def test_a_learned_completion_is_drawn():
    kernel = torch.eye(4)
    layers = [WIC.from_kernel(kernel, 3, completion="learned") for _ in range(2)]
    first, second = (next(layer.completion.parameters()) for layer in layers)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("parametrization", ["free", "fixed", "orthogonal", "lu"])
def test_a_kernel_that_is_a_view_can_be_saved(parametrization, tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    turn = torch.linalg.qr(torch.randn(4, 4))[0].T
    layer = WIC.from_kernel(turn, parametrization=parametrization)
    safetensors.save_file(layer.state_dict(), tmp_path / "layer.safetensors")
    again = WIC(4, 4, parametrization=parametrization)
    again.load_state_dict(safetensors.load_file(tmp_path / "layer.safetensors"))
    assert torch.allclose(again.weight, turn, atol=1e-6)
