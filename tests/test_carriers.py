"""What pictures go through: the real codecs, trainings through them, files that are JPEG."""

import argparse
import csv
import io
import shutil
import subprocess

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from tests import photographs
from wic_layers import cli, tasks
from wic_layers.codec import Lossy, smooth
from wic_layers.codec.attacks import attacks
from wic_layers.codec.carrier import CARRIER, carrier_of
from wic_layers.codec.mark import Mark
from wic_layers.codec.parts import split
from wic_layers.codec.running import backward_pixels, forward_pixels
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.evaluation.judging import Judgement
from wic_layers.evaluation.metrics import compare
from wic_layers.models import PRESETS, WIN, from_pretrained, packaged_weights
from wic_layers.pictures import as_pixels, psnr, read_carrier, read_image
from wic_layers.pictures.jpeg import own_content, segments
from wic_layers.tasks import TASKS
from wic_layers.training import Settings

PHOTO = as_pixels(data.astronaut()[60:125, 180:271])  # 91x65
BLOCK = as_pixels(data.astronaut()[:64, 180:276])  # 96x64


def saved(pixels, **options):
    """What Pillow makes of pixels, and the bytes of its file."""
    buffer = io.BytesIO()
    image = Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy())
    image.save(buffer, **options)
    back = np.asarray(Image.open(buffer).convert(image.mode))
    return as_pixels(back, channels=len(pixels)), len(buffer.getvalue())


# ----------------------------------------------------------------------- what happens on the way


def test_attacks_are_what_pillow_does():
    jpeg, full, webp = attacks(["jpeg:60", "jpeg444:60", "webp:60"])
    for attack, options in (
        (jpeg, {"format": "JPEG", "quality": 60, "subsampling": "4:2:0"}),
        (full, {"format": "JPEG", "quality": 60, "subsampling": "4:4:4"}),
        (webp, {"format": "WEBP", "quality": 60}),
    ):
        for pixels in (PHOTO, PHOTO[1:2]):
            expected, size = saved(pixels, **options)
            arrived = attack(pixels)
            assert torch.equal(arrived.pixels, expected), attack
            assert (arrived.size, arrived.box) == (size, (0, 0, 91, 65))
    (chain,) = attacks(["resize:0.5+jpeg:80"])
    image = Image.fromarray(PHOTO.permute(1, 2, 0).numpy())
    small = image.resize((46, 32), Image.Resampling.BICUBIC)
    through, size = saved(as_pixels(small), format="JPEG", quality=80)
    back = Image.fromarray(through.permute(1, 2, 0).numpy())
    back = back.resize((91, 65), Image.Resampling.BICUBIC)
    assert torch.equal(chain(PHOTO).pixels, as_pixels(back))
    assert chain(PHOTO).size == size
    fits, not_larger = attacks(["fit:46", "fit:500"])
    assert torch.equal(not_larger(PHOTO).pixels, PHOTO)
    assert psnr(fits(PHOTO).pixels, attacks(["resize:0.5"])[0](PHOTO).pixels) > 35
    (crop,) = attacks(["crop:0.5"])
    arrived = crop(BLOCK)
    left, top, width, height = arrived.box
    assert (width, height) == (48, 32)
    assert left % 2 == top % 2 == 0
    assert torch.equal(arrived.pixels, BLOCK[:, top : top + height, left : left + width])


def test_a_frame_of_video_is_worse_at_a_higher_rate_factor():
    pytest.importorskip("av")
    good, bad = (attack(PHOTO) for attack in attacks(["h264:10,40"]))
    assert good.pixels.shape == bad.pixels.shape == PHOTO.shape
    assert psnr(good.pixels, PHOTO) > psnr(bad.pixels, PHOTO) + 5
    assert good.size > bad.size


def test_how_attacks_are_written():
    names = list(map(str, attacks(["jpeg:90,75", "resize:0.5-1+webp:60-90,50"])))
    assert names == ["jpeg:90", "jpeg:75", "resize:0.5-1+webp:60-90", "resize:0.5-1+webp:50"]
    for text, match in (
        ("jpeg", "kinds: jpeg, jpeg444, webp"),
        ("jpg:90", "got 'jpg:90'"),
        ("jpeg:0", "whole number from 1 to 100"),
        ("jpeg:95-75", "smaller one first"),
        ("jpeg:9.5", "whole number"),
        ("resize:9", "from 0.1 to 4"),
        ("jpeg:90+crop:0.5", "crop at the beginning"),
        ("+".join(["jpeg:" + ",".join(["9"] * 40)] * 2), "at most 1000"),
    ):
        with pytest.raises(WICArgumentError, match=match):
            attacks([text])
    for texts in ([], ["crop:0.5"]):
        with pytest.raises(WICArgumentError, match="leaves a picture whole"):
            Lossy(attacks(texts))
    assert carrier_of([]) is CARRIER


# ------------------------------------------------------------------------------------ the carrier


def test_each_picture_draws_its_own_and_gets_the_real_pixels():
    x = (PHOTO.float() / 255)[None].repeat(12, 1, 1, 1)
    carrier = carrier_of(["jpeg:40-42", "jpeg444:90"])
    through = carrier.through(x)
    known = [attack(PHOTO).pixels for attack in attacks(["jpeg:40,41,42", "jpeg444:90"])]
    which = [
        [torch.equal((each * 255).round().byte(), pixels) for pixels in known].index(True)
        for each in through
    ]
    assert set(which) == {0, 1, 2, 3}
    torch.manual_seed(1)
    first = carrier.pixels(x)
    torch.manual_seed(1)
    assert torch.equal(carrier.pixels(x), first)
    assert first.dtype == torch.uint8


def test_gradients_are_those_of_the_stand_in(monkeypatch):
    """And the numbers those of the real codec."""
    x = (torch.rand(2, 3, 24, 32) * 0.8 + 0.1).requires_grad_()
    monkeypatch.setitem(smooth._SMOOTH, "jpeg", lambda pictures, _: [2 * p for p in pictures])
    carrier = carrier_of(["jpeg:50"])
    out = carrier.through(x)
    out.sum().backward()
    assert torch.equal(x.grad, torch.full_like(x, 2))
    assert torch.equal(out.detach(), carrier.pixels(x).float() / 255)
    carrier_of(["resize:0.5"]).through(x).square().sum().backward()
    assert not torch.equal(x.grad, torch.full_like(x, 2))


def test_the_stand_in_is_near_the_real_codec():
    x = BLOCK[None].float() / 255
    for texts in (["jpeg:50"], ["jpeg:90"], ["resize:0.5+jpeg:75"]):
        (attack,) = attacks(texts)
        for pixels in (x, x[:, :1]):
            soft = smooth.smoothed(pixels, [attack])
            real = attack((pixels[0] * 255).byte()).pixels
            assert psnr(soft[0], real.float() / 255) > 26
    mixed = attacks(["jpeg:90", "resize:0.5+jpeg:75", "jpeg444:90"])
    y = x.repeat(3, 1, 1, 1).requires_grad_()
    smooth.smoothed(y, mixed).square().sum().backward()
    assert all(float(each.abs().sum()) > 0 for each in y.grad)


def test_colours_have_the_gradient_of_their_halves_and_the_luma_its_own():
    """JPEG at the best quality does to both what the stand-in does, also where sides are odd."""
    x = PHOTO[None].float() / 255
    (best,) = attacks(["jpeg:100"])
    assert psnr(smooth.smoothed(x, [best])[0], best(PHOTO).pixels.float() / 255) > 42
    grey = x.mean(1, keepdim=True).expand(-1, 3, -1, -1).clone().requires_grad_()
    out = smooth.smoothed(grey, [best])
    assert torch.allclose(out, grey, atol=1e-6)
    checks = (
        torch.ones(1, 3, 64, 90).cumsum(3).remainder(2) * torch.tensor([1.0, 0, 0])[:, None, None]
    )
    luma = checks * torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    mean_of_colours = 0.5 * (torch.tensor([1.0, 0, 0]) - 0.299)
    expected = luma.sum(1, keepdim=True) + mean_of_colours[:, None, None]
    assert torch.allclose(smooth.smoothed(checks, [best]), expected, atol=1e-6)


# --------------------------------------------------------------------------------------- training


def test_a_training_through_jpeg_says_so_and_is_judged_so(tmp_path, monkeypatch):
    photos = photographs.write(tmp_path / "photos")
    monkeypatch.setitem(smooth._SMOOTH, "jpeg", smooth._same)
    name = "rescaling-x2-jpeg-naive-tiny"
    assert PRESETS[name].recipe["through"] == ("jpeg:30-95",)
    command = [
        "train", name, "--data", str(photos), "--steps", "1", "--batch", "1", "--crop", "16",
        "--held-out", "1",
    ]  # fmt: skip
    assert cli.main([*command, "-o", str(tmp_path / "out")]) == 0
    model = from_pretrained(tmp_path / "out")
    assert model.through == ("jpeg:30-95",)
    parser = argparse.ArgumentParser()
    Settings.add_arguments(parser)
    assert parser.parse_args(["--through"]).through == []
    assert Settings(preset=name, through=()).carrier is CARRIER
    for wrong in ("jpeg", "crop:0.5"):
        with pytest.raises(WICArgumentError, match="what"):
            Settings(preset=name, through=(wrong,))
    # what the objective runs back, and judging too, is what came out of the codec
    task = TASKS["rescaling-x2"]
    settings = Settings(preset=name, through=("jpeg:20",))
    x = BLOCK[None].float() / 255
    seen = []
    monkeypatch.setattr(model, "inverse", lambda y: seen.append(y) or x)
    settings.objective(task)(model, x, task.reference(x))
    judged = Judgement(model, task, x, carrier=settings.carrier)
    expected = attacks(["jpeg:20"])[0](CARRIER.pixels(model(x))[0]).pixels.float() / 255
    assert torch.equal(judged.forward, CARRIER.through(model(x)).detach())
    for arrived in seen:
        assert torch.equal(arrived[0].detach(), expected)


# ------------------------------------------------------------------------------------------ files


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Weights that say they were trained through JPEG, and photographs."""
    folder = tmp_path_factory.mktemp("jpeg")
    shared = {"couplings": 1, "growth": 4, "completion": "zero", "modules": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, model in {
            "hide": WIN(6, 3, scale=1, width=32, **shared),
            "down": WIN(3, 3, scale=2, width=16, **shared),
            "gray": WIN(3, 1, scale=1, width=16, **shared),
        }.items():
            model.through = ("jpeg:75-95",)
            model.save_pretrained(folder / name)
            model.through = ()
            model.save_pretrained(folder / f"{name}-png")
    Image.fromarray(PHOTO.permute(1, 2, 0).numpy()).save(folder / "photo.png")
    Image.fromarray(BLOCK[:, :50, :60].permute(1, 2, 0).numpy()).save(folder / "secret.png")
    return folder


@pytest.mark.parametrize("verb", ["hide", "down", "gray"])
def test_jpeg_files_bring_back_what_they_hold(folders, tmp_path, verb, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    weights = folders / verb
    inputs = [str(folders / "photo.png")] + [str(folders / "secret.png")] * (verb == "hide")
    size = "60x50" if verb == "hide" else "91x65"
    back = {"hide": "reveal", "down": "up", "gray": "color"}[verb]
    made = [verb, *inputs, "-o", "a.jpg", "--weights", str(weights)]
    assert cli.main([*made, "--quality", "80"]) == 0
    line = capsys.readouterr().out
    arrived, chunk = read_carrier("a.jpg", lossy=True)
    # the mark says what the pixels of the JPEG are
    network = from_pretrained(weights)
    assert Mark.loads(split(chunk)["mark"]).weights == network.weights_id
    task = next(each for each in TASKS.values() if each.name == network.task or (
        network.task is None and each.channels[:2] == (network.config["in_channels"],
        network.config["out_channels"]) and each.scale == network.config["scale"]
    ))  # fmt: skip
    images = [read_image(path) for path in inputs]
    made_of = forward_pixels(task, network, task.packed(*images))
    assert torch.equal(arrived[: len(made_of)], attacks(["jpeg:80"])[0](made_of).pixels)
    width, height = map(int, size.split("x"))
    (expected,) = backward_pixels(task, network, arrived[: task.out_channels], [(width, height)])
    assert cli.main([back, "a.jpg", "-o", "b.png", "--weights", str(weights)]) == 0
    assert "warning" not in capsys.readouterr().err
    assert torch.equal(read_image("b.png"), expected)
    assert f"{psnr(expected, images[-1]):.2f} dB" in line
    # a messenger strips the mark and saves again
    Image.open("a.jpg").save("sent.jpg", quality=90)
    assert cli.main([back, "sent.jpg", "-o", "no.png", "--weights", str(weights)]) == 2
    assert "--size 92x66" in capsys.readouterr().err
    known = ["--weights", str(weights), "--size", size]
    assert cli.main([back, "sent.jpg", "-o", "c.png", *known]) == 0
    assert "had been a JPEG" not in capsys.readouterr().err  # which is no doubt here
    assert read_image("c.png").shape == expected.shape
    # one that keeps it: it comes back with a word of warning
    own = segments(chunk)
    Image.open("a.jpg").save("kept.jpg", quality=70, extra=own)
    assert cli.main([back, "kept.jpg", "-o", "d.png", "--weights", str(weights)]) == 0
    assert "saved again" in capsys.readouterr().err
    # the quality is that of the file, and 90 by itself; in folders too
    assert cli.main([*made, "--force"]) == 0
    other = read_carrier("a.jpg", lossy=True)[0]
    assert torch.equal(other[: len(made_of)], attacks(["jpeg:90"])[0](made_of).pixels)
    made[made.index("a.jpg")] = "many/"
    assert cli.main([*made, "--quality", "80"]) == 0
    assert torch.equal(read_carrier("many/photo.jpg", lossy=True)[0], arrived)


def test_jpeg_is_refused_where_weights_were_not_trained_for_it(folders, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    photo, trained, plain = folders / "photo.png", folders / "down", folders / "down-png"
    jpeg = r"wic train rescaling-x2-jpeg-naive-small|--preset rescaling-x2-jpeg-naive-small"
    with pytest.raises(WICFileError, match=f"lossy compression.*({jpeg})"):
        tasks.down_file(photo, "a.jpg", model=plain)
    if "rescaling-x2-jpeg-naive-small" not in packaged_weights():
        with pytest.raises(WICFileError, match="lossy compression"):
            tasks.down_file(photo, "a.jpg")
    Image.open(photo).save("b.jpg")
    for model in (None, plain):
        with pytest.raises(WICFileError, match=f"is a JPEG file.*({jpeg})"):
            tasks.up_file("b.jpg", "c.png", model=model, size=(182, 130))
    for out, quality, match in (
        ("a.png", 80, "a quality for a JPEG alone"),
        ("a.jpg", 0, "from 1 to 100"),
    ):
        with pytest.raises(WICArgumentError, match=match):
            tasks.down_file(photo, out, model=trained, quality=quality)
    image = Image.open(photo).convert("RGBA")
    image.putalpha(99)
    image.save("clear.png")
    with pytest.raises(WICFileError, match="JPEG has no transparency"):
        tasks.down_file("clear.png", "a.jpg", model=trained)
    with pytest.raises(WICFileError, match="lossy compression"):
        tasks.pack_file("stereo", [photo, photo], "a.jpg")


def test_segments_hold_any_content_and_only_their_own():
    content = bytes(range(256)) * 600  # of three segments

    def opened(extra):
        buffer = io.BytesIO()
        Image.new("RGB", (8, 8)).save(buffer, "JPEG", extra=extra)
        return Image.open(buffer)

    whole = segments(content)
    assert own_content(opened(whole)) == content
    assert own_content(opened(segments(b""))) == b""
    assert own_content(opened(b"\xff\xea\x00\x06abcd")) is None
    first = 4 + int.from_bytes(whole[2:4], "big") - 2
    for damaged in (whole[first:], whole[:first] * 2, b"\xff\xea\x00\x0dwic-layers\0"):
        with pytest.raises(ValueError, match="segments"):
            own_content(opened(damaged))


# -------------------------------------------------------------------------------------- judging


def test_eval_through_judges_what_arrives(folders, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    shutil.copy(folders / "photo.png", tmp_path / "set")
    words = ["eval", str(folders / "down"), str(tmp_path / "set")]
    through = ["--through", "jpeg:70", "crop:0.5", "--csv", str(tmp_path / "a.csv")]
    assert cli.main([*words, *through]) == 0
    shown = capsys.readouterr().out
    assert "| restored, jpeg:70 |" in shown
    with (tmp_path / "a.csv").open() as file:
        rows = {row["what"]: row for row in csv.DictReader(file)}
    task, network = TASKS["rescaling-x2"], from_pretrained(folders / "down")
    photo = PHOTO[:, :64, :90]
    picture = forward_pixels(task, network, photo)
    for name in ("jpeg:70", "crop:0.5"):
        arrived = attacks([name])[0](picture)
        left, top, width, height = (2 * each for each in arrived.box)
        part = photo[:, top : top + height, left : left + width]
        (back,) = backward_pixels(task, network, arrived.pixels, [(width, height)])
        expected = compare("", back[:, 2:-2, 2:-2], part[:, 2:-2, 2:-2])
        assert float(rows[f"restored, {name}"]["psnr_y"]) == pytest.approx(expected.psnr_y)
    assert float(rows["small, jpeg:70"]["size"]) == attacks(["jpeg:70"])[0](picture).size
    assert float(rows["small, png"]["size"]) > float(rows["small, jpeg:70"]["size"])
    small = as_pixels(
        Image.fromarray(photo.permute(1, 2, 0).numpy()).resize((45, 32), Image.BICUBIC)
    )
    size = float(rows["restored by bicubic, jpeg:70"]["size"])
    assert size == saved(small, format="JPEG", quality=70)[1]
    assert cli.main([*words, "--through", "jpeg:70-80"]) == 2
    assert "single numbers" in capsys.readouterr().err


def test_generations_are_counted_from_the_original(folders, tmp_path, capsys):
    (tmp_path / "set").mkdir()
    shutil.copy(folders / "photo.png", tmp_path / "set")
    words = ["eval", str(folders / "down"), str(tmp_path / "set"), "--generations", "3"]
    assert cli.main([*words, "--csv", str(tmp_path / "a.csv")]) == 0
    assert "bicubic, to the one before" in capsys.readouterr().out
    with (tmp_path / "a.csv").open() as file:
        rows = {(row["way"], int(row["number"])): row for row in csv.DictReader(file)}
    network = from_pretrained(folders / "down")
    photo = PHOTO[:, :64, :90]
    before = photo
    for number in (1, 2, 3):
        now = tasks.up(tasks.down(before, model=network), model=network)
        row = rows["network", number]
        assert float(row["first"]) == pytest.approx(psnr(now, photo))
        assert float(row["previous"]) == pytest.approx(psnr(now, before))
        before = now
    again = saved(saved(photo, format="JPEG", quality=90)[0], format="JPEG", quality=90)[0]
    assert float(rows["jpeg:90", 2]["first"]) == pytest.approx(psnr(again, photo))
    assert cli.main([*words, "--through", "jpeg:90"]) == 2


# -------------------------------------------------------------------------------- other programs


def image_magick():
    """Its program, whose older name other programs have too, or None."""
    for name in ("magick", "convert-im6.q16", "convert"):
        program = shutil.which(name)
        if program is not None:
            said = subprocess.run([program, "-version"], capture_output=True, text=True)
            if "ImageMagick" in said.stdout:
                return program
    return None


def test_what_another_program_saves_as_jpeg_gives_the_secret_back(tmp_path, monkeypatch):
    """ImageMagick knows nothing of us: it writes pixels, and no mark."""
    preset = "hiding-1-jpeg-naive-small"
    program = image_magick()
    if preset not in packaged_weights() or program is None:
        pytest.skip(f"needs the weights of {preset}, and ImageMagick")
    monkeypatch.chdir(tmp_path)
    for name, image in (("cover", data.coffee()[:256, :320]), ("secret", data.chelsea()[:200, :])):
        Image.fromarray(image).resize((320, 256)).save(f"{name}.png")
    tasks.hide_file("cover.png", ["secret.png"], "stego.png", model=preset)
    subprocess.run([program, "stego.png", "-quality", "90", "sent.jpg"], check=True)
    tasks.reveal_file("sent.jpg", "back.png", model=preset, sizes=[(320, 256)])
    assert psnr(read_image("back.png"), read_image("secret.png")) >= 27
