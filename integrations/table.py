"""Each integration's change, tried on the code base that it is for, as a Markdown table.

    make integrations SOURCES=FOLDER
    SOURCES=FOLDER python -m integrations.table

``FOLDER`` holds the code bases, each in a folder OWNER+NAME; they are copied and not written to.
Without ``SOURCES`` the stand-ins of the tests are tried, which are called as those are. One row is
a training: with their ``train.py`` on a CPU, small networks, a few steps. ``--only`` takes rows by
a part of their name.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from integrations import changing
from integrations.trying.owner import Owner, bare, picture, write_pictures
from integrations.trying.owners import OTHERS, OWNERS
from integrations.trying.rescaling import DLV
from wic_layers import cli
from wic_layers.models import from_pretrained, load_official, save_official, with_wic
from wic_layers.tasks import TASKS

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "tests"))  # what the stand-ins are made of
STEPS = 4
SIDE = 36  # halved, in thirds and in quarters
KERNELS = ("wic.weight", "3.weight")


class Trial:
    """One training, led through all that its owner does; a method for each column.

    Args:
        owner: The training.
        source: The checkout of its code, which is copied.
        folder: An empty folder.
    """

    def __init__(self, owner: Owner, source: Path, folder: Path) -> None:
        self.owner, self.source, self.folder = owner, source, folder
        self.before, self.after = folder / "before", folder / "after"
        for checkout in (self.before, self.after):
            shutil.copytree(source, checkout, ignore=shutil.ignore_patterns(".git"))
            owner.prepare(checkout)
        count = len(TASKS[owner.task].image_names)
        pictures = [picture(100 + n, SIDE) for n in range(count)]
        self.paths = [folder / f"image-{n}.png" for n in range(count)]
        for path, pixels in zip(self.paths, pictures, strict=True):
            Image.fromarray(pixels).save(path)
        self.images = TASKS[owner.task].pack(*map(_tensor, pictures))

    def changed(self) -> str:
        """Places that are changed; the second time nothing is left to do."""
        self.digests = _digests(self.after)
        for expected in ("Written into", "It is already there."):
            if expected not in _change(self.owner, self.after):
                raise ValueError(f"expected {expected!r}")
        files = {file for file, digest in _digests(self.after).items()
                 if self.digests.get(file) != digest}  # fmt: skip
        if files != set(self.owner.change.files):
            raise ValueError(f"other files have changed: {sorted(files)}")
        if readme_of(self.owner) != lines_of(self.owner, self.before):
            raise ValueError("README shows other lines than are written")
        return f"{len(self.owner.change.edits)}"

    def trained(self) -> str:
        """Steps, a validation and two checkpoints, after the change."""
        with self.owner.train(self.after, "unbroken", STEPS) as session, torch.no_grad():
            self.end = _state(session)
            self.small = self.owner.theirs(session.picture(self.owner.theirs(self.images)))
            self.rounded = self.small.mul(255).round().clamp(0, 255) / 255
            first, again = (session.back(self.owner.theirs(self.rounded)) for _ in range(2))
            self.back = self.owner.theirs(first)
        if not torch.equal(first, again):
            raise ValueError("what comes back differs from one time to the next")
        if not self.owner.was_validated(self.after, "unbroken"):
            raise ValueError("nothing was written by a validation")
        if not all(value.isfinite().all() for value in self.end.values()):
            raise ValueError("weights that are not finite")
        return "yes"

    def resumed_after(self) -> float:
        """By how much a training that is resumed in its middle ends off the unbroken one, at most.

        Weights and the optimizer's moments.
        """
        self.owner.copy_run(self.after, "unbroken", "resumed")
        with self.owner.train(self.after, "resumed", STEPS, after=STEPS // 2) as session:
            return _distance(self.end, _state(session))

    def resumed_before(self) -> str:
        """A training from before the change goes on.

        Weights, moments, rates and steps are those that were stored; the kernel has no moments.
        """
        if not self.owner.has_before:
            return "starts anew"
        with self.owner.train(self.before, "old", STEPS) as session, torch.no_grad():
            old = _state(session)
            self.old_small = session.picture(self.owner.theirs(self.images))
            rates = [group["lr"] for group in session.optimizer.param_groups]
        for run, at in (("stopped", STEPS), ("going", STEPS // 2)):
            self.owner.copy_run(self.after, "old", run, self.before)
            with self.owner.train(self.after, run, STEPS, after=at) as session, torch.no_grad():
                new = _state(session)
                if at == STEPS:
                    self.new_small = session.picture(self.owner.theirs(self.images))
                    at_stop = new
                    if [group["lr"] for group in session.optimizer.param_groups] != rates:
                        raise ValueError("the rates differ")
        if lost := old.keys() - at_stop.keys():
            raise ValueError(f"expected all that was stored; {len(lost)} tensors are gone")
        added = at_stop.keys() - old.keys()
        if len(added) != 1 or not next(iter(added)).endswith(KERNELS):
            raise ValueError(f"expected the kernel without moments to be new; got {sorted(added)}")
        if difference := _distance(old, {key: at_stop[key] for key in old}):
            raise ValueError(f"off by {difference}")
        if _distance(old, {key: new[key] for key in old}) == 0:
            raise ValueError("it does not go on")
        if tested := self.owner.tested(self.after, "tested", self._last("stopped")):
            again = self.owner.tested(self.after, "again", self._last("stopped"), 1)
            drawn = [
                self.owner.tested(self.before, f"drawn-{n}", self._last("old"), n) for n in (0, 1)
            ]
            if tested != again or drawn[0] == drawn[1]:
                raise ValueError("test.py: expected the same twice after the change, not before")
        return "yes"

    def picture_before(self) -> str:
        """By how much the picture of an old checkpoint is off, at most.

        After the change in their code, and here with a WIC.
        """
        if not self.owner.has_before:
            return "-"
        upgraded = with_wic(load_official(self._last("old")))
        with torch.no_grad():
            here = self.owner.theirs(upgraded(self.images))
        return _pair(self.old_small, self.new_small, self.old_small, here)

    def read_here(self) -> str:
        """By how much the last checkpoint is off through ``load_official``, at most.

        The picture, and what comes back.
        """
        self.model = load_official(self._last("unbroken"))
        with torch.no_grad():
            small, back = self.model(self.images), self.model.inverse(self.rounded)
        return _pair(small, self.small, back, self.back)

    def used_here(self) -> str:
        """By how many grey levels the commands' files are off their code's pictures, at most.

        After ``wic upgrade``: the picture, and what comes back.
        """
        folder, small, back = (self.folder / name for name in ("here", "small.png", "back.png"))
        there, again = self.owner.commands
        code, *more = self.owner.upgrade
        for command in (
            ["upgrade", code, self._last("unbroken"), "-o", folder, *more],
            [*there.split(), *self.paths, "-o", small, "--weights", folder],
            [again, small, "-o", back, "--weights", folder],
        ):
            if cli.main([str(word) for word in command]):
                raise ValueError(f"wic {command[0]} failed")
        images = self.owner.results(self.back)
        paths = [back] if len(images) == 1 else [
            self.folder / f"back-{n + 1}.png" for n in range(len(images))
        ]  # fmt: skip
        levels = [_levels(small, self.small)]
        levels.append(max(map(_levels, paths, images)))
        return " / ".join(map(str, levels))

    def gone_back(self) -> str:
        """``save_official``, and their loader: the same weights."""
        path = self.folder / "ours.pth"
        save_official(self.model, path)
        with self.owner.train(self.after, "ours", 0, weights=path) as session:
            state = session.net.state_dict()
        for key, value in state.items():
            if not torch.equal(value, self.end[bare(key)]):
                raise ValueError(f"{key} differs")
        return "yes"

    def tuned_here(self) -> float:
        """By how much the picture is off at most, there and here, of a network fine-tuned here.

        From an old checkpoint by ``wic upgrade --data``, and back by ``save_official``.
        """
        folder, path = self.folder / "tuned", self.folder / "tuned.pth"
        write_pictures(self.folder / "photographs", 2, 128)
        code, *more = self.owner.upgrade
        last = self._last("old" if self.owner.has_before else "unbroken")
        words = ["upgrade", code, last, "-o", folder, *more, "--data", self.folder / "photographs"]
        training = "--steps 2 --crop 36 --batch 1 --held-out 1 --accelerator cpu --warmup 0"
        if cli.main([*map(str, words), *training.split(), "--cache", f"{self.folder}/cache"]):
            raise ValueError("wic upgrade --data failed")
        model = from_pretrained(folder)
        save_official(model, path)
        with (
            self.owner.train(self.after, "tuned", 0, weights=path) as session,
            torch.no_grad(),
        ):
            there = self.owner.theirs(session.picture(self.owner.theirs(self.images)))
            return float((there - model(self.images)).abs().max())

    def others(self) -> str:
        """Trainings of the same code that the change is not for: the same weights as before it."""
        if logged := self.owner.logged(self.after, "logged", STEPS):
            with logged as session:
                if _distance(self.end, _state(session)):
                    raise ValueError("train_logging.py ends elsewhere than train.py")
            return "1 as `train.py`"
        if self.owner.name not in ("IRN x2", "DLV-IRN x2"):
            return "-"
        count = 0
        for other in OTHERS:
            if not (self.source / "codes" / "models" / other.file).exists():
                continue
            ends = []
            for checkout in (self.before, self.after):
                other.prepare(checkout)
                with other.train(checkout, other.name, STEPS // 2) as session:
                    ends.append(_state(session))
            if _distance(*ends):
                raise ValueError(f"{other.name} ends elsewhere")
            count += 1
        return f"{count} as before"

    def undone(self) -> str:
        """The checkout's files, byte for byte."""
        if "Taken out of" not in _change(self.owner, self.after, "--undo"):
            raise ValueError("expected 'Taken out of'")
        digests = _digests(self.after)
        if {file: digests.get(file) for file in self.digests} != self.digests:
            raise ValueError("files differ")
        return "yes"

    def _last(self, run: str) -> Path:
        checkout = self.before if run == "old" else self.after
        return self.owner.checkpoint(checkout, run, STEPS)


Column = Callable[[Trial], Any]
COLUMNS: dict[str, Column] = {
    "places": Trial.changed,
    "trains, validates, saves": Trial.trained,
    "resumed from after: off by": Trial.resumed_after,
    "resumed from before": Trial.resumed_before,
    "its picture: off by, there / here": Trial.picture_before,
    "`load_official`: picture / back off by": Trial.read_here,
    "`wic`: grey levels off, picture / back": Trial.used_here,
    "`save_official`, their loader": Trial.gone_back,
    "fine-tuned here, back there: off by": Trial.tuned_here,
    "other trainings": Trial.others,
    "undone": Trial.undone,
}


def row(
    owner: Owner, source: Path, notes: list[str], columns: Mapping[str, Column] = COLUMNS
) -> list[str]:
    """The cells of a training; what fails is "no", with a note."""
    cells = []
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, _quiet():
        trial = Trial(owner, source, Path(folder).resolve())
        for name, column in columns.items():
            try:
                value = column(trial)
            except (Exception, SystemExit) as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                text = " ".join(f"{type(error).__name__}: {error}".split())
                notes.append(f"- {owner.name}, {name}: {text[:300]} ({place})")
                value = "no"
            cells.append(_number(value) if isinstance(value, float) else value)
    print(f"{owner.name}: {time.monotonic() - start:.1f} s", file=sys.stderr)
    return cells


def lines_of(owner: Owner, checkout: Path) -> list[str]:
    """The lines that a change takes out of a checkout and puts there, file by file."""
    without, with_it = owner.change.both(checkout)
    return [
        line
        for file in owner.change.files
        for line in changing.changed_lines(without[file], with_it[file])
    ]


def readme_of(owner: Owner) -> list[str]:
    """Those lines as the integration's README shows them."""
    text = (ROOT / "integrations" / owner.folder / "README.md").read_text(encoding="utf-8")
    return "".join(re.findall(r"```diff\n(.*?)```", text, flags=re.DOTALL)).splitlines()


def commit_of(owner: Owner, checkout: Path) -> str:
    """The commit that the changed files of a checkout are of."""
    try:
        edited = owner.change.edited(owner.change.both(checkout)[0])
    except changing.PlaceError as error:
        return f"({error})".replace("\n", " ")
    return "edited" if edited else owner.change.commit


def source_of(owner: Owner, sources: Path | None) -> Path:
    """The folder of a training's code: a checkout, or its stand-in."""
    if sources is not None:
        return sources / owner.change.repository.replace("/", "+")
    name = "irn" if isinstance(owner, DLV) else owner.folder
    return ROOT / "tests" / "standins" / "checkouts" / name


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--only", default="", help="rows whose name has this in it")
    options = parser.parse_args()
    sources = Path(os.environ["SOURCES"]).resolve() if os.environ.get("SOURCES") else None
    torch.set_num_threads(1)
    notes: list[str] = []
    header = ["training", *COLUMNS]
    for line in (header, ["---"] * len(header)):
        print(f"| {' | '.join(line)} |", flush=True)
    for owner in OWNERS:
        source = source_of(owner, sources)
        if options.only not in owner.name or not (sources or owner.has_stand_in):
            continue
        if not source.is_dir():
            print(f"{source}: not there", file=sys.stderr)
            continue
        commit = f", {owner.change.repository} {commit_of(owner, source)}" if sources else ""
        print(f"| {' | '.join([owner.name + commit, *row(owner, source, notes)])} |", flush=True)
    print("\n" + "\n".join(notes))
    return bool(notes)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        yield


def _change(owner: Owner, checkout: Path, *options: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        if changing.main(owner.change, [str(checkout), *options]):
            raise ValueError(output.getvalue())
    return output.getvalue()


def _digests(folder: Path) -> dict[str, str]:
    """Of a checkout's code."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*.py"))
    }


def _state(session: Any) -> dict[str, Tensor]:
    """Weights and the optimizer's moments, by the names that the bare network has."""
    state = {bare(key): value.clone() for key, value in session.net.state_dict().items()}
    for name, entry in session.moments().items():
        for part, value in entry.items():
            state[f"{name}, {part}"] = torch.as_tensor(value).clone()
    return state


def _distance(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    if one.keys() != other.keys():
        raise ValueError(f"other tensors: {sorted(one.keys() ^ other.keys())[:4]}")
    return max(float((value.double() - other[key]).abs().max()) for key, value in one.items())


def _pair(*tensors: Tensor) -> str:
    """The largest differences of two pairs."""
    pairs = zip(tensors[::2], tensors[1::2], strict=True)
    return " / ".join(_number(float((one - two).abs().max())) for one, two in pairs)


def _number(value: float) -> str:
    return f"{value:.0e}" if value else "0"


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(pixels.copy()).movedim(2, 0)[None].float() / 255


def _levels(path: Path, expected: Tensor) -> int:
    """By how many grey levels a file is off what their code gives, at most."""
    pixels = torch.from_numpy(np.asarray(Image.open(path)).copy())
    pixels = pixels[None, None] if pixels.ndim == 2 else pixels.movedim(2, 0)[None]
    return int((pixels - expected.mul(255).round().clamp(0, 255)).abs().max())


if __name__ == "__main__":
    sys.exit(main())
