"""What pictures go through: the real codecs, and trainings through them."""

import argparse

import pytest
import torch
from PIL import Image
from skimage import data

from tests import photographs
from wic_layers import cli
from wic_layers.codec import Lossy, smooth
from wic_layers.codec.attacks import attacks
from wic_layers.codec.carrier import CARRIER, carrier_of
from wic_layers.errors import WICArgumentError
from wic_layers.evaluation.judging import Judgement
from wic_layers.models import PRESETS, from_pretrained
from wic_layers.pictures import as_pixels, psnr
from wic_layers.tasks import TASKS
from wic_layers.training import Settings

PHOTO = as_pixels(data.astronaut()[60:125, 180:271])  # 91x65
BLOCK = as_pixels(data.astronaut()[:64, 180:276])  # 96x64


# ----------------------------------------------------------------------- what happens on the way


def test_attacks_are_what_pillow_does():
    jpeg, full, webp = attacks(["jpeg:60", "jpeg444:60", "webp:60"])
    for attack, options in (
        (jpeg, {"format": "JPEG", "quality": 60, "subsampling": "4:2:0"}),
        (full, {"format": "JPEG", "quality": 60, "subsampling": "4:4:4"}),
        (webp, {"format": "WEBP", "quality": 60}),
    ):
        for pixels in (PHOTO, PHOTO[1:2]):
            expected, size = photographs.saved(pixels, **options)
            arrived = attack(pixels)
            assert torch.equal(arrived.pixels, expected), attack
            assert (arrived.size, arrived.box) == (size, (0, 0, 91, 65))
    (chain,) = attacks(["resize:0.5+jpeg:80"])
    image = Image.fromarray(PHOTO.permute(1, 2, 0).numpy())
    small = image.resize((46, 32), Image.Resampling.BICUBIC)
    through, size = photographs.saved(as_pixels(small), format="JPEG", quality=80)
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
