"""Compares a tag with the version that is built: ``python release/check_tag.py v0.1.0``."""

from __future__ import annotations

import argparse
import re
from datetime import date
from pathlib import Path

ROOT = Path(__file__).parents[1]


def version_of(root: Path) -> str:
    """What ``wic_layers.__version__`` says, without importing torch."""
    text = (root / "wic_layers" / "__init__.py").read_text(encoding="utf-8")
    return re.findall(r'^__version__ = "(.*)"$', text, re.MULTILINE)[0]


def wrong_with(tag: str, root: Path) -> list[str]:
    """What has to be changed before this tag can be released."""
    version, wrong = version_of(root), []
    if tag != f"v{version}":
        wrong.append(f"the tag is {tag}, and wic_layers/__init__.py says {version}")
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        wrong.append(f"{version} is no version of a release")
    if f"\n## {version}" not in (root / "CHANGELOG.md").read_text(encoding="utf-8"):
        wrong.append(f'CHANGELOG.md has no heading "## {version}"')
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    if f"\nversion: {version}\n" not in citation:
        wrong.append(f"CITATION.cff is not of version {version}")
    released = re.findall(r"^date-released: (\S+)$", citation, re.MULTILINE)
    if not released or date.fromisoformat(released[0]) > date.today():
        wrong.append("CITATION.cff has no date-released")
    if "github.com/OWNER/" in (root / "pyproject.toml").read_text(encoding="utf-8"):
        wrong.append("nobody owns it yet: python release/owner.py NAME")
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tag")
    args = parser.parse_args()
    wrong = wrong_with(args.tag, ROOT)
    if wrong:
        parser.exit(1, "".join(f"{line}\n" for line in wrong))
    print(version_of(ROOT))


if __name__ == "__main__":
    main()
