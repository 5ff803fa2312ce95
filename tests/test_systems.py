"""What differs on Windows and macOS, imitated: files that are open, names, encodings."""

import ast
import os
from pathlib import Path

import pytest

from wic_layers import _files
from wic_layers._files import check_place, protecting, put_in_place, write_whole
from wic_layers.cli import jobs
from wic_layers.errors import WICFileError

PACKAGE = Path(__file__).parents[1] / "wic_layers"
OTHERS = ("os.open", "Image.open", "pillow.open", "import_pillow().open", "av.open")


@pytest.fixture
def opened_elsewhere(monkeypatch):
    """Windows refuses to replace a file that a scanner has open, the first times."""
    monkeypatch.setattr(_files, "_WAITS", (0.0, 0.0))
    replace, refused = os.replace, []

    def refuse(times):
        def replaced(source, target):
            if len(refused) < times:
                refused.append(target)
                raise PermissionError(13, "Access is denied")
            replace(source, target)

        monkeypatch.setattr(os, "replace", replaced)

    return refuse


def test_a_file_that_is_open_for_a_moment_is_replaced(tmp_path, opened_elsewhere):
    target = tmp_path / "small.png"
    target.write_bytes(b"old")
    opened_elsewhere(2)
    write_whole(target, b"new")
    assert target.read_bytes() == b"new"


def test_a_file_that_stays_open_is_a_sentence(tmp_path, opened_elsewhere, monkeypatch):
    target = tmp_path / "small.png"
    target.write_bytes(b"old")
    opened_elsewhere(4)
    with pytest.raises(WICFileError, match=r"small\.png cannot be written: Access is denied"):
        write_whole(target, b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["small.png"]
    assert target.read_bytes() == b"old"
    monkeypatch.setattr(_files, "_WAITS", ())
    with pytest.raises(PermissionError):  # other systems refuse for good
        put_in_place(target, tmp_path / "other.png")


@pytest.mark.parametrize("ignores_case", [False, True])
def test_names_that_differ_in_case_are_one_file_where_the_system_says_so(
    tmp_path, monkeypatch, ignores_case
):
    monkeypatch.setattr(_files, "_IGNORES_CASE", ignores_case)
    photo, other = tmp_path / "Stra\u00dfe-e\u0301.PNG", tmp_path / "STRASSE-\u00c9.png"
    with protecting([photo]):
        if ignores_case:
            with pytest.raises(WICFileError, match="is an input too"):
                check_place(other, force=True)
        else:
            assert check_place(other, force=True) == other
    for name in ("x/DSC_1.jpg", "x/dsc_1.TIFF", "y/dsc_1.JPG"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    out = tmp_path / "out"
    planned = jobs.plan([tmp_path / "x"], out, into=True)
    names = sorted(job.out.name for job in planned)
    two = ["DSC_1.jpg.png", "dsc_1.TIFF.png"] if ignores_case else ["DSC_1.png", "dsc_1.png"]
    assert names == two
    both = [tmp_path / "x" / "DSC_1.jpg", tmp_path / "y" / "dsc_1.JPG"]
    if ignores_case:
        with pytest.raises(WICFileError, match="would both be written as"):
            jobs.plan(both, out, into=True)
    else:
        assert len(jobs.plan(both, out, into=True)) == 2


def test_no_text_depends_on_the_encoding_of_the_system():
    """Windows reads and writes texts in a code page unless an encoding is said."""
    silent = []
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            of_others = ast.unparse(node.func) in OTHERS
            if name not in ("open", "read_text", "write_text", "NamedTemporaryFile") or of_others:
                continue
            modes = [
                each.value
                for each in (*node.args, *(word.value for word in node.keywords))
                if isinstance(each, ast.Constant) and isinstance(each.value, str)
            ]
            is_binary = name == "open" and any("b" in mode and len(mode) < 4 for mode in modes)
            if not is_binary and not any(word.arg == "encoding" for word in node.keywords):
                silent.append(f"{path.name}:{node.lineno}: {ast.unparse(node)}")
    assert silent == []
