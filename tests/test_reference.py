"""The numbers of the authors' own code, from random weights: layers and whole networks.

The layers' files are in ``data/reference``; those of the networks are larger and lie beside a
checkout where they are at hand.
"""

from pathlib import Path

import pytest
import torch

from wic_layers import WIC, det_loss, record_wic
from wic_layers.models import (
    IRN,
    WIN,
    HiNet,
    IICNet,
    WINNaive,
    load_official,
    save_official,
    with_wic,
)

safetensors = pytest.importorskip("safetensors.torch")

TESTS = Path(__file__).resolve().parent
LAYERS = {(n, m): TESTS / f"data/reference/wic_{n}_{m}.safetensors" for n, m in (
    (3, 8), (5, 5), (7, 3), (10, 3), (12, 3)
)}  # fmt: skip
PUBLISHED = {
    "irn_x2": IRN(couplings=2, random_z=True),
    "irn_x4": IRN(scale=4, couplings=1, random_z=True),
    "irn_color": IRN(3, 1, scale=1, couplings=2, random_z=True),
    "hinet": HiNet(couplings=1, random_z=True),
}
NETWORKS = {
    "win_naive_hiding": WINNaive(6, 3, couplings=2, layout="published"),
    "win_hiding": WIN(6, 3, width=32, couplings=1, layout="published"),
    "win_rescaling_x2": WIN(3, 3, scale=2, width=16, couplings=1, layout="published"),
    "win_decolorization": WIN(3, 1, width=16, couplings=1, layout="published"),
}

SQUEEZED = {"couplings": 1, "features": 8, "channel_squeeze": True}
AVERAGING = {
    "iicnet_hide2": IICNet(6, 3, **SQUEEZED),
    "iicnet_video3_x2_haar_hl": IICNet(9, 3, scale=2, **SQUEEZED),
    "iicnet_video3_x2_squeeze_ref": IICNet(9, 3, scale=2, haar=False, order="images", **SQUEEZED),
    "iicnet_grey": IICNet(3, 1, **SQUEEZED),
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


def larger_reference(name):
    path = TESTS.parents[1] / "shared/reference" / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(
            f"{path.name} is larger than a repository should carry, and not beside this one"
        )
    return reference(path)


@pytest.mark.parametrize("name", NETWORKS | AVERAGING)
def test_network(name):
    state, expected = larger_reference(name)
    network = load_official(state, colours="RGB")  # turns nothing: the file is in their order
    known = (NETWORKS | AVERAGING)[name]
    assert type(network) is type(known)
    assert network.config == known.config
    with torch.no_grad():
        assert_within(network(expected["x"]), expected["y"])
        assert_within(network.inverse(expected["y_in"]), expected["x_out"])


def exchanged(x):
    """Pictures with red and blue exchanged, if they have colours."""
    return x if x.shape[1] == 1 else torch.cat([p.flip(1) for p in x.split(3, dim=1)], dim=1)


@pytest.mark.parametrize("name", AVERAGING)
def test_iicnets_see_blue_first(name):
    """As users load and run them: RGB in and out, where the file has the authors' BGR."""
    state, expected = larger_reference(name)
    network = load_official(state)
    assert network.colours == "BGR"
    with torch.no_grad():
        assert_within(network(exchanged(expected["x"])), exchanged(expected["y"]))
        back = network.inverse(exchanged(expected["y_in"]))
        assert_within(back, exchanged(expected["x_out"]))


@pytest.mark.parametrize("name", NETWORKS | PUBLISHED | AVERAGING)
def test_what_is_written_is_what_was_read(name, tmp_path):
    """Every name and bit of the authors' own state dicts."""
    state, _ = larger_reference(name)
    save_official(load_official(state), tmp_path / "theirs.pth")
    written = torch.load(tmp_path / "theirs.pth", weights_only=True)
    written = written.get("net", written)
    found = {key.removeprefix("module.model."): value for key, value in written.items()}
    assert found.keys() == state.keys()
    for key, value in state.items():
        assert torch.equal(found[key], value)


class Given(torch.nn.Module):
    """A completion that returns the z that it was given."""

    def __init__(self, z):
        super().__init__()
        self.z = z

    def forward(self, y):
        return self.z


@pytest.mark.parametrize("name", PUBLISHED)
def test_network_with_a_random_z(name):
    """Picture and z on the way forward; back from the z of the file."""
    state, expected = larger_reference(name)
    network = load_official(state)
    assert type(network) is type(PUBLISHED[name])
    assert network.config == PUBLISHED[name].config
    (last,) = [m for m in network.modules() if getattr(m, "parametrization", "") == "fixed"]
    x, kept = expected["x"], last.out_channels
    if name == "hinet":  # the authors transform outside their network
        x = torch.cat((expected["cover"], expected["secret"]), dim=1)
        assert_within(network[0](x), expected["x"])
        assert_within(network[0](x)[:, :kept], expected["dwt_cover"])
    last.completion = Given(expected["y_in"][:, kept:])
    after = list(network)[list(network).index(last) + 1 :]
    picture = expected["y_in"][:, :kept]
    with torch.no_grad(), record_wic(network) as records:
        y = network(x)
        back = network.inverse(after[0](picture) if after else picture)
    assert_within(torch.cat((records[0].output, records[0].extra), 1), expected["y"])
    assert_within(network[0](back) if name == "hinet" else back, expected["x_out"])

    # with a WIC in place of z the picture is the same, and there is nothing to draw
    upgraded = with_wic(network)
    with torch.no_grad():
        ulp = torch.nextafter(y.abs(), torch.tensor(torch.inf)) - y.abs()
        assert ((upgraded(x) - y).abs() <= ulp).all()
        assert torch.equal(upgraded.inverse(y), upgraded.inverse(y))


@pytest.mark.parametrize("completion", ["zero", "repeat", "learned"])
@pytest.mark.parametrize("name", AVERAGING)
def test_a_wic_in_place_of_the_channel_squeeze_starts_as_it(name, completion):
    state, expected = larger_reference(name)
    upgraded = with_wic(load_official(state, colours="RGB"), completion)
    with torch.no_grad():
        assert_within(upgraded(expected["x"]), expected["y"])
        assert_within(upgraded.inverse(expected["y_in"]), expected["x_out"])
