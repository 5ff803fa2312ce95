"""The Hugging Face hub: weights from there, where a name says so, and to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wic_layers.errors import (
    WICArgumentError,
    WICDependencyError,
    WICFileError,
    needing,
    quoted,
    shortened,
)

if TYPE_CHECKING:
    from types import ModuleType

__all__ = [
    "HUB",
    "OWNER",
    "download",
    "download_preset",
    "first_lines",
    "is_on_hub",
    "looks_like",
    "repository_of",
    "upload",
]

HUB = "hub:"
"""What stands before ``owner/name``; without it a name is that of a folder or a preset."""

OWNER: str | None = None
"""Whose account holds the packages' weights on the hub; None until they are there."""

_NAME = re.compile(r"\w[\w.-]{0,95}/\w[\w.-]{0,95}")


def is_on_hub(name: str | Path) -> bool:
    """Whether a name says that it is one on the hub."""
    return isinstance(name, str) and name.startswith(HUB)


def looks_like(name: str) -> bool:
    """Whether a name could be one on the hub, if it said so."""
    return _NAME.fullmatch(name) is not None


def download(name: str, revision: str | None, files: list[str]) -> Path:
    """Returns a folder with files of a repository; the user's token is not sent unless it must.

    Args:
        name: ``"hub:owner/name"``.
        revision: Branch, tag or commit.
        files: Their names.

    Raises:
        WICArgumentError: If it is no such name.
        WICDependencyError: If huggingface_hub is not installed.
        WICFileError: If the hub does not give them.
    """
    repository = name.removeprefix(HUB)
    if not looks_like(repository):
        raise WICArgumentError(f'Expected "{HUB}owner/name"; got {quoted(name)}.')
    hub = _hub()

    def fetch(token: Any) -> Path:
        options = {"revision": revision, "allow_patterns": files, "token": token}
        return Path(hub.snapshot_download(repository, **options))

    try:
        try:
            return fetch(False)  # noqa: FBT003 - the hub's own word for none
        except Exception as error:
            token = hub.get_token() if _asks_for_token(error) else None
            if token is None:
                raise
            return fetch(token)
    except Exception as error:  # the hub's and its HTTP client's have no base in common
        raise WICFileError(f"The hub does not give {repository}: {first_lines(error)}") from error


def repository_of(preset: str, owner: str) -> str:
    """The repository on the hub that holds the weights of a preset."""
    return f"{owner}/wic-layers-{preset}"


def download_preset(preset: str, revision: str | None, files: list[str]) -> Path:
    """Returns a folder with files of a preset's weights that the wheel leaves out.

    Args:
        preset: Its name.
        revision: Branch, tag or commit.
        files: Their names.

    Raises:
        WICDependencyError: If huggingface_hub is not installed.
        WICFileError: If they are on no hub yet, or the hub does not give them.
    """
    missing = f"The weights of '{preset}' are not in this package, which leaves large ones out"
    if OWNER is None:
        raise WICFileError(
            f"{missing}. They are in the repository's folder wic_layers/models/weights/{preset}; "
            "pass its path, from a checkout."
        )
    repository = repository_of(preset, OWNER)
    address = f"https://huggingface.co/{repository}"
    try:
        return download(f"{HUB}{repository}", revision, files)
    except WICDependencyError as error:
        raise WICDependencyError(f"{missing}. They are at {address}. {error}") from error
    except WICFileError as error:
        raise WICFileError(
            f"{missing}. {error.message.rstrip('.')}. Without a connection, copy the files from "
            f"{address} into a folder and pass that."
        ) from error


def upload(name: str, folder: str, *, private: bool, token: str | None) -> str:
    """Writes the files of a folder into a repository, which is made if there is none.

    Args:
        name: ``"owner/name"``, also behind ``hub:``.
        folder: The folder.
        private: Whether a new repository can be seen by its owner only.
        token: The hub's access token; the one that was saved by default.

    Returns:
        The address of the commit.

    Raises:
        WICFileError: If the hub refuses.
    """
    repository = name.removeprefix(HUB)
    api = _hub().HfApi(token=token)
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        return str(api.upload_folder(repo_id=repository, folder_path=folder))
    except Exception as error:  # the hub's and its HTTP client's have no base in common
        raise WICFileError(
            f"{repository} cannot be written on the hub: {first_lines(error)}"
        ) from error


def first_lines(error: BaseException) -> str:
    """What an error of another library says, without what it says at length."""
    lines = str(error).strip().splitlines()
    return shortened(" ".join(lines[:3])) if lines else type(error).__name__


def _asks_for_token(error: Exception) -> bool:
    """Whether the hub refused for want of a token, in whose place it also says "not found"."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    return status in (401, 403, 404)


def _hub() -> ModuleType:
    with needing("Weights from the hub need huggingface_hub", "hub"):
        import huggingface_hub
    return huggingface_hub
