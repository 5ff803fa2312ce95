"""The authors' checkpoints: names and shapes into our networks and back, and what is refused."""

import pickle

import pytest
import torch
from cases import shaken

from wic_layers.blocks import Chain
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import (
    IRN,
    WIN,
    HCFlow,
    HiNet,
    IICNet,
    WINNaive,
    load_official,
    save_official,
)

SMALL = {"growth": 4, "layout": "published"}
SMALL_X4 = {**SMALL, "scale": 4}
FLOW = {"steps": 3, "growth": 4, "conditional_steps": 2, "width": 8}
MEAN = {"growth": 4, "features": 2, "channel_squeeze": True}
NETWORKS = {
    "hiding": lambda: WIN(6, 3, width=32, couplings=2, **SMALL),
    "hiding two": lambda: WIN(9, 3, width=48, couplings=1, **SMALL),
    "three modules": lambda: WIN(3, 3, scale=2, width=16, modules=3, couplings=1, **SMALL),
    "one module": lambda: WIN(3, 3, scale=2, width=20, split=0.8, modules=1, couplings=3, **SMALL),
    "decolorization": lambda: WIN(3, 1, width=16, couplings=1, **SMALL),
    "hiding, naive": lambda: WINNaive(6, 3, couplings=3, **SMALL),
    "rescaling, naive": lambda: WINNaive(3, 3, scale=2, couplings=2, **SMALL),
    "decolorization, naive": lambda: WINNaive(3, 1, couplings=1, **SMALL),
    "rescaling x4": lambda: WIN(3, 3, width=16, couplings=1, copies=4, **SMALL_X4),
    "rescaling x4, one module": lambda: WIN(
        3, 3, width=20, split=0.8, modules=1, couplings=2, copies=4, **SMALL_X4
    ),
    "rescaling x4, plain": lambda: WIN(3, 3, width=16, modules=1, couplings=1, **SMALL_X4),
    "rescaling x4, naive": lambda: WINNaive(3, 3, couplings=2, copies=4, **SMALL_X4),
    "IRN x2": lambda: IRN(couplings=2, growth=4, random_z=True),
    "IRN x3": lambda: IRN(scale=3, couplings=3, growth=4, random_z=True),
    "IRN x4": lambda: IRN(scale=4, couplings=1, growth=4, random_z=True),
    "IRN decolorization": lambda: IRN(3, 1, scale=1, couplings=1, growth=4, random_z=True),
    "HiNet": lambda: HiNet(couplings=11, growth=4, random_z=True),
    "HiNet two": lambda: HiNet(9, couplings=1, growth=4, random_z=True),
    "IICNet": lambda: IICNet(9, 3, couplings=2, **MEAN),
    "IICNet without relations": lambda: IICNet(6, 3, couplings=11, **{**MEAN, "features": 0}),
    "IICNet grey": lambda: IICNet(3, 1, couplings=1, **MEAN),
    "IICNet x2": lambda: IICNet(9, 3, scale=2, couplings=1, **MEAN),
    "IICNet x2 of one": lambda: IICNet(3, 3, scale=2, haar=False, couplings=1, **MEAN),
    "IICNet x2 by image": lambda: IICNet(15, 3, scale=2, order="images", couplings=1, **MEAN),
    "HCFlow": lambda: HCFlow(depth=3, z="drawn", **FLOW),
    "HCFlow, shallow": lambda: HCFlow(depth=1, z="drawn", **FLOW),
    "rescaling x4, naive, plain": lambda: WINNaive(3, 3, couplings=1, **SMALL_X4),
}


def theirs(model, folder):
    """The network's tensors under their names, without what HiNet's code puts around."""
    save_official(model, folder / "theirs.pth", colours=model.colours)
    written = torch.load(folder / "theirs.pth", weights_only=True)
    state = written.get("net", written)
    return {key.removeprefix("module.model."): value for key, value in state.items()}


@pytest.mark.parametrize("name", NETWORKS)
def test_out_and_in_again(name, tmp_path):
    model = shaken(NETWORKS[name]()).eval()
    state = theirs(model, tmp_path)
    assert all(key.startswith(("operations.", "inv", "0.", "1.", "2.", "flow.")) for key in state)
    assert all(value.ndim == 4 for key, value in state.items() if "iConv2d" in key)
    # the authors' x4 has copies; whoever wants none has to say so where the shapes allow both
    chosen = {"copies": 1} if "plain" in name else {}
    loaded = load_official(tmp_path / "theirs.pth", colours="RGB", **chosen)
    assert type(loaded) is type(model)
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert theirs(loaded, tmp_path).keys() == state.keys()
    assert loaded.config | {"split": 0} == model.config | {"split": 0}
    x = torch.rand(1, model.config["in_channels"], 12, 24)
    with torch.no_grad():
        y = model(x)
        assert torch.equal(loaded(x), y)
        backs = []
        for network in (model, loaded):
            torch.manual_seed(0)  # of a random z
            backs.append(network.inverse(y))
        assert torch.equal(*backs)
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


def places(state):
    """The block of every name, and its part."""
    return {".".join(key.split(".")[1:3]) for key in state}


def test_names_of_x4_are_those_of_their_code(tmp_path):
    """[squeeze, WIC, modules] twice and WIC; WIN-Naive squeezes twice before its couplings."""
    state = theirs(NETWORKS["rescaling x4"](), tmp_path)
    assert places(state) == {
        "1.iConv2d", "2.transform", "2.feature", "2.tail",
        "4.iConv2d", "5.transform", "5.feature", "5.tail", "6.iConv2d",
    }  # fmt: skip
    assert {
        "operations.2.transform.1.iConv2d.weight",
        "operations.2.tail.0.H.conv5.bias",
        "operations.5.transform.1.iConv2d.weight",
        "operations.5.feature.1_0.G.conv1.weight",
    } <= state.keys()
    # the second squeeze joins 20 channels to 80, which ask for 96 of 128
    assert state["operations.4.iConv2d.weight"].shape == (96, 80, 1, 1)
    assert state["operations.5.transform.0.iConv2d.weight"].shape == (128, 96, 1, 1)
    state = theirs(NETWORKS["rescaling x4, naive"](), tmp_path)
    assert places(state) == {"2.F", "2.G", "2.H", "3.F", "3.G", "3.H", "4.iConv2d"}
    assert state["operations.4.iConv2d.weight"].shape == (48, 48, 1, 1)


def test_x4_gives_copies_unless_told_otherwise(tmp_path):
    model = shaken(NETWORKS["rescaling x4, naive, plain"]()).eval()
    state = theirs(model, tmp_path)
    x = torch.rand(1, 3, 8, 12)
    four, one = load_official(state), load_official(state, copies=1)
    assert (four.config["copies"], one.config["copies"]) == (4, 1)
    with torch.no_grad():
        assert torch.equal(one(x), model(x))
        copies = Chain(*list(four)[:-1])(x)
        torch.testing.assert_close(copies[:, :3], model(x))
        torch.testing.assert_close(four(x), sum(copies.chunk(4, dim=1)) / 4)
    with pytest.raises(WICArgumentError, match=r"copies of 1 or .*; got 3 times 7"):
        load_official(state, copies=7)
    state = theirs(NETWORKS["rescaling x4, plain"](), tmp_path)
    assert load_official(state).config["copies"] == 1  # its 129 rows are no copies of 12
    with pytest.raises(
        WICArgumentError, match=r"copies of 3 or 43 for .*\(129, 128\); got 3 times 4"
    ):
        load_official(state, copies=4)


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


def test_hinets_own_wrapping(tmp_path):
    model = NETWORKS["HiNet"]()
    inner = {f"module.model.{key}": value for key, value in theirs(model, tmp_path).items()}
    assert "module.model.inv11.r.conv5.bias" in inner
    found = load_official({"opt": {"lr": 0.1}, "net": {**inner, "module.tmp_var": torch.ones(1)}})
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)


def test_irns_names(tmp_path):
    state = theirs(NETWORKS["IRN x4"](), tmp_path)
    assert state["operations.0.haar_weights"].shape == (12, 1, 2, 2)
    assert state["operations.2.haar_weights"].shape == (48, 1, 2, 2)
    assert "operations.3.F.conv1.weight" in state
    assert "operations.4.weight" not in state
    assert theirs(NETWORKS["IRN x3"](), tmp_path)["operations.0.conv_weights"].shape == (9, 9)
    grey = theirs(NETWORKS["IRN decolorization"](), tmp_path)["operations.0.conv_weights"]
    assert grey[0].tolist() == pytest.approx([0.299, 0.587, 0.114])


def test_irns_that_are_not_known(tmp_path):
    state = theirs(NETWORKS["IRN x4"](), tmp_path)
    first = {key.replace("operations.2.haar", "operations.1.haar"): v for key, v in state.items()}
    with pytest.raises(WICFileError, match="squeezes twice before its couplings"):
        load_official(first)
    with pytest.raises(WICFileError, match=r"stages have \[1, 2\] couplings"):
        load_official({**state, "operations.4.F.conv1.weight": torch.ones(1)})
    learned = theirs(NETWORKS["IRN x3"](), tmp_path)
    with pytest.raises(WICFileError, match="downsampling has 16 sub-bands; known are 3"):
        load_official({**learned, "operations.0.conv_weights": torch.eye(16)})
    with pytest.raises(WICFileError, match=r"another transform .*operations\.0\.haar_w"):
        load_official({**state, "operations.0.haar_weights": torch.ones(12, 1, 2, 2)})
    with pytest.raises(WICArgumentError, match="no out_channels and copies for IRN"):
        load_official(state, copies=2)


def test_iicnets_names(tmp_path):
    state = theirs(NETWORKS["IICNet x2 by image"](), tmp_path)
    assert {
        "0.forw_rel.DB_heads.4.conv5.bias",
        "0.back_rel.conv_1x1_heads.0.weight",
        "0.forw_rel.conv_merges.2.weight",
        "0.back_rel.conv_1x1_tails.3.bias",
        "0.back_rel.DB_tails.1.conv1.weight",
        "2.operations.0.H.conv5.bias",
    } <= state.keys()
    assert state["1.operations.0.haar_weights"].shape == (60, 1, 2, 2)
    assert state["1.operations.1.weight"].shape == (60, 60)
    assert load_official({f"module.{k}": v for k, v in state.items()}).config["couplings"] == 1


def test_iicnets_whose_shapes_leave_something_open(tmp_path):
    """Four images at half the size have as many channels in their first half either way."""
    made = {
        order: IICNet(12, 3, scale=2, couplings=1, order=order, **MEAN)
        for order in ("bands", "images")
    }
    states = {order: theirs(model, tmp_path) for order, model in made.items()}
    assert {k: v.shape for k, v in states["bands"].items()} == {
        k: v.shape for k, v in states["images"].items()
    }
    assert load_official(states["images"]).config["order"] == "bands"
    grey = theirs(IICNet(3, 1, scale=2, couplings=1, **MEAN), tmp_path)
    assert load_official(grey).config["out_channels"] == 3
    assert load_official(grey, out_channels=1).config["out_channels"] == 1
    with pytest.raises(WICArgumentError, match=r"out_channels of 3, .* has 3 channels; got 1"):
        load_official(theirs(NETWORKS["IICNet"](), tmp_path), out_channels=1)
    with pytest.raises(WICArgumentError, match="no copies for IICNet"):
        load_official(grey, copies=4)


def test_shapes_that_leave_the_result_open(tmp_path):
    state = theirs(WINNaive(3, 6, scale=2, couplings=1, **SMALL), tmp_path)
    assert load_official(state).config["out_channels"] == 3
    assert load_official(state, out_channels=6).config["out_channels"] == 6
    with pytest.raises(WICArgumentError, match=r"copies of 1 or 2 or 3 or 4 or 6 .*got 5 times 1"):
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
        ({"a.weight": torch.ones(1)}, "names like operations.* or inv1.*holds a.weight"),
        ({"inv1.q": torch.ones(1)}, "which make none"),
        ({"operations.0.haar_weights": torch.ones(12, 1, 2, 2)}, "which make none"),
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
        (HCFlow(depth=1, **FLOW), r"as published, .* code of HCFlow has; got one with a WIC"),
        (HCFlow(scale=2, depth=1, z="drawn", **FLOW), "scale of 4, .*; got 3 to 3 channels, sc"),
        (
            IICNet(couplings=1, growth=4, features=2),
            'colours="BGR", .* IICNet\'s .*; got one that sees RGB. Say colours="RGB" if your',
        ),
        (torch.nn.Identity(), "WIN, WIN-Naive, IRN, HiNet, IICNet or HCFlow; got Identity"),
    ],
)
def test_what_their_code_cannot_read_is_not_written(model, message, tmp_path):
    with pytest.raises(WICArgumentError, match=message):
        save_official(model, tmp_path / "a.pth")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(WICFileError, match="cannot be written"):
        save_official(NETWORKS["hiding, naive"](), tmp_path / "none" / "a.pth")


@pytest.mark.parametrize("first", range(0, 256, 5))
def test_texts_are_no_checkpoints(first, tmp_path):
    path = tmp_path / "notes.pth"
    path.write_bytes(bytes([first]) + b" some notes\nof mine\n")
    with pytest.raises(WICFileError, match=r"notes\.pth"):
        load_official(path)
