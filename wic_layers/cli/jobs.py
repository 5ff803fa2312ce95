"""Job: which files become which one; ``plan``: those of one file, several, or whole folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wic_layers._files import same_name
from wic_layers.cli.words import is_pattern
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures import find_images, names_file

__all__ = ["Job", "make_folder", "plan"]


@dataclass(frozen=True)
class Job:
    """What becomes one output.

    Attributes:
        inputs: All files that are read: the photo or cover, or the first of several images, and
            what is hidden in it, or goes with it.
        out: The file to write.
    """

    inputs: tuple[Path, ...]
    out: Path


def plan(
    sources: Sequence[Path],
    out: Path,
    *,
    others: Sequence[Path] = (),
    titles: tuple[str, ...] = ("cover", "secret"),
    into: bool = False,
    suffix: str = ".png",
) -> list[Job]:
    """Returns the jobs that the paths on a command line ask for, and makes their folders.

    One file becomes ``out``. Several, or those in a folder and below, become PNG files of the same
    names in the folder ``out``. Where names differ by their ends alone, as DSC_1.JPG and
    DSC_1.JPEG, they keep them: DSC_1.JPG.png.

    Args:
        sources: Files and folders.
        out: A file to write or, where there are several sources or it is a folder already, the
            folder for them.
        others: What is hidden in each source, or goes with it: files, which go into all of them,
            or folders with as many images as there are sources, paired in the order of their
            names.
        titles: What a source, and what goes with it, are called in errors.
        into: Whether ``out`` is a folder, also where there is none yet.
        suffix: How the names of files in a folder end.

    Raises:
        WICFileError: If a pattern matches nothing, a folder holds no image, two files would get
            one name, or ``out`` is no folder but has to be.
        WICArgumentError: If a folder of secrets has another number of images.
    """
    for path in (*sources, *others):
        if is_pattern(str(path)):  # or it would have been expanded
            raise WICFileError(f"No file matches {path}.")
    several = len(sources) > 1 or sources[0].is_dir()
    companions = [_others(path, sources, titles, several=several) for path in others]
    if not several and not out.is_dir() and not into:
        return [Job((sources[0], *(each[0] for each in companions)), out)]
    if out.is_file() or (names_file(out) and not into):
        raise WICFileError(
            f"Expected a folder to write several images to; got {out}, the name of a file."
        )
    inputs = _named(sources, out, suffix)
    for index, each in enumerate(companions):
        if not others[index].is_dir():
            companions[index] = each * len(inputs)
        elif len(each) != len(inputs):
            raise WICArgumentError(
                f"Expected as many {titles[1]}s as {titles[0]}s, {len(inputs)}; {others[index]} "
                f"holds {len(each)} images."
            )
    for name in inputs:
        make_folder(name.parent)
    return [
        Job((path, *(each[index] for each in companions)), name)
        for index, (name, path) in enumerate(inputs.items())
    ]


def make_folder(path: Path) -> None:
    """Makes a folder, and those that it lies in, where there is none.

    Raises:
        WICFileError: If it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WICFileError(f"{path} cannot be made: {error.strerror or error}.") from error


def _named(sources: Sequence[Path], out: Path, suffix: str) -> dict[Path, Path]:
    """The files that become one each in the folder ``out``, by its name there."""
    insides: list[tuple[Path, Path]] = []  # the path, and the name below the source
    for source in sources:
        if source.is_dir():
            insides += [(path, path.relative_to(source)) for path in _below(source, out)]
        else:
            insides.append((source, Path(source.name)))
    ends: dict[str, set[Path]] = {}
    for _, inside in insides:
        ends.setdefault(same_name(inside.with_suffix(suffix)), set()).add(inside)
    inputs: dict[Path, Path] = {}
    taken: dict[str, Path] = {}
    for path, inside in insides:
        short = inside.with_suffix(suffix)
        long = inside.with_name(f"{inside.name}{suffix}")
        name = out / (short if len(ends[same_name(short)]) == 1 else long)
        other = taken.setdefault(same_name(name), path)
        if other is not path:
            raise WICFileError(
                f"{other} and {path} would both be written as {name}; rename one, or run "
                f"them one after the other."
            )
        inputs[name] = path
    return inputs


def _below(source: Path, out: Path) -> list[Path]:
    """The images in a folder, without those that an earlier run wrote to ``out`` inside it."""
    inside = out.resolve()
    images = find_images(source)
    if inside == source.resolve():
        return images
    return [path for path in images if inside not in path.resolve().parents] or images


def _others(
    path: Path, sources: Sequence[Path], titles: tuple[str, ...], *, several: bool
) -> list[Path]:
    if not path.is_dir():
        return [path]
    if not several:
        raise WICArgumentError(
            f"Expected a file to go with {sources[0]}; {path} is a folder. Take a folder for "
            f"{titles[0]} too."
        )
    return find_images(path)
