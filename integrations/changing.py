"""Edit, Change, main: an integration's lines, written into a checkout and taken out again.

What every ``change.py`` does; each of them holds the table of its places. Standard library alone,
and no state: what is in the checkout's files says whether the change is there.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class PlaceError(Exception):
    """A place of the change that is not in the checkout, or not once."""


@dataclass(frozen=True)
class Edit:
    """One place: a short text that stands once in a file, and what takes its place.

    What stands before and behind it on its line stays, and so do the line endings. Comments are
    not looked at. Further lines of ``new`` are indented as the line they follow.

    Attributes:
        file: Its path in the checkout.
        old: A part of one line.
        new: One line or several.
    """

    file: str
    old: str
    new: str

    def _written(self) -> re.Pattern[str]:
        return re.compile(r"\r?\n[ \t]*".join(map(re.escape, self.new.split("\n"))))

    def count(self, text: str) -> tuple[int, int]:
        """How often the old text stands there, and how often the new one."""
        rest, written = self._written().subn("\0", text)
        return len(self._old_places(rest)), written

    def apply(self, text: str) -> str:
        """The text with the new in place of the old, which stands there once."""
        (start,) = self._old_places(text)
        line_start = text.rfind("\n", 0, start) + 1
        line = text[line_start:].partition("\n")[0]
        indent = line[: len(line) - len(line.lstrip())]
        newline = "\r\n" if line.endswith("\r") else "\n"
        new = self.new.replace("\n", newline + indent)
        return text[:start] + new + text[start + len(self.old) :]

    def undo(self, text: str) -> str:
        """The text with the old in place of the new."""
        return self._written().sub(lambda _: self.old, text)

    def _old_places(self, text: str) -> list[int]:
        starts = [found.start() for found in re.finditer(re.escape(self.old), text)]
        return [n for n in starts if "#" not in text[text.rfind("\n", 0, n) + 1 : n]]


@dataclass(frozen=True)
class Change:
    """What an integration changes in a code base.

    Attributes:
        repository: "owner/name" of the code base.
        commit: The commit that it was written for.
        originals: SHA-256 of the files of that commit, with line feeds alone.
        edits: The places.
        note: What its owner has to do besides.
    """

    repository: str
    commit: str
    originals: Mapping[str, str]
    edits: Sequence[Edit]
    note: str = ""

    @property
    def files(self) -> list[str]:
        """The files with places, in the order of the table."""
        return list(dict.fromkeys(edit.file for edit in self.edits))

    def both(self, checkout: Path) -> tuple[dict[str, str], dict[str, str]]:
        """The files' texts without the change and with it, whichever is there.

        Raises:
            PlaceError: If a place is missing, or stands there more than once.
        """
        texts: dict[str, str] = {}
        wrong = []
        for file in self.files:
            try:
                texts[file] = (checkout / file).read_bytes().decode("utf-8", "surrogateescape")
            except OSError as error:
                wrong.append(f"{file}: cannot be read: {error.strerror}")
        without, with_it = dict(texts), dict(texts)
        for edit in self.edits:
            if edit.file not in texts:
                continue
            counts = edit.count(texts[edit.file])
            if counts == (1, 0):
                with_it[edit.file] = edit.apply(with_it[edit.file])
            elif counts == (0, 1):
                without[edit.file] = edit.undo(without[edit.file])
            else:
                times = "not there" if counts == (0, 0) else f"{sum(counts)} times"
                wrong.append(f"{edit.file}: expected once, and is {times}:\n    {edit.old}")
        if wrong:
            raise PlaceError("\n".join(wrong))
        return without, with_it

    def edited(self, without: Mapping[str, str]) -> list[str]:
        """The files that are not those of the commit, the change apart."""
        return [file for file, text in without.items() if _digest(text) != self.originals[file]]


def changed_lines(before: str, after: str) -> list[str]:
    """The lines that go, behind a minus, and those that come, behind a plus."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0, lineterm="")
    return [line for line in list(lines)[2:] if not line.startswith("@@")]


def write_all(folder: Path, texts: Mapping[str, str]) -> None:
    """Writes files under temporary names beside theirs, then gives all of them their names."""
    renames = []
    try:
        for file, text in texts.items():
            path = (folder / file).resolve()
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            renames.append((temporary, path))
            with os.fdopen(handle, "wb") as stream:
                stream.write(text.encode("utf-8", "surrogateescape"))
            shutil.copymode(path, temporary)
        for temporary, path in renames:
            os.replace(temporary, path)
    finally:
        for temporary, _ in renames:
            Path(temporary).unlink(missing_ok=True)


def main(change: Change, arguments: Sequence[str] | None = None) -> int:
    """The command line of a ``change.py``; returns its exit status."""
    parser = argparse.ArgumentParser(
        description=f"Puts a WIC into a checkout of {change.repository}, where z was drawn."
    )
    parser.add_argument("checkout", type=Path, help=f"folder with {change.files[0]} in it")
    way = parser.add_mutually_exclusive_group()
    way.add_argument("--undo", action="store_true", help="take the change out again")
    way.add_argument("--show", action="store_true", help="print it as a diff and write nothing")
    options = parser.parse_args(arguments)
    try:
        without, with_it = change.both(options.checkout)
    except PlaceError as error:
        print(
            f"{error}\nNothing was written. Expected a checkout of {change.repository}, best at "
            f"{change.commit}; what is missing can be written by hand as the README shows it.",
            file=sys.stderr,
        )
        return 1
    for file in change.edited(without):
        print(
            f"{file} is not that of {change.commit}; all of its places are there.",
            file=sys.stderr,
        )
    if options.show:
        for file in change.files:
            lines = (texts[file].splitlines() for texts in (without, with_it))
            for line in difflib.unified_diff(*lines, f"a/{file}", f"b/{file}", lineterm=""):
                print(line.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
        return 0
    texts = without if options.undo else with_it
    new = {file: text for file, text in texts.items() if _differs(options.checkout, file, text)}
    if not new:
        print("It is not there." if options.undo else "It is already there.")
        return 0
    write_all(options.checkout, new)
    print(f"{'Taken out of' if options.undo else 'Written into'} {', '.join(new)}.")
    if change.note and not options.undo:
        print(change.note)
    return 0


def _differs(checkout: Path, file: str, text: str) -> bool:
    return (checkout / file).read_bytes() != text.encode("utf-8", "surrogateescape")


def _digest(text: str) -> str:
    unix = text.replace("\r\n", "\n").encode("utf-8", "surrogateescape")
    return hashlib.sha256(unix).hexdigest()
