"""Which files become which: one file, several, or whole folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures.images import find_images, names_file

__all__ = ["Job", "plan"]


@dataclass(frozen=True)
class Job:
    """What becomes one output.

    Attributes:
        source: The photo, cover or carrier, or the first of several images.
        secrets: What is hidden in a cover, or goes with the first image.
        out: The file to write.
    """

    source: Path
    secrets: tuple[Path, ...]
    out: Path


def plan(
    sources: Sequence[Path],
    out: Path,
    *,
    secrets: Sequence[Path] = (),
    called: tuple[str, ...] = ("cover", "secret"),
) -> list[Job]:
    """Returns the jobs that the paths on a command line ask for, and makes their folders.

    One file becomes ``out``. Several, or those in a folder and below, become PNG files of the same
    names in the folder ``out``.

    Args:
        sources: Files and folders.
        out: A file to write or, where there are several sources or it is a folder already, the
            folder for them.
        secrets: What is hidden in each source, or goes with it: files, which go into all of them,
            or folders with as many images as there are sources, paired in the order of their
            names.
        called: What a source, and what goes with it, are called in errors.

    Raises:
        WICFileError: If a folder holds no image, two files would get one name, or ``out`` is no
            folder but has to be.
        WICArgumentError: If a folder of secrets has another number of images.
    """
    several = len(sources) > 1 or sources[0].is_dir()
    hidden = [_secrets(path, sources, called, several=several) for path in secrets]
    if not several and not out.is_dir():
        return [Job(sources[0], tuple(each[0] for each in hidden), out)]
    if names_file(out):
        raise WICFileError(
            f"Expected a folder to write several images to; got {out}, the name of a file."
        )
    found: dict[Path, Path] = {}
    for source in sources:
        for path in _below(source, out) if source.is_dir() else [source]:
            inside = path.relative_to(source) if source.is_dir() else Path(path.name)
            name = out / inside.with_suffix(".png")
            if name in found:
                raise WICFileError(
                    f"{found[name]} and {path} would both be written as {name}; rename one, or "
                    f"run them one after the other."
                )
            found[name] = path
    for index, each in enumerate(hidden):
        if not secrets[index].is_dir():
            hidden[index] = each * len(found)
        elif len(each) != len(found):
            raise WICArgumentError(
                f"Expected as many {called[1]}s as {called[0]}s, {len(found)}; {secrets[index]} "
                f"holds {len(each)} images."
            )
    try:
        for name in found:
            name.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WICFileError(f"{out} cannot be made: {error.strerror or error}.") from error
    return [
        Job(path, tuple(each[index] for each in hidden), name)
        for index, (name, path) in enumerate(found.items())
    ]


def _below(source: Path, out: Path) -> list[Path]:
    """The images in a folder, without those that an earlier run wrote to ``out`` inside it."""
    inside = out.resolve()
    found = find_images(source)
    if inside == source.resolve():
        return found
    return [path for path in found if inside not in path.resolve().parents] or found


def _secrets(
    path: Path, sources: Sequence[Path], called: tuple[str, ...], *, several: bool
) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not several:
        raise WICArgumentError(
            f"Expected a file to go with {sources[0]}; {path} is a folder. Take a folder for "
            f"{called[0]} too."
        )
    return find_images(path)
