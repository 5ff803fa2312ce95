"""What travels beside pixels: the chunk and its parts, opacity, metadata; and grey photographs."""

import base64
import importlib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import phone
import pytest
import torch
from cases import shaken
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from skimage import data

from wic_layers import cli, tasks
from wic_layers.codec import Codec, checking
from wic_layers.codec.parts import KINDS, Part, join, split
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import WINNaive
from wic_layers.pictures import (
    CHUNK,
    as_grey,
    encode_png,
    fill_hidden,
    psnr,
    read_carrier,
    read_frames,
    read_image,
    read_layer,
    size_of,
    write_png,
)
from wic_layers.tasks import TASKS

pytestmark = pytest.mark.filterwarnings("ignore:What came back:wic_layers.errors.WICWarning")
SIZE = (31, 22)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    for task in ("hiding-2", "rescaling-x2", "decolorization"):
        channels, out_channels, scale = TASKS[task].channels
        built = WINNaive(channels, out_channels, scale=scale, couplings=1, growth=4)
        shaken(built).half().float().save_pretrained(folder / task)
    return folder


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """colour.png, grey.png, and fading.png, whose left third is clear; all of SIZE."""
    monkeypatch.chdir(tmp_path)
    width, height = SIZE
    colour = Image.fromarray(data.astronaut()[100 : 100 + height, 200 : 200 + width])
    colour.save("colour.png")
    colour.convert("L").save("grey.png")
    opacity = np.linspace(-128, 255, width).clip(0)[None].repeat(height, 0).astype(np.uint8)
    colour.putalpha(Image.fromarray(opacity))
    colour.save("fading.png")
    return tmp_path


def mode_of(path):
    with Image.open(path) as image:
        return image.mode


# -------------------------------------------------------------------------------------- the chunk

NAMES = st.from_regex(r"\A[a-z][a-z0-9-]{0,31}\Z")
PARTS = st.builds(Part, NAMES, st.binary(max_size=40), st.integers(0, 255), st.booleans())
MARK = Part.of("mark", b"{}")


@settings(max_examples=15)
@given(others=st.lists(PARTS, max_size=15, unique_by=lambda part: part.name), exif=st.binary())
def test_parts_come_back_and_unknown_ones_are_skipped_or_refused(others, exif):
    others = [part for part in others if part.name not in KINDS]
    parts = [MARK, Part.of("exif", exif), *others][:16]
    content = join(parts)
    if any(part.is_required for part in parts[2:]):
        with pytest.raises(WICFileError, match=r"which this version of wic-layers does not know"):
            split(content)
    else:
        assert split(content) == {"mark": b"{}", "exif": exif}
    for end in {1, 2, len(content) // 2, len(content) - 1}:
        whole = [len(join(parts[:count])) for count in range(1, len(parts) + 1)]
        if end not in whole:
            with pytest.raises(WICFileError, match="damaged"):
                split(content[:end])


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "not of format 3"),
        (b"\2" + join([MARK])[1:], "not of format 3"),
        (join([]), "damaged"),
        (join([Part.of("dpi", bytes(8))]), "damaged"),
        (join([MARK, MARK]), "damaged"),
        (join([MARK, *(Part(f"n{n}", b"", 1, is_required=False) for n in range(16))]), "damaged"),
        (join([MARK, Part("Bad", b"", 1, is_required=False)]), "damaged"),
        (join([MARK, Part("exif", bytes(2**20 + 1), 1, is_required=False)]), "damaged"),
        (join([MARK, Part("exif", b"", 1, is_required=True)]), "damaged"),
        (join([replace(MARK, version=2)]), "holds 'mark' of version 2"),
        (join([MARK])[:1] + b"\2" + join([MARK])[2:], "damaged"),
    ],
)
def test_chunks_that_are_refused(content, match):
    with pytest.raises(WICFileError, match=match):
        split(content)


def test_later_versions_of_optional_parts_are_skipped():
    assert split(join([MARK, Part("exif", b"new", 2, is_required=False)])) == {"mark": b"{}"}
    with pytest.raises(WICArgumentError, match="dpi of at most 8 bytes; got 9"):
        Part.of("dpi", bytes(9))


def test_programs_that_do_not_know_the_chunk_show_the_picture(photos, weights):
    tasks.down_file("fading.png", "small.png", model=weights / "rescaling-x2")
    # by PNG's rules: ancillary, private, of this version of PNG, safe to copy
    assert [bool(letter & 32) for letter in CHUNK] == [True, True, False, True]
    content = (photos / "small.png").read_bytes()
    assert content.index(CHUNK) < content.index(b"IDAT")
    with Image.open("small.png") as image:
        image.load()
        assert (image.mode, image.info) == ("RGBA", {})
        info = PngInfo()
        for _ in range(2):
            info.add(CHUNK, read_carrier("small.png")[1])
        image.save("two.png", pnginfo=info)
    with pytest.raises(WICFileError, match="has 2 wic-layers chunks"):
        tasks.up_file("two.png", "no.png", model=weights / "rescaling-x2")


# ------------------------------------------------------------------------------------------- grey


def test_grey_comes_back_grey_and_is_judged_so(photos, weights, monkeypatch):
    model = weights / "rescaling-x2"
    written = tasks.down_file("grey.png", "small.png", model=model)
    tasks.up_file("small.png", "back.png", model=model)
    assert (mode_of("small.png"), mode_of("back.png")) == ("RGB", "L")
    grey, small = read_image("grey.png"), read_image("small.png")
    coloured = tasks.up(small, size=SIZE, model=model)
    back = as_grey(coloured)
    assert torch.equal(read_carrier("back.png")[0], back)
    assert torch.equal(tasks.up(small, size=SIZE, grey=True, model=model), back)
    exact = coloured.double().mean(0, keepdim=True)
    assert (exact - back.double()).abs().max() <= 0.5
    assert written.psnr_back == (psnr(back, grey[:1]),)
    assert written.psnr_back[0] > psnr(coloured, grey)
    monkeypatch.setattr(checking, "WHOLE", 1)
    monkeypatch.setattr(checking, "TILE", 16)
    tiles = tasks.down_file("grey.png", "small.png", model=model, force=True)
    assert tiles.psnr_back == pytest.approx(written.psnr_back, abs=0.05)

    model = weights / "hiding-2"
    tasks.hide_file("colour.png", ["grey.png", "colour.png"], "stego.png", model=model)
    tasks.reveal_file("stego.png", "secret.png", model=model)
    assert [mode_of(f"secret-{n}.png") for n in (1, 2)] == ["L", "RGB"]


def test_gray_of_a_grey_photo_stores_it(photos, weights, capsys):
    words = ["gray", "grey.png", "-o", "stored.png", "--weights"]
    assert cli.main([*words, str(weights / "decolorization")]) == 0
    line = (
        "stored.png: 32x22, the grey photo as it is; the photo comes back at 31x22, no difference"
    )
    assert capsys.readouterr().out == f"{line}\n"
    grey = read_carrier("grey.png")[0]
    assert torch.equal(read_carrier("stored.png")[0][:, :, :31], grey)
    written = tasks.color_file("stored.png", "back.png")  # needs no network
    assert mode_of("back.png") == "L"
    assert torch.equal(read_carrier("back.png")[0], grey)
    assert written.weights is None
    own = Codec("decolorization", weights / "decolorization")
    own.encode_files(["grey.png"], "unmarked.png", marked=False)
    assert torch.equal(read_carrier("unmarked.png")[0], own.encode(read_image("grey.png")))


# ---------------------------------------------------------------------------------------- opacity


@pytest.mark.parametrize(
    ("forward", "back", "modes", "task"),
    [
        (tasks.down_file, tasks.up_file, ("RGBA", "RGBA"), "rescaling-x2"),
        (tasks.gray_file, tasks.color_file, ("LA", "RGBA"), "decolorization"),
    ],
)
def test_opacity_comes_back_exactly(photos, weights, forward, back, modes, task):
    model, photo = weights / task, read_layer("fading.png")
    written = forward("fading.png", "small.png", model=model)
    back("small.png", "back.png", model=model)
    assert (mode_of("small.png"), mode_of("back.png")) == modes
    assert written.carries == ("alpha",)
    restored = read_layer("back.png")
    assert torch.equal(restored[3], photo[3])
    filled = fill_hidden(photo[:3], photo[3:])
    write_png(filled, "filled.png")
    plain = forward("filled.png", "plain.png", model=model)
    assert plain.psnr_back == written.psnr_back
    assert torch.equal(read_carrier("small.png")[0], read_carrier("plain.png")[0])
    back("plain.png", "plain-back.png", model=model)
    assert torch.equal(restored[:3], read_image("plain-back.png"))
    # what viewers see of it: half of the photograph's opacity, one pixel padded
    with Image.open("small.png") as image:
        shown = torch.from_numpy(np.array(image.getchannel("A"))).int()
    step = TASKS[task].scale
    assert (shown[:, : 31 // step] - photo[3, ::step, : 31 // step * step : step]).abs().max() < 12


def test_hidden_colours_continue_those_around_them(photos, weights):
    photo = read_layer("fading.png")
    hidden = photo[3] == 0
    assert 5 < hidden.float().mean() * 31 < 15
    filled = fill_hidden(photo[:3], photo[3:])
    assert torch.equal(filled[:, ~hidden], photo[:3, ~hidden])
    for colour in (0, 255):  # whatever was there does not matter
        other = torch.where(hidden, colour, photo[:3]).to(torch.uint8)
        assert torch.equal(fill_hidden(other, photo[3:]), filled)
    edge = int(hidden[0].sum())
    steps = (filled[:, :, edge].int() - filled[:, :, edge - 1].int()).abs().float()
    assert steps.mean() < 12
    dot = torch.zeros(3, 9, 9, dtype=torch.uint8)
    dot[:, 4, 4] = torch.tensor([9, 80, 200], dtype=torch.uint8)
    seen = (torch.arange(81).view(1, 9, 9) == 40).to(torch.uint8)
    assert torch.equal(fill_hidden(dot, seen), dot[:, 4:5, 4:5].expand(3, 9, 9))


def test_grey_and_clear_comes_back_grey_and_clear(photos, weights):
    Image.open("fading.png").convert("LA").save("ghost.png")
    tasks.gray_file("ghost.png", "stored.png", model=weights / "decolorization")
    tasks.color_file("stored.png", "back.png")
    assert mode_of("back.png") == "LA"
    photo, back = read_layer("ghost.png"), read_layer("back.png")
    shown = photo[3] > 0
    assert torch.equal(back[:, shown], photo[:, shown])
    assert torch.equal(back[3], photo[3])
    opaque = Image.open("colour.png")
    opaque.putalpha(255)
    opaque.save("opaque.png")
    assert tasks.down_file("opaque.png", "o.png", model=weights / "rescaling-x2").carries == ()
    assert mode_of("o.png") == "RGB"


@pytest.mark.parametrize("name", ["other size", "no png", "colour", "cut", "exif", "dpi"])
def test_parts_that_are_damaged_are_refused(photos, weights, name):
    model = weights / "rescaling-x2"
    tasks.down_file("colour.png", "small.png", model=model)
    pixels, chunk = read_carrier("small.png")
    opacity = torch.full((1, 22, 31), 7, dtype=torch.uint8)
    alpha = encode_png(opacity)
    part = {
        "other size": Part.of("alpha", encode_png(opacity[:, :21])),
        "no png": Part.of("alpha", b"none"),
        "colour": Part.of("alpha", encode_png(opacity.expand(3, -1, -1))),
        "cut": Part.of("alpha", alpha[: len(alpha) // 2]),
        "exif": Part.of("exif", b"no TIFF"),
        "dpi": Part.of("dpi", bytes(8)),
    }[name]
    mark = Part.of("mark", split(chunk)["mark"])
    write_png(pixels, "small.png", chunk=join([mark, part]), force=True)
    with pytest.raises(WICFileError, match=r"small.png cannot be used: its .* chunk is damaged"):
        tasks.up_file("small.png", "back.png", model=model)
    write_png(pixels, "s.png", chunk=join([mark, Part.of("alpha", alpha)]))
    tasks.up_file("s.png", "back.png", model=model)
    assert mode_of("back.png") == "RGBA"


# --------------------------------------------------------------------------------------- metadata


def test_metadata_is_kept_where_it_is_asked_for_and_else_said(photos, weights, capsys):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x0132] = 6, "Camera", "2026:11:29 12:00:00"
    exif[0x8769] = {0x9003: "2026:11:29 12:00:00"}
    exif[0x8825] = {1: "N", 2: (47.0, 30.0, 1.0)}
    turned = Image.open("colour.png").convert("RGB")
    turned.save("photo.jpg", exif=exif, dpi=(300, 150), quality=95)
    model = str(weights / "rescaling-x2")

    def run(command, source, out, *more):
        assert cli.main([command, source, "-o", out, "--weights", model, *more]) == 0
        return capsys.readouterr()

    printed = run("down", "photo.jpg", "bare.png")
    assert "with" not in printed.out
    assert printed.err == ""
    assert list(split(read_carrier("bare.png")[1])) == ["mark"]
    assert run("down", "photo.jpg", "small.png", "--keep-metadata").out.endswith(
        ", with EXIF and dpi\n"
    )
    with Image.open("small.png") as image:
        assert not image.info  # nobody sees it who does not ask
    assert run("up", "small.png", "bare-back.png").err == (
        "wic: note: left out: dpi and EXIF, which --keep-metadata writes\n"
    )
    with Image.open("bare-back.png") as image:
        assert not image.info
    assert run("up", "small.png", "back.png", "--keep-metadata").err == ""
    with Image.open("back.png") as image:
        assert image.size == (22, 31)
        kept = image.getexif()
        assert dict(kept).keys() == {0x010F, 0x0132, 0x011A, 0x011B, 0x8769, 0x8825} & kept.keys()
        assert (kept[0x010F], 0x0112 in kept) == ("Camera", False)
        assert kept.get_ifd(0x8769)[0x9003] == "2026:11:29 12:00:00"
        assert kept.get_ifd(0x8825)[2] == (47.0, 30.0, 1.0)
        assert image.info["dpi"] == pytest.approx((150, 300), abs=0.1)
    assert torch.equal(read_image("back.png"), read_image("bare-back.png"))

    with pytest.raises(WICArgumentError, match="no metadata to be kept for hiding-2"):
        Codec("hiding-2", weights / "hiding-2").encode_files(
            ["photo.jpg"] * 3, "no.png", keep_metadata=True
        )
    own = Codec("rescaling-x2", model)
    for source, keep in (("photo.jpg", True), ("fading.png", False)):
        with pytest.raises(WICArgumentError, match="for a file that is not marked"):
            own.encode_files([source], "no.png", marked=False, keep_metadata=keep)


# ------------------------------------------------------------------------ more bits, other names


def test_sixteen_bits_are_reduced_where_it_is_asked_for(photos, weights, capsys):
    levels = np.arange(0, 65536, 509, dtype=np.uint16)[:128].reshape(8, 16)
    Image.fromarray(levels).save("deep.png")
    Image.fromarray(levels).save("deep.tif")
    for name in ("deep.png", "deep.tif"):
        with pytest.raises(WICFileError, match=r"more than 8 bits .* by --reduce-depth"):
            read_image(name)
        for read in (read_image, read_layer):
            pixels = read(name, reduce_depth=True)
            assert np.array_equal(pixels[0].numpy(), levels >> 8)
    words = ["down", "deep.png", "-o", "s.png", "--weights", str(weights / "rescaling-x2")]
    assert cli.main(words) == 2
    assert cli.main([*words, "--reduce-depth"]) == 0
    assert size_of(read_image("s.png")) == (8, 4)
    assert torch.equal(read_image("colour.png", reduce_depth=True), read_image("colour.png"))
    (photos / "frames").mkdir()
    Image.fromarray(levels).save("frames/1.png")
    (frame,) = read_frames("frames", reduce_depth=True)
    assert torch.equal(frame, read_image("deep.png", reduce_depth=True))


def test_folders_take_what_is_read_and_say_what_is_left_out(photos, weights, capsys):
    folder = photos / "in"
    (folder / "deeper").mkdir(parents=True)
    photo = Image.open("colour.png").convert("RGB")
    for name, kind in (
        ("a.jfif", "JPEG"), ("b.JPE", "JPEG"), ("c.dib", "BMP"), ("deeper/d.avif", "AVIF"),
    ):  # fmt: skip
        if kind in Image.SAVE or kind != "AVIF":
            photo.save(folder / name, format=kind)
    for name in ("e.mov", "deeper/f.txt", ".hidden.mov", "g.gif"):
        (folder / name).write_bytes(b"")
    words = ["down", "in", "-o", "in/out", "--weights", str(weights / "rescaling-x2")]
    assert cli.main(words) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len([*folder.glob("out/**/*.png")]) >= 3
    assert printed.err == "wic: note: left out of in: deeper/f.txt, e.mov, g.gif\n"
    for index in range(4):
        (folder / f"x{index}.mov").write_bytes(b"")
    assert cli.main([*words, "--force"]) == 0
    assert "deeper/f.txt, e.mov, g.gif, x0.mov, x1.mov and 2 more\n" in capsys.readouterr().err


def test_heic_is_read_where_pillow_heif_is_installed_and_else_said(photos, weights, capsys):
    if find_spec("pillow_heif") is None:
        (photos / "a.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
        with pytest.raises(WICFileError, match=r"pip install 'wic-layers\[heic\]'"):
            read_image("a.heic")
        words = ["down", ".", "-o", "out", "--weights", str(weights / "rescaling-x2")]
        assert cli.main(words) == 0
        assert "left out of .: a.heic; HEIC needs pillow-heif" in capsys.readouterr().err
    else:
        importlib.import_module("pillow_heif").register_heif_opener()
        Image.open("colour.png").convert("RGB").save("a.heic", quality=95)
        assert psnr(read_image("a.heic"), read_image("colour.png")) > 30


@pytest.mark.filterwarnings("ignore:Colours outside sRGB:wic_layers.errors.WICWarning")
def test_a_phones_folder_goes_there_and_back_by_two_commands(photos, weights, capsys):
    pictures = phone.write(photos / "phone")
    rest = ["--weights", str(weights / "rescaling-x2"), "--keep-metadata"]
    assert cli.main(["down", "phone", "-o", "small", *rest]) == 0
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == len(pictures) >= 5
    assert printed.err.endswith("wic: note: left out of phone: film.mov, other.dng\n")
    assert cli.main(["up", "small", "-o", "back", *rest]) == 0
    assert capsys.readouterr().err == ""
    modes = {
        name: mode_of(photos / "back" / f"{name}.png") for name in ("scan", "sticker", "wide")
    }
    assert modes == {"scan": "L", "sticker": "RGBA", "wide": "RGB"}
    with Image.open(photos / "back" / "portrait.png") as image:
        assert (image.size, image.getexif()[0x010F]) == (phone.SIZE[::-1], "Telephone")
    for name in pictures:
        back = read_layer(photos / "back" / Path(name).with_suffix(".png"))
        assert size_of(back) == size_of(read_layer(photos / "phone" / name))


# 64 x 64 pixels of 10 bits, grey, written by SVT-AV1
TEN_BITS = (
    "0000WW^{RQVRmU|00000VRmU|ZE0pPZE0a<O+hh20002_ZDn*}000000000lXk=`10000000000aA{+700000000"
    "0000000P-$ayb#i4$VQyq>WpV%j000hfX>@G>000000RR919%*cEV*mgE07L))0RRC20003100AKY000{R001ayX"
    ">Mi!000000RR918fk83WdZ;I000310AY48F+*=`Z*l+t003%faB^?}002vAaAR)(000zeb8uw<00000002M$002M"
    "$000nhX?SS>000033JMAU000bOb}>VN089V?000wXZ)|dIV{CW;0ssO40ssI202gU+ZD9Za00000009621OWnr1O"
    "Na4BW+}1bP5Up00087|BYWb2r>;20J;JTEKxxK00;ns"
)


def test_avif_of_ten_bits_is_not_cut_without_a_word(tmp_path):
    eight, ten = tmp_path / "8.avif", tmp_path / "10.avif"
    Image.new("RGB", (16, 12), (200, 90, 20)).save(eight, quality=90)
    ten.write_bytes(base64.b85decode(TEN_BITS))
    assert read_image(eight).shape == (3, 12, 16)
    with pytest.raises(WICFileError, match="more than 8 bits per channel"):
        read_image(ten)
    assert read_image(ten, reduce_depth=True).shape == (3, 64, 64)
