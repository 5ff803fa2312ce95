"""What the figures of the findings share: results by name, their means over seeds, one look."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib.pyplot as plt

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"
BLUE, ORANGE, GREY, RED = "#0b5fa5", "#e08a1e", "#8a8f98", "#c0392b"

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


def clouds(axis: Any, points: dict[str, tuple[float, float]], colours: dict[str, str]) -> None:
    """One named point for each of several networks: the forward picture and what comes back."""
    for name, (forward, back) in points.items():
        axis.scatter(forward, back, s=60, color=colours.get(name, GREY), zorder=3)
        axis.annotate(name, (forward, back), (6, 5), textcoords="offset points", fontsize=9)
    axis.margins(0.25, 0.15)
    axis.set_xlabel("forward picture, dB")
    axis.set_ylabel("what comes back, dB")
