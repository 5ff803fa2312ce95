import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data

import wic_layers
from wic_layers import cli
from wic_layers.codec import codec
from wic_layers.pictures import CHUNK, read_image, size_of, write_png
from wic_layers.tasks import Rescaling

ROOT = Path(wic_layers.__file__).parents[1]


def random_pixels(width, height, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


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
    assert second == "note: the cover, 11x8, was padded to 12x8; do not crop the file"
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
    assert f"unmarked: wic reveal needs --weights {weights / 'h'} --size 6x5" in out
    assert CHUNK not in Path("s.png").read_bytes()
    code, _, err = wic("reveal s.png -o t.png")
    assert code == 2
    assert "reveal s.png -o OUT.png --preset hiding-1-naive-small --size 12x8`" in err
    assert wic("reveal s.png -o t.png --weights h --size 6X5")[0] == 0


def test_down_and_up(wic):
    code, out, err = wic("down a.png -o s.png -s 2 --weights r")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        r"s.png: 6x4, \S+ dB PSNR from bicubic; the photo comes back at 11x8, \S+ dB PSNR\n", out
    )
    assert wic("up s.png -o t.png --weights r") == (0, "t.png: 11x8\n", "")
    assert wic("up s.png -o t.png --weights r --force")[0] == 0


def test_several_secrets(wic):
    code, out, _ = wic("hide a.png b.png b.png -o s.png --weights h2 --unmarked")
    assert code == 0
    assert "the secret 1 comes back at 6x5" in out
    assert "the secret 2 comes back at 6x5" in out
    assert "--size 6x5 --size 6x5" in out
    assert wic("hide a.png b.png b.png -o s.png --weights h2 --force")[0] == 0
    assert wic("reveal s.png -o t.png --weights h2")[1] == "t-1.png: 6x5\nt-2.png: 6x5\n"
    assert "t-1.png exists" in wic("reveal s.png -o t.png --weights h2")[2]


def test_gray_and_color(wic):
    code, out, err = wic("gray a.png -o g.png --weights d")
    assert (code, err) == (0, "")
    number = r"-?\d+\.\d\d dB PSNR"
    assert re.fullmatch(
        rf"g.png: 12x8, {number} from its lightness; the photo comes back at 11x8, {number}\n", out
    )
    with Image.open("g.png") as image:
        assert (image.mode, image.size) == ("L", (12, 8))
    assert wic("color g.png -o c.png --weights d") == (0, "c.png: 11x8\n", "")


NUMBER = r"\S+ dB PSNR"


def test_pack_and_unpack(wic):
    write_png(random_pixels(11, 8, 2), "c.png")
    code, out, err = wic("pack stereo a.png c.png -o s.png --weights p2")
    assert (code, err) == (0, "")
    assert re.fullmatch(
        rf"s.png: 12x8, {NUMBER} from the left view; view 1 comes back at 11x8, {NUMBER}; view 2 "
        rf"comes back at 11x8, {NUMBER}\n", out,
    )  # fmt: skip
    assert wic("unpack s.png -o v.png --weights p2") == (0, "v-1.png: 11x8\nv-2.png: 11x8\n", "")
    assert "v-1.png exists" in wic("unpack s.png -o v.png --weights p2")[2]
    found = json.loads(wic("pack zoom-x4 a.png c.png -o z.png --weights p2 --json")[1])
    assert (found["inputs"], found["returns"]) == (["a.png", "c.png"], [[11, 8], [11, 8]])
    # the task is in the file
    assert "was made for 'zoom-x4'; `wic reveal`" in wic("reveal z.png -o y.png --weights p2")[2]
    assert wic("unpack z.png -o y.png --weights p2")[0] == 0
    # weights of the package, where no others are named
    assert wic("pack stereo a.png c.png -o q.png")[0] == 0
    assert wic("unpack q.png -o r.png") == (0, "r-1.png: 11x8\nr-2.png: 11x8\n", "")


def test_pack_of_folders(wic):
    for side, seeds in (("left", (0, 1)), ("right", (2, 3))):
        Path(side).mkdir()
        for seed in seeds:
            write_png(random_pixels(8, 6, seed), f"{side}/{seed}.png")
    code, out, _ = wic("pack stereo left right -o packed --weights p2")
    assert (code, sorted(os.listdir("packed"))) == (0, ["0.png", "1.png"])
    assert len(out.splitlines()) == 2
    assert wic("unpack packed -o back --weights p2")[0] == 0
    assert sorted(os.listdir("back")) == ["0-1.png", "0-2.png", "1-1.png", "1-2.png"]
    Path("right/3.png").unlink()
    expected = "as many rights as lefts, 2; right holds 1 images"
    assert expected in wic("pack stereo left right -o other --weights p2")[2]


def test_layers(wic):
    alpha = Image.linear_gradient("L").resize((11, 8))
    foreground = Image.new("RGB", (11, 8), "red")
    foreground.putalpha(alpha)
    foreground.save("f.png")
    code, out, err = wic("pack layers a.png f.png -o l.png --weights p3")
    assert (code, err) == (0, "")
    assert "from the composition; layer 1 comes back at 11x8" in out
    assert wic("unpack l.png -o m.png --weights p3")[1].splitlines()[2] == "m-3.png: 11x8"


def test_clips(wic):
    Path("clip").mkdir()
    for index in range(1, 12):  # 10 comes after 9, not after 1
        write_png(random_pixels(8, 6, index), f"clip/f{index}.png")
    code, out, err = wic("pack clip-3 clip -o packed --weights p3")
    assert (code, err) == (0, "")
    names = [f"clip-000{index}.png" for index in range(1, 5)]
    assert sorted(os.listdir("packed")) == names
    assert "frame 3 comes back" in out.splitlines()[0]
    assert "frame 3 comes back" not in out.splitlines()[-1]  # two are left
    assert wic("unpack packed -o back --weights p3")[0] == 0
    assert len(os.listdir("back")) == 11
    assert "clip-0001.png exists" in wic("pack clip-3 clip -o packed --weights p3")[2]
    assert wic("pack clip-3 clip -o packed --weights p3 --force")[0] == 0
    expected = "clip holds more than 3 frames; expected a folder"
    assert expected in wic("pack clip-3 clip -o one.png --weights p3")[2]
    files = "clip/f1.png clip/f2.png clip/f3.png"
    code, out, _ = wic(f"pack clip-3-x2 {files} -o one.png --weights p3h")
    assert out.startswith("one.png: 4x3, ")
    assert "from the middle frame; frame 1 comes back at 8x6" in out
    assert wic("unpack one.png -o two.png --weights p3h")[0] == 0


def test_folders(wic):
    for name in ("in/x", "in/y", "secrets"):
        Path(name).mkdir(parents=True)
    Path("a.png").rename("in/x/a.png")
    Path("in/y/c.png").write_bytes(Path("b.png").read_bytes())
    code, out, err = wic("down in b.png -o small --weights r")
    assert (code, err) == (0, "")
    names = ["small/x/a.png", "small/y/c.png", "small/b.png"]
    assert [line.split(":")[0] for line in out.splitlines()] == names
    assert wic("up small -o back --weights r")[0] == 0
    assert size_of(read_image("back/x/a.png")) == (11, 8)

    # one secret for all, then one for each
    assert wic("hide in b.png -o stego --weights h")[0] == 0
    assert wic("reveal stego/x/a.png stego/y/c.png -o found --weights h")[0] == 0
    assert sorted(os.listdir("found")) == ["a.png", "c.png"]
    Path("b.png").rename("secrets/1.png")
    assert (
        "as many secrets as covers, 2; secrets holds 1"
        in wic("hide in secrets -o o --weights h")[2]
    )
    Path("secrets/2.png").write_bytes(Path("secrets/1.png").read_bytes())
    assert wic("hide in secrets -o each --weights h")[0] == 0


def test_one_bad_file_among_several(wic):
    Path("in").mkdir()
    Path("a.png").rename("in/a.png")
    Path("in/bad.png").write_text("no image")
    Path("in/c.png").write_bytes(Path("b.png").read_bytes())
    code, out, err = wic("down in -o out --weights r")
    assert code == 1
    assert len(out.splitlines()) == 2
    first, last = err.splitlines()
    assert first.startswith("wic: error: in/bad.png is not an image")
    assert last == "wic: error: 1 of 3 files failed"
    assert sorted(os.listdir("out")) == ["a.png", "c.png"]


def test_json(wic):
    code, out, _ = wic("hide a.png b.png -o s.png --weights h --json")
    assert code == 0
    found = json.loads(out)
    assert found["inputs"] == ["a.png", "b.png"]
    assert (found["path"], found["size"], found["returns"]) == ("s.png", [12, 8], [[6, 5]])
    assert isinstance(found["psnr"], float)
    assert len(found["psnr_back"]) == 1
    assert json.loads(wic("reveal s.png -o t.png --weights h --json")[1])["size"] == [6, 5]
    assert json.loads(wic("inspect h --json")[1])["weights"] == found["weights"]


def test_inspect(wic):
    code, out, _ = wic("inspect h")
    assert code == 0
    assert re.search(r"^0 +Squeeze\(2\) +6 x H x W -> 24 x H/2 x W/2$", out, re.MULTILINE)
    assert re.search(r"WIC\(8, 3, zero\).* condition \d", out)
    assert re.search(r"^operations +[\d.]+ kFLOP per input pixel", out, re.MULTILINE)
    assert "a random start" in wic("inspect hiding-2-tiny")[1]


def test_doubtful_content_is_a_warning(wic):
    """A photograph in which nothing was hidden, and a preset of the package."""
    Image.fromarray(data.astronaut()[:160, 160:320]).save("p.png")
    code, out, err = wic("reveal p.png -o t.png --preset hiding-1-naive-small --size 160x160")
    assert (code, out) == (0, "t.png: 160x160\n")
    assert err.startswith("wic: warning: What came back looks like the picture itself")
    assert err.count("\n") == 1


def test_a_reader_that_goes_away(wic):
    line = "import sys; from wic_layers.cli import main; sys.exit(main(sys.argv[1:]))"
    command = f"{sys.executable} -c '{line}' inspect hiding-1-tiny | true"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, shell=True, env=environment, capture_output=True, text=True)
    assert "Traceback" not in done.stderr


def test_a_new_process_needs_the_file_alone(wic, weights, tmp_path):
    wic("hide a.png b.png -o s.png --weights h")
    wic("reveal s.png -o here.png --weights h")
    alone = tmp_path / "elsewhere"
    alone.mkdir()
    (alone / "s.png").write_bytes(Path("s.png").read_bytes())
    words = ["-m", "wic_layers", "reveal", "s.png", "-o", "t.png"]
    done = python(*words, "--weights", weights / "h", cwd=alone)
    assert (done.returncode, done.stdout, done.stderr) == (0, "t.png: 6x5\n", "")
    assert torch.equal(read_image(alone / "t.png"), read_image("here.png"))


@pytest.mark.parametrize(
    ("command", "match"),
    [
        ("", "COMMAND"),
        ("paint a.png", "Expected a command, such as hide, reveal, .*; got 'paint'"),
        ("hide a.png", "SECRET, -o/--out"),
        ("hide a.png b.png -o s.png --pre x", "unrecognized arguments|--pre"),
        ("hide a.png b.png -o s.png --preset x --weights h", "not allowed with"),
        ("hide a.png b.png -o s.png --preset hidin-1", "such as hiding-1"),
        ("hide a.png b.png -o s.png --preset rescaling-x2-naive-small", "is for rescaling"),
        ("hide a.png b.png -o s.png --weights nothing", "--weights to be there; nothing is not"),
        ("hide a.png b.png -o s.png --weights a.png", "a folder of weights or its model"),
        ("hide a.png b.png -o s.png --weights .", "cannot be read: No such file"),
        ("hide a.png b.png -o s.png --weights r", "Expected a network for hiding-1"),
        ("hide a.png b.png b.png -o s.png --weights h", "Expected a network for hiding-2"),
        ("hide a.png b.png b.png b.png b.png b.png -o s.png", "1 to 4 secrets; got 5"),
        ("pack pair a.png b.png -o s.png", "Expected one of stereo, zoom-x2,.* got 'pair'"),
        ("pack stereo a.png -o s.png", r"2 images for stereo \(left, right\); got 1"),
        ("pack clip-3 a.png a.png a.png a.png -o s.png", "3 images for clip-3 .* got 4"),
        ("pack stereo a.png b.png -o s.png --weights p2", "of one size; got 11x8, 6x5"),
        ("pack layers a.png a.png -o s.png --weights p3", "foreground with transparency"),
        ("pack clip-3 a.txt -o s.png --weights p3", "a.txt does not exist"),
        ("pack stereo a.png . -o s.png", "a file to go with a.png; . is a folder"),
        ("hide a.png . -o s.png --weights h", "a file to go with a.png; . is a folder"),
        ("hide . b.png -o s.png --weights h", "Expected a folder to write several .* got s.png"),
        ("down a.png b.png -o s.png --weights r", "Expected a folder to write several"),
        (
            "down a.png ./a.png -o s --weights r",
            "a.png and a.png would both be written as s.a.png",
        ),
        ("down a.png -o s.png --weights r --tile 0", "a tile of at least 1 pixel a side; got 0"),
        ("inspect nothing", "name of a preset"),
        ("inspect .", "cannot be read: No such file"),
        ("color a.png -o s.png --size 3x3", "does not say that `wic gray` made it"),
        ("up a.png -o s.png --size 3x3 --size 4x4 --weights r", "--size once; got it 2 times"),
        ("hide b.png a.png -o s.png --weights h", "at most the cover's 6x5; got 11x8.*--fit"),
        ("hide a.png b.png -o s.jpg --weights h", "lossy"),
        ("hide a.png b.png -o b.png --weights h --force", "is an input too"),
        ("hide a.png b.png -o no/s.png --weights h", "there is no folder no"),
        ("hide c.png b.png -o s.png --weights h", "c.png does not exist"),
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
    monkeypatch.setattr(codec, "read_photos", lambda *_, **__: pytest.fail("read too early"))
    assert "exists" in wic("hide a.png a.png -o b.png --weights h")[2]
    assert "lossy" in wic("down a.png -o b.jpeg --weights r")[2]


def test_ctrl_c(wic, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(codec, "forward_pixels", interrupted)
    before = sorted(os.listdir())
    assert wic("down a.png -o s.png --weights r") == (130, "", "")
    assert sorted(os.listdir()) == before


def test_lack_of_memory(wic, monkeypatch):
    def greedy(*_):
        raise MemoryError

    monkeypatch.setattr(Rescaling, "packed", greedy)
    code, _, err = wic("down a.png -o s.png --weights r")
    assert code == 2
    assert "not enough memory" in err


def test_version_and_help(wic):
    assert wic("--version") == (0, f"wic-layers {wic_layers.__version__}\n", "")
    code, out, _ = wic("--help")
    assert code == 0
    for command in (
        "hide", "reveal", "down", "up", "gray", "color", "inspect", "train", "export", "selftest"
    ):  # fmt: skip
        assert re.search(rf"^ +{command} ", out, re.MULTILINE)
        assert wic(f"{command} --help")[0] == 0


def test_train_and_selftest_are_called(wic, monkeypatch):
    from wic_layers.training import command

    monkeypatch.setattr("wic_layers.cli.selftest.selftest", lambda: 1)
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
for command in sys.argv[1:]:
    print("exit code", main(command.split()), file=sys.stderr)
"""


def test_missing_dependencies_are_named(wic):
    commands = ("down a.png -o s.png", "train p", "--version")  # which ends the process
    done = python("-W", "ignore", "-c", WITHOUT, *commands)
    told = re.findall(r"(.*?)^exit code (\d+)\n", done.stderr, re.DOTALL | re.MULTILINE)
    assert [code for _, code in told] == ["2", "2"], done.stderr
    assert re.search(r"pip install 'wic-layers\[(cli|images)\]'", told[0][0])
    assert re.search(r"pip install 'wic-layers\[train\]'", told[1][0])
    assert done.returncode == 0
    assert done.stdout.startswith("wic-layers ")
    assert "Traceback" not in done.stderr


def test_core_alone_is_enough_to_start():
    code = "import sys, wic_layers.cli, wic_layers.tasks; print('PIL' in sys.modules)"
    assert python("-c", code).stdout == "False\n"


FAULTS = """
import resource, sys
import torch
from wic_layers.cli import main
sys.argv = ["wic", "nothing"]
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.zeros(2**24).add_(1)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
for arguments in ((sys.argv[1:],), ()):
    main(*arguments)
    for _ in range(3):  # until malloc's pool has grown
        faults()
    # the middle of five: of a freed tensor that does not touch the heap's end a small object may
    # take a piece, and the next tensor then needs new pages, once
    print(sorted(faults() for _ in range(5))[2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_memory_is_kept_for_the_next_tensor(monkeypatch):
    """In a process of its own; where main is called with words the allocator stays as it is."""
    for name in [name for name in os.environ if name.startswith("MALLOC_")]:
        monkeypatch.delenv(name)
    others, own = map(int, python("-c", FAULTS).stdout.split())
    assert own < 100 < others


def test_module_is_a_command(wic):
    Image.new("RGB", (4, 4)).save("c.jpg")
    done = python("-m", "wic_layers", "up", "c.jpg", "-o", "d.png")
    assert done.returncode == 2
    assert done.stderr.startswith(
        "wic: error: c.jpg is a JPEG file; expected the PNG as it was written, or saved "
        "without loss, since lossy compression destroys what it holds. Weights that were trained "
        "for it can, "
    )


def test_no_input_and_no_result_is_written_over(wic):
    Path("covers").mkdir()
    Path("b.png").rename("covers/b.png")
    assert wic("hide a.png covers/b.png a.png -o a-two.png --fit --weights h2")[0] == 0
    assert wic("hide a.png covers/b.png -o a-1.png --fit --weights h")[0] == 0
    Path("in").mkdir()
    Path("a-two.png").rename("in/a.png")
    Path("a-1.png").rename("in/a-1.png")
    kept = Path("in/a-1.png").read_bytes()

    # what one file gives would take the place of another one that is read
    code, _, err = wic("reveal in/a.png in/a-1.png -o in --force --weights h2")
    assert code == 1
    assert "in/a-1.png is an input too" in err
    assert Path("in/a-1.png").read_bytes() == kept


def test_what_one_file_gave_is_kept_from_the_next(wic):
    Path("in").mkdir()
    assert wic("hide a.png b.png b.png -o in/a.png --fit")[0] == 0
    assert wic("hide a.png b.png -o in/a-1.png --fit")[0] == 0
    assert wic("reveal in/a-1.png -o alone.png")[0] == 0
    for more in ("", " --force"):  # a.png gives a-1.png and a-2.png
        code, _, err = wic(f"reveal in -o out{more}")
        assert code == 1
        assert "out/a-1.png was written just now, from another file" in err
        assert "1 of 2 files failed" in err
        assert Path("out/a-1.png").read_bytes() == Path("alone.png").read_bytes()


def test_frames_of_a_clip_are_not_written_over(wic):
    Path("clip").mkdir()
    for index in range(1, 8):
        write_png(random_pixels(8, 6, index), f"clip/clip-{index:04d}.png")
    kept = {path: path.read_bytes() for path in Path("clip").iterdir()}
    code, _, err = wic("pack clip-3 clip -o clip --force --weights p3")
    assert code == 2
    assert "clip/clip-0001.png is an input too" in err
    assert {path: path.read_bytes() for path in Path("clip").iterdir()} == kept


def test_earlier_results_below_a_folder_are_no_inputs(wic):
    Path("in").mkdir()
    Path("a.png").rename("in/a.png")
    for more in ("", " --force"):
        code, out, _ = wic(f"down in -o in/small --weights r{more}")
        assert code == 0
        assert [line.split(":")[0] for line in out.splitlines()] == ["in/small/a.png"]


def test_a_folder_may_have_a_dot(wic):
    assert wic("down a.png b.png -o v1.0 --weights r")[0] == 0
    assert sorted(os.listdir("v1.0")) == ["a.png", "b.png"]


def test_what_the_system_refuses_is_one_line(wic):
    name = "a" * 300
    code, out, err = wic(f"down {name} -o x.png --weights r")
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert cli.main(["down", "a.png", "-o", f"{name}.png"]) == 2
    with pytest.raises(SystemExit):
        cli.main(["down", "", "-o", "x.png"])


def test_inspect_takes_a_folder_that_is_named_as_a_preset(wic, weights):
    Path("rescaling-x4").symlink_to(weights / "r")
    assert "none here" in wic("inspect rescaling-x2-tiny")[1]
    assert "none here" not in wic("inspect rescaling-x4")[1]
    assert "There is no folder of that name either" in wic("inspect rescaling-x5")[2]
