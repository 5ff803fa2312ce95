"""Text of others, such as names of files, as a terminal can show it."""

from __future__ import annotations

import os
import sys
import unicodedata
from typing import Any

__all__ = ["abridged", "printable", "said", "width_of_bars"]

MOST = 2000
"""Characters of an error's line."""

# controls, lone halves of pairs, ends of lines; and of the unseen ones all but the two joiners,
# which letters of some scripts and families of emoji need: the others turn text around
_UNSEEN = {"Cc", "Cs", "Zl", "Zp", "Cf"}
_JOINERS = "\u200c\u200d"


def printable(text: str) -> str:
    r"""Returns a text of one line without what would steer a terminal.

    Whoever names a file could else colour, clear or forge what others read.

    Example:
        >>> printable("cat\x1b[2J.png")
        'cat\\x1b[2J.png'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        _escaped(each) if unicodedata.category(each) in _UNSEEN and each not in _JOINERS else each
        for each in text
    )


def abridged(text: str, most: int = MOST) -> str:
    """Returns a text of at most ``most`` characters, of which the middle is left out.

    Example:
        >>> abridged("a name without an end", 16)
        'a name ... n end'
    """
    if len(text) <= most:
        return text
    end = (most - 5) // 2
    return f"{text[: most - 5 - end]} ... {text[-end:]}"


def said(kind: str, message: object) -> str:
    """Returns the line in which a command says a message of a kind, such as ``"error"``."""
    return printable(f"wic: {kind}: {abridged(' '.join(str(message).splitlines()))}")


def width_of_bars() -> dict[str, Any]:
    """Returns how wide tqdm's bars are: as the terminal, or as most where that does not know.

    On one that says no rows and columns, as some that containers have, it would show nothing.
    """
    try:
        size = os.get_terminal_size(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return {"dynamic_ncols": True}
    return {"dynamic_ncols": True} if all(size) else {"ncols": size.columns or 80, "nrows": 24}


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
