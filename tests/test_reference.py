"""The numbers of the authors' own code, from random weights: layers and whole networks.

The layers' files are in ``data/reference``; those of the networks are larger and lie beside a
checkout where they are at hand.
"""

from pathlib import Path

import pytest
import torch

from wic_layers import WIC, det_loss, record_wic
from wic_layers.models import WIN, WINNaive

safetensors = pytest.importorskip("safetensors.torch")

TESTS = Path(__file__).resolve().parent
LAYERS = {(n, m): TESTS / f"data/reference/wic_{n}_{m}.safetensors" for n, m in (
    (3, 8), (5, 5), (7, 3), (10, 3), (12, 3)
)}  # fmt: skip
NETWORKS = {
    "win_naive_hiding": lambda: WINNaive(6, 3, couplings=2, layout="published"),
    "win_hiding": lambda: WIN(6, 3, width=32, couplings=1, layout="published"),
    "win_rescaling_x2": lambda: WIN(3, 3, scale=2, width=16, couplings=1, layout="published"),
    "win_decolorization": lambda: WIN(3, 1, width=16, couplings=1, layout="published"),
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


def our_keys(state, network):
    """The state dict of an authors' network under the names of ours.

    Theirs: ``operations`` is [squeeze, WIC, modules, (unsqueeze), WIC]; the modules hold
    ``transform.i`` (their WIC), ``feature.i_j`` (coupling j of module i) and ``tail.0``. Ours:
    module i + 1 stands inside the memory of module i, behind its couplings.
    """
    last = max(int(key.split(".")[1]) for key in state)
    modules = len({key for key in state if ".transform." in key})
    couplings = len({key.split(".")[3] for key in state if ".feature.0_" in key})

    def place(parts):
        if parts[0] == "transform":
            module = int(parts[1])
            inside = f"3.inner{f'.{couplings + 1}.inner' * (module - 1)}.{couplings}"
            return inside if module else "2"
        if parts[0] == "feature":
            module, coupling = parts[1].split("_")
            return f"3.inner{f'.{couplings + 1}.inner' * int(module)}.{coupling}"
        return "4"  # the tail

    renamed = {}
    for key, value in state.items():
        _, index, *parts = key.split(".")
        if modules and index == "2":
            where, parts = place(parts), parts[2:]
        else:
            # the modules are one of their operations and three blocks of ours
            where = str(int(index) + 2) if modules and int(index) > 2 else index
        if parts[0] == "iConv2d":
            renamed[f"{where}.weight"] = value.flatten(1)
        else:
            renamed[".".join((where, *parts))] = value
    assert last + (2 if modules else 0) == len(network) - 1
    return renamed


@pytest.mark.parametrize("name", NETWORKS)
def test_network(name):
    path = TESTS.parents[1] / "shared/reference" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(
            f"{path.name} is larger than a repository should carry, and not beside this one"
        )
    state, expected = reference(path)
    network = NETWORKS[name]().eval()
    network.load_state_dict(our_keys(state, network))
    with torch.no_grad():
        assert_within(network(expected["x"]), expected["y"])
        assert_within(network.inverse(expected["y_in"]), expected["x_out"])
