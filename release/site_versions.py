"""Puts a built site beside those of other versions.

``python release/site_versions.py BUILT PAGES VERSION``:
PAGES is a checkout of the branch that is served. Each version has its folder, ``stable`` is a copy
of the newest release, the root leads there, and ``versions.json`` lists what there is.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
from pathlib import Path

RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)")
REDIRECT = """<!doctype html>
<meta charset="utf-8">
<title>wic-layers</title>
<meta http-equiv="refresh" content="0; url={place}/">
<link rel="canonical" href="{place}/">
<a href="{place}/">wic-layers</a>
"""


def key_of(version: str) -> tuple[int, ...]:
    """The numbers of a release, to sort by; empty for what is none."""
    match = RELEASE.fullmatch(version)
    return tuple(map(int, match.groups())) if match else ()


def publish(built: Path, pages: Path, version: str) -> None:
    """Adds a version, or puts it in the place of the one of its name.

    Args:
        built: The folder with ``index.html``.
        pages: The folder that is served.
        version: Such as ``0.1.0``, or ``dev`` for what is not released.
    """
    if not (built / "index.html").is_file():
        raise SystemExit(f"Expected a built site; {built} has no index.html.")
    if not key_of(version) and version != "dev":
        raise SystemExit(f'Expected a version such as 0.1.0, or "dev"; got {version!r}.')
    pages.mkdir(parents=True, exist_ok=True)
    _put(built, pages / version)
    releases = sorted(
        (path.name for path in pages.iterdir() if path.is_dir() and key_of(path.name)),
        key=key_of,
        reverse=True,
    )
    if releases and releases[0] == version:
        _put(built, pages / "stable")
    others = ["dev"] if (pages / "dev").is_dir() else []
    _write(pages / "versions.json", json.dumps([*releases, *others]) + "\n")
    _write(pages / "index.html", REDIRECT.format(place="stable" if releases else "dev"))
    _write(pages / ".nojekyll", "")  # or folders that begin with _ are not served


def _put(built: Path, place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)
    shutil.copytree(built, place)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("built", type=Path)
    parser.add_argument("pages", type=Path)
    parser.add_argument("version")
    args = parser.parse_args()
    publish(args.built, args.pages, args.version)


if __name__ == "__main__":
    main()
