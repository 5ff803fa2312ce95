"""groups: the rows of the table, from small flows of our own or from code bases in a folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[2] / "tests")]


def groups() -> list[tuple[str, list[Any]]]:
    """The rows: a name, and its cases."""
    sources = os.environ.get("SOURCES")
    if sources:
        return _real(Path(sources).resolve())
    from standins import flows

    families = [module for module in vars(flows).values() if hasattr(module, "CASES")]
    titles = {case.name: module.__doc__ for module in families for case in module.CASES}
    rows: dict[str, list[Any]] = {}
    for case in flows.CASES:
        title = (titles[case.name] or "").partition("\n")[0].replace("``", "`")
        rows.setdefault(title.rstrip(".:"), []).append(case)
    return list(rows.items())


def _real(sources: Path) -> list[tuple[str, list[Any]]]:
    import real_flows

    rows: dict[str, list[Any]] = {}
    for source, case in real_flows.all_cases(sources):
        if isinstance(case, str):
            print(f"{source.name}: {case}", file=sys.stderr)
        else:
            rows.setdefault(f"{source.name} {source.commit}", []).append(case)
    return list(rows.items())
