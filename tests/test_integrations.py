"""The integrations' changes, tried on stand-ins for those code bases, and all else in them."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path

import processes
import pytest
import torch
from PIL import Image

from integrations.changing import main
from integrations.table import COLUMNS, Trial, lines_of, readme_of, row, source_of
from integrations.trying.owners import OWNERS

ROOT = Path(__file__).parents[1]
INTEGRATIONS = ROOT / "integrations"
TRIALS = {owner.name: owner for owner in OWNERS if owner.has_stand_in}
RUNS = ("IRN x2", "IRN decolorization", "HiNet", "IICNet stereo", "DLV-IRN x2")


@pytest.mark.parametrize("name", RUNS)
def test_the_owners_whole_way(name, tmp_path):
    """Trained there, changed, resumed, used here, fine-tuned here, gone back, taken out again."""
    owner, notes = TRIALS[name], []
    skipped = () if name in ("IRN x2", "HiNet", "IICNet stereo") else (Trial.tuned_here,)
    columns = {title: column for title, column in COLUMNS.items() if column not in skipped}
    cells = dict(zip(columns, row(owner, source_of(owner, None), notes, columns), strict=True))
    assert not notes
    assert cells["resumed from after: off by"] == "0"
    if owner.has_before:
        assert cells["resumed from before"] == "yes"
        there, here = cells["its picture: off by, there / here"].split(" / ")
        assert float(there) == 0 or owner.folder == "iicnet"
        assert max(float(there), float(here)) < 1e-6
    assert max(map(float, cells["`load_official`: picture / back off by"].split(" / "))) < 2e-6
    levels = cells["`wic`: grey levels off, picture / back"].split(" / ")
    assert max(map(int, levels)) <= 1  # where it falls between two of them
    if not skipped:
        assert float(cells["fine-tuned here, back there: off by"]) < 1e-6
    assert cells["other trainings"] == {
        "irn": "1 as before" if name == "IRN x2" else "-", "dlv": "1 as before",
        "hinet": "1 as `train.py`",
    }.get(owner.folder, "-")  # fmt: skip


@pytest.mark.parametrize("name", RUNS)
def test_the_readme_shows_what_is_written(name):
    owner = TRIALS[name]
    assert readme_of(owner) == lines_of(owner, source_of(owner, None))
    assert len(owner.change.edits) <= 12


def test_the_table_says_which_column_fails_and_why(monkeypatch):
    """As for a change whose resuming was forgotten."""
    owner, notes = TRIALS["HiNet"], []
    edits = [edit for edit in owner.change.edits if "load_optimizer_state(" not in edit.new]
    monkeypatch.setattr(owner, "change", dataclasses.replace(owner.change, edits=edits))
    columns = {
        "changed": lambda trial: main(owner.change, [str(trial.after)]) or "yes",
        "resumed": Trial.resumed_before,
    }
    assert row(owner, source_of(owner, None), notes, columns) == ["yes", "no"]
    assert re.match(r"- HiNet, resumed: ValueError: .*; \d+ tensors are gone", notes[0])


def changes(name):
    """The (removed, added) lines of every place in the README's diffs."""
    text = (INTEGRATIONS / name / "README.md").read_text(encoding="utf-8")
    places = []
    for block in re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL):
        for run in re.findall(r"(?:^[-].*\n)*(?:^[+].*\n)*", block, flags=re.MULTILINE):
            lines = run.splitlines()
            removed = [line[1:] for line in lines if line.startswith("-")]
            added = [line[1:] for line in lines if line.startswith("+")]
            if lines:
                places.append((removed, added))
    return places


def test_a_flow_changes_by_three_lines():
    places = changes("flows")
    assert places
    for removed, added in places:
        assert not removed
        assert len(added) <= 3


@pytest.mark.parametrize("name", ["irn", "hinet", "dlv", "iicnet", "flows"])
def test_the_readmes_python_runs(name, tmp_path, monkeypatch):
    pytest.importorskip("normflows" if name == "flows" else "FrEIA")
    text = (INTEGRATIONS / name / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert blocks
    monkeypatch.chdir(tmp_path)
    for block in blocks:
        exec(compile(block, name, "exec"), {})


@processes.needs_fork
@pytest.mark.slow
@pytest.mark.parametrize("name", ["irn", "hinet", "dlv", "iicnet"])
def test_examples_run(name, tmp_path):
    pytest.importorskip("skimage")
    words = ("--steps", 3, "--out", tmp_path / "a.png")
    done = processes.module(f"integrations.{name}.example", *words, folder=ROOT)
    assert done.returncode == 0, done.stderr
    expected = "dB; a pixel changes by" if name == "dlv" else "| upgraded, after 3 steps |"
    assert expected in done.stdout
    assert Image.open(tmp_path / "a.png").size[0] > 500


@pytest.mark.slow
@pytest.mark.ddp
def test_the_table_of_flows_has_a_row_without_a_no():
    done = subprocess.run(
        [sys.executable, "-m", "integrations.flows.table", "--only", "(x, sldj, reverse)"],
        cwd=INTEGRATIONS.parent, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    header, _, row = (line.split(" | ") for line in done.stdout.splitlines()[:3])
    cells = dict(zip(header[1:], row[1:], strict=True))
    assert cells["found"] == "2 of 2"
    assert all(float(cells[column]) < 1e-5 for column in ("equal", "training"))
    for column in ("checkpoints", "save", "compile", "DataParallel", "autocast", "EMA", "DDP"):
        assert cells[column] == "yes", done.stdout


@pytest.mark.parametrize("column", ["equal", "training", "checkpoints", "saved", "averaged"])
def test_the_table_of_flows_notices_a_swap_that_changes_what_a_layer_does(column, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from standins.flows import CASES

    from integrations.flows import checks

    def wrong(model):
        layer = model.get_submodule(case.layers[0])
        layer.register_forward_hook(lambda layer, args, out: (1.01 * out[0], out[1]))
        layer.added = torch.nn.Parameter(torch.zeros(1))

    case = next(case for case in CASES if case.name == "(x, sldj, reverse)")
    getattr(checks, column)(case, checks.keep)
    with pytest.raises(Exception, match=r"off by|keys|parameter|pickle|argument"):
        getattr(checks, column)(case, wrong)
