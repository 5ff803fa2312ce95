"""Strangers' files and full disks: a sentence, within memory and time, and nothing is lost."""

import argparse
import copy
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from wic_layers import _files, _pickles, cli
from wic_layers._files import write_whole, writing
from wic_layers.errors import WICError, WICFileError, named, quoted, shortened
from wic_layers.layer.conv import WIC
from wic_layers.models import (
    NETWORKS,
    Network,
    WINNaive,
    from_pretrained,
    load_official,
    save_official,
)
from wic_layers.training import cache, checkpoint, command
from wic_layers.training import loop as engine

resource = pytest.importorskip("resource", reason="Windows has no such limits")


@pytest.mark.slow
def test_every_attack_and_some_files_of_every_door():
    """In a process of its own, which has 512 MB for each and 5 seconds; see ``make fuzz``."""
    script = Path(__file__).with_name("fuzz.py")
    done = subprocess.run(
        [sys.executable, script, "--files", "15"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(" attacks, ") == 7
    print(done.stdout)


def test_values_of_a_file_are_quoted_shortly():
    nested = ["x"] * 9
    for _ in range(9):
        nested = [nested] * 9
    for value in (nested, "x" * 10**6, 10**5000, -(10**5000), {"a": nested}, {10**5000: 1}):
        assert len(quoted(value)) < 320
    assert quoted("a\x1b[2J") == r"'a\x1b[2J'"
    assert (quoted(12), quoted(None), quoted([1, "a"])) == ("12", "None", "[1, 'a']")
    assert len(shortened("x y " * 10**6)) < 310
    assert shortened("a\nb") == "a b"
    assert named(["a", "b", "c"], 2) == "a, b, ..."
    assert len(named(["x" * 10**6] * 4)) < 400


@pytest.mark.parametrize("has_links", [True, False])
def test_of_two_writers_to_one_name_one_is_told(tmp_path, monkeypatch, has_links):
    if not has_links:  # such as FAT

        def refuse(*_):
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "link", refuse)
    for index in range(30):
        target, both = tmp_path / f"{index}.png", threading.Barrier(2)
        told, refused = [], []

        def write(content, target=target, both=both, told=told, refused=refused):
            both.wait()
            try:
                write_whole(target, content, replace=False)
                told.append(content)
            except WICFileError as error:
                refused.append(str(error))

        writers = [threading.Thread(target=write, args=(each,)) for each in (b"a", b"b")]
        for each in writers:
            each.start()
        for each in writers:
            each.join()
        assert told == [target.read_bytes()]
        assert "exists, written by another program" in refused[0]
    assert len(list(tmp_path.iterdir())) == 30
    write_whole(target, b"c")
    assert target.read_bytes() == b"c"


@pytest.fixture
def full_disk():
    """No file can grow past 20 kB."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_loses_nothing_and_is_named(tmp_path, monkeypatch, full_disk):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))  # of which nothing is asked
    checkpoint.write(tmp_path, {"small": torch.ones(10)})
    before = (tmp_path / "checkpoint.pt").read_bytes()
    begun = []
    with pytest.raises(WICFileError, match=r"checkpoint\.pt cannot be written: .*File too large"):
        checkpoint.write(tmp_path, {"large": torch.ones(10**6)}, lambda: begun.append(1))
    assert (begun, (tmp_path / "checkpoint.pt").read_bytes()) == ([], before)
    save_official(WINNaive(3, 1, couplings=1, growth=1, layout="published"), tmp_path / "a.pth")
    before_official = (tmp_path / "a.pth").read_bytes()
    large = WINNaive(3, 1, couplings=1, growth=64, layout="published")
    with pytest.raises(WICFileError, match=r"a\.pth cannot be written: "):
        save_official(large, tmp_path / "a.pth")
    assert (tmp_path / "a.pth").read_bytes() == before_official
    with pytest.raises(WICFileError, match=r"model\.safetensors cannot be written: File too"):
        large.save_pretrained(tmp_path / "weights")
    with pytest.raises(WICFileError, match=r"log\.jsonl cannot be written: File too large"):
        engine.Log(tmp_path / "log.jsonl", enabled=True).add(text="x" * 30_000)
    with pytest.raises(KeyError), writing(tmp_path / "b"):
        raise KeyError
    left = {path.name for path in tmp_path.rglob("*")}
    assert left == {"checkpoint.pt", "a.pth", "weights", "log.jsonl"}


def test_a_checkpoint_is_not_written_through_a_link(tmp_path):
    (tmp_path / "other").write_text("kept")
    (tmp_path / checkpoint.UNFINISHED).symlink_to(tmp_path / "other")
    checkpoint.write(tmp_path, {"a": 1})
    assert (tmp_path / "other").read_text() == "kept"
    assert torch.load(tmp_path / checkpoint.CHECKPOINT) == {"a": 1}
    out = tmp_path / "out"
    out.mkdir()
    (out / "tensorboard").symlink_to(tmp_path)
    with pytest.raises(WICFileError, match="tensorboard is a link"):
        command.check_folder(argparse.Namespace(out=out, resume=False, force=True))


def test_an_old_torch_reads_pickles_of_those_that_are_trusted(tmp_path, monkeypatch):
    assert "CVE-2025-32434" in _pickles.why_not_safe("2.5.1+cpu")
    assert "CVE-2026-24747" in _pickles.why_not_safe("2.6.0")
    assert "CVE-2026-24747" in _pickles.why_not_safe("2.9.1")
    assert not any(map(_pickles.why_not_safe, ("2.10.0", "2.13.0+cu128", "3.0.0a0")))
    path, model = tmp_path / "a.pth", WINNaive(3, 1, couplings=1, growth=2, layout="published")
    save_official(model, path)
    folder = model.save_pretrained(tmp_path / "weights")
    why = "a harmful .pth file"
    monkeypatch.setattr(_pickles, "why_not_safe", lambda version: why)
    with pytest.raises(WICFileError, match=r"a\.pth is not read: a harmful .* or say --trust"):
        load_official(path)
    assert isinstance(load_official(path, trust=True), WINNaive)
    assert isinstance(from_pretrained(folder), WINNaive)
    assert cli.main(["upgrade", "irn", str(path), "-o", str(tmp_path / "out")]) == 2


class Harmful:
    def __reduce__(self):
        return print, ("run",)


def test_a_refused_pickle_brings_no_advice_to_read_it(tmp_path, capsys):
    torch.save({"net": Harmful()}, tmp_path / "a.pth")
    with pytest.raises(WICFileError, match=r"a\.pth .*: it asks for \S*print$") as caught:
        load_official(tmp_path / "a.pth")
    assert not any(word in str(caught.value) for word in ("weights_only", "trust", "allow"))
    assert capsys.readouterr().out == ""


def test_the_cache_has_a_limit_and_is_cleared(tmp_path, capsys):
    now = time.time()
    for index, days in enumerate((9, 5, 3, 0)):
        folder = tmp_path / f"photographs-{index}"
        folder.mkdir()
        (folder / "pixels.bin").write_bytes(bytes(1000))
        (folder / "index.json").write_bytes(b"")
        os.utime(folder / "index.json", (now - 86_400 * days,) * 2)
    decoding = tmp_path / ".decoding-1"
    decoding.mkdir()
    os.utime(decoding, (now - 200_000,) * 2)
    (tmp_path / "other").mkdir()
    (tmp_path / "photographs-link").symlink_to(tmp_path / "other")
    # the oldest is in use now; of the others one has to go
    cache.prune(tmp_path, tmp_path / "photographs-0", limit=3000)
    kept = {"photographs-0", "photographs-2", "photographs-3", "other", "photographs-link"}
    assert {path.name for path in tmp_path.iterdir()} == kept
    cache.prune(tmp_path, tmp_path / "photographs-3", limit=0)
    assert {path.name for path in tmp_path.iterdir()} == kept - {"photographs-2"}
    assert cli.main(["cache", "--cache", str(tmp_path)]) == 0
    assert cli.main(["cache", "--clear", "--cache", str(tmp_path)]) == 0
    assert "0.00 GB of decoded photographs removed" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"other", "photographs-link"}


def changed(state, *path, to=None):
    """A copy of nested values with another one at a place; a function of it, or none at all."""
    state = copy.deepcopy(state)
    *outer, last = path
    part = state
    for name in outer:
        part = part[name]
    if to is None:
        del part[last]
    else:
        part[last] = to(part[last]) if callable(to) else to
    return state


def test_a_checkpoint_that_is_damaged_inside_says_what_is_wrong(tmp_path):
    from strangers.networks import Trainings

    door = Trainings(tmp_path)
    state = door.state
    training = door.training
    weight = "1.weight"
    own = training.model.state_dict()
    good = {
        "model": own, "optimizer": training.optimizer.state_dict(),
        "also": [training.average.state_dict()], "guard": training.guard._past(),
    }  # fmt: skip
    state["guard"]["earlier"] = good
    earlier = ("guard", "earlier")
    nan = torch.full_like(own[weight], torch.nan)
    first = next(n for n, s in state["optimizer"]["state"].items() if s["exp_avg"].ndim)
    cases = {
        r"model: 1 names are missing \(1\.weight\)": changed(state, "model", weight),
        r"model: 1\.weight has the shape \(3,\), not": changed(
            state, "model", weight, to=torch.ones(3)
        ),
        r"model: expected tensors; 1\.weight are none": changed(state, "model", weight, to=[1]),
        r"model: expected finite weights": changed(state, "model", weight, to=nan),
        r"average: 1 names are missing": changed(state, "average", "n_averaged"),
        r"expected average as dict; got NoneType": changed(state, "average", to=lambda _: None),
        r"it has no guard": changed(state, "guard"),
        r"expected guard as dict; got list": changed(state, "guard", to=lambda g: list(g.items())),
        r"guard: it has no steps": changed(state, "guard", "steps"),
        r"guard: expected steps and losses": changed(state, "guard", "losses", to=["x"]),
        r"guard: expected the rate as a number": changed(state, "guard", "rate", to="x"),
        r"expected optimizer as dict; got list": changed(state, "optimizer", to=[]),
        r"optimizer: its parameters are not": changed(state, "optimizer", "param_groups", to=[]),
        r"optimizer: expected lr as a number": changed(
            state, "optimizer", "param_groups", 0, "lr", to="x"
        ),
        r"optimizer: expected betas as numbers": changed(
            state, "optimizer", "param_groups", 0, "betas", to=[]
        ),
        rf"optimizer: exp_avg of parameter {first} has the shape \(7,\)": changed(
            state, "optimizer", "state", first, "exp_avg", to=torch.ones(7)
        ),
        r"guard: earlier: model: 1 names are missing": changed(state, *earlier, "model", weight),
        r"guard: earlier: it has no also": changed(state, *earlier, "also"),
        r"expected settings as dict": changed(state, "settings", to=[]),
        r"expected lines as int": changed(state, "lines", to="x"),
        r"expected seconds as a number": changed(state, "seconds", to="x"),
        r"it is no checkpoint of a training": [state],
    }
    for message, damaged in cases.items():
        torch.save(damaged, door.honest)
        with pytest.raises(WICError, match=rf"checkpoint\.pt cannot be resumed from: .*{message}"):
            training.load()
    (tmp_path / "Trainings" / "log.jsonl").write_bytes(b"\xff\n\xfe\n")
    torch.save(state, door.honest)
    training.load()
    assert training.guard._earlier["guard"] == good["guard"]


def test_networks_of_others_are_read_though_they_need_numbers_when_built(tmp_path):
    class Numbered(Network):
        def __init__(self, in_channels=3, out_channels=2, completion=None):
            last = WIC(in_channels, out_channels)
            largest = float(last.weight.detach().abs().max())
            super().__init__(last)
            self.largest = largest

    del NETWORKS["Numbered"]
    folder = Numbered().save_pretrained(tmp_path / "own")
    drawn = []
    for build in (Numbered, lambda: Numbered.from_pretrained(folder)):
        torch.manual_seed(0)
        assert type(build()) is Numbered
        drawn.append(torch.rand(1))
    assert drawn[0] == drawn[1]
    config = json.loads((folder / "config.json").read_text())
    config["arguments"]["in_channels"] = 3000
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(WICFileError, match="asks for more than the 1 tensors with 9"):
        Numbered.from_pretrained(folder)


def test_only_files_of_their_size_are_read_whole(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    assert _files.read_small(tmp_path / "a", 10) == bytes(10)
    with pytest.raises(WICFileError, match="at most 9 bytes"):
        _files.read_small(tmp_path / "a", 9)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(WICFileError, match="a device or a pipe"):
        _files.read_small(tmp_path / "pipe", 9)
