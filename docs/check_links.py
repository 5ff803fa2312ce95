"""Checks that every link, picture and frame of the built site leads to something in it.

    python docs/check_links.py SITE [--external LINKCHECK]

SITE is a built site, such as ``build/docs``. LINKCHECK is the folder of Sphinx's linkcheck: of its
links to other places those are errors that a server denied; where no answer came, as without a
network, they are named only.
"""

from __future__ import annotations

import argparse
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ATTRIBUTES = {"a": "href", "link": "href", "img": "src", "iframe": "src", "script": "src"}


class Page(HTMLParser):
    """The links of a page, and the names in it that links may have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.names: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Takes the links and names of one tag."""
        own = dict(attrs)
        for name in (own.get("id"), own.get("name")):
            if name:
                self.names.add(name)
        link = own.get(_ATTRIBUTES.get(tag, ""))
        if link:
            self.links.add(link)


def broken(site: Path) -> list[str]:
    """A line for every link of a page that leads nowhere in the site."""
    pages = {path: Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    lines = []
    for path, page in pages.items():
        for link in sorted(page.links):
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            place = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            if place.is_dir():
                place /= "index.html"
            if not place.exists():
                lines.append(f"{path.relative_to(site)}: nothing at {link}")
            elif parts.fragment and place in pages and _lacks(pages[place], parts.fragment):
                lines.append(f"{path.relative_to(site)}: no place {link}")
    return lines


def _lacks(page: Page, fragment: str) -> bool:
    return unquote(fragment) not in page.names


def denied(folder: Path) -> tuple[list[str], list[str]]:
    """The links elsewhere that a server denied, and those that nobody answered."""
    wrong, silent = [], []
    for line in (folder / "output.json").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["status"] not in ("broken", "timeout"):
            continue
        text = f"{entry['filename']}: {entry['uri']} ({entry['info'] or entry['code']})"
        (wrong if entry["code"] in (404, 410) else silent).append(text)
    return wrong, silent


def main() -> None:
    """Prints what is wrong, and ends with 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("site", type=Path)
    parser.add_argument("--external", type=Path, help="folder of Sphinx's linkcheck")
    options = parser.parse_args()
    lines = broken(options.site.resolve())
    if options.external:
        wrong, silent = denied(options.external)
        lines += wrong
        if silent:
            print(f"{len(silent)} links elsewhere were not answered, such as {silent[0]}")
    print(*lines, sep="\n" if lines else "")
    raise SystemExit(1 if lines else 0)


if __name__ == "__main__":
    main()
