"""``wic upgrade``: what it keeps, what it prints, and what it refuses."""

import argparse

import photographs
import pytest
import torch
import yaml
from cases import shaken

from wic_layers import cli
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import (
    IRN,
    HCFlow,
    HiNet,
    IICNet,
    from_pretrained,
    save_official,
    with_wic,
)
from wic_layers.tasks import TASKS
from wic_layers.training import Judgement
from wic_layers.training.upgrade import add_arguments, run


def command(*words):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(word) for word in words]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photographs.write(tmp_path_factory.mktemp("photographs") / "all")


@pytest.fixture
def checkpoint(tmp_path):
    model = shaken(IRN(couplings=1, growth=4, random_z=True)).eval()
    save_official(model, tmp_path / "irn.pth")
    return model, tmp_path / "irn.pth"


FEW = ("--steps", 2, "--crop", 32, "--batch", 1, "--held-out", 1, "--accelerator", "cpu")


def test_without_photographs_the_picture_stays(checkpoint, tmp_path, capsys):
    model, path = checkpoint
    assert command("irn", path, "-o", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "model.safetensors: the checkpoint's weights in float32, and a WIC that " in printed
    assert "give --data FOLDER to fine-tune it" in printed
    found = from_pretrained(tmp_path / "out")
    assert found.config == {**model.config, "random_z": False}
    assert found.card["start"] == "irn.pth, IRN, its random z a WIC"
    x = torch.rand(1, 3, 16, 20)
    with torch.no_grad():
        y = model(x)
        torch.testing.assert_close(found(x), y, atol=1e-7, rtol=1e-6)
        assert torch.equal(found.inverse(y), found.inverse(y))
    with pytest.raises(WICFileError, match=r"is not empty. Start anew with --force"):
        command("irn", path, "-o", tmp_path / "out")
    assert command("irn", path, "-o", tmp_path / "out", "--force") == 0


def test_the_file_holds_every_bit_unless_it_is_to_be_narrow(checkpoint, tmp_path):
    model, path = checkpoint
    assert command("irn", path, "-o", tmp_path / "out") == 0
    found = from_pretrained(tmp_path / "out").state_dict()
    kernel = f"{len(model) - 1}.weight"
    for key, value in model.state_dict().items():
        assert torch.equal(found[key], value) or key == kernel
    assert command("irn", path, "-o", tmp_path / "half", "--precision", "float16") == 0
    sizes = [(tmp_path / f / "model.safetensors").stat().st_size for f in ("out", "half")]
    assert sizes[1] < 0.65 * sizes[0]
    narrow = from_pretrained(tmp_path / "half").state_dict()
    assert not torch.equal(narrow["1.F.conv1.weight"], found["1.F.conv1.weight"])
    assert torch.equal(narrow["1.F.conv1.weight"], found["1.F.conv1.weight"].half().float())


def closed_checkpoint(tmp_path, completion=None):
    """What IRN's own code writes after the change."""
    model = with_wic(shaken(IRN(couplings=1, growth=4, random_z=True)), completion)
    kernel = model.get_parameter(f"{len(model) - 1}.weight")
    kernel.data += 0.1 * torch.randn_like(kernel)
    save_official(model, tmp_path / "irn.pth")
    return model.eval(), tmp_path / "irn.pth"


def test_one_that_was_trained_after_the_change(tmp_path, capsys):
    model, path = closed_checkpoint(tmp_path)
    assert command("irn", path, "-o", tmp_path / "out") == 0
    printed = capsys.readouterr().out
    assert "parameters, already has a WIC\n" in printed
    assert "weights in float32, and the WIC that it was trained with" in printed
    found = from_pretrained(tmp_path / "out")
    assert found.card["start"] == "irn.pth, IRN, already with a WIC"
    assert found.config == model.config
    for key, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)
    # and the commands take it: down to a file and up from it
    photographs.write(tmp_path / "photographs")
    photo, small = tmp_path / "photographs/astronaut.png", tmp_path / "small.png"
    weights = ("--weights", f"{tmp_path}/out")
    assert cli.main(["down", f"{photo}", "-o", f"{small}", *weights]) == 0
    assert cli.main(["up", f"{small}", "-o", f"{tmp_path}/again.png", *weights]) == 0


def test_its_completion_is_said_where_its_names_leave_it_open(tmp_path):
    _, path = closed_checkpoint(tmp_path, "repeat")
    for completion in ("shift", "repeat"):
        out = tmp_path / completion
        assert command("irn", path, "-o", out, "--completion", completion) == 0
        assert from_pretrained(out).config["completion"] == completion


def test_one_that_has_a_wic_is_fine_tuned(folder, tmp_path, capsys):
    _, path = closed_checkpoint(tmp_path)
    assert command("irn", path, "-o", tmp_path / "out", "--data", folder, *FEW) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    assert [row[1].strip() for row in rows[2:]] == ["the checkpoint", "tuned, after 2 steps"]


def test_hcflow(folder, tmp_path, capsys):
    model = HCFlow(steps=2, growth=4, conditional_steps=1, width=8, depth=1, z="drawn")
    save_official(shaken(model).eval(), tmp_path / "h.pth")
    tuned = ("-o", tmp_path / "tuned", "--data", folder, *FEW, "--precision", "float32")
    assert command("hcflow", tmp_path / "h.pth", *tuned) == 0
    assert "| original, z drawn |" in capsys.readouterr().out
    assert "all in float32" in (tmp_path / "tuned/README.md").read_text()
    assert command("hcflow", tmp_path / "h.pth", "-o", tmp_path / "out") == 0
    assert "HCFlow for rescaling-x4" in capsys.readouterr().out
    found = from_pretrained(tmp_path / "out")
    assert found.config == {**model.config, "z": None}
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        torch.testing.assert_close(found(x), model(x))
        assert torch.equal(found.inverse(model(x)), found.inverse(model(x)))


def test_colours_of_an_owner_who_turned_them(folder, tmp_path):
    model = IICNet(couplings=1, growth=4, features=2, channel_squeeze=True)
    model.colours = "BGR"
    save_official(model, tmp_path / "i.pth")
    given = ("iicnet", tmp_path / "i.pth", "--task", "stereo")
    for colours in ("RGB", "BGR"):
        command(*given, "-o", tmp_path / colours, "--colours", colours)
        assert from_pretrained(tmp_path / colours).colours == colours
    # a training that is resumed goes on with them, said or not
    out = tmp_path / "tuned"
    command(*given, "-o", out, "--colours", "RGB", "--data", folder, *FEW)
    assert yaml.safe_load((out / "settings.yaml").read_text())["colours"] == "RGB"
    command(*given, "-o", out, "--data", folder, *FEW, "--resume")
    assert from_pretrained(out).colours == "RGB"


def test_fine_tuned_and_judged_beside_the_original(checkpoint, folder, tmp_path, capsys):
    _, path = checkpoint
    out = tmp_path / "out"
    given = ("irn", path, "-o", out, "--data", folder, *FEW, "--completion", "learned")
    assert command(*given) == 0
    printed = capsys.readouterr().out
    rows = [line.split(" | ") for line in printed.splitlines() if line.startswith("| ")]
    titles = [row[0].removeprefix("| ") for row in rows[1:]]
    assert titles == ["original, z drawn", "upgraded, as it starts", "upgraded, after 2 steps"]
    assert rows[1][1] == rows[2][1]  # the same picture
    spreads = [float(row[3].removesuffix(" |")) for row in rows[1:]]
    assert spreads[0] > 0 == spreads[1] == spreads[2]
    assert from_pretrained(out).config["completion"] == "learned"
    assert "all else in float16" in (out / "README.md").read_text()
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert settings["weights"] == [4.0, 1.0, 0.1, 1.0]  # as IRN's authors have it for x2
    with pytest.raises(WICFileError, match=r"not empty.*--resume.*--force"):
        command(*given)
    tuned = from_pretrained(out).state_dict()
    assert command(*given, "--resume") == 0
    for key, value in from_pretrained(out).state_dict().items():
        assert torch.equal(tuned[key], value)


def test_hinet_is_tuned_by_its_own_losses(folder, tmp_path, capsys):
    save_official(shaken(HiNet(couplings=1, growth=4, random_z=True)), tmp_path / "h.pth")
    given = ("hinet", tmp_path / "h.pth", "-o", tmp_path / "out", "--data", folder, *FEW)
    assert command(*given) == 0
    assert "HiNet for hiding-1" in capsys.readouterr().out
    settings = yaml.safe_load((tmp_path / "out/settings.yaml").read_text())
    assert (settings["returned"], settings["low"], settings["reverse"]) == ("wanted", 1.0, "l2")
    assert settings["weights"] == [1.0, 5.0, 0.1, 1.0]


IICNETS = {
    "stereo": {"in_channels": 6},
    "clip-3-x2": {"in_channels": 9, "scale": 2, "order": "images", "haar": False},
}


@pytest.mark.parametrize("task", IICNETS)
def test_both_directions_of_iicnet_stay(task, tmp_path, capsys):
    given = {"couplings": 1, "growth": 4, "features": 3, **IICNETS[task]}
    model = shaken(IICNet(channel_squeeze=True, **given)).eval()
    model.colours = "BGR"
    save_official(model, tmp_path / "iicnet.pth")
    assert command("iicnet", tmp_path / "iicnet.pth", "-o", tmp_path / "o", "--task", task) == 0
    assert "a WIC that starts as the channel squeeze, for" in capsys.readouterr().out
    found = from_pretrained(tmp_path / "o")
    assert found.config == {**model.config, "channel_squeeze": False}
    assert (found.task, found.colours) == (task, "BGR")
    assert found.card["start"] == "iicnet.pth, IICNet, its channel squeeze a WIC"
    x = torch.rand(1, model.config["in_channels"], 16, 20)
    with torch.no_grad():
        y = model(x)
        torch.testing.assert_close(found(x), y, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.inverse(y), model.inverse(y), atol=1e-5, rtol=0)


def test_iicnet_is_fine_tuned_and_judged(folder, tmp_path, capsys):
    model = shaken(IICNet(couplings=1, growth=4, features=2, channel_squeeze=True))
    model.colours = "BGR"
    save_official(model, tmp_path / "i.pth")
    out = tmp_path / "out"
    given = ("iicnet", tmp_path / "i.pth", "-o", out, "--task", "stereo", "--data", folder)
    assert command(*given, *FEW, "--lr", 1e-2, "--warmup", 0) == 0
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line]
    titles = [row[1].strip() for row in rows[2:]]
    names = ["original, channel squeeze", "upgraded, as it starts", "upgraded, after 2 steps"]
    assert titles == names
    assert rows[2][2:4] == rows[3][2:4]  # in both directions
    assert rows[3][2:4] != rows[4][2:4]
    assert from_pretrained(out).task == "stereo"
    settings = yaml.safe_load((out / "settings.yaml").read_text())
    assert (settings["rounding"], settings["frequency"]) == ("noise", 20.7)
    assert settings["weights"] == [1.0, 1.5, 0.1, 1.0]


def test_what_an_iicnet_is_for_has_to_be_said(tmp_path):
    model = IICNet(couplings=1, growth=4, channel_squeeze=True)
    save_official(model, tmp_path / "i.pth", colours="RGB")
    given = ("iicnet", tmp_path / "i.pth", "-o", tmp_path / "out")
    expected = "--task with what .*: hiding-1, stereo, zoom-x2, zoom-x4, zoom-x8"
    with pytest.raises(WICArgumentError, match=expected):
        command(*given)
    with pytest.raises(WICArgumentError, match=r"--task hiding-1 or stereo .*; got layers"):
        command(*given, "--task", "layers")
    assert not (tmp_path / "out").exists()


def test_spread_is_that_of_the_decodings():
    task, x = TASKS["rescaling-x2"], torch.rand(1, 3, 16, 16)
    drawn = Judgement(shaken(IRN(couplings=1, growth=4, random_z=True)), task, x, 10)
    assert len(drawn.psnrs_back) == len(set(drawn.psnrs_back)) == 10
    assert drawn.spread > 1
    still = Judgement(shaken(IRN(couplings=1, growth=4)), task, x, 10)
    assert still.spread == 0
    assert len(set(still.psnrs_back)) == 1


def test_what_is_refused(checkpoint, tmp_path):
    _, path = checkpoint
    with pytest.raises(WICFileError, match=r"checkpoint of HiNet; .*irn\.pth is one of IRN"):
        command("hinet", path, "-o", tmp_path / "out")
    with pytest.raises(WICFileError, match="No such file"):
        command("irn", tmp_path / "none.pth", "-o", tmp_path / "out")
    state = torch.load(path, weights_only=True)
    del state["operations.1.G.conv3.bias"]
    torch.save(state, path)
    with pytest.raises(WICFileError, match=r"1 names are missing \(operations\.1\.G\.conv3\.bias"):
        command("irn", path, "-o", tmp_path / "out")
    save_official(HiNet(12, 6, couplings=1, growth=4, random_z=True), tmp_path / "six.pth")
    with pytest.raises(WICArgumentError, match=r"one of the tasks; this HiNet has .*12"):
        command("hinet", tmp_path / "six.pth", "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()
