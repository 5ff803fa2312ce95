"""Files out: only where one may be written, and all at once. Files in: regular ones, of a size."""

from __future__ import annotations

import os
import secrets
import sys
import time
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import IO

from wic_layers.errors import WICFileError

__all__ = [
    "check_place",
    "check_regular",
    "is_temporary",
    "protecting",
    "put_in_place",
    "read_small",
    "same_name",
    "was_written",
    "write_whole",
    "writing",
]

_PREFIX, _SUFFIX = ".wic-", ".tmp"
_WRITTEN = "was written just now, from another file"

# Windows replaces no file that another program has open, such as a scanner for a moment
_WAITS = (0.05, 0.1, 0.2, 0.4, 0.8) if os.name == "nt" else ()
# to these systems names are the same that differ in case, or in how an accent is written
_IGNORES_CASE = sys.platform in ("win32", "darwin")

# files of the command at hand by their resolved names, and what is wrong with writing them
_PROTECTED: ContextVar[dict[str, str] | None] = ContextVar("protected", default=None)


@contextmanager
def protecting(inputs: Iterable[str | Path]) -> Iterator[None]:
    """Keeps all inputs of a command, and whatever it writes, from being written over.

    One command makes many files, each from some of its inputs: none may take the place of what
    another one reads or has written, whatever ``force`` says.
    """
    token = _PROTECTED.set(dict.fromkeys(map(_resolved, inputs), "is an input too"))
    try:
        yield
    finally:
        _PROTECTED.reset(token)


def check_place(
    path: str | Path, *, inputs: Iterable[str | Path] = (), force: bool = False
) -> Path:
    """Checks that a file may be written to ``path``, before the work that makes it.

    Args:
        path: The file to write, in a folder that exists.
        inputs: Files that are read; none of them may be overwritten, whatever ``force`` says.
        force: Whether a file that exists may be replaced.

    Returns:
        The path.

    Raises:
        WICFileError: If it may not; the message says why.
    """
    target = Path(path)
    try:
        _check(target, [Path(other) for other in inputs], force=force)
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        if isinstance(error, WICFileError):
            raise
        raise WICFileError(f"{target} cannot be written: {error}.") from error
    return target


def _check(target: Path, inputs: list[Path], *, force: bool) -> None:
    if target.is_dir():
        raise WICFileError(f"{target} is a folder; expected the name of a file to write.")
    if not target.parent.is_dir():
        raise WICFileError(f"{target} cannot be written: there is no folder {target.parent}.")
    resolved, exists = target.resolve(), target.exists()
    for other in inputs:
        same = resolved == other.resolve()
        if same or (exists and other.exists() and target.samefile(other)):
            raise WICFileError(f"{target} is an input too; choose another name for the output.")
    wrong = (_PROTECTED.get() or {}).get(_resolved(target))
    if wrong is not None:
        raise WICFileError(f"{target} {wrong}; choose another name for the output.")
    if os.path.lexists(target) and not force:
        raise WICFileError(f"{target} exists; choose another name, or replace it with --force.")
    if not os.access(target.parent, os.W_OK):
        raise WICFileError(f"{target} cannot be written: {target.parent} is not writable.")


def was_written(path: str | Path) -> bool:
    """Whether the command at hand has written a file, which then is whole."""
    return (_PROTECTED.get() or {}).get(_resolved(path)) == _WRITTEN


def same_name(path: str | Path) -> str:
    """Returns a text that is equal for all spellings that the system takes for one file."""
    name = str(path)
    return unicodedata.normalize("NFC", name).casefold() if _IGNORES_CASE else name


def _resolved(path: str | Path) -> str:
    # realpath takes links in a loop, which Path.resolve refuses before Python 3.13
    return same_name(os.path.realpath(path))


def put_in_place(source: Path, target: Path) -> None:
    """Moves a file or folder to a name in the same folder, where a file may be.

    Raises:
        OSError: If that cannot be done; on Windows, also after a while.
    """
    for seconds in _WAITS:
        try:
            os.replace(source, target)
        except PermissionError:
            time.sleep(seconds)
        else:
            return
    os.replace(source, target)


def is_temporary(name: str) -> bool:
    """Whether a file so called is one that :func:`write_whole` could not finish."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def write_whole(target: Path, content: bytes, *, replace: bool = True) -> None:
    """Writes a file under a temporary name in the same folder, and then puts it in its place.

    Args:
        target: The file.
        content: What it is to hold.
        replace: Whether it may take the place of one that exists by now.

    Raises:
        WICFileError: If writing fails. Nothing is left behind.
    """
    with writing(target, replace=replace) as file:
        file.write(content)


@contextmanager
def writing(target: Path, *, replace: bool = True) -> Iterator[IO[bytes]]:
    """Gives a file to write to, which is put in its place once all is written.

    See :func:`write_whole`.
    """
    # tempfile's files can be read by their owner only
    temporary = target.with_name(f"{_PREFIX}{secrets.token_hex(6)}{_SUFFIX}")
    try:
        with temporary.open("xb") as file:
            yield file
        if replace:
            put_in_place(temporary, target)
        else:
            _put(temporary, target)
        written = _PROTECTED.get()
        if written is not None:
            written[_resolved(target)] = _WRITTEN
    except OSError as error:
        if isinstance(error, WICFileError):
            raise
        raise WICFileError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _put(temporary: Path, target: Path) -> None:
    """Gives a file its name, which nobody may have taken in the meantime."""
    try:
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            target.open("xb").close()
            try:
                put_in_place(temporary, target)
            except BaseException:
                target.unlink()
                raise
    except FileExistsError as error:
        raise WICFileError(
            f"{target} exists, written by another program in the meantime; choose another name, "
            "or replace it with --force."
        ) from error


def check_regular(path: Path) -> None:
    """Checks that a file is none without an end, such as a device or a pipe.

    Raises:
        WICFileError: If it is there and is neither a regular file nor a folder.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise WICFileError(f"{path} cannot be read: it is a device or a pipe; expected a file.")


def read_small(path: Path, most: int) -> bytes:
    """Returns what is in a file of at most ``most`` bytes.

    Raises:
        WICFileError: If it is larger or no regular file.
        OSError: If it cannot be read.
    """
    check_regular(path)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise WICFileError(f"{path} cannot be read: expected at most {most:,} bytes; it has more.")
    return content
