"""Training: what is minimised, that it learns, and that a stop or an explosion loses nothing."""

import argparse
import json
import math

import pytest
import torch
from PIL import Image
from skimage import data

from wic_layers import det_loss, quantize, record_wic, shift_loss
from wic_layers.errors import WICArgumentError, WICError, WICFileError
from wic_layers.images import find_images
from wic_layers.models import PRESETS, WIN, WINNaive, from_pretrained
from wic_layers.tasks import TASKS
from wic_layers.training import Objective, Photographs, Settings, engine, train
from wic_layers.training.command import add_arguments, run

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three of scikit-image's photographs as files, one of them in a folder below."""
    root = tmp_path_factory.mktemp("photographs")
    (root / "more").mkdir()
    Image.fromarray(data.astronaut()).save(root / "astronaut.png")
    Image.fromarray(data.coffee()).save(root / "coffee.jpg", quality=95)
    Image.fromarray(data.chelsea()).save(root / "more" / "chelsea.png")
    return root


@pytest.fixture(scope="module")
def images(folder):
    return Photographs(find_images(folder), smallest=48)


def small(task="rescaling-x2", size="tiny"):
    torch.manual_seed(0)
    if task == "rescaling-x4":  # with copies; WIN itself is large there
        return WINNaive.from_preset(f"{task}-naive-{size}", growth=4)
    return WIN.from_preset(f"{task}-{size}", growth=4)


def settings(**changes):
    given = {"steps": 8, "batch": 2, "crop": 32, "warmup": 2, "learning_rate": 1e-3}
    return Settings(**{**given, **changes})


def held_out(task="rescaling-x2"):
    x = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    return TASKS[task].pack(*(x.roll(-turn, 0) for turn in range(TASKS[task].images)))


def fit(images, folder, chosen, *, model=None, task="rescaling-x2", **more):
    model = model or small(task)
    folder.mkdir(exist_ok=True)
    given = {"held_out": held_out(task), "device": CPU, "every": 2}
    train(model, TASKS[task], images, chosen, folder, **{**given, **more})
    return model


def test_quantize_rounds_and_passes_the_gradient_where_nothing_is_clamped():
    x = torch.tensor([-0.3, 0.01, 0.4999, 0.51, 1.7], requires_grad=True)
    y = quantize(x)
    assert ((y.detach() * 255) - (y.detach() * 255).round()).abs().max() < 1e-4
    assert y.detach().min() >= 0
    assert y.detach().max() <= 1
    weights = torch.arange(5.0)
    (y * weights).sum().backward()
    assert torch.equal(x.grad, torch.tensor([0.0, 1.0, 2.0, 3.0, 0.0]))


@pytest.mark.parametrize("task", ["rescaling-x2", "hiding-1", "hiding-3", "decolorization"])
def test_objective_is_the_papers_sum(task):
    model, x = small(task), held_out(task)
    reference = TASKS[task].reference(x)
    losses = Objective(TASKS[task])(model, x, reference)

    with record_wic(model) as records:
        y = model(x)
    back = model.inverse(quantize(y))

    def charbonnier(d):
        return (d.square() + 1e-6).sqrt()

    distance = charbonnier if "hiding" in task else torch.square
    expected = [
        distance(y - reference).sum() / len(x),
        charbonnier(back - x).sum() / len(x),
        det_loss(model),
        shift_loss(records, reference, lambda a, b: distance(a - b)),
    ]
    for found, value in zip(
        (losses.forward, losses.reverse, losses.det, losses.shift), expected, strict=True
    ):
        torch.testing.assert_close(found, value, rtol=1e-5, atol=1e-5)
    total = 2 * expected[0] + expected[1] + 0.1 * expected[2] + expected[3]
    torch.testing.assert_close(losses.total, total)
    squares = Objective(TASKS[task], reverse="l2")(model, x, reference).reverse
    torch.testing.assert_close(squares, (back - x).square().sum() / len(x), rtol=1e-5, atol=1e-5)
    with pytest.raises(WICArgumentError, match=r'reverse "l1" or "l2"; got .l3'):
        Objective(TASKS[task], reverse="l3")


def test_copies_are_judged_too():
    """Each of them and their mean has the reference, and so has what stands in for the rest."""
    name = "rescaling-x4"
    model, x, task = small(name), held_out(name), TASKS[name]
    reference = task.reference(x)
    losses = Objective(task)(model, x, reference)
    copies = reference.repeat(1, 4, 1, 1)
    with record_wic(model) as records:
        y = model(x)
    assert records[0].output.shape == copies.shape == (2, 12, 8, 8)
    expected = (y - reference).square().sum() + (records[0].output - copies).square().sum()
    torch.testing.assert_close(losses.forward, expected / len(x))
    aims = {records[0].name: copies}
    torch.testing.assert_close(losses.shift, shift_loss(records, aims, lambda a, b: (a - b) ** 2))
    back = model.inverse(quantize(y))
    expected = ((back - x).square() + 1e-6).sqrt().sum()
    torch.testing.assert_close(losses.reverse, expected / len(x))


@pytest.mark.parametrize("task", ["hiding-1", "rescaling-x4", "decolorization"])
def test_every_parameter_receives_a_gradient(images, task):
    task, model = TASKS[task], small(task)
    x, reference = engine.sample(images, task, settings(), 0)
    with torch.no_grad():  # the last convolutions start at zero, which hides those before them
        for parameter in model.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
    Objective(task)(model, x, reference).total.backward()
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not missing


def test_batches_depend_on_seed_and_number_alone(images):
    first = images.batch(3, size=4, crop=32, seed=7)
    images.batch(4, size=4, crop=32, seed=7)
    assert torch.equal(first, images.batch(3, size=4, crop=32, seed=7))
    assert not torch.equal(first, images.batch(4, size=4, crop=32, seed=7))
    assert not torch.equal(first, images.batch(3, size=4, crop=32, seed=8))
    assert first.shape == (4, 3, 32, 32)
    assert first.min() >= 0
    assert first.max() <= 1


def test_levels_are_halved_sizes_with_equal_chances(folder):
    paths = find_images(folder)[:1]  # 512 x 512
    images = Photographs(paths, reduce=2, levels=3, smallest=48)
    assert [tuple(image.shape) for image in images.images] == [
        (3, 256, 256),
        (3, 128, 128),
        (3, 64, 64),
    ]
    assert images._chance.tolist() == [1, 1, 1]
    assert len(Photographs(paths, reduce=2, levels=3, smallest=100)) == 2


def test_candidates_are_the_most_detailed_of_random_crops(images):
    def roughness(batch):
        return float(batch.diff(dim=2).abs().mean() + batch.diff(dim=3).abs().mean())

    plain, best = (
        sum(roughness(images.batch(k, size=4, crop=32, seed=0, candidates=n)) for k in range(8))
        for n in (1, 4)
    )
    assert best > plain
    again = images.batch(3, size=4, crop=32, seed=0, candidates=4)
    assert torch.equal(again, images.batch(3, size=4, crop=32, seed=0, candidates=4))


def test_saturated_crops_hold_black_and_white(images):
    plain = images.batch(0, size=16, crop=32, seed=0)
    some = images.batch(0, size=16, crop=32, seed=0, saturate=0.5)
    changed = [not torch.equal(a, b) for a, b in zip(plain, some, strict=True)]
    assert 3 <= sum(changed) <= 13
    extreme = [((x == 0) | (x == 1)).float().mean() for x in (plain, some)]
    assert extreme[1] > extreme[0] + 0.02
    assert some.min() >= 0
    assert some.max() <= 1


@pytest.mark.parametrize("name", ["rescaling-x2", "rescaling-x4", "decolorization"])
def test_reference_of_a_crop_is_that_of_the_whole_photograph(images, name):
    """The crop's border must not show in its reference."""
    task = TASKS[name]
    whole = images.images[0][None, :, :128, :128].float() / 255
    margin, edge, side = engine.MARGIN, engine.MARGIN // task.scale, 32 // task.scale
    top = 24
    around = slice(top - margin, top + 32 + margin)
    inner = task.reference(whole[..., around, around])[..., edge:-edge, edge:-edge]
    place = slice(top // task.scale, top // task.scale + side)
    expected = task.reference(whole)[..., place, place]
    assert inner.shape == (1, task.out_channels, side, side)
    torch.testing.assert_close(inner, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_what_the_network_takes(images, task):
    channels, out_channels, scale = TASKS[task].channels
    x, reference = engine.sample(images, TASKS[task], settings(), 0)
    assert x.shape == (2, channels, 32, 32)
    assert reference.shape == (2, out_channels, 32 // scale, 32 // scale)


@pytest.mark.parametrize("scale", [2, 4])
def test_reference_is_pillows_bicubic(scale):
    """In floating point: with 8-bit pixels Pillow rounds and clips between its two passes."""
    photo = torch.tensor(data.astronaut()).permute(2, 0, 1)
    found = TASKS[f"rescaling-x{scale}"].reference(photo[None] / 255)[0] * 255
    for channel, plane in zip(photo, found, strict=True):
        image = Image.fromarray(channel.float().numpy())
        reduced = image.resize((512 // scale, 512 // scale), Image.Resampling.BICUBIC)
        expected = torch.frombuffer(bytearray(reduced.tobytes()), dtype=torch.float32)
        torch.testing.assert_close(
            plane.flatten(), expected.clamp(0, 255), atol=1e-3, rtol=0, check_dtype=False
        )


@pytest.mark.slow
@pytest.mark.parametrize("bf16", [False, True])
def test_a_short_training_learns(images, tmp_path, bf16):
    """400 steps gain at least 15 dB in both pictures, and what comes back passes bicubic's."""
    whole = images.images[0][None, :, 60:188, 60:188].float() / 255
    task = TASKS["rescaling-x2"]
    enlarged = torch.nn.functional.interpolate(
        task.reference(whole), scale_factor=2, mode="bicubic"
    )
    bicubic = engine.psnr(quantize(enlarged), whole)
    chosen = settings(steps=400, batch=4, crop=32, warmup=20, learning_rate=2e-3, bf16=bf16)
    model = small(size="small")
    before = engine.evaluate_held_out(model, task, whole)
    fit(images, tmp_path / "run", chosen, model=model, every=400)
    after = engine.evaluate_held_out(model, task, whole)
    assert after[0] > before[0] + 15
    assert after[1] > before[1] + 15
    assert after[1] > bicubic
    assert all(torch.isfinite(p).all() for p in model.parameters())


class Killed(Exception):
    pass


@pytest.mark.parametrize("killed_at", [3, 5, 6])
def test_a_killed_training_resumes_to_the_same_weights(images, tmp_path, killed_at):
    chosen = settings()
    expected = fit(images, tmp_path / "whole", chosen).state_dict()

    def kill(step, losses, judged):
        if step == killed_at:
            raise Killed

    with pytest.raises(Killed):
        fit(images, tmp_path / "cut", chosen, report=kill)
    steps = []
    resumed = fit(
        images, tmp_path / "cut", chosen, resume=True, report=lambda step, *_: steps.append(step)
    )
    assert steps[0] == killed_at // 2 * 2 + 1
    for name, tensor in resumed.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


def test_an_exploding_step_is_not_taken(images, tmp_path, monkeypatch):
    """A batch of NaN: back to the last checkpoint, half the rate, and on to the end."""
    model, chosen = small(), settings(steps=8)
    honest, seen = engine.sample, []

    def poisoned(photographs, task, given, step):
        seen.append(step)
        x, reference = honest(photographs, task, given, step)
        return (x * math.nan, reference) if step == 5 and seen.count(5) == 1 else (x, reference)

    monkeypatch.setattr(engine, "sample", poisoned)
    fit(images, tmp_path / "run", chosen, model=model)
    assert seen == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7]
    assert all(torch.isfinite(p).all() for p in model.parameters())
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    (explosion,) = (row for row in rows if "exploded" in row)
    assert math.isnan(explosion.pop("loss"))
    assert explosion == {"exploded": 5, "back_to": 4, "halved": 1}
    assert rows[-1]["step"] == 8


def test_a_hopeless_training_ends_with_a_sentence(images, tmp_path, monkeypatch):
    honest = engine.sample

    def poisoned(photographs, task, given, step):
        x, reference = honest(photographs, task, given, step)
        return x * (math.nan if step == 5 else 1), reference

    monkeypatch.setattr(engine, "sample", poisoned)
    with pytest.raises(WICError, match=r"exploded 7 times, last at step 5.*lower --lr"):
        fit(images, tmp_path / "run", settings())
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_resuming_with_other_settings_is_refused(images, tmp_path):
    fit(images, tmp_path / "run", settings(steps=2))
    with pytest.raises(WICError, match="another learning_rate; resume with the same"):
        fit(images, tmp_path / "run", settings(steps=2, learning_rate=5e-4), resume=True)


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
        "settings.json",
    ]  # fmt: skip
    described = json.loads((out / "settings.json").read_text())
    assert described["steps"] == 2
    assert described["held_out"] == ["coffee.jpg"]
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
    assert json.loads((out / "settings.json").read_text())["start"] == str(weights)
    tuned = from_pretrained(out).state_dict()
    for name, tensor in from_pretrained(weights).state_dict().items():
        assert torch.equal(tuned[name], tensor), name
    with pytest.raises(WICArgumentError, match=r"--start with weights of hiding-2-tiny.*-1-tiny"):
        command("hiding-2-tiny", *given, "--force")


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
        raise Killed

    monkeypatch.setattr("wic_layers.training.command.train", stop)
    with pytest.raises(Killed):
        command(*given, "--force")
    assert [path.name for path in out.iterdir()] == ["settings.json"]
    with pytest.raises(WICFileError):
        from_pretrained(out)


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
        (("--reduce", "0"), WICArgumentError, "reduce of at least 1; got 0"),
        (("--crop", "1000"), WICFileError, "at least 1016 pixels a side after reducing by 2"),
        (("--resume",), WICFileError, "there is no .*checkpoint.pt. Leave out --resume"),
    ],
)
def test_bad_arguments(folder, tmp_path, changes, error, message):
    given = ["hiding-1-small", "--data", folder, "-o", tmp_path / "run", "--held-out", 1]
    with pytest.raises(error, match=message):
        command(*given, *changes)


def test_unknown_preset(folder, tmp_path):
    with pytest.raises(WICArgumentError, match=r"such as rescaling-x4.*got 'rescaling-x3'"):
        command("rescaling-x3", "--data", folder, "-o", tmp_path / "run")


def test_a_damaged_image_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG not really")
    with pytest.raises(WICFileError, match=r"broken\.png cannot be read as an image"):
        Photographs(find_images(tmp_path))
