"""Files of ``torch.save``, strangers' too: read as plain values and tensors, or refused."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import IO

import torch

from wic_layers._files import check_regular
from wic_layers.errors import WICFileError, shortened

__all__ = ["read_pickle", "why_not_safe", "write_pickle"]


def read_pickle(path: Path, *, trust: bool = False, device: str | torch.device = "cpu") -> object:
    """Returns what is in a file, read with ``weights_only=True``.

    Args:
        path: The file.
        trust: Whether it is read by a torch whose reading of strangers' files is not safe.
        device: Where its tensors are put.

    Raises:
        WICFileError: If it cannot be read, is damaged or holds more than plain values and tensors.
    """
    wrong = why_not_safe(torch.__version__)
    if wrong and not trust:
        raise WICFileError(
            f"{path} is not read: {wrong}. Install torch 2.10 or later; or say --trust (in Python "
            "trust=True) if it comes from somebody whose programs you would run. Weights in "
            "safetensors are read by every torch."
        )
    try:
        check_regular(path)
        _check_size(path)
        return torch.load(path, map_location=device, weights_only=True)
    except WICFileError:
        raise
    except OSError as error:
        raise WICFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # torch.load raises nearly anything for a file that is none of its
        raise WICFileError(
            f"{path} is damaged, no checkpoint of torch, or holds more than tensors: "
            f"{_reason(error)}"
        ) from error


class _Watched:
    """A file that remembers why it could not be written: torch tells of positions instead."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, content: bytes) -> int:
        """Writes to the file."""
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        """Nothing; the file is closed by whoever opened it."""


def write_pickle(value: object, file: IO[bytes]) -> None:
    """Does what ``torch.save`` does, and raises the system's error where that has one.

    Raises:
        OSError: If the file cannot be written.
    """
    watched = _Watched(file)
    try:
        torch.save(value, watched)  # type: ignore[arg-type]
    except RuntimeError as error:
        if watched.error is None:
            raise
        raise watched.error from error


def why_not_safe(version: str) -> str:
    """Says what a file may do to a torch of some version; empty where nothing is known."""
    number = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if number < (2, 6):
        return f"torch {version} runs code that a .pth file holds (CVE-2025-32434)"
    if number < (2, 10):
        return f"a harmful .pth file can change the memory of torch {version} (CVE-2026-24747)"
    return ""


def _check_size(path: Path) -> None:
    """Raises if the parts of an archive would be larger than the file, as torch.save has none."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        size = sum(part.file_size for part in archive.infolist())
    if size > path.stat().st_size:
        raise WICFileError(
            f"{path} is refused: it would become {size:,} bytes, more than the file has. "
            "torch.save packs nothing."
        )


def _reason(error: BaseException) -> str:
    """What torch says, without its advice to read the file all the same."""
    text = str(error).strip()
    wanted = re.search(r"GLOBAL (\S+)", text)
    if wanted:
        return f"it asks for {shortened(wanted[1], 100)}"
    if "weights_only" in text or "Weights only" in text:
        return "its pickle is none of tensors and plain values"
    return shortened(text.splitlines()[0]) if text else type(error).__name__
