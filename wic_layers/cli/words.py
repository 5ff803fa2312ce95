"""``meant``: the words of a command as whoever wrote them means them, before they are parsed.

Names of files may begin with a dash, and not every shell expands patterns.
"""

from __future__ import annotations

import argparse
import glob
import os
from collections.abc import Sequence

__all__ = ["is_pattern", "meant"]


def meant(words: Sequence[str], parser: argparse.ArgumentParser) -> list[str]:
    """Returns the words of a command with names of files that its parser takes for names.

    A pattern such as ``*.PNG`` that is no file becomes what it matches, as shells do it; one that
    matches nothing stays. What begins with a dash and is no option gets ``./`` before it where it
    is a file, or the value of an option.

    Args:
        words: The words after the command.
        parser: The command's.
    """
    options = parser._option_string_actions
    result: list[str] = []
    takes_value, only_names = False, False
    for word in words:
        name, equals, _ = word.partition("=")
        option = None if only_names else options.get(name)
        if takes_value and option is None:
            takes_value = False
            is_mistyped = word.startswith("--") and not os.path.lexists(word)
            result.append(word if is_mistyped or _is_number(word) else _named(word))
        elif option is not None:
            takes_value = not equals and option.nargs is None
            result.append(word)
        elif word == "--" and not only_names:
            only_names = True
        elif is_pattern(word):
            result += map(_named, sorted(glob.glob(word, recursive=True)) or [word])
        else:
            is_name = only_names or os.path.lexists(word)
            result.append(_named(word) if is_name else word)
    return result


def is_pattern(word: str) -> bool:
    """Whether a word is a pattern for names of files, and not one itself."""
    return glob.has_magic(word) and not os.path.lexists(word)


def _named(name: str) -> str:
    return os.path.join(".", name) if name.startswith("-") else name


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
