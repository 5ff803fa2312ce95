"""Every way of being called, after ``swap_1x1``, as a Markdown table.

    python -m integrations.flows.table
    SOURCES=FOLDER python -m integrations.flows.table

Runs in a checkout, as the flows are those of its tests: small ones of our own that are called as
public code bases call theirs, or with ``SOURCES`` those code bases themselves, each in a folder
OWNER+NAME. One row is a way of being called, or a code base. ``--each`` gives a row to every flow.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch

from integrations.flows import checks, processes
from integrations.flows.rows import groups
from wic_layers import swap_1x1
from wic_layers.errors import WICArgumentError

NUMBERS = ("equal", "training")
HEADER = ("way of being called", "flows", "found", "lines", *checks.COLUMNS, *processes.COLUMNS)


class Notes:
    """What does not hold, and why, in the order of the table."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, case: Any, column: str, word: str, error: BaseException) -> None:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        self.lines.append(f"- {case.name}, {column}: {word}: {text[:160]}")


def cell(case: Any, column: str, notes: Notes) -> Any:
    """What a column says of a case: a number, or a word."""
    for check, word in checks.COLUMNS[column]:
        number, error = attempt(check, case, swap_1x1)
        if error is None:
            return number if column in NUMBERS else word
        _, own = attempt(check, case, checks.keep)
        if own is None:
            notes.add(case, column, "no", error)
            return "no"
    notes.add(case, column, "host", own)
    return "host"


def attempt(check: Callable[..., Any], case: Any, swap: Any) -> tuple[Any, Exception | None]:
    """What a check returns, or what it raises."""
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return check(case, swap), None
    except Exception as error:
        return None, error


def found(case: Any, notes: Notes) -> tuple[int, int, Any]:
    """How many of its layers are found, of how many; and a word where more or less is left."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            names, left = checks.swapped_names(case)
    except Exception as error:
        names, left = set(), []
        if case.layers or not isinstance(error, WICArgumentError):  # which says that there is none
            notes.add(case, "found", "no", error)
    wrong = names.symmetric_difference(case.layers)
    missing = set(case.left) - {name for entry in left for name in entry.names}
    if wrong or (names and missing):
        notes.add(case, "found", "no", KeyError(*sorted(wrong), *sorted(missing)))
    return len(names & set(case.layers)), len(case.layers), case.lines


def summary(cells: list[Any]) -> str:
    """The cells of several flows in one: a word, or how many have which."""
    numbers = [value for value in cells if isinstance(value, float)]
    words = [value for value in cells if not isinstance(value, float)]
    parts = [f"{max(numbers):.0e}"] if numbers else []
    counts = {word: words.count(word) for word in dict.fromkeys(words)}
    for word, count in sorted(counts.items(), key=lambda item: item[0] != "yes"):
        parts.append(word if len(counts) == 1 and not numbers else f"{word} ({count})")
    return ", ".join(parts) or "-"


def row(
    title: str, cases: list[Any], across: dict[str, Any], skipped: list[str], notes: Notes
) -> tuple[str, ...]:
    places = [found(case, notes) for case in cases]
    cells: dict[str, list[Any]] = {column: [] for column in HEADER[4:]}
    for case, (count, _, _) in zip(cases, places, strict=True):
        start = time.monotonic()
        if count:
            for column in (name for name in checks.COLUMNS if name not in skipped):
                cells[column].append(cell(case, column, notes))
            for column in (name for name in processes.COLUMNS if name not in skipped):
                word, text = across[case.name][column]
                cells[column].append(word)
                if text:
                    notes.lines.append(f"- {case.name}, {column}: {word}: {text}")
        print(f"{case.name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    lines = sorted({line for _, _, line in places})
    return (
        title,
        f"{len(cases)}",
        f"{sum(place[0] for place in places)} of {sum(place[1] for place in places)}",
        " to ".join(map(str, dict.fromkeys((lines[0], lines[-1])))),
        *(summary(values) for values in cells.values()),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--each", action="store_true", help="a row for every flow")
    parser.add_argument("--only", default="", help="flows whose name or row has this in it")
    parser.add_argument("--after", type=int, default=0, help="rows that are left out at the start")
    parser.add_argument("--skip", nargs="+", default=[], help="columns that are not tried")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    rows = [
        (title, [case for case in cases if options.only in f"{title} {case.name}"])
        for title, cases in groups()
    ]
    if options.each:
        rows = [(f"{title}: {case.name}", [case]) for title, cases in rows for case in cases]
    rows = [(title, cases) for title, cases in rows if cases][options.after :]
    across = processes.run(options.only) if processes.COLUMNS.keys() - options.skip else {}
    notes = Notes()
    for line in (HEADER, ("---",) * len(HEADER)):
        print(f"| {' | '.join(line)} |", flush=True)
    for title, cases in rows:
        print(f"| {' | '.join(row(title, cases, across, options.skip, notes))} |", flush=True)
    print("\n" + "\n".join(notes.lines))


if __name__ == "__main__":
    main()
