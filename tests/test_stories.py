"""What a newcomer types, with the weights of the package, on scikit-image's photographs.

Every command runs in a process of its own, in a folder that holds nothing but its files; most are
copies of this one, which take no seconds to start.
"""

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import processes
import pytest
import torch
from PIL import Image, ImageEnhance
from skimage import data

import wic_layers
from wic_layers import tasks
from wic_layers.codec.running import load_network
from wic_layers.models import from_pretrained, packaged_weights
from wic_layers.pictures import as_kind, as_pixels

ROOT = Path(wic_layers.__file__).parents[1]


def started(*words, folder, threads="2"):
    """As a shell starts it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": threads}
    return subprocess.run(
        [sys.executable, "-m", "wic_layers", *words],
        env=environment, cwd=folder, capture_output=True, text=True,
    )  # fmt: skip


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(np.float64)


def psnr(a, b):
    return 10 * np.log10(255**2 / np.mean((a - b) ** 2))


wic = processes.wic if hasattr(os, "fork") else started


@pytest.fixture
def photographs(tmp_path):
    """cover.png and secret.png, of odd sizes, and a folder where nothing else is."""
    Image.fromarray(data.astronaut()[20:221, 100:343]).save(tmp_path / "cover.png")
    Image.fromarray(data.coffee()[100:259, 60:261]).save(tmp_path / "secret.png")
    (tmp_path / "elsewhere").mkdir()
    return tmp_path


def test_install_and_trust(tmp_path):
    done = wic("selftest", folder=tmp_path)
    assert done.returncode == 0
    assert re.search(r"float32.*\d", done.stdout)


def test_hide_and_reveal_files(photographs):
    done = started("hide", "cover.png", "secret.png", "-o", "stego.png", folder=photographs)
    assert (done.returncode, done.stderr) == (0, "")
    said = [float(number) for number in re.findall(r"([\d.]+) dB PSNR", done.stdout)]
    elsewhere = photographs / "elsewhere"
    shutil.move(photographs / "stego.png", elsewhere / "stego.png")
    # with as many threads as this process has: other orders of additions round ties otherwise
    threads = str(torch.get_num_threads())
    done = started("reveal", "stego.png", "-o", "out.png", folder=elsewhere, threads=threads)
    assert (done.returncode, done.stderr) == (0, "")
    cover, secret = (pixels(photographs / f"{name}.png") for name in ("cover", "secret"))
    stego = pixels(elsewhere / "stego.png")
    assert stego.shape == (202, 244, 3)
    found = psnr(stego[:201, :243], cover), psnr(pixels(elsewhere / "out.png"), secret)
    assert said == pytest.approx(found, abs=0.006)
    assert min(found) > 36
    # in this process, in memory, the same pixels come back
    (back,) = tasks.reveal(Image.open(elsewhere / "stego.png"), sizes=[(201, 159)])
    assert np.array_equal(np.asarray(back), pixels(elsewhere / "out.png"))
    # JPEG is for the weights that were trained for it, which it takes by itself
    hiding = ("hide", "cover.png", "secret.png", "-o", "stego.jpg")
    done = wic(*hiding, "--preset", "hiding-1-naive-small", folder=photographs)
    assert done.returncode == 2
    assert "lossy compression, which destroys what it holds" in done.stderr
    assert wic(*hiding, folder=photographs).returncode == 0
    assert wic("reveal", "stego.jpg", "-o", "coarse.png", folder=photographs).returncode == 0
    assert psnr(pixels(photographs / "coarse.png"), secret) > 26


@pytest.mark.parametrize(("scale", "least"), [("2", 33), ("4", 25)])
def test_down_and_up(photographs, scale, least):
    done = wic("down", "cover.png", "-s", scale, "-o", "lr.png", folder=photographs)
    assert (done.returncode, done.stderr) == (0, "")
    elsewhere = photographs / "elsewhere"
    shutil.move(photographs / "lr.png", elsewhere / "lr.png")
    assert wic("up", "lr.png", "-o", "rec.png", folder=elsewhere).returncode == 0
    cover, restored = pixels(photographs / "cover.png"), pixels(elsewhere / "rec.png")
    assert restored.shape == (201, 243, 3)
    small = Image.open(elsewhere / "lr.png")
    interpolated = small.resize((243, 201), Image.Resampling.BICUBIC)
    assert psnr(restored, cover) > least
    assert psnr(restored, cover) > psnr(np.asarray(interpolated).astype(float), cover) + 1
    # as a JPEG, which at x2 takes weights that were trained for it, and beats bicubic's
    done = wic("down", "cover.png", "-s", scale, "-o", "lr.jpg", folder=photographs)
    assert done.returncode == (0 if scale == "2" else 2)
    if scale == "2":
        assert wic("up", "lr.jpg", "-o", "rec.png", folder=photographs).returncode == 0
        Image.open(photographs / "cover.png").resize((122, 101), Image.Resampling.BICUBIC).save(
            photographs / "plain.jpg", quality=90
        )
        plain = Image.open(photographs / "plain.jpg").resize((243, 201), Image.Resampling.BICUBIC)
        found = psnr(pixels(photographs / "rec.png"), cover)
        assert found > psnr(np.asarray(plain).astype(float), cover) + 1
    done = wic("down", "cover.png", "-s", "3", "-o", "no.png", folder=photographs)
    assert done.returncode == 2
    assert "-s 3 is not available without --weights" in done.stderr


def test_decolorize(photographs):
    assert wic("gray", "cover.png", "-o", "g.png", folder=photographs).returncode == 0
    with Image.open(photographs / "g.png") as image:
        assert (image.mode, image.size) == ("L", (244, 202))
    elsewhere = photographs / "elsewhere"
    shutil.move(photographs / "g.png", elsewhere / "g.png")
    assert wic("color", "g.png", "-o", "c.png", folder=elsewhere).returncode == 0
    cover, coloured = pixels(photographs / "cover.png"), pixels(elsewhere / "c.png")
    assert coloured.shape == cover.shape
    assert psnr(coloured, cover) > 30


@pytest.mark.parametrize("secrets", [2, 3, 4])
def test_hide_several(photographs, secrets):
    names = ["secret.png", "cover.png", "secret.png", "cover.png"][:secrets]
    done = wic("hide", "cover.png", *names, "-o", "stego.png", folder=photographs)
    assert (done.returncode, done.stderr) == (0, "")
    assert wic("reveal", "stego.png", "-o", "out.png", folder=photographs).returncode == 0
    for index, name in enumerate(names, start=1):
        found, original = (pixels(photographs / each) for each in (f"out-{index}.png", name))
        assert found.shape == original.shape
        assert psnr(found, original) > 20
    assert (
        psnr(pixels(photographs / "stego.png")[:201, :243], pixels(photographs / "cover.png")) > 24
    )


@pytest.mark.parametrize("command", ["reveal", "up"])
def test_pictures_of_something_else_are_doubted(photographs, command):
    """Nothing is hidden in a photograph; its pixels tell, where its file cannot."""
    photo = Image.fromarray(data.chelsea()[:200, :242])
    signs = r"looks like|even grey|no traces|had been a JPEG"
    with pytest.warns(wic_layers.errors.WICWarning, match=signs):
        tasks.reveal(photo) if command == "reveal" else tasks.up(photo)
    words = ["--preset", tasks.TASKS["hiding-1" if command == "reveal" else "rescaling-x2"].preset]
    photo.save(photographs / "p.png")
    size = "242x200" if command == "reveal" else "484x400"
    done = wic(command, "p.png", "-o", "o.png", *words, "--size", size, folder=photographs)
    assert done.returncode == 0
    assert done.stderr.startswith("wic: warning: ")


def test_a_wrong_number_of_secrets_is_doubted(photographs):
    cover, secret = (Image.open(photographs / f"{name}.png") for name in ("cover", "secret"))
    stego = tasks.hide(cover, [secret])
    for secrets in (2, 4):
        with pytest.warns(wic_layers.errors.WICWarning, match="not so many secrets"):
            tasks.reveal(stego, secrets=secrets)


def test_secrets_that_are_alike_are_not_doubted(photographs):
    cover, secret = (Image.open(photographs / f"{name}.png") for name in ("cover", "secret"))
    darker = ImageEnhance.Brightness(secret).enhance(0.8)
    stego = tasks.hide(cover, [secret, darker])
    with warnings.catch_warnings():
        warnings.simplefilter("error", wic_layers.errors.WICWarning)
        tasks.reveal(stego, secrets=2)


def test_dark_and_pale_secrets_are_not_doubted(photographs):
    cover, secret = (Image.open(photographs / f"{name}.png") for name in ("cover", "secret"))
    dark = ImageEnhance.Brightness(secret).enhance(0.1)
    light = Image.fromarray(220 + np.asarray(dark) // 2)
    pale = ImageEnhance.Contrast(secret.convert("L").convert("RGB")).enhance(0.1)
    for image in (dark, light, pale, Image.new("RGB", secret.size, (90, 110, 130))):
        stego = tasks.hide(cover, [image])
        with warnings.catch_warnings():
            warnings.simplefilter("error", wic_layers.errors.WICWarning)
            tasks.reveal(stego)


PACKAGED = [name for name, task in tasks.TASKS.items() if task.preset in packaged_weights()]


@pytest.mark.parametrize("task", [name for name in PACKAGED if name != "hiding-4"])
def test_threads_and_batches_change_ties_only(task):
    """Other orders of additions: isolated pixels may be rounded the other way, by one step."""
    (task,), threads = (tasks.TASKS[task],), torch.get_num_threads()
    images = [as_pixels(image) for image in (data.astronaut(), data.coffee(), data.chelsea())]
    crops = [image[:, 40:104, 60:160] for image in (*images, images[0].flip(2))]
    _, network = load_network((task,), None)

    @torch.no_grad()
    def forward(batch):
        return (network(batch).clamp(0, 1) * 255).round()

    @torch.no_grad()
    def back(batch):
        return (network.inverse(batch / 255).clamp(0, 1) * 255).round()

    turned = [crops[index:] + crops[:index] for index in range(4)]
    given = [(images * 3)[: task.images] for images in turned]
    batch = torch.stack([task.pack(*(c[None] for c in images))[0] for images in given]) / 255
    try:
        torch.set_num_threads(1)
        alone = torch.cat([forward(x[None]) for x in batch])
        revealed = torch.cat([back(y[None]) for y in alone])
        ways = {"one batch": (forward(batch), back(alone))}
        torch.set_num_threads(2)
        ways["two threads"] = (
            torch.cat([forward(x[None]) for x in batch]),
            torch.cat([back(y[None]) for y in alone]),
        )
    finally:
        torch.set_num_threads(threads)
    for way, results in ways.items():
        for result, expected in zip(results, (alone, revealed), strict=True):
            difference = (result - expected).abs()
            ties = int((difference > 0).sum())
            assert difference.max() <= 1, way
            assert ties <= difference.numel() * 1e-4, f"{way}: {ties} of {difference.numel()}"


def test_packaged_weights_are_those_of_their_commands():
    assert tasks.TASKS.keys() - set(PACKAGED) == {"rescaling-x3"}
    for task in map(tasks.TASKS.get, PACKAGED):
        network = from_pretrained(task.preset)
        assert network.preset == task.preset
        assert task.channels == tuple(
            network.config[key] for key in ("in_channels", "out_channels", "scale")
        )


def test_pil_and_arrays_through_the_package(photographs):
    cover = Image.open(photographs / "cover.png")
    small = tasks.down(cover)
    assert isinstance(small, Image.Image)
    assert small.size == (122, 101)
    assert tasks.up(small, size=cover.size).size == cover.size
    grey = tasks.gray(np.asarray(cover))
    assert grey.shape == (202, 244)
    assert tasks.color(grey, size=cover.size).shape == (201, 243, 3)
    assert as_kind(as_pixels(small), np.empty(0)).shape == (101, 122, 3)
