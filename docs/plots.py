"""What figures and tables of the findings share: results by name, means over seeds, one look."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt

RESULTS = Path(__file__).resolve().parents[1] / "benchmarks" / "results"
BLUE, ORANGE, GREY, RED = "#0b5fa5", "#e08a1e", "#80868f", "#c0392b"

plt.rcParams.update({
    "figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False, "font.size": 10,
    "axes.grid": True, "grid.alpha": 0.25, "axes.axisbelow": True,
})  # fmt: skip


def rows(name: str, **wanted: str) -> list[dict[str, str]]:
    """The rows of a table of results whose columns have the wanted values."""
    with open(RESULTS / f"{name}.csv", newline="", encoding="utf-8") as file:
        return [
            row
            for row in csv.DictReader(file)
            if all(row[key.replace("_", " ")] == value for key, value in wanted.items())
        ]


def average(table: Sequence[dict[str, str]], column: str) -> float:
    """The mean of a column, over seeds."""
    return mean(float(row[column]) for row in table)


def both(same: Sequence[dict[str, str]], judged: str = "held out", *, seeds: bool = False) -> str:
    """The forward picture and what comes back, as tables have them; with half their distance."""
    return " / ".join(
        spread(same, f"{judged} {way}") if seeds else f"{average(same, f'{judged} {way}'):.2f}"
        for way in ("forward", "back")
    )


def spread(same: Sequence[dict[str, str]], column: str, digits: int = 2) -> str:
    """The mean of a column over seeds, and half their distance."""
    values = [float(row[column]) for row in same]
    half = (max(values) - min(values)) / 2
    return f"{mean(values):.{digits}f}" + (f" ± {half:.{digits}f}" if len(values) > 1 else "")


def loss(same: Sequence[dict[str, str]]) -> str:
    """The objective that was minimised, with three digits."""
    value = average(same, "loss")
    return f"{value:.1f}" if value < 99.95 else f"{value:.0f}"


class Table(str):
    """A table in Markdown, which notebooks show as one."""

    def _repr_markdown_(self) -> str:
        return str(self)


def table(heads: Sequence[str], lines: Iterable[Sequence[str]]) -> Table:
    """A table of a page."""
    cells = [heads, ["---"] * len(heads), *lines]
    return Table("\n".join(f"| {' | '.join(line)} |" for line in cells))


def reported(
    name: str,
    columns: Sequence[tuple[str, str] | str],
    heading: str = "",
    words: dict[str, str] | None = None,
) -> Table:
    """A table that a benchmark wrote, some of its columns, in a page's own words.

    Args:
        name: The file in ``benchmarks/results``, without ``.md``.
        columns: The heads of its columns that are shown, in order; pairs where the page has a word
            of its own.
        heading: Above the table, where the file has several.
        words: What stands in the page in place of a cell.
    """
    text = (RESULTS / f"{name}.md").read_text(encoding="utf-8")
    own = text.partition(f"## {heading}\n")[2] if heading else text
    written = re.search(r"^\|.*(?:\n\|.*)*", own, re.MULTILINE)
    if written is None:
        raise ValueError(f"{name}.md has no table under {heading!r}.")
    heads, _, *lines = (
        [cell.strip() for cell in line[1:-1].split("|")] for line in written[0].splitlines()
    )
    pairs = [(each, each) if isinstance(each, str) else each for each in columns]
    places = [-1]
    for head, _ in pairs:  # several columns may have the same head
        places.append(heads.index(head, places[-1] + 1))
    words = words or {}
    return table(
        [shown for _, shown in pairs],
        [[words.get(line[at], line[at]) for at in places[1:]] for line in lines],
    )


def dots(axis: Any, points: dict[str, tuple[float, float]]) -> None:
    """A line for each of several networks: its forward picture, and what comes back."""
    names = list(points)
    for values, colour, label, above in zip(
        zip(*points.values(), strict=True),
        (GREY, BLUE),
        ("forward picture", "what comes back"),
        (-13, 6),
        strict=True,
    ):
        axis.scatter(values, range(len(names)), s=45, color=colour, label=label, zorder=3)
        for at, value in enumerate(values):
            axis.annotate(
                f"{value:.1f}", (value, at), (0, above), textcoords="offset points", ha="center",
                fontsize=8, color=colour,
            )  # fmt: skip
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.6, -0.7)
    axis.margins(x=0.12)
    axis.set_xlabel("dB")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), ncols=2, frameon=False)
