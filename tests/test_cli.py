import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import wic_layers
from wic_layers import cli
from wic_layers.images import KEYWORD, read_image, size_of, write_png
from wic_layers.models import WIN, save_weights
from wic_layers.tasks import files

ROOT = Path(wic_layers.__file__).parents[1]


def random_pixels(width, height, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    shared = {"couplings": 1, "growth": 4, "completion": "zero", "modules": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_weights(WIN(6, 3, scale=1, width=32, **shared), folder / "h.safetensors")
        save_weights(WIN(3, 3, scale=2, width=16, **shared), folder / "r.safetensors")
    return folder


@pytest.fixture
def wic(tmp_path, weights, monkeypatch, capsys):
    """Runs a command in a folder with a.png (11x8) and b.png (6x5); h and r stand for weights."""
    monkeypatch.chdir(tmp_path)
    write_png(random_pixels(11, 8), "a.png")
    write_png(random_pixels(6, 5, 1), "b.png")

    def run(command):
        words = [
            str(weights / f"{word}.safetensors") if word in ("h", "r") else word
            for word in command.split()
        ]
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def python(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *words], env=environment, capture_output=True, text=True, **options
    )


def test_hide_and_reveal(wic):
    code, out, err = wic("hide a.png b.png -o s.png --weights h")
    assert (code, err) == (0, "")
    number = r"-?\d+\.\d\d dB PSNR"
    first, second = out.splitlines()
    assert re.fullmatch(
        rf"s.png: 12x8, {number} from the cover; the secret comes back at 6x5, {number}", first
    )
    assert second == "note: the cover, 11x8, was padded to even sides; do not crop the file"
    assert wic("reveal s.png -o t.png --weights h") == (0, "t.png: 6x5\n", "")
    assert size_of(read_image("t.png")) == (6, 5)


def test_fit_says_the_sizes(wic):
    code, out, _ = wic("hide b.png a.png -o s.png --weights h --fit")
    assert code == 0
    assert "comes back at 6x4," in out
    assert "the secret was reduced from 11x8" in out


def test_unmarked(wic, weights):
    code, out, _ = wic("hide a.png b.png -o s.png --weights h --unmarked")
    assert code == 0
    assert f"unmarked: wic reveal needs --weights {weights / 'h.safetensors'} --size 6x5" in out
    assert KEYWORD.encode() not in Path("s.png").read_bytes()
    code, _, err = wic("reveal s.png -o t.png")
    assert code == 2
    assert "--preset hiding-1-naive-small --size 640x480" in err
    assert wic("reveal s.png -o t.png --weights h --size 6X5")[0] == 0


def test_down_and_up(wic):
    code, out, err = wic("down a.png -o s.png -s 2 --weights r")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"s.png: 6x4, \S+ dB PSNR from bicubic; the photo comes back at 11x8, \S+ dB PSNR\n", out
    )
    assert wic("up s.png -o t.png --weights r") == (0, "t.png: 11x8\n", "")
    assert wic("up s.png -o t.png --weights r --force")[0] == 0


def test_a_new_process_needs_the_file_alone(wic, weights, tmp_path):
    wic("hide a.png b.png -o s.png --weights h")
    wic("reveal s.png -o here.png --weights h")
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    (alone / "s.png").write_bytes(Path("s.png").read_bytes())
    words = ["-m", "wic_layers", "reveal", "s.png", "-o", "t.png"]
    done = python(*words, "--weights", weights / "h.safetensors", cwd=alone)
    assert (done.returncode, done.stdout, done.stderr) == (0, "t.png: 6x5\n", "")
    assert torch.equal(read_image(alone / "t.png"), read_image("here.png"))


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("", "COMMAND"),
        ("paint a.png", "invalid choice: 'paint'"),
        ("hide a.png", "SECRET, -o/--out"),
        ("hide a.png b.png -o s.png --pre x", "unrecognized arguments|--pre"),
        ("hide a.png b.png -o s.png --preset x --weights h", "not allowed with"),
        ("hide a.png b.png -o s.png --preset hidin-1", "such as hiding-1"),
        ("hide a.png b.png -o s.png --preset rescaling-x2-naive-small", "is for rescaling"),
        ("hide a.png b.png -o s.png --weights nothing", "--weights to be a file"),
        ("hide a.png b.png -o s.png --weights a.png", r"weights in a \.safetensors file"),
        ("hide a.png b.png -o s.png --weights r", "Expected a network for hiding"),
        ("hide b.png a.png -o s.png --weights h", "at most the cover's 6x5; got 11x8.*--fit"),
        ("hide a.png b.png -o s.jpg --weights h", "lossy"),
        ("hide a.png b.png -o b.png --weights h --force", "is an input too"),
        ("hide a.png b.png -o no/s.png --weights h", "there is no folder no"),
        ("hide c.png b.png -o s.png --weights h", "c.png does not exist"),
        ("hide . b.png -o s.png --weights h", "is a folder"),
        ("reveal a.png -o s.png", "does not say that `wic hide` made it"),
        ("reveal a.png -o s.png --size 3", "a size such as 640x480; got '3'"),
        ("reveal a.png -o s.png --size 0x3", "got '0x3'"),
        ("reveal a.png -o s.png --weights h --size 6x5", "even sides, as it was made; got 11x8"),
        ("down a.png -o s.png -s 3", "-s 3 is not available"),
        ("down a.png -o s.png --weights r --device nowhere", "Device 'nowhere' cannot be used"),
        ("up a.png -o s.png", "does not say that `wic down` made it"),
    ],
)
def test_errors_are_one_line(wic, command, match):
    before = sorted(os.listdir())
    code, out, err = wic(command)
    assert (code, out) == (2, "")
    assert err.startswith("wic: error: ")
    assert err.count("\n") == 1
    assert re.search(match, err)
    assert sorted(os.listdir()) == before


def test_outputs_are_checked_before_the_work(wic, monkeypatch):
    monkeypatch.setattr(files, "read_image", lambda path: pytest.fail("read too early"))
    assert "exists" in wic("hide a.png a.png -o b.png --weights h")[2]
    assert "lossy" in wic("down a.png -o b.jpeg --weights r")[2]


def test_ctrl_c(wic, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(files, "forward_pixels", interrupted)
    before = sorted(os.listdir())
    assert wic("down a.png -o s.png --weights r") == (130, "", "")
    assert sorted(os.listdir()) == before


def test_lack_of_memory(wic, monkeypatch):
    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(files, "packed_input", greedy)
    code, _, err = wic("down a.png -o s.png --weights r")
    assert code == 2
    assert "not enough memory" in err


def test_version_and_help(wic):
    assert wic("--version") == (0, f"wic-layers {wic_layers.__version__}\n", "")
    code, out, _ = wic("--help")
    assert code == 0
    for command in ("hide", "reveal", "down", "up", "train", "selftest"):
        assert re.search(rf"^ +{command} ", out, re.MULTILINE)
        assert wic(f"{command} --help")[0] == 0


def test_train_and_selftest_are_called(wic, monkeypatch):
    from wic_layers import testing
    from wic_layers.training import command

    monkeypatch.setattr(testing, "selftest", lambda: 1)
    assert wic("selftest")[0] == 1
    monkeypatch.setattr(command, "run", lambda args: 0 if args.preset == "p" else 1)
    assert wic("train p --data . -o out")[0] == 0
    assert wic("train p --data .")[0] == 2


def test_names_that_a_terminal_cannot_show(wic):
    name = os.fsdecode(b"\xff\xfe.png")
    Path("a.png").rename(name)
    code, out, err = wic(f"down {name} -o {name}x.png --weights r")
    assert (code, err) == (0, "")
    assert out.startswith(r"\udcff\udcfe.pngx.png: 6x4")


WITHOUT = """
import sys
for name in ("PIL", "numpy", "safetensors", "tqdm"):
    sys.modules[name] = None
from wic_layers.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("down", "a.png", "-o", "s.png"), r"pip install 'wic-layers\[(cli|images)\]'"),
        (("train", "p"), r"pip install 'wic-layers\[train\]'"),
    ],
)
def test_missing_dependencies_are_named(wic, words, match):
    done = python("-W", "ignore", "-c", WITHOUT, *words)
    assert done.returncode == 2
    assert re.search(match, done.stderr)
    assert "Traceback" not in done.stderr


def test_core_alone_is_enough_to_start():
    done = python("-W", "ignore", "-c", WITHOUT, "--version")
    assert done.returncode == 0
    code = "import sys, wic_layers.cli, wic_layers.tasks; print('PIL' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


def test_module_is_a_command(wic):
    Image.new("RGB", (4, 4)).save("c.jpg")
    done = python("-m", "wic_layers", "up", "c.jpg", "-o", "d.png")
    assert done.returncode == 2
    assert done.stderr == (
        "wic: error: c.jpg is a JPEG file; expected the PNG as it was written, since lossy "
        "compression destroys what it holds.\n"
    )
