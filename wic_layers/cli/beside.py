"""What is said of files that are left out, and of what travels beside the pixels of others."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from wic_layers.cli.command import complain
from wic_layers.pictures import find_others
from wic_layers.pictures.names import is_heic

__all__ = ["carried", "say_left_out"]

_SHOWN = 5  # names of files in a line
_NAMES = {"alpha": "its transparency", "exif": "EXIF", "dpi": "dpi"}


def carried(names: Sequence[str]) -> str:
    """Returns what travels beside the pixels, for people."""
    return " and ".join(_NAMES[name] for name in names)


def say_left_out(folder: Path, out: Path) -> None:
    """Says which files of a folder are not taken, but for those in the folder of the outputs."""
    inside = out.resolve()
    others = [path for path in find_others(folder) if inside not in path.resolve().parents]
    if not others:
        return
    names = [str(path.relative_to(folder)) for path in others]
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    why = ""
    if any(map(is_heic, others)):
        why = "; HEIC needs pillow-heif: pip install 'wic-layers[heic]'"
    complain(f"left out of {folder}: {', '.join(names[:_SHOWN])}{more}{why}", "note")
