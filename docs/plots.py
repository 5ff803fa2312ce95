"""What the figures of the findings share: results by name, their means over seeds, one look."""

from __future__ import annotations

import csv
from collections.abc import Sequence
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
