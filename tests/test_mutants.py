"""The tool behind ``make mutants``: every edit has its place, and what becomes of one is told."""

import subprocess

import mutants
import pytest
from mutations import Mutant

CODE = "def double(x):\n    return 2 * x\n\n\ndef half(x):\n    return x / 2\n"
TESTS = """
from package.code import double, half


def test_double():
    assert double(3) == 6


def test_half():
    assert half(0) == 0
"""


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A checkout with a package in it, of which nothing is committed."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they take longer than the tests
    for name, text in (
        ("package/__init__.py", ""),
        ("package/code.py", CODE),
        ("tests/test_code.py", TESTS),
        ("ignored.py", "raise RuntimeError"),
        (".gitignore", "ignored.py"),
    ):
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "checkout", check=True)
    return tmp_path / "checkout"


def edit(name, old, new, tests="tests/test_code.py"):
    return Mutant(name, "package/code.py", old, new, tests)


def test_every_edit_finds_its_place_and_its_tests():
    assert mutants.misplaced_of(mutants.MUTANTS) == {}


def test_edits_that_are_noticed_survive_and_break_everything(root, capsys):
    edits = [
        edit("noticed", "2 * x", "3 * x", "tests/test_code.py::test_double"),
        edit("not noticed", "x / 2", "x / 3", "tests/test_code.py -k half"),
        edit("no python", "def half(x)", "def half(x"),
    ]
    assert mutants.main(["--jobs", "1"], edits, root, "package") == 1
    told = capsys.readouterr().out
    assert "caught    noticed: tests/test_code.py::test_double\n" in told
    assert "SURVIVED  not noticed: tests/test_code.py -k half passes" in told
    assert "BROKEN    no python: the tests did not run (2)" in told
    assert told.endswith("1 BROKEN, 1 SURVIVED, 1 caught\n")
    assert (root / "package" / "code.py").read_text() == CODE
    assert mutants.main(["noticed", "--jobs", "1"], edits[:1], root, "package") == 0
    assert mutants.main(["nothing"], edits, root, "package") == 2


def test_tests_must_pass_without_an_edit(root, capsys):
    (root / "package" / "code.py").write_text(CODE.replace("2 * x", "4 * x"))
    edits = [edit("any", "4 * x", "3 * x")]
    assert mutants.main(["--jobs", "1"], edits, root, "package") == 1
    told = capsys.readouterr().out
    assert "Expected the tests to pass without an edit" in told
    assert "caught" not in told


@pytest.mark.parametrize(
    ("old", "tests", "reason"),
    [
        ("2*x", "tests/test_code.py", "package/code.py 0 times"),
        ("return", "tests/test_code.py", "package/code.py 2 times"),
        ("2 * x", "tests/test_code.py::test_triple", "no test_triple in tests/test_code.py"),
        ("2 * x", "tests/test_other.py", "no tests/test_other.py"),
        ("2 * x", "-k double", "names no file of tests"),
    ],
)
def test_an_edit_without_a_place_fails_the_run(root, capsys, old, tests, reason):
    edits = [edit("lost", old, "3 * x", tests), edit("good", "2 * x", "3 * x")]
    for arguments in (["--places"], []):
        assert mutants.main(arguments, edits, root, "package") == 1
        told = capsys.readouterr().out
        assert "misplaced lost: " in told
        assert reason in told
        assert "good" not in told
    assert mutants.main(["--places"], edits[1:], root, "package") == 0


def test_the_package_of_the_copy_is_the_one_that_runs(root):
    mutants.require_own_package(root, "package")
    with pytest.raises(SystemExit, match="Expected json from"):
        mutants.require_own_package(root, "json")
