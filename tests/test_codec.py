"""Codec: loaded once, in memory as in files; carriers; and results judged on some tiles."""

import json
import re

import pytest
import torch
from cases import shaken

from wic_layers import cli, tasks
from wic_layers.codec import Codec, EightBit, checking, codec
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models import WINNaive
from wic_layers.pictures import psnr, read_carrier, read_image, write_png
from wic_layers.tasks import HIDING, RESCALING, TASKS

pytestmark = pytest.mark.filterwarnings("ignore:What came back:wic_layers.errors.WICWarning")
FEW = {"couplings": 1, "growth": 4}


def random_pixels(size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, size[1], size[0]), dtype=torch.uint8, generator=generator)


def network(task):
    channels, out_channels, scale = TASKS[task].channels
    torch.manual_seed(0)
    built = WINNaive(channels, out_channels, scale=scale, **FEW)
    return shaken(built).half().float().eval()


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    for task in ("hiding-1", "hiding-2", "rescaling-x2", "decolorization"):
        network(task).save_pretrained(folder / task)
    return folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """With a.png, b.png (71x53) and c.png (30x20)."""
    monkeypatch.chdir(tmp_path)
    for name, size in (("a", (71, 53)), ("b", (71, 53)), ("c", (30, 20))):
        write_png(random_pixels(size, ord(name)), f"{name}.png")
    return tmp_path


# -------------------------------------------------------------------------------------- the codec


def test_the_network_is_loaded_once(folder, weights, monkeypatch):
    loads = []

    def load(*arguments, **options):
        loads.append(arguments)
        return load_network(*arguments, **options)

    load_network = codec.load_network
    monkeypatch.setattr(codec, "load_network", load)
    several = Codec("rescaling-x2", weights / "rescaling-x2")
    assert not loads
    for name in ("a", "b", "c"):
        several.encode_files([f"{name}.png"], f"{name}-small.png")
        several.encode(read_image(f"{name}.png"))
    assert len(loads) == 1
    for name in ("a", "b"):
        several.decode_file(f"{name}-small.png", f"{name}-back.png")
    several.decode(read_image("a-small.png"))
    assert len(loads) == 1
    assert several.task is RESCALING[0] or several.task.name == "rescaling-x2"
    assert several.network.weights_id


def test_a_folder_is_one_load_for_the_command(folder, weights, monkeypatch, capsys):
    loads = []
    load_network = codec.load_network
    monkeypatch.setattr(
        codec, "load_network", lambda *a, **k: loads.append(a) or load_network(*a, **k)
    )
    words = ["down", "a.png", "b.png", "c.png", "-o", "out", "--weights"]
    assert cli.main([*words, str(weights / "rescaling-x2")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert len(loads) == 1


def test_a_file_says_which_of_several_tasks_it_is_of(folder, weights):
    secrets = {"hiding-1": ["b.png"], "hiding-2": ["b.png", "c.png"]}
    for task, paths in secrets.items():
        Codec(task, weights / task).encode_files(["a.png", *paths], f"{task}.png")
        written = Codec(HIDING, weights / task).decode_file(f"{task}.png", f"{task}-back.png")
        assert [each.size for each in written] == [(71, 53), (30, 20)][: len(paths)]
    with pytest.raises(WICFileError, match="made for 'hiding-2'; `wic up` takes what"):
        Codec("rescaling-x2").decode_file("hiding-2.png", "no.png")
    both = Codec(["rescaling-x2", "hiding-2"], weights / "hiding-2")
    assert both.task.name == "hiding-2"


def test_functions_are_a_codec_for_one_call(weights):
    images = [random_pixels((20, 14), seed) for seed in range(3)]
    own = Codec("hiding-2", weights / "hiding-2", tile=8)
    stego = own.encode(*images, refine=1)
    options = {"model": weights / "hiding-2", "tile": 8}
    assert torch.equal(stego, tasks.hide(images[0], images[1:], refine=1, **options))
    for mine, theirs in zip(own.decode(stego), tasks.reveal(stego, **options), strict=True):
        assert torch.equal(mine, theirs)
    with pytest.raises(TypeError, match="tiles"):
        tasks.hide(images[0], images[1:], tiles=8)


def test_fast_is_of_one_codec_alone(weights, monkeypatch):
    optimized = []
    monkeypatch.setattr(WINNaive, "optimize", lambda network: optimized.append(network))
    photo, path = random_pixels((20, 14)), weights / "rescaling-x2"
    quick, plain = (Codec("rescaling-x2", path, fast=fast) for fast in (True, False))
    for each in (quick, plain, quick):
        each.encode(photo)
    assert len(optimized) == 1
    assert optimized[0] is quick.network


def test_a_network_without_weights_writes_files_that_it_reads(folder):
    own = Codec("rescaling-x2", network("rescaling-x2"))
    written = own.encode_files(["a.png"], "small.png")
    assert written.weights is None
    own.decode_file("small.png", "back.png")
    assert torch.equal(read_image("back.png"), own.decode(read_image("small.png"), [(71, 53)])[0])
    with pytest.raises(WICFileError, match="which are not in this package"):
        Codec("rescaling-x2").decode_file("small.png", "no.png")


def test_a_clip_that_is_short_of_frames_is_refined_alike(folder):
    task = TASKS["clip-3"]
    own = Codec(task, network("clip-3"))
    own.encode_files(["a.png", "b.png"], "packed.png", refine=2)
    packed = own.encode(read_image("a.png"), read_image("b.png"), refine=2)
    assert torch.equal(read_carrier("packed.png")[0], packed)


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda x: Codec("hiding-9"), "Expected one of hiding-1, .* got 'hiding-9'"),
        (lambda x: Codec("hiding-1").encode(x), "2 images for hiding-1; got 1"),
        (lambda x: Codec("rescaling-x2").encode(x, x), "1 image for rescaling-x2; got 2"),
        (lambda x: tasks.down_file("a.png", "b.png", check="most"), "'none'; got 'most'"),
        (lambda x: list(tasks.pack_clip("clip-3", ".", "b", check="most")), "got 'most'"),
    ],
)
def test_what_is_refused(call, match):
    with pytest.raises(WICArgumentError, match=match):
        call(random_pixels((4, 4)))


# ------------------------------------------------------------------------------------ the carrier


def test_eight_bits_are_those_of_a_file(tmp_path):
    x = torch.linspace(-0.2, 1.2, 3 * 40 * 30).view(3, 40, 30).requires_grad_()
    pixels = EightBit().pixels(x)
    write_png(pixels, tmp_path / "a.png")
    through = EightBit().through(x)
    assert torch.equal(read_image(tmp_path / "a.png").float() / 255, through.detach())
    through.sum().backward()
    assert torch.equal(x.grad, ((x >= 0) & (x <= 1)).float())


def test_noise_is_as_large_as_the_error_of_rounding():
    x = torch.rand(10_000) * 0.8 + 0.1
    noisy = EightBit(noise=True)
    error = noisy.through(x) - x
    assert 0.45 < error.abs().max() * 255 <= 0.51
    assert not torch.equal(noisy.through(x), noisy.through(x))
    assert torch.equal(noisy.pixels(x), EightBit().pixels(x))  # files hold no noise


# --------------------------------------------------------------------------- judged on some tiles


@pytest.fixture
def small_tiles(monkeypatch):
    """Three tiles of 16 pixels, where a picture has more than 1000."""
    monkeypatch.setattr(checking, "WHOLE", 1000)
    monkeypatch.setattr(checking, "TILE", 16)
    monkeypatch.setattr(checking, "TILES", 3)


def figure_of(tiles, back, original):
    def cut(image):
        parts = [image[:, top : top + 16, left : left + 16].flatten(1) for top, left in tiles]
        return torch.cat(parts, dim=1)

    return psnr(cut(back), cut(original))


@pytest.mark.parametrize("task", ["rescaling-x2", "decolorization"])
def test_some_tiles_are_those_of_the_whole(folder, weights, small_tiles, task):
    own = Codec(task, weights / task)
    written = own.encode_files(["a.png"], "out.png")
    assert written.tiles == (3, 5 * 4)
    assert written.psnr_back == ()
    own.decode_file("out.png", "back.png")
    tiles = checking.spread((71, 53))
    expected = figure_of(tiles, read_image("back.png"), read_image("a.png"))
    assert written.psnr_about == pytest.approx((expected,), abs=0.02)
    whole = own.encode_files(["a.png"], "out.png", force=True, check="all")
    assert whole.psnr_back == (psnr(read_image("back.png"), read_image("a.png")),)
    assert (whole.psnr_about, whole.tiles, whole.psnr) == ((), None, written.psnr)
    assert whole.psnr_back != written.psnr_about


def test_each_secret_is_judged_where_it_is(folder, weights, small_tiles):
    own = Codec("hiding-2", weights / "hiding-2")
    written = own.encode_files(["a.png", "b.png", "c.png"], "out.png")
    tiles = sorted({*checking.spread((71, 53)), *checking.spread((30, 20))})
    assert written.tiles == (len(tiles), 5 * 4)
    own.decode_file("out.png", "back.png")
    expected = [
        figure_of(tiles, read_image(f"back-{k}.png"), read_image(f"{name}.png"))
        for k, name in enumerate("bc", start=1)
    ]
    assert written.psnr_about == pytest.approx(expected, abs=0.05)


def test_tiles_that_are_all_of_it_are_the_whole(folder, weights, small_tiles):
    own = Codec("hiding-1", weights / "hiding-1")
    write_png(random_pixels((20, 16)), "d.png")
    written = own.encode_files(["a.png", "d.png"], "out.png")
    whole = own.encode_files(["a.png", "d.png"], "out.png", check="all", force=True)
    assert (written.psnr_about, written.tiles) == ((), None)
    assert written.psnr_back == pytest.approx(whole.psnr_back, abs=0.05)


def test_nothing_is_run_backwards_unless_asked(folder, weights, monkeypatch):
    own = Codec("rescaling-x2", weights / "rescaling-x2")
    monkeypatch.setattr(type(own.network), "inverse", None)
    written = own.encode_files(["a.png"], "out.png", check="none")
    assert (written.psnr, written.psnr_back, written.psnr_about) == (None, (), ())
    assert written.returns == ((71, 53),)


def test_ordinary_photographs_are_judged_whole():
    assert 1920 * 1080 <= checking.WHOLE < 12_000_000
    assert all(checking.TILE % task.multiple == 0 for task in TASKS.values())


@pytest.mark.parametrize("size", [(4000, 3000), (3000, 4000), (8000, 300), (1500, 1400)])
def test_tiles_are_spread_and_always_the_same(size):
    tiles = checking.spread(size)
    assert tiles == checking.spread(size)
    assert len(set(tiles)) == checking.TILES
    assert all(0 <= top < size[1] and 0 <= left < size[0] for top, left in tiles)
    if min(size) > 4 * checking.TILE:
        half = checking.TILE // 2
        quarters = {
            (2 * (top + half) // size[1], 2 * (left + half) // size[0]) for top, left in tiles
        }
        assert len(quarters) == 4


def test_the_command_says_about(folder, weights, small_tiles, capsys):
    words = ["down", "a.png", "--weights", str(weights / "rescaling-x2"), "-o", "out.png"]

    def run(*more):
        assert cli.main([*words, "--force", *more]) == 0
        return capsys.readouterr().out

    start = r"out.png: 36x27, -?\d+\.\d\d dB PSNR from bicubic; the photo comes back at 71x53"
    assert re.fullmatch(start + r", about -?\d+\.\d dB, 3 of 20 tiles\n", run())
    assert re.fullmatch(start + r", -?\d+\.\d\d dB PSNR\n", run("--check", "all"))
    assert run("--check", "none") == "out.png: 36x27; the photo comes back at 71x53\n"
    some, whole = (json.loads(run("--json", "--check", check)) for check in ("some", "all"))
    assert (some["psnr_back"], some["tiles"]) == ([], [3, 20])
    assert len(some["psnr_about"]) == 1
    assert len(whole["psnr_back"]) == 1
    assert not {"psnr_about", "tiles"} & whole.keys()
    for other in ("up", "eval"):
        with pytest.raises(SystemExit):
            cli.main([other, "out.png", "-o", "b.png", "--check", "all"])
