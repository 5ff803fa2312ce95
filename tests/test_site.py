"""What the site generates, and its notebooks, without building it: `make docs` does the rest."""

import ast
import importlib
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from wic_layers.cli.program import COMMANDS
from wic_layers.training import Settings

DOCS = Path(__file__).parents[1] / "docs"
RESULTS = DOCS.parent / "benchmarks" / "results"
CELL = re.compile(
    r"^```\{code-cell\} python3\n(?::tags:[^\n]*\n\n)?(.*?)^```$", re.MULTILINE | re.DOTALL
)
NOTEBOOKS = [
    page for page in sorted(DOCS.rglob("*.md")) if "{code-cell}" in page.read_text("utf-8")
]


@pytest.fixture(scope="module")
def pages():
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("pages")
    sys.path.remove(str(DOCS))


def test_all_commands_and_settings_are_generated(pages):
    pytest.importorskip("yaml")
    commands, settings = pages.commands(), pages.settings()
    assert re.findall(r"^## wic (.*)$", commands, re.MULTILINE) == [each.name for each in COMMANDS]
    assert "`--refine N`\n: improve the result" in commands
    assert "reveal then needs `--preset` and `--size`" in commands
    rows = re.findall(r"^\| `(\w+)` \|", settings, re.MULTILINE)
    assert rows[0] == "preset"
    assert sorted(rows) == sorted(field.name for field in fields(Settings))
    assert "| `learning_rate` | `--lr` |" in settings


def test_cards_become_rows_for_each_set(pages):
    card = "small picture 41.66, 38.98 dB, restored 38.25, 35.24 dB: Set5, Set14"
    assert pages.judged(card) == [("Set5", "41.66", "38.25"), ("Set14", "38.98", "35.24")]
    card = "stego 39.00 dB, secrets 34.06, 34.16 dB: BSD100 reduced by 2, 50 pairs"
    card += " (RGB, through 8-bit PNG files)"
    assert pages.judged(card) == [("BSD100 reduced by 2, 50 pairs", "39.00", "34.06, 34.16")]
    assert pages.judged("good: on all") == [("", "good: on all", "")]


def test_tables_of_the_findings_are_those_of_the_benchmarks(pages, monkeypatch):
    """The cells of every article run; a table has the columns that it names, in their order."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    monkeypatch.chdir(DOCS / "findings")
    monkeypatch.setattr(sys, "path", list(sys.path))
    tables = {}
    for page in sorted((DOCS / "findings").glob("*.md")):
        names = {}
        for cell in CELL.findall(page.read_text(encoding="utf-8")):
            *lines, last = ast.parse(cell).body
            exec(compile(ast.Module(lines, []), page.name, "exec"), names)
            if isinstance(last, ast.Expr):
                shown = eval(compile(ast.Expression(last.value), page.name, "eval"), names)
                if hasattr(shown, "_repr_markdown_"):
                    tables.setdefault(page.stem, []).append(shown)
            else:
                exec(compile(ast.Module([last], []), page.name, "exec"), names)
    importlib.import_module("matplotlib.pyplot").close("all")
    assert {name: len(own) for name, own in tables.items()} == {
        "attacker": 1, "carriers": 3, "completions": 2, "distances": 1, "optimizers": 1,
        "photographs": 1, "random-z": 1, "structure": 2,
    }  # fmt: skip
    (own,) = tables["random-z"]
    heads, _, first, *_ = own.splitlines()
    assert heads.endswith("| seeds | picture | what comes back | spread | time |")
    written = (RESULTS / "integrations-equal.md").read_text(encoding="utf-8")
    cells = next(line.split(" | ") for line in written.splitlines() if "z drawn, as" in line)
    assert first.split(" | ") == ["| IRN x2", *cells[1:8], cells[-1]]


def test_links_lead_to_the_pages_that_show_a_file(pages):
    page = DOCS / "own.md"
    text = "[a](../integrations/irn/README.md#x) [b](../examples/web/) [c](layer.md) [d](https://e.org)"
    shown = "[a](code-bases/irn.md#x) [b](live/index.md) [c](layer.md) [d](https://e.org)"
    assert pages.localised(text, DOCS, page) == shown
    fenced = f"```\n{text}\n```"
    assert pages.localised(fenced, DOCS, page) == fenced
    # a page that shows a file has the file's links as its own
    stub = DOCS / "code-bases" / "hinet.md"
    file = pages.shown_file(stub)
    assert file == DOCS.parent / "integrations" / "hinet" / "README.md"
    assert pages.localised("[z](../README.md)", file.parent, stub) == "[z](index.md)"


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: f"{page.parent.name}-{page.stem}")
def test_cells_use_names_that_there_are(page):
    text = page.read_text(encoding="utf-8")
    cells = CELL.findall(text)
    assert len(cells) == text.count("{code-cell}")
    for number, cell in enumerate(cells):
        for node in ast.walk(ast.parse(cell, f"{page.name}, cell {number}")):
            if isinstance(node, ast.ImportFrom) and node.module.startswith("wic_layers"):
                if node.module.endswith((".freia", ".normflows")):
                    pytest.importorskip("FrEIA")
                    pytest.importorskip("normflows")
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), page.name
