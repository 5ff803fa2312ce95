"""Writes whose account holds the repository, the site and the weights wherever it stands.

``OWNER`` stands there until there is one: ``python release/owner.py NAME``.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACEHOLDER = "OWNER"
ADDRESS = re.compile(
    r"(?P<before>https://(?:github\.com|raw\.githubusercontent\.com)/|https://)"
    r"(?P<name>[^/\s.]+)(?P<after>/wic-layers|\.github\.io/wic-layers)"
)
HUB = "wic_layers/models/hub.py"

_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9]|-(?=[A-Za-z0-9])){0,38}")
_HUB = re.compile(r'^(OWNER: str \| None = )(None|"[^"]*")$', re.MULTILINE)
_TEXTS = {".cff", ".html", ".ipynb", ".js", ".md", ".py", ".toml", ".txt", ".yaml", ".yml"}
_OTHERS = {".git", ".venv", "build", "dist", "release", "runs", "tests"}


def owners(root: Path) -> dict[str, set[str]]:
    """Returns the accounts in the project's addresses, by the file."""
    named = {}
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.suffix in _TEXTS and not _OTHERS & set(parts) and path.is_file():
            text = path.read_text(encoding="utf-8")
            accounts = {each["name"] for each in ADDRESS.finditer(text)}
            if accounts:
                named["/".join(parts)] = accounts
    return named


def set_owner(root: Path, name: str, hub: str) -> None:
    """Puts an account in the place of the one before.

    Args:
        root: The checkout.
        name: On GitHub.
        hub: On the Hugging Face hub.
    """
    for file in owners(root):
        path = root / file
        text = path.read_text(encoding="utf-8")
        path.write_text(
            ADDRESS.sub(rf"\g<before>{name}\g<after>", text), encoding="utf-8", newline="\n"
        )
    path = root / HUB
    text, count = _HUB.subn(rf'\1"{hub}"', path.read_text(encoding="utf-8"))
    if count != 1:
        raise SystemExit(f"Expected one line OWNER = in {path}; found {count}.")
    path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="the account on GitHub")
    parser.add_argument("--hub", help="the account on the Hugging Face hub (the same)")
    args = parser.parse_args()
    for name in (args.name, args.hub or args.name):
        if not _NAME.fullmatch(name):
            parser.error(f"expected an account's name, letters, digits and single -; got {name!r}")
    set_owner(ROOT, args.name, args.hub or args.name)


if __name__ == "__main__":
    main()
