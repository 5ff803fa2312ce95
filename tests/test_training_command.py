"""``wic train``: its settings, what it leaves in a folder, and what it refuses."""

import argparse
import contextlib
import dataclasses
import json
import math
import shutil
from pathlib import Path

import photographs
import pytest
import torch
import yaml
from PIL import Image

from wic_layers.errors import WICArgumentError, WICError, WICFileError
from wic_layers.models import PRESETS, WIN, WINNaive, from_pretrained
from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS
from wic_layers.training import Objective, Photographs, Settings
from wic_layers.training.command import (
    add_arguments,
    check_folder,
    clear_folder,
    gather,
    pack_middles,
    run,
)
from wic_layers.training.terms import OPTIONAL, TERMS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photographs.write(tmp_path_factory.mktemp("photographs") / "all")


def command(*arguments):
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return run(parser.parse_args([str(argument) for argument in arguments]))


FEW = ("--steps", 2, "--crop", 32, "--batch", 1, "--held-out", 1, "--every", 1)


def test_command_writes_weights_that_load(folder, tmp_path, capsys):
    out = tmp_path / "run"
    given = ("rescaling-x2-tiny", "--data", folder, "-o", out, *FEW)
    assert command(*given) == 0
    assert f"--weights {out}" in capsys.readouterr().out
    model = from_pretrained(out)
    assert model.preset == "rescaling-x2-tiny"
    assert model.card == {"data": "2 images", "steps": "2", "seed": "0"}
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "checkpoint.pt", "config.json", "log.jsonl", "model.safetensors",
        "settings.yaml", "tensorboard",
    ]  # fmt: skip
    described = yaml.safe_load((out / "settings.yaml").read_text())
    assert described.keys() == {each.name for each in dataclasses.fields(Settings)}
    assert (described["steps"], described["data"]) == (2, [str(folder)])
    with pytest.raises(WICFileError, match=r"is not empty.*--resume.*--force"):
        command(*given)
    assert command(*given, "--resume") == 0
    assert command(*given, "--force") == 0
    for name, tensor in from_pretrained(out).state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name


def test_command_starts_from_weights(folder, tmp_path):
    model = WIN.from_preset("hiding-1-tiny")
    with torch.no_grad():  # the last convolutions start at zero, as those of any other start
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    weights, out = model.save_pretrained(tmp_path / "weights"), tmp_path / "run"
    given = ("--data", folder, "-o", out, *FEW, "--start", weights)
    assert command("hiding-1-tiny", *given, "--lr", 0) == 0
    assert yaml.safe_load((out / "settings.yaml").read_text())["start"] == str(weights)
    tuned = from_pretrained(out).state_dict()
    for name, tensor in from_pretrained(weights).state_dict().items():
        assert torch.equal(tuned[name], tensor), name
    with pytest.raises(WICArgumentError, match=r"--start with .* as hiding-2-tiny, .*-1-tiny"):
        command("hiding-2-tiny", *given, "--force")


def test_weights_start_the_same_network_through_jpeg(folder, tmp_path):
    start = WINNaive.from_preset("rescaling-x2-naive-tiny")
    weights, out = start.save_pretrained(tmp_path / "weights"), tmp_path / "run"
    given = ("--data", folder, *FEW, "--start", weights, "--through", "--lr", 0)
    assert command("rescaling-x2-jpeg-naive-tiny", "-o", out, *given) == 0
    tuned = from_pretrained(out)
    assert tuned.preset == "rescaling-x2-jpeg-naive-tiny"
    for name, tensor in from_pretrained(weights).state_dict().items():
        assert torch.equal(tuned.state_dict()[name], tensor), name


@pytest.mark.parametrize(
    "preset",
    ["rescaling-x4-naive-tiny", "rescaling-x4-plain-tiny", "decolorization-tiny", "hiding-4-tiny"],
)
def test_command_trains_every_task(folder, tmp_path, preset):
    out = tmp_path / "run"
    assert command(preset, "--data", folder, "-o", out, *FEW) == 0
    model = from_pretrained(out)
    assert model.preset == preset
    assert model.config.items() >= PRESETS[preset].arguments.items()
    assert json.loads((out / "config.json").read_text())["task"] == PRESETS[preset].task
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert all(math.isfinite(row[key]) for row in rows for key in ("loss", "psnr_back"))


def test_a_training_begun_anew_leaves_no_weights_of_the_one_before(folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    given = ("rescaling-x2-tiny", "--data", folder, "-o", out, *FEW)
    command(*given)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("wic_layers.training.loop.read_batches", stop)
    with pytest.raises(KeyboardInterrupt):
        command(*given, "--force")
    left = sorted(path.name for path in out.iterdir())
    assert left == ["checkpoint.pt", "log.jsonl", "settings.yaml"]
    with pytest.raises(WICFileError):
        from_pretrained(out)


def test_iicnet_is_trained_as_its_code_sees_colours(folder, tmp_path):
    small = ("iicnet-stereo-squeeze-small", "--data", folder, *FEW)
    for colours, flags in (("BGR", ()), ("RGB", ("--colours", "RGB"))):
        command(*small, "-o", tmp_path / colours, *flags)
        assert from_pretrained(tmp_path / colours).colours == colours
    with pytest.raises(WICArgumentError, match=r"that see BGR; .*RGB holds .*: say --colours RGB"):
        command(*small, "-o", tmp_path / "third", "--start", tmp_path / "RGB")


@pytest.mark.parametrize("ended", ["saved", "cleared", "described", "replaced"])
@pytest.mark.parametrize("force", [False, True])
def test_a_training_ended_before_its_first_checkpoint_can_be_started(
    folder, tmp_path, monkeypatch, ended, force
):
    """Without --force, and over an earlier one with it: a kill may come between any two files."""
    out = tmp_path / "run"
    given = ("rescaling-x2-tiny", "--data", folder, "-o", out, *FEW)
    more = ("--force",) if force else ()
    if force:
        command(*given)

    def stop(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if ended == "saved":
            patch.setattr("wic_layers.training.command.clear_folder", stop)
        elif ended == "cleared":
            patch.setattr(Settings, "write", stop)
        elif ended == "described":  # a kill leaves what an error would not
            out.mkdir(exist_ok=True)
            (out / ".wic-0123456789ab.tmp").write_text("preset: resc")
            patch.setattr(Settings, "write", stop)
        else:
            patch.setattr("wic_layers.training.loop.os.replace", stop)
        with pytest.raises(KeyboardInterrupt):
            command(*given, *more)
    assert (out / "checkpoint.tmp").is_file()
    if not (out / "checkpoint.pt").exists():
        with pytest.raises(
            WICFileError, match=r"there is no .*checkpoint\.pt. Leave out --resume"
        ):
            command(*given, "--resume")
    assert command(*given, *(more if (out / "checkpoint.pt").exists() else ())) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "checkpoint.pt", "config.json", "log.jsonl", "model.safetensors",
        "settings.yaml", "tensorboard",
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["training", "weights"])
def test_a_folder_is_a_trainings_until_it_is_empty(folder, tmp_path, monkeypatch, kind):
    """Whichever file is the last that was removed before a kill, it can be started again."""
    whole = tmp_path / "whole"
    given = ("rescaling-x2-tiny", "--data", folder, *FEW)
    if kind == "training":
        command(*given, "-o", whole)
    else:
        WIN.from_preset("rescaling-x2-tiny").save_pretrained(whole)
    args = argparse.Namespace(force=True, resume=False)
    count = sum(path.is_file() for path in whole.iterdir())
    unlink = Path.unlink
    for removed in range(count + 1):
        args.out = shutil.copytree(whole, tmp_path / f"{removed}")

        def counted(path, missing_ok=False, removed=removed, out=args.out):
            left = sum(each.is_file() for each in out.iterdir())
            if left == count - removed and path.exists():
                raise KeyboardInterrupt
            unlink(path, missing_ok=missing_ok)

        with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
            patch.setattr(Path, "unlink", counted)
            clear_folder(args.out)
        (args.out / "checkpoint.tmp").write_bytes(b"cut sh")
        assert len(list(args.out.glob("*.*"))) == count - removed + 1
        check_folder(args)


def test_a_file_is_no_folder_for_weights(folder, tmp_path):
    (tmp_path / "run").write_text("kept")
    for more in ((), ("--force",)):
        with pytest.raises(WICFileError, match=r"Expected a folder as --out; .*run is a file"):
            command("rescaling-x2-tiny", "--data", folder, "-o", tmp_path / "run", *FEW, *more)
    assert (tmp_path / "run").read_text() == "kept"


@pytest.mark.parametrize("crop", [34, 33, 2])
@pytest.mark.parametrize("preset", ["rescaling-x4-tiny", "rescaling-x4-plain-naive-tiny"])
def test_x4_takes_crops_of_multiples_of_four(folder, tmp_path, preset, crop):
    out = tmp_path / "run"
    with pytest.raises(WICArgumentError, match=f"by 4 for rescaling-x4; got {crop}"):
        command(preset, "--data", folder, "-o", out, *FEW, "--crop", crop)
    assert not out.exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (("--data", "nowhere"), WICFileError, "nowhere is not a folder"),
        (
            ("--held-out", "3"),
            WICArgumentError,
            "--held-out from 1 to 2, as there are 3 images; got 3",
        ),
        (("--crop", "33"), WICArgumentError, r"crop divisible by 2 for hiding-1; got 33"),
        (("--steps", "0"), WICArgumentError, "steps of at least 1; got 0"),
        (("--reduce", "0"), WICArgumentError, "reduce auto or of at least 1; got 0"),
        (("--reduce", "two"), WICArgumentError, "reduce auto or of at least 1; got two"),
        (("--crop", "1000"), WICFileError, "at least 1016 pixels a side after reducing them"),
        (("--batch", "0"), WICArgumentError, "batch of at least 1; got 0"),
        (("--weights", "0", "0", "0", "0"), WICArgumentError, "at least 0, and one above; got"),
        (("--weights", "nan", "1", "1", "1"), WICArgumentError, "at least 0, and one above; got"),
        (("--weight-decay", "-1"), WICArgumentError, "weight_decay of at least 0; got"),
        (("--clip", "0"), WICArgumentError, "clip above 0; got 0"),
        (("--lr", "inf"), WICArgumentError, "learning_rate of at least 0; got inf"),
        (("--reduce", "\u00b2"), WICArgumentError, "reduce auto or of at least 1"),
        (("--ema", "2"), WICArgumentError, r"ema of at most 1; got 2\.0"),
        (("--devices", "2", "--batch", "3"), WICArgumentError, "2 processes can share; got 3"),
        (("--config", "none.yaml"), WICFileError, r"none\.yaml cannot be read"),
        (("--resume",), WICFileError, "there is no .*checkpoint.pt. Leave out --resume"),
    ],
)
def test_bad_arguments(folder, tmp_path, changes, error, message):
    given = ["hiding-1-small", "--data", folder, "-o", tmp_path / "run", "--held-out", 1]
    with pytest.raises(error, match=message):
        command(*given, *changes)


def test_one_photograph_is_too_few(folder, tmp_path):
    (alone := tmp_path / "alone").mkdir()
    shutil.copy(find_images(folder)[0], alone)
    with pytest.raises(WICArgumentError, match=r"at least 2 images in --data, .* got 1"):
        command("hiding-1-small", "--data", alone, "-o", tmp_path / "run", *FEW)


def test_the_learning_rate_is_that_of_the_optimizer():
    assert Settings().learning_rate == 2e-3
    assert Settings(optimizer="muon").learning_rate == 5e-4
    assert Settings(optimizer="muon", learning_rate=1e-3).learning_rate == 1e-3
    assert Settings.from_dict(Settings(optimizer="muon").as_dict(), "").learning_rate == 5e-4


def test_unknown_preset(folder, tmp_path):
    with pytest.raises(WICArgumentError, match=r"such as rescaling-x4.*got 'rescaling-x3'"):
        command("rescaling-x3", "--data", folder, "-o", tmp_path / "run")


def test_every_setting_survives_its_file(tmp_path):
    given = Settings(
        preset="hiding-1-tiny", data=("a", "b"), reduce="3", weights=(1.0, 2.0, 3.0, 0.0),
        forward="l1", learning_rate=3e-5, bf16=True, completion="shift", cache="c",
    )  # fmt: skip
    given.write(tmp_path / "s.yaml", {"torch": "2"})
    found = Settings.from_dict(Settings.read(tmp_path / "s.yaml"), "s.yaml")
    assert found == given
    text = (tmp_path / "s.yaml").read_text()
    assert text.startswith("# torch: 2\n")
    assert "\n# number of steps\nsteps: 10000\n" in text


@pytest.mark.parametrize("name", [term.name for term in OPTIONAL])
def test_every_loss_has_its_flag_its_setting_and_its_weight(name, tmp_path):
    """A function in ``terms.py`` is all that it needs."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    chosen = gather(parser.parse_args(["-o", "out", f"--{name}", "0.25"]), {})
    chosen.write(tmp_path / "s.yaml", {})
    chosen = Settings.from_dict(Settings.read(tmp_path / "s.yaml"), "s.yaml")
    objective = chosen.objective(TASKS["rescaling-x2"])
    assert objective.weights == {**Settings().objective(TASKS["hiding-1"]).weights, name: 0.25}
    assert "".join(TERMS[name].help.split()) in "".join(parser.format_help().split())
    with pytest.raises(WICArgumentError, match=f"Expected {name} of at least 0; got -1"):
        Settings(**{name: -1.0})
    with pytest.raises(WICArgumentError, match=f"of the losses .*{name}.*got one of other"):
        Objective(TASKS["rescaling-x2"], other=1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr: 1", "settings that are not known: lr; expected some of preset, data"),
        ("steps: many", "expected steps as a whole number; got 'many'"),
        ("steps: 2.5", r"expected steps as a whole number; got 2\.5"),
        ("bf16: 1", "expected bf16 as true or false; got 1"),
        ("weights: 3", "expected weights as a list, each a number; got 3"),
        ("weights: [1, 2]", "Expected four weights"),
        ("reverse: l3", "Expected reverse l1 or l2 or psnr; got 'l3'"),
        ("- a", r"Expected settings in .*, such as `steps: 1000`; got others"),
        ("a: [", "is no YAML"),
    ],
)
def test_files_of_other_settings(tmp_path, text, message):
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(WICError, match=message):
        Settings.read(tmp_path / "s.yaml")


def test_settings_of_a_file_and_flags_over_them(folder, tmp_path):
    config, out = tmp_path / "mine.yaml", tmp_path / "run"
    config.write_text("preset: rescaling-x2-tiny\nsteps: 3\nlearning_rate: 2e-3\ncrop: 32\n")
    command("--config", config, "--data", folder, "-o", out, "--held-out", 1, "--steps", 1)
    described = yaml.safe_load((out / "settings.yaml").read_text())
    assert (described["steps"], described["learning_rate"], described["crop"]) == (1, 0.002, 32)
    with pytest.raises(WICArgumentError, match="Expected a preset; got none"):
        command("--data", folder, "-o", tmp_path / "other")
    with pytest.raises(WICArgumentError, match="Expected --data with a folder"):
        command("rescaling-x2-tiny", "-o", tmp_path / "other")


def test_a_training_goes_on_with_the_settings_beside_it(folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    command("rescaling-x2-tiny", "--data", folder, "-o", out, *FEW)
    expected = from_pretrained(out).state_dict()
    (out / "model.safetensors").unlink()
    assert command("-o", out, "--resume") == 0
    for name, tensor in from_pretrained(out).state_dict().items():
        assert torch.equal(expected[name], tensor), name
    again = rf"To prolong it, start .*: wic train rescaling-x2-tiny --data .* --start {out} "
    with pytest.raises(WICError, match=again + "--steps 9 -o OTHER"):
        command("-o", out, "--resume", "--steps", 9)


def test_another_completion_can_be_trained(folder, tmp_path):
    out = tmp_path / "run"
    given = ("--data", folder, "-o", out, *FEW)
    command("rescaling-x2-tiny", *given, "--completion", "repeat")
    model = from_pretrained(out)
    assert model.config["completion"] == "repeat"
    with pytest.raises(WICArgumentError, match=r"with the same completion; .* with .repeat"):
        command("rescaling-x2-tiny", *given, "--start", out, "-o", tmp_path / "other")


def test_tensorboard_shows_losses_conditions_and_pictures(folder, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    command(
        "hiding-2-tiny", "--data", folder, "-o", out, "--steps", 20, "--crop", 16, "--batch", 1,
        "--held-out", 1, "--every", 10,
    )  # fmt: skip
    events = EventAccumulator(str(out / "tensorboard"))
    events.Reload()
    scalars, images = events.Tags()["scalars"], events.Tags()["images"]
    last = str(len(WIN.from_preset("hiding-2-tiny")) - 1)
    assert {f"loss/{name}" for name in TERMS} <= set(scalars)
    for name in ("PSNR/back", f"condition number/{last}", "learning rate"):
        assert name in scalars
    assert [event.step for event in events.Scalars("PSNR/forward")] == [10, 20]
    assert set(images) >= {
        "forward", "forward, residual x20", "back 1", "back 2, residual x20"
    }  # fmt: skip
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert events.Scalars("PSNR/back")[-1].value == pytest.approx(rows[-1]["psnr_back"], rel=1e-6)


def test_a_start_that_fails_costs_nothing(folder, tmp_path):
    out = tmp_path / "run"
    given = ("rescaling-x2-tiny", "--data", folder, "-o", out, *FEW)
    with pytest.raises(WICFileError, match="Choose a smaller crop"):
        command(*given, "--crop", 1000)
    assert command(*given) == 0  # the folder is as good as new
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(WICFileError, match="Choose a smaller crop"):
        command(*given, "--force", "--crop", 1000)
    with pytest.raises(WICArgumentError, match="one process on CUDA"):
        command(*given, "--force", "--graph", "--accelerator", "cpu")
    assert {path: path.read_bytes() for path in kept} == kept
    command(*given, "--resume")


def test_other_files_are_never_removed(folder, tmp_path):
    (tmp_path / "README.md").write_text("mine")
    (tmp_path / "config.json").write_text('{"mine": 1}')
    for force in ((), ("--force",)):
        with pytest.raises(WICFileError, match="holds files that are not of a training"):
            command("rescaling-x2-tiny", "--data", folder, "-o", tmp_path, *FEW, *force)
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "file").write_text("")
    with pytest.raises(WICFileError, match="cannot be made"):
        command("rescaling-x2-tiny", "--data", folder, "-o", tmp_path / "file" / "run", *FEW)


def test_resumed_with_the_same_photographs_wherever_they_are(folder, tmp_path, monkeypatch):
    photos = shutil.copytree(folder, tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    assert command("rescaling-x2-tiny", "--data", "photos", "-o", "run", *FEW) == 0
    monkeypatch.chdir(photos)
    assert command("-o", "../run", "--resume") == 0
    moved = photos.rename(tmp_path / "moved")
    monkeypatch.chdir(tmp_path)
    assert command("-o", "run", "--resume", "--data", "moved") == 0
    Image.new("RGB", (64, 64)).save(moved / "new.png")
    with pytest.raises(WICError, match="was made with other photographs"):
        command("-o", "run", "--resume", "--data", "moved")


def test_a_start_is_not_needed_to_resume(folder, tmp_path):
    out, first = tmp_path / "run", tmp_path / "first"
    given = ("rescaling-x2-tiny", "--data", folder, *FEW)
    command(*given, "-o", first)
    command(*given, "-o", out, "--start", first)
    shutil.rmtree(first)
    assert command("-o", out, "--resume") == 0


def test_no_picture_is_hidden_in_itself(folder):
    task, images = TASKS["hiding-4"], Photographs(find_images(folder))
    packed = pack_middles(task, images)
    pictures = packed.split(3, dim=1)
    assert len(pictures) == 5
    for index, one in enumerate(pictures):
        for other in pictures[:index]:
            assert all(not torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_the_preset_after_the_data_is_seen(folder, tmp_path):
    with pytest.raises(WICArgumentError, match="Expected the preset first: wic train hiding-1"):
        command("--data", folder, "hiding-1-tiny", "-o", tmp_path / "run")
