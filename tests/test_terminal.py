"""The command line as it is used: names as people have them, long work, Ctrl-C, terminals."""

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

import wic_layers
from wic_layers import tasks
from wic_layers._text import abridged, printable
from wic_layers.cli import command
from wic_layers.codec import codec as codec_module
from wic_layers.codec import returning, target, work
from wic_layers.models import WINNaive
from wic_layers.models.card import card_of
from wic_layers.pictures import read_image, size_of, write_png
from wic_layers.training.recipe import Settings
from wic_layers.training.shown import Shown

ROOT = Path(wic_layers.__file__).parents[1]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "TERM": "xterm"}


def random_pixels(width, height, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


# ---------------------------------------------------------------------------------------- names


def test_a_slash_makes_a_folder(wic):
    assert wic("down a.png -o new/deep/ --weights r")[:2][1].startswith("new/deep/a.png: 6x4")
    assert wic("hide a.png b.png -o s.png/ --weights h")[0] == 0
    assert sorted(os.listdir("s.png")) == ["a.png"]
    assert "Expected a folder" in wic("down a.png -o b.png/ --weights r")[2]
    Path("clip").mkdir()
    for index in range(4):
        write_png(random_pixels(8, 6, index), f"clip/{index}.png")
    assert wic("pack clip-3 clip -o p.png/ --weights p3")[0] == 0
    assert sorted(os.listdir("p.png")) == ["clip-0001.png", "clip-0002.png"]


def test_names_that_begin_with_a_dash(wic):
    Path("a.png").rename("-a.png")
    Path("-in").mkdir()
    Path("b.png").rename("-in/--b.png")
    assert wic("down -a.png -o -s.png --weights r") == (
        0, wic("down -a.png -o -s.png --weights r --force")[1], ""
    )  # fmt: skip
    assert wic("up -o back/ --weights r -- -s.png")[1] == "back/-s.png: 11x8\n"
    assert wic("down -in -o=-out --weights r")[1].startswith("-out/--b.png: 3x3")
    assert wic("down -*.png -o all --weights r")[0] == 0
    assert "unrecognized arguments: -c.png" in wic("down -a.png -c.png -o x.png --weights r")[2]
    assert "expected one argument" in wic("down -a.png -o --force")[2]


def test_patterns_that_no_shell_expanded(wic):
    Path("a.png").rename("A.PNG")
    Path("b.png").rename("B.PNG")
    write_png(random_pixels(6, 5), "x[1].png")
    code, out, _ = wic("down *.PNG -o out --weights r")
    assert (code, [line.split(":")[0] for line in out.splitlines()]) == (
        0, ["out/A.png", "out/B.png"]
    )  # fmt: skip
    assert wic("down x[1].png -o y.png --weights r")[0] == 0  # a file is no pattern
    code, _, err = wic("down nothing*.png -o out --weights r")
    assert (code, err) == (2, "wic: error: No file matches nothing*.png.\n")


def test_names_that_differ_by_their_ends_alone(wic):
    Path("in").mkdir()
    for name in ("DSC_1.JPG", "DSC_1.jpeg", "DSC_2.JPG"):
        Image.new("RGB", (8, 6)).save(f"in/{name}", format="JPEG")
    assert wic("down in -o out --weights r")[0] == 0
    assert sorted(os.listdir("out")) == ["DSC_1.JPG.png", "DSC_1.jpeg.png", "DSC_2.png"]


def test_commands_and_presets_that_are_mistyped(wic):
    assert wic("help") == wic("--help")
    assert wic("help down") == wic("down --help")
    assert "exit codes: 0 all is done; 1 some of several files failed" in wic("help")[1]
    assert "such as reveal; got 'reveel'" in wic("reveel a.png")[2]
    for typo, name in {
        "Rescaling_X2": "rescaling-x2", "rescalng-x4-small": "rescaling-x4-small",
        "stereo": "stereo-naive-small", "x4-plain": "rescaling-x4-plain-naive-small",
    }.items():  # fmt: skip
        code, _, err = wic(f"inspect {typo}")
        assert (code, name in err.partition("got")[0]) == (2, True), err
    code, _, err = wic("down a.png -o s.png --preset rescaling-x2-tiny")
    assert code == 2
    assert "no weights for the preset 'rescaling-x2-tiny'" in err
    assert "With weights for that there are rescaling-x2" in err
    assert "hiding" not in err
    assert "such as rescaling-x" in wic("down a.png -o s.png --preset rescaling-x3x")[2]


def test_the_table_of_presets(wic):
    code, out, err = wic("presets")
    assert (code, err) == (0, "")
    row = re.search(
        r"^rescaling-x2-naive-small +wic down +rescaling-x2 +WINNaive .*$", out, re.MULTILINE
    )
    assert re.search(r" 3\.1 +small picture [\d.]+.* dB", row[0])
    rows = [json.loads(line) for line in wic("presets STEREO --json")[1].splitlines()]
    assert {row["task"] for row in rows} == {"stereo"}
    assert rows[0]["preset"] == "stereo-naive-small"
    assert rows[0]["MB"] > 0 == (rows[-1]["MB"] or 0)
    assert "no row has paint" in wic("presets paint")[2]


def test_checkpoints_of_other_code_are_for_upgrade(wic):
    Path("x.pth").write_bytes(b"no checkpoint")
    for line in ("down a.png -o s.png --weights x.pth", "inspect x.pth"):
        assert "wic upgrade irn x.pth -o FOLDER" in wic(line)[2]
    assert "invalid choice" not in wic("upgrade IRN x.pth -o run")[2]


def test_the_size_that_is_proposed_can_be_right(wic):
    write_png(random_pixels(30, 20), "my small.png")
    run = ["up", "my small.png", "-o", "t.png"]
    with pytest.MonkeyPatch.context() as patch:
        stderr = io.StringIO()
        patch.setattr(sys, "stderr", stderr)
        assert command.ERROR == wic_main(run)
        assert wic_main([*run, "--size", "119x80"]) == 2
        assert wic_main([*run, "--preset", "rescaling-x4-plain-naive-small"]) == 2
    first, second, third = stderr.getvalue().splitlines()
    assert "`wic up 'my small.png' -o OUT.png --preset rescaling-x2-naive-small --size 60" in first
    assert "--preset rescaling-x4-plain-naive-small --size 119x80`" in second
    assert "--preset rescaling-x4-plain-naive-small --size 120x80`" in third
    line = re.findall(r"`wic (.*?)`", first)[1].replace("'my small.png'", "m.png")
    Path("my small.png").rename("m.png")
    assert wic(line)[0] == 0
    assert size_of(read_image("OUT.png")) == (60, 40)
    assert wic(re.findall(r"`wic (.*?)`", wic("unpack m.png -o u.png")[2])[1])[0] == 0


def wic_main(words):
    from wic_layers.cli import main

    return main(words)


# ------------------------------------------------------------------------------------ long work


def test_a_batch_that_goes_on(wic):
    Path("in").mkdir()
    write_png(random_pixels(11, 8), "in/a.png")
    Path("in/bad.png").write_text("no image")
    write_png(random_pixels(6, 5), "in/c.png")
    code, out, err = wic("down in -o out --weights r --json")
    first, bad, last = map(json.loads, out.splitlines())
    assert (code, first["path"], last["path"]) == (1, "out/a.png", "out/c.png")
    assert bad["inputs"] == ["in/bad.png"]
    assert bad["error"] in err
    assert json.loads(wic("down in/bad.png -o x.png --weights r --json")[1]) == bad

    Path("out/c.png").unlink()
    stays = Path("out/a.png").stat()
    code, out, err = wic("down in -o out --weights r --json --skip-existing")
    skipped, bad, again = map(json.loads, out.splitlines())
    assert code == 1
    assert skipped == {"inputs": ["in/a.png"], "path": "out/a.png", "skipped": True}
    assert (again["path"], Path("out/a.png").stat()) == ("out/c.png", stays)
    assert "note: 1 of 3 outputs exist and stay as they are" in err
    assert wic("down a.png -o out/a.png --weights r --skip-existing")[:2] == (0, "")
    assert "not allowed with" in wic("down in -o out --skip-existing --force")[2]
    assert "is an input too" in wic("down in/a.png -o in/a.png --skip-existing --weights r")[2]


def test_several_images_of_a_file_are_there_when_the_first_is(wic, monkeypatch):
    wic("hide a.png b.png b.png -o s.png --weights h2")
    write = returning.write_png

    def interrupted(image, target, **keywords):
        if target.name == "t-1.png":
            raise KeyboardInterrupt
        write(image, target, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(returning, "write_png", interrupted)
        assert wic("reveal s.png -o t.png --weights h2")[0] == 130
    assert [name for name in os.listdir() if name.startswith("t-")] == ["t-2.png"]
    Path("t-2.png").unlink()
    assert len(wic("reveal s.png -o t.png --weights h2 --skip-existing")[1].splitlines()) == 2
    code, out, err = wic("reveal s.png -o t.png --weights h2 --skip-existing")
    assert (code, out) == (0, "")
    assert "1 of 1 outputs" in err
    for index in range(4):
        write_png(random_pixels(8, 6, index), f"f{index}.png")
    Path("clip").mkdir()
    for index in range(4):
        Path(f"f{index}.png").rename(f"clip/{index}.png")
    wic("pack clip-3 clip -o packed --weights p3")
    Path("packed/clip-0001.png").unlink()
    out = wic("pack clip-3 clip -o packed --weights p3 --skip-existing")[1]
    assert [line.split(":")[0] for line in out.splitlines()] == ["packed/clip-0001.png"]


def test_ctrl_c_while_it_is_judged(wic, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(codec_module, "judge", interrupted)
    code, out, err = wic("down a.png b.png -o out --weights r")
    assert (code, out) == (130, "")
    assert err.splitlines() == [
        "wic: interrupted: out/a.png is whole; what comes back from it was not judged",
        "wic: interrupted: 1 of 2 files are done; --skip-existing goes on with the others",
    ]
    assert size_of(read_image("out/a.png")) == (6, 4)


def test_links_in_a_loop(wic):
    Path("loop").symlink_to("loop")
    Path("in").mkdir()
    Path("in/up").symlink_to("..")
    Path("in/a.png").symlink_to("a.png")
    write_png(random_pixels(6, 5), "in/b.png")
    for line in ("down loop -o x.png", "down a.png loop -o out --weights r", "eval loop loop"):
        code, _, err = wic(line)
        assert code in (1, 2)
        assert "Traceback" not in err
    assert wic("down in -o out2 --weights r")[1].startswith("out2/b.png")


class Terminal(io.StringIO):
    def isatty(self):
        return True


def screen(text):
    """What a terminal shows of a text with returns, line by line."""
    lines = []
    for row in text.replace("\r\n", "\n").split("\n"):
        line = ""
        for piece in row.split("\r"):
            line = piece + line[len(piece) :]
        lines.append(line.rstrip())
    return lines


def percentages(text):
    return [int(each) for each in re.findall(r"(\d+)%\|", text)]


def test_one_bar_for_all_files(wic, monkeypatch):
    """It counts the work, by pixels, and an error does not break it."""
    monkeypatch.setattr("wic_layers.cli.bar._SOON", 0)
    Path("in").mkdir()
    Image.fromarray(data.astronaut()[:240, :160]).save("in/a.png")
    Path("in/b.png").write_text("no image")
    Image.fromarray(data.coffee()[:160, :240]).save("in/c.png")
    Image.fromarray(data.coffee()[:16, :24]).save("in/d.png")
    terminal, write = Terminal(), target.write_png

    def warning(*args, **keywords):
        print("from a library", file=sys.stderr)
        write(*args, **keywords)

    monkeypatch.setattr(target, "write_png", warning)
    monkeypatch.setattr(sys, "stderr", terminal)
    code, *_ = wic("down in -o out")
    assert sys.stderr is terminal
    written = terminal.getvalue()
    assert code == 1
    lines = screen(written)
    assert any(re.fullmatch(r"wic: error: in/b\.png is not an image.*", line) for line in lines)
    assert "wic: error: 1 of 4 files failed" in lines
    assert lines.count("from a library") == 3
    shown = percentages(written)
    assert shown == sorted(shown)
    assert {"1/4 a.png", "3/4 c.png"} <= set(re.findall(r"\d/4 \w\.png", written))


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_training_shows_how_it_goes_from_its_first_step_on(monkeypatch, capsys, is_terminal):
    terminal = Terminal() if is_terminal else io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr("wic_layers.training.shown._EVERY", 0)
    objective = Settings(preset="p", data=("d",)).objective(tasks.TASKS["rescaling-x2"])
    losses = dict.fromkeys(objective.weights, torch.tensor(0.5))
    loss = 0.5 * sum(objective.weights.values())
    judgement = argparse.Namespace(psnr_forward=30.125, psnr_back=31.5)
    with Shown(12, objective, enabled=True) as shown:
        for step in range(3, 8):  # resumed after the second
            shown.step(step, losses, judgement if step == 5 else None, 2e-3 / step)
        shown.warn("a layer\x1b[2J")
    line = capsys.readouterr().out
    if not is_terminal:
        told = rf"loss {loss:.4g}, lr 4.00e-04, 30.12/31.50 dB"
        assert re.fullmatch(rf"step 5 of 12, \S+/s, \d\d:\d\d left, {told}\n", line)
        return
    shown = [row for row in re.split(r"[\r\n]", terminal.getvalue()) if "/12 " in row]
    assert r"wic: warning: a layer\x1b[2J" in screen(terminal.getvalue())
    for row in shown[1:]:  # the first one is of before
        assert re.search(rf"step/s|s/step.* left, loss {loss:.4g}, lr \d", row), row
    assert re.search(r"^ +58%.* 7/12 .*lr 2.86e-04, 30.12/31.50 dB", shown[-1])


def test_the_work_is_told_within_one_tile():
    """Every convolution moves it; it never goes back, and ends at 1."""
    network = WINNaive.from_preset("rescaling-x2-naive-tiny").eval()
    photo = np.ascontiguousarray(data.astronaut()[:64, :64])
    told = []
    plain = tasks.down(photo, model=network, refine=2)
    with work.told_to(told.append):
        assert np.array_equal(tasks.down(photo, model=network, refine=2), plain)
    convolutions = sum(m.kernel_size == (3, 3) for m in network.modules() if hasattr(m, "stride"))
    assert len(told) > 4 * convolutions
    assert told == sorted(told)
    assert (told[0] < 0.1, told[-1]) == (True, 1.0)
    told.clear()
    with work.told_to(told.append):
        tasks.up(plain, model=network, tile=40)
    assert told == sorted(told)
    assert 0.1 < np.diff([0, *told]).max() * convolutions < 2


def test_in_a_notebook_there_is_a_bar_by_itself(monkeypatch):
    class ZMQInteractiveShell:
        pass

    bars = []

    class Bar:
        n = 0.0

        def __init__(self, **arguments):
            bars.append(self)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, more):
            self.n += more

    network = WINNaive.from_preset("rescaling-x2-naive-tiny").eval()
    photo = np.zeros((20, 20, 3), dtype=np.uint8)
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    monkeypatch.setattr(work, "_LARGE", 399)
    tasks.down(photo, model=network)
    assert not bars  # no notebook
    shell = argparse.Namespace(get_ipython=ZMQInteractiveShell)
    monkeypatch.setitem(sys.modules, "IPython", shell)
    tasks.up(tasks.down(photo, model=network), model=network)
    tasks.down(photo[:19], model=network)  # small
    assert [round(bar.n, 6) for bar in bars] == [1, 1]


def test_paths_have_functions_of_their_own():
    for function, name in ((tasks.down, "down_file"), (tasks.color, "color_file")):
        with pytest.raises(TypeError, match=rf"the path 'photo.png'.*tasks\.{name}"):
            function("photo.png")
    with pytest.raises(TypeError, match=r"tasks\.hide_file"):
        tasks.hide(Path("a.png"), [Path("b.png")])


# ------------------------------------------------------------------------------------ terminals


def test_nothing_of_a_name_steers_the_terminal(wic):
    name = "\x1b[2J\x1b]0;forged\x07\u202egnp.\x08.png"
    Path("a.png").rename(name)
    code, out, err = wic(f"down {name} -o {name}x.png --weights r")
    assert (code, err) == (0, "")
    assert out.startswith(r"\x1b[2J\x1b]0;forged\x07\u202egnp.\x08.pngx.png: 6x4")
    err = wic(f"down {name}y -o x.png")[2]
    assert err.count("\n") == 1
    assert not set(err) & {"\x1b", "\x07", "\u202e", "\r"}
    assert len(wic(f"inspect {'x' * 100_000}")[2]) < 2200
    assert printable("naïve 写真 👩\u200d👩.png") == "naïve 写真 👩\u200d👩.png"
    assert len(abridged("x" * 2_000_000)) == 2000


def test_a_card_is_what_it_says(wic, weights):
    folder = Path(weights) / "r"
    config = json.loads((folder / "config.json").read_text())
    config["card"] = {"licence": "MIT\n---\nforged", "note\x1b": "\x1b[31mred|\nrow"}
    head = card_of(config, 1, "all").split("---\n")[1]
    assert head == 'library_name: wic-layers\nlicense: "mit\\n---\\nforged"\n'
    assert r"| note\x1b | \x1b[31mred\|\nrow |" in card_of(config, 1, "all")
    Path("own").mkdir()
    for name in ("model.safetensors",):
        Path("own", name).write_bytes((folder / name).read_bytes())
    Path("own/config.json").write_text(json.dumps(config))
    out = wic("inspect own")[1]
    assert r"\x1b[31mred|\nrow" in out
    assert "\x1b" not in out


STARTED = """
import signal, sys, wic_layers.cli
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever started the tests
print("started", flush=True)
sys.argv = ["wic", "down", "a.png", "-o", "s.png"]
raise SystemExit(wic_layers.cli.main())
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("seconds", [0.0, 0.2, 0.7])
def test_ctrl_c_in_the_first_second(tmp_path, seconds):
    write_png(random_pixels(64, 64), tmp_path / "a.png")
    process = subprocess.Popen(
        [sys.executable, "-c", STARTED], cwd=tmp_path, env=ENVIRONMENT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout.readline() == "started\n"
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("", "")
    assert process.returncode == -signal.SIGINT  # which shells call 130
    assert os.listdir(tmp_path) == ["a.png"]


@pytest.mark.skipif(os.name != "posix", reason="streams of POSIX")
def test_closed_streams(wic):
    line = f"{sys.executable} -m wic_layers down a.png bad.png -o out --check none"
    Path("bad.png").write_text("no image")
    done = subprocess.run(
        f"{line} <&- >&- 2>&-; echo $?",
        shell=True,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("1\n", "")
    assert size_of(read_image("out/a.png")) == (6, 4)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full")
def test_a_full_disk_behind_stdout(wic, monkeypatch):
    with open("/dev/full", "w") as full, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        code, _, err = wic("presets")
    assert (code, err) == (2, "wic: error: No space left on device.\n")


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_real_terminal(tmp_path):
    """A bar that moves within a tile, an error above it, and Ctrl-C in the middle."""
    import pty

    Path(tmp_path / "in").mkdir()
    Image.fromarray(data.astronaut()[:64, :64]).save(tmp_path / "in/a.png")
    (tmp_path / "in/b.png").write_text("no image")
    Image.fromarray(data.coffee()).resize((2000, 1500)).save(tmp_path / "in/c.jpg")
    end, other = pty.openpty()
    line = "stty cols 80; exec " + f"{sys.executable} -m wic_layers down in -o out --tile 1000"
    process = subprocess.Popen(
        ["sh", "-c", line], cwd=tmp_path, env=ENVIRONMENT, stdin=other, stdout=other,
        stderr=other, start_new_session=True, preexec_fn=_take_terminal,
    )  # fmt: skip
    os.close(other)
    written, is_sent = b"", False
    while True:
        try:
            piece = os.read(end, 65536)
        except OSError:  # it has ended
            break
        if not piece:
            break
        written += piece
        if not is_sent and len(set(percentages(written.decode(errors="ignore")))) >= 4:
            os.write(end, b"\x03")
            is_sent = True
    os.close(end)
    text = written.decode().replace("^C", "")  # which the terminal itself shows
    assert process.wait(60) == -signal.SIGINT
    lines = screen(text)
    assert "Traceback" not in text
    assert any(line.startswith("wic: error: in/b.png is not an image") for line in lines)
    assert any(line.startswith("out/a.png: 32x32, ") for line in lines)
    assert "wic: interrupted: 2 of 3 files are done; --skip-existing goes on with the others" in (
        lines
    )
    shown = percentages(text)
    assert shown == sorted(shown)
    assert is_sent
    assert shown[-1] < 25  # the first of four tiles has not ended
    assert max(map(len, lines)) < 300
    assert os.listdir(tmp_path / "out") == ["a.png"]


def _take_terminal():
    import fcntl
    import termios

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # whatever started the tests
