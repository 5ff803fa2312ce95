import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin
from skimage import data
from torch import nn

from wic_layers import tasks
from wic_layers.codec import mark as marks
from wic_layers.codec.mark import Mark, digest
from wic_layers.codec.parts import Part, join, split
from wic_layers.codec.running import backward_pixels, forward_pixels
from wic_layers.errors import WICArgumentError, WICError, WICFileError, WICShapeError
from wic_layers.models import WIN, from_pretrained
from wic_layers.models import weights as models_weights
from wic_layers.pictures import (
    CHUNK,
    as_pixels,
    psnr,
    read_carrier,
    read_image,
    size_of,
    write_png,
)

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))

# networks that were not trained give anything back
pytestmark = pytest.mark.filterwarnings("ignore:What came back:wic_layers.errors.WICWarning")


def random_pixels(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (3, size[1], size[0])
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)


def chunk_of(mark):
    text = mark.dumps() if isinstance(mark, Mark) else mark
    return join([Part.of("mark", text.encode())])


def mark_in(path):
    return Mark.loads(split(read_carrier(path)[1])["mark"])


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    shared = {"couplings": 1, "growth": 4, "completion": "zero", "modules": 1}
    networks = {
        "hiding": WIN(6, 3, scale=1, width=32, **shared),
        "other": WIN(6, 3, scale=1, width=32, **shared),
        "hiding 2": WIN(9, 3, scale=1, width=48, **shared),
        "rescaling": WIN(3, 3, scale=2, width=16, **shared),
        "rescaling 4": WIN(3, 3, scale=4, width=16, copies=4, **shared),
        "decolorization": WIN(3, 1, scale=1, width=16, **shared),
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name, network in networks.items():
            for module in network.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.normal_(module.weight, std=0.05)
            network.save_pretrained(folder / name)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def networks(weights):
    return {name: from_pretrained(path) for name, path in weights.items()}


@pytest.fixture
def hidden(tmp_path, weights):
    """A marked stego file 12x10 with a secret of 7x9."""
    write_png(random_pixels((12, 10)), tmp_path / "cover.png")
    write_png(random_pixels((7, 9), 1), tmp_path / "secret.png")
    out = tmp_path / "stego.png"
    tasks.hide_file(
        tmp_path / "cover.png", [tmp_path / "secret.png"], out, model=weights["hiding"]
    )
    return out


class Courier(nn.Module):
    """Not a network: passes the secret off as the stego image."""

    config = {"in_channels": 6, "out_channels": 3, "scale": 1}
    preset = None

    def __init__(self):
        super().__init__()
        self.parameter = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        return x[:, 3:]

    def inverse(self, y):
        return torch.cat((y, y), dim=1)


# ----------------------------------------------------------------------------- files and memory


@settings(max_examples=20)
@given(cover=SIZES, secret=SIZES, other=SIZES, secrets=st.integers(1, 2))
@example(cover=(1, 1), secret=(1, 1), other=(1, 1), secrets=1)
@example(cover=(69, 70), secret=(69, 70), other=(68, 3), secrets=2)
@example(cover=(16, 9), secret=(8, 70), other=(33, 2), secrets=2)
def test_hide_in_files_is_hide_in_memory(tmp_path, networks, cover, secret, other, secrets):
    model = networks["hiding" if secrets == 1 else "hiding 2"]
    sizes = (secret, other)[:secrets]
    images = [random_pixels(size, seed) for seed, size in enumerate((cover, *sizes))]
    names = ("cover", "secret", "other")[: secrets + 1]
    for name, image in zip(names, images, strict=True):
        write_png(image, tmp_path / f"{name}.png", force=True)
    first, *paths = (tmp_path / f"{name}.png" for name in names)
    out, back = tmp_path / "stego.png", tmp_path / "back.png"
    fits = all(w <= cover[0] and h <= cover[1] for w, h in sizes)
    if not fits:
        with pytest.raises(WICShapeError, match=r"--fit"):
            tasks.hide_file(first, paths, out, model=model, force=True)
        with pytest.raises(WICShapeError, match=r"fit=True"):
            tasks.hide(images[0], images[1:], model=model)
    written = tasks.hide_file(first, paths, out, model=model, fit=True, force=True)
    stego = tasks.hide(images[0], images[1:], model=model, fit=True)
    assert torch.equal(read_image(out), stego)
    assert written.size == size_of(stego) == (cover[0] + cover[0] % 2, cover[1] + cover[1] % 2)
    for size, returned, reduced in zip(sizes, written.returns, written.reduced_from, strict=True):
        if size[0] <= cover[0] and size[1] <= cover[1]:
            assert (returned, reduced) == (size, None)
        else:
            assert all(a <= b for a, b in zip(returned, cover, strict=True))
            assert any(a == b for a, b in zip(returned, cover, strict=True))
            assert reduced == size

    again = tasks.reveal_file(out, back, model=model, force=True)
    found = tasks.reveal(stego, sizes=written.returns, model=model)
    targets = [back] if secrets == 1 else [tmp_path / "back-1.png", tmp_path / "back-2.png"]
    assert [each.path for each in again] == targets
    for target, each, image, size in zip(targets, again, found, written.returns, strict=True):
        assert torch.equal(read_image(target), image)
        assert each.size == size_of(image) == size
    assert written.psnr == pytest.approx(psnr(stego[:, : cover[1], : cover[0]], images[0]))
    if fits:
        expected = [psnr(a, b) for a, b in zip(found, images[1:], strict=True)]
        assert written.psnr_back == pytest.approx(expected)


@settings(max_examples=14)
@given(size=SIZES, scale=st.sampled_from((2, 4)))
@example(size=(1, 1), scale=2)
@example(size=(1, 1), scale=4)
@example(size=(69, 70), scale=2)
@example(size=(70, 67), scale=4)
def test_down_in_files_is_down_in_memory(tmp_path, networks, size, scale):
    model = networks["rescaling" if scale == 2 else "rescaling 4"]
    photo = random_pixels(size)
    paths = [tmp_path / f"{name}.png" for name in ("photo", "small", "back")]
    write_png(photo, paths[0], force=True)
    written = tasks.down_file(*paths[:2], model=model, force=True)
    small = tasks.down(photo, model=model)
    assert torch.equal(read_image(paths[1]), small)
    assert written.size == (-(-size[0] // scale), -(-size[1] // scale))
    assert written.returns == (size,)
    again = tasks.up_file(*paths[1:], model=model, force=True)
    back = tasks.up(small, size=size, model=model)
    assert torch.equal(read_image(paths[2]), back)
    assert again.size == size_of(back) == size
    assert written.psnr_back == pytest.approx((psnr(back, photo),))


@settings(max_examples=12)
@given(size=SIZES)
@example(size=(1, 1))
@example(size=(69, 70))
def test_gray_in_files_is_gray_in_memory(tmp_path, networks, size):
    model = networks["decolorization"]
    photo = random_pixels(size)
    paths = [tmp_path / f"{name}.png" for name in ("photo", "grey", "back")]
    write_png(photo, paths[0], force=True)
    written = tasks.gray_file(*paths[:2], model=model, force=True)
    grey = tasks.gray(photo, model=model)
    assert len(grey) == 1
    with Image.open(paths[1]) as image:
        assert image.mode == "L"
    assert torch.equal(read_carrier(paths[1])[0], grey)
    assert written.size == (size[0] + size[0] % 2, size[1] + size[1] % 2)
    tasks.color_file(*paths[1:], model=model, force=True)
    back = tasks.color(grey, size=size, model=model)
    assert torch.equal(read_image(paths[2]), back)
    assert size_of(back) == size
    assert written.psnr_back == pytest.approx((psnr(back, photo),))


@given(cover=SIZES, secret=SIZES)
def test_secret_comes_back_from_its_place(cover, secret):
    secret = min(cover[0], secret[0]), min(cover[1], secret[1])
    image = random_pixels(secret)
    stego = tasks.hide(random_pixels(cover, 1), [image], model=Courier())
    (back,) = tasks.reveal(stego, sizes=[secret], model=Courier())
    assert torch.equal(back, image)


def test_kinds_agree(weights):
    cover, secret = random_pixels((8, 6)), random_pixels((5, 4), 1)
    arrays = [image.permute(1, 2, 0).numpy() for image in (cover, secret)]
    pictures = [Image.fromarray(array) for array in arrays]
    expected = tasks.hide(cover, [secret], model=weights["hiding"])
    array = tasks.hide(arrays[0], [arrays[1]], model=weights["hiding"])
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, expected.permute(1, 2, 0).numpy())
    picture = tasks.hide(pictures[0], (arrays[1],), model=weights["hiding"])
    assert isinstance(picture, Image.Image)
    assert np.array_equal(np.asarray(picture), array)
    for carrier in (expected, array, picture):
        (back,) = tasks.reveal(carrier, sizes=[(5, 4)], model=weights["hiding"])
        assert type(back) is (Image.Image if carrier is picture else type(carrier))
    for photo in (cover, arrays[0], pictures[0]):
        small = tasks.down(photo, model=weights["rescaling"])
        tasks.up(small, model=weights["rescaling"])
    greys = [
        tasks.gray(photo, model=weights["decolorization"]) for photo in (arrays[0], pictures[0])
    ]
    assert greys[0].shape == (6, 8)
    assert greys[1].mode == "L"
    colours = [tasks.color(grey, model=weights["decolorization"]) for grey in greys]
    assert np.array_equal(colours[0], np.asarray(colours[1]))


@pytest.mark.parametrize(
    ("task", "size"),
    [("hiding 2", (130, 87)), ("rescaling", (131, 90)), ("rescaling 4", (150, 90)),
     ("decolorization", (101, 70))],
)  # fmt: skip
@pytest.mark.parametrize("tile", [1, 16, 50])
def test_tiles_change_nothing(weights, task, size, tile):
    """But for ties in rounding, which another order of additions may decide otherwise."""
    if tile == 1 and task != "decolorization":
        tile = 33
    if tile == 1:
        size = (37, 26)
    model = from_pretrained(weights[task])
    images = [random_pixels(size, seed) for seed in range(3)]
    forward, back = {
        "hiding 2": (
            lambda **kw: tasks.hide(images[0], images[1:], model=model, **kw),
            lambda y, **kw: tasks.reveal(y, model=model, **kw)[1],
        ),
        "decolorization": (
            lambda **kw: tasks.gray(images[0], model=model, **kw),
            lambda y, **kw: tasks.color(y, model=model, **kw),
        ),
    }.get(
        task,
        (
            lambda **kw: tasks.down(images[0], model=model, **kw),
            lambda y, **kw: tasks.up(y, model=model, **kw),
        ),
    )
    seen = []
    whole = forward(tile=1000)
    tiled = forward(tile=tile, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == list(range(1, seen[-1][1] + 1))
    assert len(seen) > 1
    for a, b in ((whole, tiled), (back(whole, tile=1000), back(whole, tile=tile))):
        difference = (a.int() - b.int()).abs()
        assert difference.max() <= 1
        assert (difference > 0).float().mean() < 1e-3


def test_figures_are_those_of_the_file(tmp_path):
    """Bicubic is Pillow's, antialiased, up to its rounding of weights: the details show it."""
    photo = Image.fromarray(data.astronaut()[100:220, 150:300])
    photo.save(tmp_path / "photo.png")
    paths = tmp_path / "photo.png", tmp_path / "small.png"
    written = tasks.down_file(*paths)
    bicubic = as_pixels(photo.resize((75, 60), Image.Resampling.BICUBIC))
    assert written.psnr == pytest.approx(psnr(read_image(paths[1]), bicubic), abs=0.1)
    back = tasks.up(read_image(paths[1]))
    assert written.psnr_back == (psnr(back, as_pixels(photo)),)
    assert written.psnr > 30


def test_networks_keep_their_mode_and_take_other_dtypes(weights):
    model = from_pretrained(weights["hiding"]).train()
    cover = random_pixels((8, 6))
    stego = tasks.hide(cover, [cover], model=model)
    assert model.training
    assert all(parameter.grad is None for parameter in model.parameters())
    precise = tasks.hide(cover, [cover], model=model.double())
    assert (stego.int() - precise.int()).abs().max() <= 1


# ---------------------------------------------------------------------------------------- marks


def test_mark_round_trip():
    mark = Mark("hiding-1", None, "0123456789abcdef", ((7, 9),), (12, 10), "f" * 16, (True,))
    assert Mark.loads(mark.dumps()) == mark
    assert mark.dumps().isascii()


GOOD = {
    "task": "hiding-1", "preset": None, "weights": "0" * 16,
    "sizes": [[7, 9]], "pixels": [12, 10], "digest": digest(random_pixels((12, 10))),
    "grey": [False],
}  # fmt: skip


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "damaged"),
        ("[1]", "damaged"),
        ("[" * 8000, "damaged"),
        (json.dumps({**GOOD, "grey": [0]}), "damaged"),
        (json.dumps({**GOOD, "grey": []}), "damaged"),
        (json.dumps({**GOOD, "more": 1}), "damaged"),
        (json.dumps({**GOOD, "sizes": [[7]]}), "damaged"),
        (json.dumps({**GOOD, "sizes": [[7, 0]]}), "damaged"),
        (json.dumps({**GOOD, "sizes": [[7.0, 9]]}), "damaged"),
        (json.dumps({**GOOD, "sizes": [[True, 9]]}), "damaged"),
        (json.dumps({**GOOD, "sizes": [7, 9]}), "damaged"),
        (json.dumps({**GOOD, "digest": 3}), "damaged"),
        (json.dumps({**GOOD, "digest": "0" * 16}), "edited or went through lossy compression"),
        (json.dumps({**GOOD, "preset": 3}), "damaged"),
        (json.dumps({**GOOD, "task": None}), "damaged"),
        (json.dumps({**GOOD, "pixels": [13, 10]}), "is 12x10 but was written as 13x10"),
        (
            json.dumps({**GOOD, "task": "rescaling-x2"}),
            "was made for 'rescaling-x2'; `wic reveal`",
        ),
        (json.dumps({**GOOD, "task": "\33[2J"}), r"was made for '\\x1b\[2J'"),
        (json.dumps(GOOD), "made with the weights '0+', which are not in this package"),
        (json.dumps({**GOOD, "preset": "/etc/passwd"}), "of '/etc/passwd', which are not in"),
        (json.dumps({**GOOD, "preset": "hiding-9"}), "of 'hiding-9', which are not in"),
        (json.dumps({**GOOD, "task": "hiding-2"}), "those at hand|which are not in this package"),
    ],
)
def test_marks_that_are_refused(tmp_path, text, match):
    write_png(random_pixels((12, 10)), tmp_path / "stego.png", chunk=chunk_of(text))
    with pytest.raises(WICFileError, match=match):
        tasks.reveal_file(tmp_path / "stego.png", tmp_path / "back.png")
    assert not (tmp_path / "back.png").exists()


def test_sizes_that_cannot_be(tmp_path, weights):
    weights_id, pixels = from_pretrained(weights["hiding"]).weights_id, random_pixels((12, 10))
    for sizes, match in (
        (((13, 9),), "secret of 13x9 cannot come back"),
        (((7, 9), (7, 9)), "Expected 1 sizes, one for each secret; got 2"),
        ((), "got 0"),
    ):
        greys = (False,) * len(sizes)
        mark = Mark("hiding-1", None, weights_id, sizes, (12, 10), digest(pixels), greys)
        write_png(pixels, tmp_path / "stego.png", chunk=chunk_of(mark), force=True)
        with pytest.raises(WICShapeError, match=match):
            tasks.reveal_file(
                tmp_path / "stego.png", tmp_path / "back.png", model=weights["hiding"]
            )


def test_what_does_not_agree_with_the_file(hidden, weights):
    back = hidden.with_name("back.png")
    with pytest.raises(WICFileError, match=r"made with the weights '\w+'; those at hand"):
        tasks.reveal_file(hidden, back, model=weights["other"])
    with pytest.raises(WICArgumentError, match=r"--size 7x8 does not agree .* says 7x9"):
        tasks.reveal_file(hidden, back, model=weights["hiding"], sizes=[(7, 8)])
    with pytest.raises(WICArgumentError, match="Expected a network for hiding-1"):
        tasks.reveal_file(hidden, back, model=weights["rescaling"])
    with pytest.raises(WICArgumentError, match="'rescaling-x2-naive-small' is for rescaling-x2"):
        tasks.reveal_file(hidden, back, model="rescaling-x2-naive-small")
    with pytest.raises(WICFileError, match="`wic up` takes what `wic down` made"):
        tasks.up_file(hidden, back)
    assert not back.exists()
    (written,) = tasks.reveal_file(hidden, back, model=weights["hiding"], sizes=[(7, 9)])
    assert written.size == (7, 9)


@pytest.mark.parametrize("row", [0, 4, 9])
@pytest.mark.parametrize("column", [0, 6, 11])
def test_an_edit_of_one_pixel_is_seen(hidden, row, column):
    """By one level of one channel, anywhere in the file."""
    pixels, chunk = read_carrier(hidden)
    for channel in range(3):
        edited = pixels.clone()
        edited[channel, row, column] ^= 1
        write_png(edited, hidden, chunk=chunk, force=True)
        with pytest.raises(WICFileError, match="not those that were written: it was edited"):
            tasks.reveal_file(hidden, hidden.parent / "back.png")
    assert not (hidden.parent / "back.png").exists()


def test_the_file_says_which_preset(tmp_path, hidden, weights, monkeypatch):
    model = from_pretrained(weights["hiding"])
    model.preset = "hiding-1-naive-small"
    packaged = {"hiding-1-naive-small": tmp_path / "hiding-1-naive-small"}
    model.save_pretrained(packaged["hiding-1-naive-small"])
    for module in (marks, models_weights):
        monkeypatch.setattr(module, "packaged_weights", lambda: packaged)
    images = tmp_path / "cover.png", [tmp_path / "secret.png"]
    stego, back = tmp_path / "by_preset.png", tmp_path / "back.png"
    tasks.hide_file(*images, stego)
    tasks.reveal_file(stego, back)
    assert torch.equal(read_carrier(stego)[0], read_carrier(hidden)[0])
    tasks.hide_file(*images, stego, model=weights["other"], force=True)
    other = replace(mark_in(stego), preset=model.preset)
    write_png(read_image(stego), stego, chunk=chunk_of(other), force=True)
    with pytest.raises(WICFileError, match=r"those at hand \(hiding-1-naive-small\) are"):
        tasks.reveal_file(stego, back, force=True)


def test_unmarked_files(tmp_path, hidden, weights):
    plain = tmp_path / "plain.png"
    images = tmp_path / "cover.png", [tmp_path / "secret.png"]
    written = tasks.hide_file(*images, plain, model=weights["hiding"], marked=False)
    assert CHUNK not in plain.read_bytes()
    with Image.open(plain) as image:
        image.load()
        assert not image.info
    assert torch.equal(read_carrier(plain)[0], read_carrier(hidden)[0])
    back = tmp_path / "back.png"
    preset = "--preset hiding-1-naive-small"
    for arguments, line in (
        ({}, f"{preset} --size 12x10"),
        ({"model": weights["hiding"]}, f"--weights {weights['hiding']} --size 12x10"),
        ({"sizes": [(7, 9)]}, f"{preset} --size 7x9"),
    ):
        with pytest.raises(WICFileError, match=f"`wic reveal {plain} -o OUT.png {line}`"):
            tasks.reveal_file(plain, back, **arguments)
    tasks.reveal_file(plain, back, model=weights["hiding"], sizes=written.returns)
    tasks.reveal_file(hidden, tmp_path / "marked.png", model=weights["hiding"])
    assert torch.equal(read_image(back), read_image(tmp_path / "marked.png"))


def test_covers_give_no_metadata_away(tmp_path, weights):
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    info = PngImagePlugin.PngInfo()
    info.add(CHUNK, b"an older mark")
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", exif=exif, pnginfo=info, dpi=(72, 72))
    out = tmp_path / "b.png"
    tasks.hide_file(
        tmp_path / "a.png", [tmp_path / "a.png"], out, model=weights["hiding"], marked=False
    )
    with Image.open(out) as image:
        image.load()
        assert not image.info


def test_lossless_rewriting_by_others_does_no_harm(hidden, weights):
    """A grey stego that an optimiser stored as grey, with an orientation and another chunk."""
    pixels, _ = read_carrier(hidden)
    grey = pixels[:1].expand(3, -1, -1).contiguous()
    info = PngImagePlugin.PngInfo()
    info.add_itxt("Comment", "smaller")
    info.add(CHUNK, chunk_of(replace(mark_in(hidden), digest=digest(grey))))
    exif = Image.Exif()
    exif[0x0112] = 6
    rewritten = hidden.with_name("rewritten.png")
    Image.fromarray(grey[0].numpy()).save(rewritten, pnginfo=info, exif=exif)
    tasks.reveal_file(rewritten, hidden.with_name("back.png"), model=weights["hiding"])
    (expected,) = tasks.reveal(grey, sizes=[(7, 9)], model=weights["hiding"])
    assert torch.equal(read_image(hidden.with_name("back.png")), expected)


def test_grey_files_that_were_stored_in_colour(tmp_path, weights):
    photo, model = random_pixels((12, 10)), weights["decolorization"]
    write_png(photo, tmp_path / "a.png")
    tasks.gray_file(tmp_path / "a.png", tmp_path / "g.png", model=model)
    grey, chunk = read_carrier(tmp_path / "g.png")
    write_png(grey.expand(3, -1, -1), tmp_path / "rgb.png", chunk=chunk)
    tasks.color_file(tmp_path / "rgb.png", tmp_path / "b.png", model=model)
    assert torch.equal(read_image(tmp_path / "b.png"), tasks.color(grey, model=model))
    write_png(photo, tmp_path / "no.png", chunk=chunk)
    with pytest.raises(WICFileError, match="edited or went through lossy"):
        tasks.color_file(tmp_path / "no.png", tmp_path / "c.png", model=model)
    write_png(photo, tmp_path / "no.png", force=True)
    with pytest.raises(WICShapeError, match=r"no.png to be a grey image; it holds colours"):
        tasks.color_file(tmp_path / "no.png", tmp_path / "c.png", model=model, size=(12, 10))


# --------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda m, x: tasks.reveal(x[:, :5], model=m), WICShapeError, "even sides.* got 6x5"),
        (lambda m, x: tasks.reveal(x, sizes=[(7, 6)], model=m), WICShapeError, "7x6 cannot come"),
        (lambda m, x: tasks.reveal(x, sizes=[(0, 6)], model=m), WICShapeError, "0x6 cannot come"),
        (lambda m, x: tasks.up(x, size=(13, 12)), WICShapeError, "11 to 12 by 11 to 12"),
        (lambda m, x: tasks.up(x, size=(12, 10)), WICShapeError, "11 to 12 by 11 to 12"),
        (lambda m, x: tasks.hide(x, [x.float()], model=m), TypeError, "secret 1 .* torch.float32"),
        (lambda m, x: tasks.hide(x, [x], model=nn.Linear(1, 1)), TypeError, "got Linear"),
        (lambda m, x: tasks.hide(x, [x], model=m, device="cpu"), WICArgumentError, "no device"),
        (lambda m, x: tasks.down(x, model=m), WICArgumentError, "Courier has channels 6 to 3"),
        (lambda m, x: tasks.down(x, device="nowhere"), WICArgumentError, "Device 'nowhere'"),
        (lambda m, x: tasks.down(x, model="rescaling-x3"), WICArgumentError, "name of a preset"),
        (lambda m, x: tasks.down(x, model="a.safetensors"), WICFileError, "cannot be read"),
        (lambda m, x: tasks.hide(x, x, model=m), TypeError, r"as a list, such as \[secret\]"),
        (lambda m, x: tasks.hide(x, [], model=m), WICArgumentError, "1 to 4 secrets; got 0"),
        (lambda m, x: tasks.hide(x, [x] * 5, model=m), WICArgumentError, "got 5"),
        (lambda m, x: tasks.hide(x, [x] * 2, model=m), WICArgumentError, "network for hiding-2"),
        (lambda m, x: tasks.down(x, scale=5), WICArgumentError, "scale of 2, 3 or 4; got 5"),
        (lambda m, x: tasks.hide(x, [x], model=m, tile=0), WICArgumentError, "got 0"),
        (lambda m, x: tasks.color(x), WICShapeError, "it holds colours"),
    ],
)
def test_what_is_refused_in_memory(call, error, match):
    with pytest.raises(error, match=match):
        call(Courier(), random_pixels((6, 6)))


@pytest.mark.parametrize(
    ("raised", "match"),
    [
        (MemoryError(), "not enough memory for an image of 6x6"),
        (RuntimeError("CPUAllocator: can't allocate memory"), "not enough memory"),
        (RuntimeError("CUDA out of memory. Tried"), "not enough memory"),
    ],
)
def test_lack_of_memory_is_an_error_of_ours(raised, match):
    class Greedy(Courier):
        def forward(self, x):
            raise raised

    with pytest.raises(WICError, match=match):
        tasks.hide(random_pixels((6, 6)), [random_pixels((6, 6))], model=Greedy())


def test_other_errors_of_networks_pass_and_nan_is_refused():
    class Broken(Courier):
        def forward(self, x):
            raise RuntimeError("shapes do not match")

        def inverse(self, y):
            return torch.cat((y, y * float("nan")), dim=1)

    image = random_pixels((6, 6))
    with pytest.raises(RuntimeError, match="shapes do not match"):
        forward_pixels(tasks.TASKS["hiding-1"], Broken(), torch.cat((image, image)))
    with pytest.raises(WICError, match="not finite"):
        backward_pixels(tasks.TASKS["hiding-1"], Broken(), image, [(6, 6)])
