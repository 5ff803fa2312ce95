"""The authors' checkpoints: names and shapes into our networks and back, and what is refused."""

import pickle

import pytest
import torch
from cases import shaken

from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import WIN, WINNaive, load_official, save_official

SMALL = {"growth": 4, "layout": "published"}
NETWORKS = {
    "hiding": lambda: WIN(6, 3, width=32, couplings=2, **SMALL),
    "hiding two": lambda: WIN(9, 3, width=48, couplings=1, **SMALL),
    "three modules": lambda: WIN(3, 3, scale=2, width=16, modules=3, couplings=1, **SMALL),
    "one module": lambda: WIN(3, 3, scale=2, width=20, split=0.8, modules=1, couplings=3, **SMALL),
    "decolorization": lambda: WIN(3, 1, width=16, couplings=1, **SMALL),
    "hiding, naive": lambda: WINNaive(6, 3, couplings=3, **SMALL),
    "rescaling, naive": lambda: WINNaive(3, 3, scale=2, couplings=2, **SMALL),
    "decolorization, naive": lambda: WINNaive(3, 1, couplings=1, **SMALL),
}


def theirs(model, folder):
    save_official(model, folder / "theirs.pth")
    return torch.load(folder / "theirs.pth", weights_only=True)


@pytest.mark.parametrize("name", NETWORKS)
def test_out_and_in_again(name, tmp_path):
    model = shaken(NETWORKS[name]()).eval()
    state = theirs(model, tmp_path)
    assert all(key.startswith("operations.") for key in state)
    assert all(value.ndim == 4 for key, value in state.items() if "iConv2d" in key)
    loaded = load_official(tmp_path / "theirs.pth")
    assert type(loaded) is type(model)
    assert loaded.config | {"split": 0} == model.config | {"split": 0}
    x = torch.rand(1, model.config["in_channels"], 8, 12)
    with torch.no_grad():
        y = model(x)
        assert torch.equal(loaded(x), y)
        assert torch.equal(loaded.inverse(y), model.inverse(y))
    assert not list(tmp_path.glob(".*"))


def test_names_are_those_of_their_code(tmp_path):
    state = theirs(NETWORKS["three modules"](), tmp_path)
    assert {
        "operations.1.iConv2d.weight",
        "operations.2.transform.0.iConv2d.weight",
        "operations.2.transform.2.iConv2d.weight",
        "operations.2.feature.2_0.H.conv5.bias",
        "operations.2.tail.0.F.conv1.weight",
        "operations.3.iConv2d.weight",
    } <= state.keys()
    state = theirs(NETWORKS["hiding, naive"](), tmp_path)
    assert {"operations.1.F.conv1.weight", "operations.5.iConv2d.weight"} <= state.keys()


def test_wrapped_checkpoints(tmp_path):
    model = NETWORKS["hiding"]()
    state = theirs(model, tmp_path)
    parallel = {f"module.{key}": value for key, value in state.items()}
    for wrapped in (parallel, {"epoch": 3, "net": parallel}, {"a": {"state_dict": state}}):
        found = load_official(wrapped).state_dict()
        for key, value in model.state_dict().items():
            assert torch.equal(found[key], value)
    torch.save({"net": parallel, "opt": {"lr": 0.1}}, tmp_path / "b.pth")
    assert isinstance(load_official(str(tmp_path / "b.pth")), WIN)


def test_shapes_that_leave_the_result_open(tmp_path):
    state = theirs(WINNaive(3, 6, scale=2, couplings=1, **SMALL), tmp_path)
    assert load_official(state).config["out_channels"] == 3
    assert load_official(state, out_channels=6).config["out_channels"] == 6
    with pytest.raises(WICArgumentError, match=r"out_channels 1 or 2 or 3 or 4 or 6 .*got 5"):
        load_official(state, out_channels=5)


def test_a_mismatch_lists_the_names(tmp_path):
    state = theirs(NETWORKS["hiding"](), tmp_path)
    lacking = {key: value for key, value in state.items() if "feature.1_1.G" not in key}
    with pytest.raises(WICFileError, match=r"10 names are missing \(operations.2.feature.1_1.G.c"):
        load_official(lacking)
    with pytest.raises(WICFileError, match=r"1 are unknown \(operations\.2\.extra\)"):
        load_official({**state, "operations.2.extra": torch.ones(1)})
    key = "operations.2.feature.1_1.G.conv2.weight"
    with pytest.raises(WICFileError, match="has other shapes than its network"):
        load_official({**state, key: state[key][:1]})


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [
        ({"a.weight": torch.ones(1)}, "names like operations.*the state dict holds a.weight"),
        ({"operations.1.q": torch.ones(1)}, "which make none"),
        ({"operations.2.transform.0.w": torch.ones(1)}, "which make none"),
    ],
)
def test_another_state_dict(checkpoint, message):
    with pytest.raises(WICFileError, match=message):
        load_official(checkpoint)


class Harmful:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", ["text", "nothing", "cut", "code", "folder", "a list"])
def test_other_files(content, tmp_path, capsys):
    path = tmp_path / "file.pth"
    if content == "text":
        path.write_text("not a checkpoint")
    elif content == "nothing":
        path.write_bytes(b"")
    elif content == "cut":
        save_official(NETWORKS["hiding, naive"](), path)
        path.write_bytes(path.read_bytes()[:-500])
    elif content == "code":
        path.write_bytes(pickle.dumps(Harmful()))
    elif content == "folder":
        path.mkdir()
    else:
        torch.save([1, 2], path)
    with pytest.raises(WICFileError, match=r"file\.pth"):
        load_official(path)
    assert capsys.readouterr().out == ""


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(WICFileError, match="No such file"):
        load_official(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (WINNaive(6, 3, couplings=1, growth=4), "got layout='compact', completion=None"),
        (
            WINNaive(6, 3, couplings=1, growth=4, layout="published", completion="zero"),
            "completion='zero'",
        ),
        (torch.nn.Identity(), "WIN or WINNaive; got Identity"),
    ],
)
def test_what_their_code_cannot_read_is_not_written(model, message, tmp_path):
    with pytest.raises(WICArgumentError, match=message):
        save_official(model, tmp_path / "a.pth")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(WICFileError, match="cannot be written"):
        save_official(NETWORKS["hiding, naive"](), tmp_path / "none" / "a.pth")
