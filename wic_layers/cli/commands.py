"""The commands that turn files into files: ``wic hide``, ``down``, ``gray``, ``pack`` and back."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from wic_layers._files import protecting
from wic_layers.cli.console import complain, print_line, progress_bar
from wic_layers.cli.jobs import Job, plan
from wic_layers.codec.files import (
    Written,
    color_file,
    down_file,
    gray_file,
    hide_file,
    reveal_file,
    up_file,
)
from wic_layers.codec.packed import pack_clip, pack_file, unpack_file
from wic_layers.codec.running import fast
from wic_layers.errors import WICArgumentError, WICError
from wic_layers.models.presets import find_preset
from wic_layers.pictures.video import is_clip
from wic_layers.tasks.packing import Clip
from wic_layers.tasks.registry import HIDING, find_packing

__all__ = ["color", "down", "gray", "hide", "pack", "reveal", "unpack", "up"]

_ERROR = 2


def _model(args: argparse.Namespace) -> Any:
    """What --weights or --preset name; None if neither is given."""
    if args.weights is not None:
        if not args.weights.exists():
            raise WICArgumentError(f"Expected --weights to be there; {args.weights} is not.")
        return args.weights
    if args.preset is not None:
        find_preset(args.preset)
    return args.preset


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _decibel(value: float | None) -> str:
    if value is None or math.isinf(value):
        return "no difference"
    return f"{value:.2f} dB PSNR"


def _run(
    args: argparse.Namespace,
    convert: Callable[[Job, dict[str, Any]], list[Written]],
    describe: Callable[[Written], Iterator[str]],
    **planned: Any,
) -> int:
    """Runs a command on each of its files; one that fails does not stop the others."""
    shared = _shared(args)
    jobs = plan(args.sources, args.out, **planned)
    inputs = [path for job in jobs for path in (job.source, *job.secrets)]
    failed = 0
    with (
        progress_bar(len(jobs), "file") as tick,
        fast(enabled=args.fast),
        protecting(inputs),
    ):
        for job in jobs:
            try:
                with progress_bar(0, "tile") as progress:
                    found = convert(job, {**shared, "progress": progress})
            except WICError as error:
                if len(jobs) == 1:
                    raise
                complain(str(error))
                failed += 1
            else:
                if found[0].doubt is not None:
                    print("wic: warning:", found[0].doubt, file=sys.stderr)
                for written in found:
                    _tell(args, [job.source, *job.secrets], written, describe)
            tick(1, len(jobs))
    if failed:
        complain(f"{failed} of {len(jobs)} files failed")
    return _ERROR if failed else 0


def _shared(args: argparse.Namespace) -> dict[str, Any]:
    """What every function on files is given."""
    shared = {
        "model": _model(args), "force": args.force, "tile": args.tile, "device": args.device,
    }  # fmt: skip
    return {**shared, "refine": args.refine} if "refine" in args else shared


def _tell(
    args: argparse.Namespace,
    inputs: list[Path],
    written: Written,
    describe: Callable[[Written], Iterator[str]],
) -> None:
    """Prints what was written."""
    for line in [_as_json(inputs, written)] if args.json else describe(written):
        print_line(line)


def _as_json(inputs: list[Path], written: Written) -> str:
    """What was written, as a line of JSON; an infinite PSNR is the text "inf"."""

    def plain(value: Any) -> Any:
        if isinstance(value, float) and math.isinf(value):
            return "inf"
        if isinstance(value, (list, tuple)):
            return [plain(item) for item in value]
        return str(value) if isinstance(value, Path) else value

    found = {"inputs": inputs, **asdict(written)}
    return json.dumps({key: plain(value) for key, value in found.items()})


def _forward_lines(written: Written, against: str, returned: str) -> Iterator[str]:
    several = len(written.returns) > 1
    back = "; ".join(
        f"{returned}{f' {index}' if several else ''} comes back at {_times(size)}, "
        f"{_decibel(psnr)}"
        for index, (size, psnr) in enumerate(
            zip(written.returns, written.psnr_back, strict=True), start=1
        )
    )
    yield (
        f"{written.path}: {_times(written.size)}, {_decibel(written.psnr)} from {against}; {back}"
    )


def _back_lines(written: Written) -> Iterator[str]:
    yield f"{written.path}: {_times(written.size)}"


def hide(args: argparse.Namespace) -> int:
    """``wic hide``: one to four images into another one."""

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return [
            hide_file(
                job.source, job.secrets, job.out, marked=not args.unmarked, fit=args.fit, **shared
            )
        ]

    def describe(written: Written) -> Iterator[str]:
        yield from _forward_lines(written, "the cover", "the secret")
        notes = []
        for index, size in enumerate(written.reduced_from, start=1):
            if size is not None:
                which = f" {index}" if len(written.reduced_from) > 1 else ""
                notes.append(f"the secret{which} was reduced from {_times(size)}")
        if written.size != written.source:
            notes.append(
                f"the cover, {_times(written.source)}, was padded to even sides; do not crop the "
                f"file"
            )
        if args.unmarked:
            preset = args.preset or HIDING[len(written.returns) - 1].preset
            network = f"--weights {args.weights}" if args.weights else f"--preset {preset}"
            sizes = " ".join(f"--size {_times(size)}" for size in written.returns)
            notes.append(f"unmarked: wic reveal needs {network} {sizes}")
        if notes:
            yield f"note: {'; '.join(notes)}"

    args.sources = [args.cover]
    return _run(args, convert, describe, secrets=args.secrets)


def reveal(args: argparse.Namespace) -> int:
    """``wic reveal``: what ``wic hide`` hid."""

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return reveal_file(job.source, job.out, sizes=args.size, **shared)

    return _run(args, convert, _back_lines)


def down(args: argparse.Namespace) -> int:
    """``wic down``: a small image that gives the large one back."""
    if args.scale not in (None, "2", "3", "4"):
        raise WICArgumentError(
            f"wic down makes images 2, 3 or 4 times smaller (-s 2, -s 3, -s 4); -s {args.scale} "
            f"is not available."
        )
    if args.scale == "3" and args.preset is None and args.weights is None:
        raise WICArgumentError(
            "-s 3 is not available without --weights: no weights for it come with the package. "
            "Train some with `wic train irn-x3-small`."
        )
    scale = None if args.scale is None else int(args.scale)

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return [down_file(job.source, job.out, scale=scale, **shared)]

    return _run(args, convert, lambda written: _forward_lines(written, "bicubic", "the photo"))


def up(args: argparse.Namespace) -> int:
    """``wic up``: what ``wic down`` made small."""

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return [up_file(job.source, job.out, size=_one(args.size), **shared)]

    return _run(args, convert, _back_lines)


def gray(args: argparse.Namespace) -> int:
    """``wic gray``: a grey image that gives its colours back."""

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return [gray_file(job.source, job.out, **shared)]

    return _run(
        args, convert, lambda written: _forward_lines(written, "its lightness", "the photo")
    )


def color(args: argparse.Namespace) -> int:
    """``wic color``: what ``wic gray`` made grey."""

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return [color_file(job.source, job.out, size=_one(args.size), **shared)]

    return _run(args, convert, _back_lines)


def pack(args: argparse.Namespace) -> int:
    """``wic pack``: several images, or a clip, into one."""
    task = find_packing(args.task)

    def describe(written: Written) -> Iterator[str]:
        yield from _forward_lines(written, task.looks_like, task.titles[1])

    if isinstance(task, Clip):
        if len(args.sources) == 1 and is_clip(args.sources[0]):
            shared = _shared(args)
            with fast(enabled=args.fast):
                for written in pack_clip(args.task, args.sources[0], args.out, **shared):
                    _tell(args, [args.sources[0]], written, describe)
            return 0
    elif len(args.sources) != task.given:
        raise WICArgumentError(
            f"Expected {task.given} images for {task.name} ({', '.join(task.parts)}); got "
            f"{len(args.sources)}."
        )
    first, *others = args.sources
    args.sources = [first]

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return [pack_file(args.task, [job.source, *job.secrets], job.out, **shared)]

    return _run(args, convert, describe, secrets=others, called=task.parts[:2])


def unpack(args: argparse.Namespace) -> int:
    """``wic unpack``: what ``wic pack`` made one."""

    def convert(job: Job, shared: dict[str, Any]) -> list[Written]:
        return unpack_file(job.source, job.out, sizes=args.size, **shared)

    return _run(args, convert, _back_lines)


def _one(sizes: list[tuple[int, int]] | None) -> tuple[int, int] | None:
    if sizes is not None and len(sizes) > 1:
        raise WICArgumentError(f"Expected --size once; got it {len(sizes)} times.")
    return sizes[0] if sizes else None
