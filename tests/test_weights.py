"""Weights in and out: the same network comes back, or a sentence says why not."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from wic_layers.conv import WIC
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import WIN, WINNaive, from_pretrained, packaged_weights, save_weights
from wic_layers.models.presets import PRESETS
from wic_layers.testing import check


def small(**changes):
    return WIN(3, 3, **{"scale": 2, "width": 16, "couplings": 1, "growth": 4, **changes})


def trained_like(model):
    """Numbers also where the start is zero, small enough to keep pixels near [0, 1]."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".conv" in name:
                parameter.add_(0.03 * torch.randn_like(parameter))
    return model


@pytest.fixture
def stored(tmp_path):
    path = tmp_path / "net.safetensors"
    model = trained_like(WIN.from_preset("rescaling-x2-small"))
    save_weights(model, path, {"data": "none", "licence": "MIT"})
    return model, path


def test_what_is_stored_comes_back(stored):
    model, path = stored
    back = from_pretrained(path)
    assert (back.preset, back.config, back.card["licence"]) == (model.preset, model.config, "MIT")
    assert len(back.weights_id) == 16
    assert not back.training
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        # float16 couplings move a pixel by less than half a step of 8 bits
        assert (back(x) - model.eval()(x)).abs().max() < 0.5 / 255
    for (name, mine), its in zip(model.named_modules(), back.modules(), strict=True):
        if isinstance(mine, WIC):
            assert torch.equal(mine.weight, its.weight), name


def test_stored_twice_is_the_same(stored, tmp_path):
    _, path = stored
    again = tmp_path / "again.safetensors"
    save_weights(from_pretrained(path), again, {"data": "none", "licence": "MIT"})
    first, second = load_file(path), load_file(again)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[key], second[key]) for key in first)


def test_kernels_are_float32_and_couplings_float16(stored):
    _, path = stored
    kinds = {(".conv" in key, tensor.dtype) for key, tensor in load_file(path).items()}
    assert kinds == {(True, torch.float16), (False, torch.float32)}


@pytest.mark.parametrize(
    "model",
    [
        WINNaive(6, 3, couplings=1, growth=4, completion="repeat"),
        small(completion="learned"),
        small(layout="published"),
    ],
    ids=["naive", "learned", "published"],
)
def test_networks_without_a_preset_come_back_too(model, tmp_path):
    path = tmp_path / "net.safetensors"
    save_weights(model, path)
    back = from_pretrained(path)
    assert type(back) is type(model)
    assert back.preset is None
    assert back.config == model.config


def test_files_can_be_read_by_others(stored):
    _, path = stored
    assert path.stat().st_mode & 0o044 == 0o044
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_an_unnamed_completion_is_refused(tmp_path):
    with pytest.raises(WICArgumentError, match="completion has a name"):
        save_weights(small(completion=torch.nn.Conv2d(3, 15, 1)), tmp_path / "net.safetensors")
    assert not list(tmp_path.iterdir())


def rewritten(path, change_state=lambda s: s, **metadata):
    with safe_open(path, framework="pt") as opened:
        found = {**opened.metadata(), **metadata}
    save_file(change_state(load_file(path)), path, metadata=found)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: p.unlink(), "cannot be read: No such file"),
        (lambda p: p.write_bytes(b"not weights"), "is damaged or no safetensors file"),
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), "is damaged or no safetensors file"),
        (lambda p: rewritten(p, format="9"), "in format 1; .* says format '9'"),
        (lambda p: rewritten(p, network="Unet"), "network 'Unet'"),
        (lambda p: rewritten(p, arguments="{"), "does not hold the weights that it says"),
        (lambda p: rewritten(p, arguments=json.dumps({"size": 3})), "does not hold the weights"),
        (lambda p: rewritten(p, lambda s: dict(list(s.items())[1:])), "Missing key"),
    ],
)
def test_damaged_files_are_errors_never_random_weights(stored, damage, message):
    _, path = stored
    damage(path)
    with pytest.raises(WICFileError, match=message):
        from_pretrained(path)


def test_names_without_weights_say_what_to_do(tmp_path):
    with pytest.raises(
        WICArgumentError, match=r"there are none for 'hiding-1'.*wic train hiding-1"
    ):
        from_pretrained("hiding-1")
    with pytest.raises(WICArgumentError, match=r"such as hiding-1.*got 'hidin-1'"):
        from_pretrained("hidin-1")
    with pytest.raises(WICFileError, match=r"in a \.safetensors file"):
        from_pretrained(tmp_path)


@pytest.mark.parametrize("name", ["hiding-1-naive-small", "rescaling-x2-naive-small"])
def test_the_package_holds_weights(name):
    path = packaged_weights()[name]
    assert path.stat().st_size < 2e6
    model = from_pretrained(name)
    assert model.preset == name
    assert model.config == PRESETS[name].arguments | model.config
    assert sum(parameter.numel() for parameter in model.parameters()) <= 400_000
    assert model.card["licence"]
    x = torch.rand(1, model.config["in_channels"], 16, 16)
    check(model, x)
