"""Weights in and out: the same network comes back, or a sentence says why not."""

import copy
import hashlib
import itertools
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from cases import shaken
from safetensors.torch import load_file, save_file

import wic_layers
from wic_layers import cli
from wic_layers.cli import presets
from wic_layers.codec import mark as marks
from wic_layers.errors import WICArgumentError, WICDependencyError, WICFileError
from wic_layers.layer.conv import WIC
from wic_layers.models import (
    NETWORKS,
    PRESETS,
    WIN,
    Network,
    WINNaive,
    from_pretrained,
    packaged_weights,
    weights,
)
from wic_layers.models import hub as hubs
from wic_layers.models.weights import describe
from wic_layers.testing import check

CLASSES = {"WIN": WIN, "WINNaive": WINNaive}
NAMES = ["README.md", "config.json", "model.safetensors"]
CARD = {"data": "none", "licence": "MIT"}


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
    model = trained_like(WIN.from_preset("rescaling-x2-tiny"))
    return model, model.save_pretrained(tmp_path / "net", CARD)


def config_of(folder, **changes):
    """What the JSON of a folder says, after it was changed."""
    path = folder / "config.json"
    found = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps(found))
    return found


def with_tensors(folder, change):
    """Other tensors in a folder whose JSON agrees with them."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    config_of(folder, sha256=hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("given", ["folder", "string", "file"])
def test_what_is_stored_comes_back(stored, given):
    model, folder = stored
    name = {"folder": folder, "string": str(folder), "file": folder / "model.safetensors"}[given]
    back = from_pretrained(name)
    assert (back.preset, back.config, back.card) == (model.preset, model.config, CARD)
    assert not back.training
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        # float16 couplings move a pixel by less than half a step of 8 bits
        assert (back(x) - model.eval()(x)).abs().max() < 0.5 / 255
    for (key, mine), its in zip(model.named_modules(), back.modules(), strict=True):
        if isinstance(mine, WIC):
            assert torch.equal(mine.weight, its.weight), key
    assert {parameter.dtype for parameter in back.parameters()} == {torch.float32}


def test_stored_again_is_the_same(stored, tmp_path):
    """Its card is kept too, where no other is given."""
    _, folder = stored
    from_pretrained(folder).save_pretrained(tmp_path / "again")
    for name in NAMES:
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()


def test_the_json_describes_the_weights(stored):
    model, folder = stored
    found = json.loads((folder / "config.json").read_text())
    assert found == {
        "format": 1,
        "version": wic_layers.__version__,
        "preset": "rescaling-x2-tiny",
        "task": "rescaling-x2",
        "network": "WIN",
        "arguments": model.config,
        "colours": "RGB",
        "sha256": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "card": CARD,
    }
    assert from_pretrained(folder).weights_id == found["sha256"][:16]
    assert describe(folder) == (found, folder / "model.safetensors")


def test_the_card_is_what_the_hub_shows(stored):
    model, folder = stored
    card = (folder / "README.md").read_text()
    assert card.startswith(
        "---\nlibrary_name: wic-layers\nlicense: mit\n---\n\n# rescaling-x2-tiny"
    )
    parameters = sum(parameter.numel() for parameter in model.parameters())
    sha256 = json.loads((folder / "config.json").read_text())["sha256"]
    for row in (
        "| task | rescaling-x2 |",
        f"| network | WIN, {parameters:,} parameters |",
        f"| SHA-256 | {sha256} |",
        "| data | none |",
        "| licence | MIT |",
    ):
        assert row in card.splitlines()


@pytest.mark.parametrize("completion", ["zero", "learned"])
def test_kernels_are_float32_and_couplings_float16(completion, tmp_path):
    model = WINNaive(6, 3, couplings=1, growth=4, completion=completion)
    found = load_file(model.save_pretrained(tmp_path) / "model.safetensors")
    kinds = {(".conv" in key, tensor.dtype) for key, tensor in found.items()}
    assert kinds == {(True, torch.float16), (False, torch.float32)}


def test_nothing_changes_in_float32(tmp_path):
    model = shaken(WINNaive(6, 3, couplings=1, growth=4, completion="learned"))
    model.get_parameter("1.F.conv1.bias").data.fill_(1e5)  # too large for float16
    found = load_file(model.save_pretrained(tmp_path, precision="float32") / "model.safetensors")
    for key, value in model.state_dict().items():
        assert found[key].dtype == value.dtype
        assert torch.equal(found[key], value)
    assert "MB: all in float32 |" in (tmp_path / "README.md").read_text()
    with pytest.raises(WICArgumentError, match='"float16" or "float32"; got \'int8\''):
        model.save_pretrained(tmp_path, precision="int8")


def test_the_network_itself_is_left_alone(stored):
    model, _ = stored
    assert model.training
    assert model.weights_id is None
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    "model",
    [
        WINNaive(6, 3, couplings=1, growth=4, completion="repeat"),
        WINNaive(3, 1, couplings=1, growth=4),
        WINNaive(3, 3, scale=4, couplings=1, growth=4, copies=4),
        small(completion="learned"),
        small(layout="published"),
    ],
    ids=["naive", "decolorization", "x4", "learned", "published"],
)
def test_networks_without_a_preset_come_back_too(model, tmp_path):
    model.save_pretrained(tmp_path)
    back = from_pretrained(tmp_path)
    assert type(back) is type(model)
    assert back.preset is None
    assert back.config == model.config
    found = json.loads((tmp_path / "config.json").read_text())
    assert (found["preset"], found["task"]) == (None, None)
    assert f"# {type(model).__name__}\n" in (tmp_path / "README.md").read_text()


def test_a_changed_preset_is_no_preset(tmp_path):
    WIN.from_preset("rescaling-x2-tiny", growth=8).save_pretrained(tmp_path)
    assert from_pretrained(tmp_path).preset is None


def test_classes_read_their_own_weights(stored, tmp_path):
    _, folder = stored
    assert type(WIN.from_pretrained(folder)) is WIN
    with pytest.raises(WICFileError, match=r"Expected weights of WINNaive; .* is of 'WIN'"):
        WINNaive.from_pretrained(folder)
    naive = WINNaive(6, 3, couplings=1, growth=4).save_pretrained(tmp_path / "naive")
    assert type(WINNaive.from_pretrained(naive)) is WINNaive
    with pytest.raises(WICFileError, match=r"Expected weights of WIN; .* is of 'WINNaive'"):
        WIN.from_pretrained(naive)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_files_can_be_read_by_others(stored):
    _, folder = stored
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in folder.iterdir())


def test_files_are_replaced_and_others_kept(stored):
    model, folder = stored
    (folder / "log.jsonl").write_text("kept")
    model.save_pretrained(folder, {"seed": "1"})
    assert from_pretrained(folder).card == {"seed": "1"}
    assert sorted(path.name for path in folder.iterdir()) == sorted([*NAMES, "log.jsonl"])


def test_what_cannot_be_written_leaves_nothing_behind(stored, tmp_path):
    model, _ = stored
    (tmp_path / "file").write_text("")
    with pytest.raises(WICFileError, match="file cannot be written"):
        model.save_pretrained(tmp_path / "file")
    (tmp_path / "taken" / "model.safetensors").mkdir(parents=True)
    with pytest.raises(WICFileError, match=r"taken.model\.safetensors cannot be written"):
        model.save_pretrained(tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["model.safetensors"]


def test_an_unnamed_completion_is_refused(tmp_path):
    with pytest.raises(WICArgumentError, match="completion has a name"):
        small(completion=torch.nn.Conv2d(3, 15, 1)).save_pretrained(tmp_path / "net")
    assert not list(tmp_path.iterdir())


def test_finite_weights_are_not_stored_as_infinite_ones(tmp_path):
    model = small()
    weight = dict(model.named_parameters())
    name = next(key for key in weight if key.endswith("conv1.weight"))
    with torch.no_grad():
        weight[name].view(-1)[0] = -1e5
    with pytest.raises(WICArgumentError, match=rf"at most 65504.*{name} has 1e\+05"):
        model.save_pretrained(tmp_path / "net")
    assert not list(tmp_path.iterdir())
    with torch.no_grad():
        weight[name].view(-1)[0] = 6e4
        weight[name].view(-1)[1] = 1e-12  # underflow is none
    back = dict(from_pretrained(model.save_pretrained(tmp_path / "net")).named_parameters())
    assert back[name].view(-1)[:2].tolist() == [6e4, 0]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_when_read(tmp_path, wrong):
    model = small()
    next(model.parameters()).data.view(-1)[0] = wrong
    folder = model.save_pretrained(tmp_path / "net")
    with pytest.raises(WICFileError, match=r"finite weights; 1 of [0-9]+ numbers of .* are NaN"):
        from_pretrained(folder)


def test_a_network_of_the_same_name_does_not_take_our_place(stored, tmp_path):
    model, folder = stored
    namesake = type("WIN", (WIN,), {"__module__": "somewhere"})
    assert NETWORKS["WIN"] is WIN
    assert type(from_pretrained(folder)) is WIN
    assert type(namesake.from_pretrained(folder)) is namesake
    # names of their own are entered, and may be defined again, as in a notebook
    for _ in range(2):
        own = type("OwnNetwork", (WIN,), {"__module__": "somewhere"})
        network = own(**model.config)
        assert type(from_pretrained(network.save_pretrained(tmp_path / "own"))) is own
    del NETWORKS["OwnNetwork"]


def test_a_network_writes_down_what_it_was_built_from(tmp_path):
    class Own(Network):
        def __init__(self, in_channels=3, *, out_channels=2, width=4, completion=None):
            stored = width
            width = 2 * width  # what it makes of an argument is no argument
            channels = (in_channels, width, stored, out_channels)
            super().__init__(*(WIC(n, m) for n, m in itertools.pairwise(channels)))

    class Wider(Own):
        def __init__(self):
            super().__init__(width=8)

    for name in ("Own", "Wider"):
        del NETWORKS[name]
    model = Own(5, width=6)
    expected = {"in_channels": 5, "out_channels": 2, "width": 6, "completion": None}
    assert (model.config, list(model.config)) == (expected, list(expected))
    back = Own.from_pretrained(model.save_pretrained(tmp_path))
    assert (type(back), back.config) == (Own, expected)
    assert copy.deepcopy(model).config == expected
    # the arguments are those of the class that has the blocks
    assert Wider().config == {**Own().config, "width": 8}
    assert repr(Wider()).startswith("Wider()")
    with pytest.raises(TypeError, match=r"Own\.__init__\(\) got an unexpected"):
        Own(depth=1)


def flip(path, place):
    """Changes one byte, at a fraction of the file."""
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)


TENSORS, JSON = "model.safetensors", "config.json"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / TENSORS).unlink(), r"model\.safetensors cannot be read: No such file"),
        (lambda f: (f / TENSORS).write_bytes(b""), "expected the SHA-256 .*; got e3b0c442"),
        (lambda f: (f / TENSORS).write_bytes(b"{}"), "damaged or not of its config.json"),
        (lambda f: flip(f / TENSORS, 0), "damaged or not of its"),
        (lambda f: flip(f / TENSORS, 0.5), "damaged or not of its"),
        (lambda f: flip(f / TENSORS, 1), "damaged or not of its"),
        (lambda f: os.truncate(f / TENSORS, 1000), "damaged or not of its"),
        (lambda f: save_file(load_file(f / TENSORS), f / TENSORS), "damaged or not of its"),
        (lambda f: (f / JSON).unlink(), "a folder with .* and .*config.json cannot be read: No"),
        (lambda f: (f / JSON).write_bytes(b""), r"config\.json is damaged: it is no JSON"),
        (lambda f: (f / JSON).write_bytes(b"\xff{}"), "it is no JSON"),
        (lambda f: os.truncate(f / JSON, 100), "it is no JSON"),
        (lambda f: (f / JSON).write_text("[" * 10**5), "it is no JSON"),
        (lambda f: (f / JSON).write_text("[]"), "of format 1, .* is another"),
        (lambda f: (f / JSON).write_text("{}"), "of format 1, .* says None"),
        (lambda f: (f / JSON).write_text('{"format": 1}'), "lacks network, arguments, preset"),
        (lambda f: config_of(f, format=2), "of format 1, .* says 2"),
        (lambda f: config_of(f, sha256="0" * 64), "expected the SHA-256 0000"),
        (lambda f: config_of(f, sha256=None), "sha256 of another kind"),
        (lambda f: config_of(f, card=[], network=["WIN"]), "network, card of another kind"),
        (lambda f: config_of(f, network="Unet"), "of .*WIN.*; .* 'Unet', saved by .*0"),
        (lambda f: config_of(f, network="WINNaive"), "does not hold the weights that its config"),
        (lambda f: config_of(f, arguments={}), "does not hold the weights"),
        (lambda f: config_of(f, arguments={"size": 3}), "does not hold the weights"),
        (lambda f: config_of(f, arguments={"in_channels": "3", "out_channels": 3}), "not hold"),
        (lambda f: with_tensors(f, lambda s: dict(list(s.items())[1:])), "1 names are missing"),
        (lambda f: with_tensors(f, lambda s: {**s, "more": torch.ones(1)}), r"unknown \(more\)"),
        (lambda f: with_tensors(f, lambda s: {k: v[None] for k, v in s.items()}), "has the shape"),
        (lambda f: with_tensors(f, lambda s: {k: v[:1] for k, v in s.items()}), "asks for more"),
    ],
)  # fmt: skip
def test_damaged_weights_are_errors_never_random_weights(stored, damage, message):
    _, folder = stored
    damage(folder)
    with pytest.raises(WICFileError, match=message):
        from_pretrained(folder)
    with pytest.raises(WICFileError):
        WIN.from_pretrained(folder / TENSORS)


def test_tensors_of_another_training_are_detected(stored, tmp_path):
    """As a write that stopped between the files leaves them."""
    _, folder = stored
    other = trained_like(WIN.from_preset("rescaling-x2-tiny")).save_pretrained(tmp_path / "other")
    shutil.copy(other / TENSORS, folder / TENSORS)
    with pytest.raises(WICFileError, match=r"damaged or not of its config\.json"):
        from_pretrained(folder)


def test_names_without_weights_say_what_to_do(tmp_path):
    with pytest.raises(
        WICArgumentError, match=r"there are none for 'hiding-1'.*wic train hiding-1"
    ):
        from_pretrained("hiding-1")
    with pytest.raises(WICArgumentError, match=r"such as hiding-1.*got 'hidin-1'"):
        from_pretrained("hidin-1")
    with pytest.raises(WICFileError, match=r"a folder with model\.safetensors and config\.json"):
        from_pretrained(tmp_path)
    (tmp_path / "net.pth").write_text("")
    with pytest.raises(WICFileError, match=r"a folder of weights or its model.*got .*net\.pth"):
        from_pretrained(tmp_path / "net.pth")


def test_a_folder_may_have_the_name_of_a_preset(stored, tmp_path, monkeypatch):
    _, folder = stored
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, "hiding-4")
    assert from_pretrained("hiding-4").preset == "rescaling-x2-tiny"
    (tmp_path / "owner").mkdir()
    shutil.copytree(folder, "owner/name")
    assert from_pretrained("owner/name").preset == "rescaling-x2-tiny"


def test_the_package_holds_weights():
    assert {"hiding-1-naive-small", "rescaling-x2-naive-small"} <= packaged_weights().keys()
    listed = {name for name, preset in PRESETS.items() if preset.has_weights}
    assert packaged_weights().keys() == listed


@pytest.mark.parametrize("name", packaged_weights())
def test_packaged_weights_are_those_of_their_preset(name):
    folder = packaged_weights()[name]
    assert sorted(path.name for path in folder.iterdir()) == NAMES
    preset, model = PRESETS[name], from_pretrained(name)
    size = (folder / TENSORS).stat().st_size
    numbers = sum(parameter.numel() for parameter in model.parameters())
    assert size < min(2.2 * numbers, 16e6)  # half precision, but for the kernel
    assert model.preset == name
    assert model.config == CLASSES[preset.network].from_preset(name).config
    assert json.loads((folder / "config.json").read_text())["task"] == preset.task
    assert model.card["licence"]
    assert model.weights_id in (folder / "README.md").read_text()
    check(model, torch.rand(1, model.config["in_channels"], 16, 16))


class Refused(Exception):
    """As httpx says that there is no connection: of no kind that Python knows."""

    def __init__(self, text, status=None):
        super().__init__(text)
        self.response = SimpleNamespace(status_code=status)


class Hub:
    """The part of huggingface_hub that is used, with a folder for each repository."""

    def __init__(self, root):
        self.root, self.calls, self.error = root, [], None
        self.token, self.is_private = "hf_own", False

    def _called(self, **call):
        self.calls.append(call)
        if self.error is not None:
            raise self.error

    def get_token(self):
        return self.token

    def snapshot_download(self, name, **options):
        self._called(name=name, **options)
        if self.is_private and not options["token"]:
            raise Refused("401 Client Error", 401)
        return str(self.root / name)

    def HfApi(self, token):
        self.calls.append({"token": token})
        return SimpleNamespace(create_repo=self._create, upload_folder=self._upload)

    def _create(self, name, **options):
        self._called(create=name, **options)

    def _upload(self, repo_id, folder_path):
        self._called(upload=repo_id)
        shutil.copytree(folder_path, self.root / repo_id)
        return f"https://hub/{repo_id}/commit/1"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = Hub(tmp_path / "hub")
    monkeypatch.setitem(sys.modules, "huggingface_hub", fake)
    return fake


def test_there_and_back_through_the_hub(stored, hub):
    model, folder = stored
    address = model.push_to_hub("some-one/x2.tiny", CARD, private=True, token="hf_1")
    assert address == "https://hub/some-one/x2.tiny/commit/1"
    assert hub.calls == [
        {"token": "hf_1"},
        {"create": "some-one/x2.tiny", "private": True, "exist_ok": True},
        {"upload": "some-one/x2.tiny"},
    ]
    hub.calls.clear()
    for read in (from_pretrained, WIN.from_pretrained):
        back = read("hub:some-one/x2.tiny", revision="v1")
        assert back.weights_id == from_pretrained(folder).weights_id
        assert back.card == CARD
    assert hub.calls[0].pop("allow_patterns") == [TENSORS, JSON]
    assert hub.calls[0] == {"name": "some-one/x2.tiny", "revision": "v1", "token": False}
    assert len(hub.calls) == 2
    # the token is sent where it must be, and where there is one
    hub.is_private = True
    from_pretrained("hub:some-one/x2.tiny")
    assert [call["token"] for call in hub.calls[2:]] == [False, "hf_own"]
    hub.token = None
    with pytest.raises(WICFileError, match=r"not give some-one/x2\.tiny: 401 Client Error"):
        from_pretrained("hub:some-one/x2.tiny")
    hub.is_private = False
    pushed = hub.root / "some-one/x2.tiny"
    assert sorted(path.name for path in pushed.iterdir()) == NAMES
    flip(pushed / TENSORS, 0.5)
    with pytest.raises(WICFileError, match="Fetch it again"):
        from_pretrained("hub:some-one/x2.tiny")


def test_weights_that_a_wheel_leaves_out_are_those_or_none(stored, hub, tmp_path, monkeypatch):
    """Of a preset the wheel holds the JSON: what the hub gives has to have its SHA-256."""
    _, folder = stored
    described = tmp_path / "described" / "rescaling-x2"
    described.mkdir(parents=True)
    shutil.copy(folder / JSON, described)
    places = {"rescaling-x2": described}
    for module in (weights, marks, presets):
        monkeypatch.setattr(module, "described_weights", lambda: places)
        monkeypatch.setattr(module, "packaged_weights", dict)
    presets.check_usable("rescaling-x2", ["rescaling-x2"])
    with pytest.raises(WICFileError, match=r"large ones out\. They are in the repo"):
        from_pretrained("rescaling-x2")
    assert hub.calls == []  # nobody holds them yet, and no stranger is asked
    monkeypatch.setattr(hubs, "OWNER", "some-one")
    there = hub.root / "some-one/wic-layers-rescaling-x2"
    shutil.copytree(folder, there)
    back = from_pretrained("rescaling-x2", revision="v1")
    assert back.weights_id == from_pretrained(folder).weights_id
    assert hub.calls == [
        {
            "name": "some-one/wic-layers-rescaling-x2",
            "revision": "v1",
            "allow_patterns": [TENSORS],
            "token": False,
        }
    ]
    with_tensors(there, lambda state: {key: 2 * value for key, value in state.items()})
    with pytest.raises(WICFileError, match="is damaged or not of its config"):
        from_pretrained("rescaling-x2")
    hub.error = ConnectionError("no route to huggingface.co")
    address = "https://huggingface.co/some-one/wic-layers-rescaling-x2"
    with pytest.raises(WICFileError, match=f"no route to .* connection, .* from {address} into"):
        from_pretrained("rescaling-x2")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WICDependencyError, match=rf"They are at {address}\. .*wic-layers\[hub\]"):
        from_pretrained("rescaling-x2")
    mark = marks.Mark("rescaling-x2", "rescaling-x2", "0" * 16, ((4, 4),), (2, 2), "", (False,))
    with pytest.raises(WICFileError, match="--preset rescaling-x2 fetches them, or pass"):
        mark.model_for("small.png")


@pytest.mark.parametrize("error", [OSError, ValueError, Refused])
def test_a_hub_that_refuses_is_a_sentence(stored, hub, error):
    model, _ = stored
    hub.error = error("Repository Not Found\nfor url: https://hub")
    with pytest.raises(
        WICFileError,
        match="The hub does not give a/b: Repository Not Found",
    ):
        from_pretrained("hub:a/b")
    # none of these asks for the token
    assert [call["token"] for call in hub.calls] == [False]
    with pytest.raises(WICFileError, match="a/b cannot be written on the hub: Repository Not"):
        model.push_to_hub("a/b")


def test_a_repository_without_weights_is_a_sentence(hub):
    (hub.root / "a/b").mkdir(parents=True)
    with pytest.raises(WICFileError, match=r"a folder with model\.safetensors and config\.json"):
        from_pretrained("hub:a/b")


def test_the_hub_is_asked_for_names_that_say_so_only(hub, tmp_path, monkeypatch):
    """A mistyped folder is no name on the hub, whatever the command."""
    with pytest.raises(WICArgumentError, match="the name of a preset"):
        from_pretrained("hidin-1")
    with pytest.raises(
        WICFileError, match=r"no folder runs/x2\. .* on the hub write hub:runs/x2\."
    ):
        from_pretrained("runs/x2")
    for name in ("a/b/c", "a b/c", Path("hub:a/b"), tmp_path / "x2"):
        with pytest.raises(WICFileError, match=r"There is no folder [^ ]*(a b/c)?[^ ]*$"):
            from_pretrained(name)
    for name in ("hub:", "hub:a", "hub:../..", "hub:a/b/c", "hub:a b/c"):
        with pytest.raises(WICArgumentError, match=r'Expected "hub:owner/name"; got'):
            from_pretrained(name)
    monkeypatch.chdir(tmp_path)
    for words in (["inspect", "runs/x2"], ["eval", "runs/x2", "."]):
        assert cli.main(words) == 2
    assert cli.main(["export", "runs/x2", "--direction", "forward", "-o", "x.onnx"]) == 2
    with pytest.raises(WICFileError):
        from_pretrained(tmp_path / "none" / TENSORS)
    assert hub.calls == []


def test_missing_packages_are_named(stored, monkeypatch):
    model, folder = stored
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(WICDependencyError, match=r"pip install 'wic-layers\[hub\]'"):
        from_pretrained("hub:a/b")
    with pytest.raises(WICDependencyError, match=r"pip install 'wic-layers\[hub\]'"):
        model.push_to_hub("a/b")
    assert from_pretrained(folder).preset == model.preset
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for call in (lambda: from_pretrained(folder), lambda: model.save_pretrained(folder)):
        with pytest.raises(WICDependencyError, match=r"safetensors.*'wic-layers\[images\]'"):
            call()
