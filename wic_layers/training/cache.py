"""The folder of decoded photographs: how large it may become, and how it is emptied."""

from __future__ import annotations

import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["DECODING", "INDEX", "LIMIT", "PHOTOGRAPHS", "clear", "prune", "size"]

PHOTOGRAPHS, DECODING = "photographs-", ".decoding-"
"""How the names of its folders begin: of whole ones, and of those that are being made."""

INDEX = "index.json"
LIMIT = 20_000_000_000  # bytes
_IN_USE = 86_400  # seconds, for which a folder stays: a training may have it


def prune(cache: Path, used: Path, limit: int = LIMIT) -> None:
    """Removes what was used longest ago, until the rest is within a limit.

    Args:
        cache: The folder.
        used: The folder in it that is used now; it stays, as those of the last day do.
        limit: In bytes.
    """
    with suppress(OSError):  # it may be somebody else's, who may only read it
        os.utime(used / INDEX)
    folders = sorted(_folders(cache), key=_last_use)
    total = sum(map(_size, folders))
    for folder in folders:
        is_old = time.time() - _last_use(folder) > _IN_USE
        if folder == used or not is_old:
            continue
        if total > limit or folder.name.startswith(DECODING):
            total -= _size(folder)
            shutil.rmtree(folder, ignore_errors=True)


def size(cache: Path) -> int:
    """Returns how many bytes the decoded photographs have."""
    return sum(map(_size, _folders(cache)))


def clear(cache: Path) -> int:
    """Removes all decoded photographs, and returns how many bytes they had."""
    before = size(cache)
    for folder in _folders(cache):
        shutil.rmtree(folder, ignore_errors=True)
    return before - size(cache)


def _folders(cache: Path) -> list[Path]:
    """What is ours in a folder; links are not."""
    begin = (PHOTOGRAPHS, DECODING)
    try:
        return [each for each in cache.iterdir() if each.name.startswith(begin) and _is_own(each)]
    except OSError:
        return []


def _is_own(folder: Path) -> bool:
    return folder.is_dir() and not folder.is_symlink()


def _last_use(folder: Path) -> float:
    for path in (folder / INDEX, folder):
        with suppress(OSError):
            return path.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    with suppress(OSError):
        return sum(path.stat().st_size for path in folder.iterdir())
    return 0
