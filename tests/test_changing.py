"""change.py: what it writes into a checkout, what it refuses, and that nothing of it stays."""

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from integrations import changing
from integrations.changing import Change, Edit, main

INTEGRATIONS = Path(__file__).parents[1] / "integrations"
STANDINS = Path(__file__).parent / "standins" / "checkouts"
CHANGE = Change(
    "owner/name",
    "12345678",
    {"a/net.py": "0", "train.py": "0"},
    (
        Edit("a/net.py", "import base", "import base\nimport added"),
        Edit("a/net.py", "net = Net()", "net = Closed(Net(), 12)"),
        Edit("train.py", "opt.load(state)", "load(opt, state)"),
    ),
    note="Set it among the options.",
)
NET = b"import base\r\n\r\nclass A:\r\n    def f(self):\r\n        net = Net()  # \xe7\r\n"
TRAIN = b"if True:\n    # opt.load(state) is what it was\n    opt.load(state)"


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "net.py").write_bytes(NET)
    (tmp_path / "train.py").write_bytes(TRAIN)
    os.chmod(tmp_path / "train.py", 0o755)
    return tmp_path


def contents(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def run(checkout, *options):
    return main(CHANGE, [str(checkout), *options])


def test_written_with_its_line_endings_and_taken_out_byte_for_byte(checkout, capsys):
    before = contents(checkout)
    assert run(checkout) == 0
    assert contents(checkout) == {
        "a/net.py": NET.replace(b"import base\r\n", b"import base\r\nimport added\r\n").replace(
            b"Net()", b"Closed(Net(), 12)"
        ),
        "train.py": TRAIN.replace(b"    opt.load(state)", b"    load(opt, state)"),
    }
    assert stat.S_IMODE((checkout / "train.py").stat().st_mode) == 0o755
    printed = capsys.readouterr()
    assert "Written into a/net.py, train.py." in printed.out
    assert "Set it among the options." in printed.out
    assert "train.py is not that of 12345678" in printed.err
    after = contents(checkout)
    assert run(checkout) == 0
    assert capsys.readouterr().out == "It is already there.\n"
    assert contents(checkout) == after
    assert run(checkout, "--undo") == 0
    assert contents(checkout) == before
    capsys.readouterr()
    assert run(checkout, "--undo") == 0
    assert capsys.readouterr().out == "It is not there.\n"


def test_what_the_owner_has_edited_stays(checkout):
    """Before the change, and between it and its undoing; a part of it by hand is completed."""
    (checkout / "train.py").write_bytes(TRAIN.replace(b"opt.load(state)\n", b"other()\n"))
    (checkout / "a" / "net.py").write_bytes(NET.replace(b"Net()", b"Closed(Net(), 12)"))
    assert run(checkout) == 0
    with open(checkout / "a" / "net.py", "ab") as file:
        file.write(b"more = 1\r\n")
    assert run(checkout) == 0
    assert run(checkout, "--undo") == 0
    assert (checkout / "a" / "net.py").read_bytes() == NET + b"more = 1\r\n"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (b"net = Net()", b"net = Other()", "a/net.py: expected once, and is not there:"),
        (b"net = Net()", b"net = Net(); net = Net()", "a/net.py: expected once, and is 2 times:"),
        (NET, None, "a/net.py: cannot be read: No such file"),
    ],
)
def test_a_missing_place_is_named_and_nothing_written(checkout, old, new, expected, capsys):
    path = checkout / "a" / "net.py"
    path.unlink() if new is None else path.write_bytes(NET.replace(old, new))
    before = contents(checkout)
    for option in ((), ("--show",), ("--undo",)):
        assert run(checkout, *option) == 1
        message = capsys.readouterr().err
        assert expected in message
        assert "Nothing was written. Expected a checkout of owner/name, best at 12" in message
    assert contents(checkout) == before


def test_shown_and_not_written(checkout, capsys):
    before = contents(checkout)
    for _ in range(2):
        assert run(checkout, "--show") == 0
        lines = capsys.readouterr().out.splitlines()
        assert "+++ b/a/net.py" in lines
        assert "-    opt.load(state)" in lines
        assert "+    load(opt, state)" in lines
        if contents(checkout) == before:
            run(checkout)
            capsys.readouterr()
    run(checkout, "--undo")
    assert contents(checkout) == before


def test_a_failure_in_the_middle_leaves_nothing_behind(checkout, monkeypatch):
    before = contents(checkout)
    monkeypatch.setattr(shutil, "copymode", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        run(checkout)
    assert contents(checkout) == before
    assert changing.shutil is shutil


@pytest.mark.parametrize("name", ["irn", "hinet", "iicnet", "dlv"])
def test_each_runs_by_itself_with_the_standard_library_alone(name, tmp_path):
    source = STANDINS / ("irn" if name == "dlv" else name)
    shutil.copytree(source, tmp_path / "checkout")
    before = contents(tmp_path / "checkout")
    script = INTEGRATIONS / name / "change.py"
    for option, expected in (("", "Written into"), ("", "already there"), ("--undo", "Taken")):
        command = [sys.executable, "-I", "-S", "-B", script, "checkout", *option.split()]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert expected in done.stdout
    assert contents(tmp_path / "checkout") == before


def test_irns_change_and_dlvs_do_not_go_together(tmp_path, capsys):
    from integrations.dlv import change as dlv
    from integrations.irn import change as irn

    shutil.copytree(STANDINS / "irn", tmp_path, dirs_exist_ok=True)
    assert main(irn.CHANGE, [str(tmp_path)]) == 0
    before = contents(tmp_path)
    assert main(dlv.CHANGE, [str(tmp_path)]) == 1
    assert "self.netG = networks.define_G(opt)" in capsys.readouterr().err
    assert contents(tmp_path) == before
