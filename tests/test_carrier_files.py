"""Files that are JPEG, and what arrives of them: by us, by messengers, by other programs."""

import csv
import io
import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

from tests import photographs
from wic_layers import cli, tasks
from wic_layers.codec.attacks import attacks
from wic_layers.codec.mark import Mark
from wic_layers.codec.parts import split
from wic_layers.codec.running import backward_pixels, forward_pixels
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.evaluation.metrics import compare
from wic_layers.models import WIN, from_pretrained, packaged_weights
from wic_layers.pictures import as_pixels, psnr, read_carrier, read_image
from wic_layers.pictures.jpeg import own_content, segments
from wic_layers.tasks import TASKS

PHOTO = as_pixels(data.astronaut()[60:125, 180:271])  # 91x65
BLOCK = as_pixels(data.astronaut()[:64, 180:276])  # 96x64


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
    assert size == photographs.saved(small, format="JPEG", quality=70)[1]
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
    once, _ = photographs.saved(photo, format="JPEG", quality=90)
    again, _ = photographs.saved(once, format="JPEG", quality=90)
    assert float(rows["jpeg:90", 2]["first"]) == pytest.approx(psnr(again, photo))
    assert cli.main([*words, "--through", "jpeg:90"]) == 2


# -------------------------------------------------------------------------------- other programs


def by_image_magick(source, target):
    """Saves a picture by its program, whose older name other programs have too."""
    for name in ("magick", "convert-im6.q16", "convert"):
        program = shutil.which(name)
        if program is not None:
            said = subprocess.run([program, "-version"], capture_output=True, text=True)
            if "ImageMagick" in said.stdout:
                subprocess.run([program, source, "-quality", "90", target], check=True)
                return
    pytest.skip("needs ImageMagick")


def by_ffmpeg(source, target):
    """Saves a picture by FFmpeg's own encoder, in about as many bytes as libjpeg's at 90."""
    av = pytest.importorskip("av")
    image = Image.open(source)
    codec = av.CodecContext.create("mjpeg", "w")
    codec.width, codec.height = image.size
    codec.pix_fmt, codec.color_range, codec.time_base = "yuvj420p", 2, Fraction(1, 25)
    codec.qmin = codec.qmax = 2
    frame = av.VideoFrame.from_image(image).reformat(format="yuvj420p", dst_color_range=2)
    packets = codec.encode(frame) + codec.encode(None)
    Path(target).write_bytes(b"".join(bytes(packet) for packet in packets))


@pytest.mark.parametrize("save", [by_image_magick, by_ffmpeg])
def test_what_another_program_saves_as_jpeg_gives_the_secret_back(save, tmp_path, monkeypatch):
    """Other programs know nothing of us: they write pixels, and no mark."""
    preset = "hiding-1-jpeg-naive-small"
    if preset not in packaged_weights():
        pytest.skip(f"needs the weights of {preset}")
    monkeypatch.chdir(tmp_path)
    for name, image in (("cover", data.coffee()[:256, :320]), ("secret", data.chelsea()[:200, :])):
        Image.fromarray(image).resize((320, 256)).save(f"{name}.png")
    tasks.hide_file("cover.png", ["secret.png"], "stego.png", model=preset)
    save("stego.png", "sent.jpg")
    assert Image.open("sent.jpg").format == "JPEG"
    tasks.reveal_file("sent.jpg", "back.png", model=preset, sizes=[(320, 256)])
    assert psnr(read_image("back.png"), read_image("secret.png")) >= 27
