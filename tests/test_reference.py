"""The numbers of the authors' own code, from random weights: layers and whole networks.

The layers' files are in ``data/reference``; those of the networks are larger and lie beside a
checkout where they are at hand.
"""

from pathlib import Path

import pytest
import torch

from wic_layers import WIC, det_loss, record_wic
from wic_layers.models import WIN, WINNaive, load_official

safetensors = pytest.importorskip("safetensors.torch")

TESTS = Path(__file__).resolve().parent
LAYERS = {(n, m): TESTS / f"data/reference/wic_{n}_{m}.safetensors" for n, m in (
    (3, 8), (5, 5), (7, 3), (10, 3), (12, 3)
)}  # fmt: skip
NETWORKS = {
    "win_naive_hiding": WINNaive(6, 3, couplings=2, layout="published"),
    "win_hiding": WIN(6, 3, width=32, couplings=1, layout="published"),
    "win_rescaling_x2": WIN(3, 3, scale=2, width=16, couplings=1, layout="published"),
    "win_decolorization": WIN(3, 1, width=16, couplings=1, layout="published"),
}


def assert_within(found, expected):
    """Within 1e-5 of the largest absolute value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()


def reference(path):
    tensors = safetensors.load_file(path)
    state = {key[6:]: value for key, value in tensors.items() if key.startswith("state/")}
    return state, tensors


@pytest.mark.parametrize("channels", LAYERS)
def test_layer(channels):
    state, expected = reference(LAYERS[channels])
    layer = WIC(*channels, layout="published").eval()
    layer.load_state_dict({"weight": state["iConv2d.weight"].flatten(1)})
    with torch.no_grad(), record_wic(layer) as records:
        y = layer(expected["x"])
        x = layer.inverse(expected["y_in"])
    assert_within(y, expected["y"])
    assert_within(x, expected["x_out"])
    extra = [record.extra for record in records]
    assert_within(torch.cat([y, *extra], dim=1), expected["y_train"])
    torch.testing.assert_close(
        det_loss(layer).detach(), expected["l_det"].squeeze(), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    path = TESTS.parents[1] / "shared/reference" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(
            f"{path.name} is larger than a repository should carry, and not beside this one"
        )
    state, expected = reference(path)
    network = load_official(state)
    assert type(network) is type(NETWORKS[name])
    assert network.config == NETWORKS[name].config
    with torch.no_grad():
        assert_within(network(expected["x"]), expected["y"])
        assert_within(network.inverse(expected["y_in"]), expected["x_out"])
