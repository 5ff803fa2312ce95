"""What ``wic eval`` prints: figures that others' tools give too, of the pictures in the files."""

import csv
import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from wic_layers import cli, tasks
from wic_layers.codec.running import load_network
from wic_layers.errors import WICArgumentError
from wic_layers.evaluation.command import table
from wic_layers.evaluation.metrics import Row, compare
from wic_layers.evaluation.protocol import evaluate, mean_rows
from wic_layers.models import WIN, from_pretrained
from wic_layers.pictures import as_pixels, read_image, size_of


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two photographs of odd sizes, and weights that were not trained."""
    folder = tmp_path_factory.mktemp("images")
    (folder / "set").mkdir()
    Image.fromarray(data.chelsea()[60:125, 100:191]).save(folder / "set" / "a.png")
    Image.fromarray(data.astronaut()[60:151, 200:265]).save(folder / "set" / "b.png")
    shared = {"couplings": 1, "growth": 4, "completion": "zero", "modules": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WIN(9, 3, scale=1, width=48, **shared).save_pretrained(folder / "hiding")
        WIN(3, 3, scale=2, width=16, **shared).save_pretrained(folder / "rescaling")
        WIN(3, 1, scale=1, width=16, **shared).save_pretrained(folder / "grey")
    return folder


def pictures():
    """What a picture was and what became of it: dark, bright, flat, noisy, blurred."""
    random = np.random.default_rng(0)
    photo, cat = data.astronaut()[:128, :160], data.chelsea()[:80, :97]

    def noisy(x, level):
        x = np.array(x, dtype=np.uint8)
        return x, (x + random.normal(0, level, x.shape)).round().clip(0, 255).astype(np.uint8)

    return {
        "blurred": (cat, np.asarray(Image.fromarray(cat).resize((40, 30)).resize((97, 80)))),
        "noisy": noisy(photo, 20),
        "slightly noisy": noisy(photo, 6),
        "dark": noisy(photo // 8, 3),
        "bright": noisy(200 + photo // 5, 3),
        "black": noisy(0 * photo, 1),
        "flat": noisy(0 * photo + 128, 0.4),
        "white": noisy(0 * photo + 253, 1),
    }


@pytest.mark.parametrize("kind", list(pictures()))
def test_metrics_are_those_of_scikit_image(kind):
    a, b = pictures()[kind]
    row = compare("x", *(torch.from_numpy(x.copy()).permute(2, 0, 1) for x in (b, a)))
    gaussian = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    assert row.psnr_rgb == pytest.approx(peak_signal_noise_ratio(a, b), abs=1e-9)
    _, ssim = structural_similarity(a, b, channel_axis=2, full=True, **gaussian)
    assert row.ssim_rgb == pytest.approx(ssim[5:-5, 5:-5].mean(), abs=1e-9)
    lumas = [rgb2ycbcr(x)[..., 0] for x in (a, b)]
    assert row.psnr_y == pytest.approx(peak_signal_noise_ratio(*lumas, data_range=255), abs=1e-9)
    _, ssim = structural_similarity(*lumas, data_range=255, full=True, **gaussian)
    assert row.ssim_y == pytest.approx(ssim[5:-5, 5:-5].mean(), abs=1e-9)
    floats = [torch.from_numpy(x / 255).permute(2, 0, 1).float() for x in (b, a)]
    for name in ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y"):
        assert getattr(compare("x", *floats), name) == pytest.approx(getattr(row, name), abs=1e-4)


def test_small_and_grey_pictures():
    x = torch.zeros(3, 5, 40, dtype=torch.uint8)
    row = compare("x", x, x)
    assert row.psnr_rgb == float("inf")
    assert np.isnan(row.ssim_rgb)
    grey = compare("x", x[:1], x[:1] + 1)
    assert grey.psnr_rgb == pytest.approx(48.1308, abs=1e-4)
    assert grey.psnr_y is grey.ssim_y is None


@pytest.mark.parametrize("name", ["rescaling", "hiding", "grey"])
def test_rows_are_of_the_pictures_that_commands_write(folder, name, tmp_path):
    paths = sorted((folder / "set").iterdir())
    images = [read_image(path) for path in paths]
    task, network = load_network(list(tasks.TASKS.values()), folder / name)
    rows = {row.what: row for row in next(evaluate(task, network, [*images, images[0]]))}
    assert len({float(row.psnr_rgb) for row in rows.values()}) > 3
    out = tmp_path / "out.png"
    if name == "rescaling":
        whole = images[0][:, :64, :90]
        small = tasks.down(whole, model=network)
        back = tasks.up(small, model=network)
        expected = compare("restored", back[:, 2:-2, 2:-2], whole[:, 2:-2, 2:-2])
        assert rows["restored"] == expected
        picture = Image.fromarray(whole.permute(1, 2, 0).numpy())
        bicubic = picture.resize((45, 32), Image.Resampling.BICUBIC)
        assert rows["small"].psnr_rgb == compare("", small, as_pixels(bicubic)).psnr_rgb
        assert rows["restored by bicubic"].psnr_rgb > 20
    elif name == "hiding":
        written = tasks.hide_file(paths[0], [paths[1]] * 2, out, model=folder / name, fit=True)
        assert written.size == (92, 66)
        turned = images[1].transpose(1, 2)
        stego = tasks.hide(images[0], [turned, images[0]], model=network)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            back = tasks.reveal(stego, sizes=[(91, 65)] * 2, model=network)
        assert rows["stego"].psnr_rgb == compare("", stego[:, :65, :91], images[0]).psnr_rgb
        assert rows["secret 1"].psnr_rgb == compare("", back[0], turned).psnr_rgb
        assert rows["secret 2"].psnr_rgb == compare("", back[1], images[0]).psnr_rgb
    else:
        written = tasks.gray_file(paths[0], out, model=folder / name)
        assert rows["grey"].psnr_rgb == pytest.approx(written.psnr, abs=1e-4)
        assert rows["coloured"].psnr_rgb == pytest.approx(written.psnr_back[0], abs=1e-4)
        size = 91 * 65
        plain = tmp_path / "plain.png"
        Image.open(out).save(plain)
        assert rows["grey"].bits == pytest.approx(8 * plain.stat().st_size / size, rel=0.05)


def test_means_and_table():
    rows = [[Row("a", 30.0, 0.9, 31.0, 0.91, 8.0)], [Row("a", 40.0, 0.7, 33.0, 0.93, 10.0)]]
    (mean,) = mean_rows(rows)
    assert (mean.psnr_rgb, mean.psnr_y, mean.bits) == (35.0, 32.0, 9.0)
    assert mean.ssim_rgb == pytest.approx(0.8)
    beside = Row("a, float", 36.0, 0.81, 34.0, 0.94)
    lines = table("Set, 2 images", [mean, beside, Row("grey", 30.0, 0.5)]).splitlines()
    assert lines[0].startswith("| Set, 2 images | PSNR RGB | float | SSIM RGB | float | PSNR Y |")
    assert lines[2] == (
        "| a | 35.00 | 36.00 | 0.8000 | 0.8100 | 32.00 | 34.00 | 0.9200 | 0.9400 | 9.00 |"
    )
    assert lines[3] == "| grey | 30.00 |  | 0.5000 |  |  |  |  |  |  |"
    assert len({line.count("|") for line in lines}) == 1


def test_identical_pictures_leave_the_others_their_mean():
    """Which would be infinite; how many they were stands beside it, and in the CSV."""
    x = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    y = x ^ 1
    rows = [[compare("a", found, x)] for found in (x, y, x, y ^ 2)]
    assert [row.identical for (row,) in rows] == [1, 0, 1, 0]
    (mean,) = mean_rows(rows)
    assert mean.identical == 2
    for name in ("psnr_rgb", "psnr_y"):
        finite = [getattr(rows[index][0], name) for index in (1, 3)]
        assert getattr(mean, name) == pytest.approx(sum(finite) / 2)
    for name in ("ssim_rgb", "ssim_y"):
        whole = [getattr(row, name) for (row,) in rows]
        assert getattr(mean, name) == pytest.approx(sum(whole) / 4)
    line = table("Set", [mean]).splitlines()[2]
    assert f"| {mean.psnr_rgb:.2f} (2 identical) |" in line
    assert f"| {mean.psnr_y:.2f} (2 identical) |" in line
    assert line.count("identical") == 2
    (all_of_them,) = mean_rows([rows[0], rows[2]])
    assert (all_of_them.psnr_rgb, all_of_them.psnr_y, all_of_them.identical) == (np.inf, np.inf, 2)
    assert "| inf |" in table("Set", [all_of_them])


def test_the_command(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    out = tmp_path / "rows.csv"
    words = ["eval", "rescaling", "set", "--reduce", "2", "--csv", str(out)]
    assert cli.main(words) == 0
    printed = capsys.readouterr().out
    assert "set reduced by 2, 2 images" in printed
    assert "| restored by bicubic |" in printed
    assert "| restored, second time from the first |" in printed
    with out.open(newline="", encoding="utf-8") as file:
        found = list(csv.DictReader(file))
    assert {row["image"] for row in found} == {"a.png", "b.png"}
    assert {row["identical"] for row in found} == {"0"}
    stated = json.loads((folder / "rescaling" / "config.json").read_text())["sha256"]
    assert stated[:16] in printed
    assert cli.main(words) == 2
    assert "exists; choose another name" in capsys.readouterr().err
    assert cli.main([*words, "--force", "--tile", "16"]) == 0
    assert cli.main(["eval", "rescaling", "set", "--reduce", "0"]) == 2
    assert cli.main(["eval", "rescaling", "nowhere"]) == 2
    assert "nowhere is not a folder" in capsys.readouterr().err


def test_bicubic_is_the_papers(folder):
    """The protocol that the paper's tables have; here on one photograph."""
    image = read_image(folder / "set" / "a.png")
    assert size_of(image) == (91, 65)
    task, network = load_network(list(tasks.TASKS.values()), folder / "rescaling")
    rows = {row.what: row for row in next(evaluate(task, network, [image]))}
    whole = Image.fromarray(image[:, :64, :90].permute(1, 2, 0).numpy())
    again = whole.resize((45, 32), 3).resize((90, 64), 3)
    expected = peak_signal_noise_ratio(
        np.asarray(whole)[2:-2, 2:-2], np.asarray(again)[2:-2, 2:-2]
    )
    assert rows["restored by bicubic"].psnr_rgb == pytest.approx(expected, abs=1e-4)


def test_a_halved_clip_is_judged_by_its_middle_frame():
    """With the weights of the package it is far nearer to that than to its neighbours."""
    task, coffee = tasks.TASKS["clip-3-x2"], as_pixels(data.coffee())[:, :200, 150:450]
    (rows,) = evaluate(task, from_pretrained(task.preset), [coffee])
    assert rows[0].what == "middle frame"
    assert rows[0].psnr_rgb > 30
    neighbours = task.compose(coffee[None].float() / 255)[::2]
    small = [task.reference(frame)[0] for frame in neighbours]
    assert compare("", *small).psnr_rgb < 28


def test_images_that_are_too_small_are_left_out(folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "some").mkdir()
    for path in (folder / "set").iterdir():
        (tmp_path / "some" / path.name).write_bytes(path.read_bytes())
    Image.new("RGB", (10, 10)).save(tmp_path / "some" / "icon.png")
    Image.new("RGB", (1, 1)).save(tmp_path / "some" / "point.png")
    monkeypatch.chdir(tmp_path / "some")
    weights = str(folder / "rescaling")
    assert cli.main(["eval", weights, "."]) == 0
    printed = capsys.readouterr()
    assert "| some, 2 images |" in printed.out
    assert "nan" not in printed.out
    assert "icon.png, 10x10, is left out: rescaling-x2 is judged from 22x22 on" in printed.err
    assert cli.main(["eval", weights, ".", "--reduce", "100"]) == 2
    assert "at least 22x22 to judge; got none" in capsys.readouterr().err


def test_places_for_the_rows_are_checked_first(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("wic_layers.evaluation.command.evaluate", None)  # not reached
    given = ["eval", str(folder / "rescaling"), str(folder / "set"), "--force", "--csv"]
    image = folder / "set" / "a.png"
    before = image.read_bytes()
    for place, message in (
        (tmp_path / "none" / "x.csv", "there is no folder"),
        (tmp_path, "is a folder"),
        (image, "is an input too"),
    ):
        assert cli.main([*given, str(place)]) == 2
        assert message in capsys.readouterr().err
    assert image.read_bytes() == before


def test_a_picture_is_not_judged_hidden_in_itself(folder):
    task, network = load_network(list(tasks.TASKS.values()), folder / "hiding")
    with pytest.raises(WICArgumentError, match="at least 3 images to judge hiding-2"):
        next(evaluate(task, network, [torch.zeros(3, 32, 32, dtype=torch.uint8)]))
