"""``convert_all``: one file after the other, of which some may fail, be there, or never come."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from wic_layers._files import protecting, was_written
from wic_layers.cli.bar import Bar
from wic_layers.cli.beside import carried
from wic_layers.cli.command import SOME_FAILED, complain, print_line, sentence_of
from wic_layers.cli.jobs import Job
from wic_layers.codec import Written

__all__ = ["convert_all", "write_all"]

Report = Callable[[Sequence[Path], Written], None]
"""Says what was written, from which files."""


def convert_all(
    jobs: Sequence[Job],
    convert: Callable[[Job], list[Written]],
    report: Report,
    *,
    as_json: bool = False,
    skip_existing: bool = False,
) -> int:
    """Runs jobs; one that fails does not stop the others.

    Args:
        jobs: What to do.
        convert: Does one of them.
        report: Says what one of them has written.
        as_json: Whether there is a line of JSON for every file, for those that fail too.
        skip_existing: Whether jobs whose output exists are left out.

    Returns:
        The exit code.

    Raises:
        WICError: If the only job fails.
        KeyboardInterrupt: After Ctrl-C; what is whole by then was said.
    """
    left = list(_left(jobs, as_json=as_json)) if skip_existing else jobs
    if len(left) < len(jobs):
        complain(
            f"{len(jobs) - len(left)} of {len(jobs)} outputs exist and stay as they are", "note"
        )
    failed, omitted = 0, set[str]()
    works = _works(left) if Bar.is_seen() else [1.0] * len(left)
    with (
        protecting([file for job in jobs for file in job.inputs]),
        Bar(len(left), sum(works)) as bar,
    ):
        for index, (job, work) in enumerate(zip(left, works, strict=True)):
            try:
                with bar.file(job.inputs[0].name, work):
                    results = convert(job)
            except KeyboardInterrupt:
                _say_interrupted(job, index, len(left))
                raise
            except Exception as error:
                message = sentence_of(error)
                if message is None:
                    raise
                if as_json:
                    print_line(_failure(job.inputs, message))
                if len(jobs) == 1:
                    raise
                complain(message)
                failed += 1
            else:
                if results[0].doubt is not None:
                    complain(results[0].doubt, "warning")
                for written in results:
                    report(job.inputs, written)
                omitted.update(results[0].omitted)
    if omitted:
        complain(f"left out: {carried(sorted(omitted))}, which --keep-metadata writes", "note")
    if failed:
        complain(f"{failed} of {len(jobs)} files failed")
    return SOME_FAILED if failed else 0


def write_all(
    clip: Path, files: Iterator[Written], report: Report, *, as_json: bool = False
) -> int:
    """Writes what comes of one clip, file after file.

    Args:
        clip: The video, or the folder of frames.
        files: Writes the next file whenever it is asked for one.
        report: Says what was written.
        as_json: Whether there is a line of JSON for a failure too.

    Returns:
        The exit code.

    Raises:
        WICError: If it fails.
    """
    with Bar(None) as bar:
        while True:
            try:
                with bar.file(clip.name):
                    written = next(files, None)
            except Exception as error:
                message = sentence_of(error)
                if as_json and message is not None:
                    print_line(_failure([clip], message))
                raise
            if written is None:
                return 0
            report([clip], written)


def _left(jobs: Sequence[Job], *, as_json: bool) -> Iterator[Job]:
    """The jobs whose outputs are not there yet.

    Of several images, -1, -2, ... in their names, the first one is written last.
    """
    inputs = {path for job in jobs for path in job.inputs}
    taken = inputs | {job.out for job in jobs}
    for job in jobs:
        first = job.out.with_name(f"{job.out.stem}-1{job.out.suffix}")
        names = [job.out] if first in taken else [job.out, first]
        if job.out in inputs or not any(name.is_file() for name in names):
            yield job  # where an input would be written over, to hear that
        elif as_json:
            facts = {"inputs": [*map(str, job.inputs)], "path": str(job.out), "skipped": True}
            print_line(json.dumps(facts))


def _works(jobs: Sequence[Job]) -> list[float]:
    """The pixels of the first input of each job, as its header says; 1 where it cannot be read."""
    try:
        from PIL import Image
    except ImportError:  # the first job says so
        return [1.0] * len(jobs)
    works = []
    for job in jobs:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                with Image.open(job.inputs[0]) as image:
                    works.append(float(image.width * image.height))
        except Exception:  # Pillow's plugins raise nearly anything; the job says what is wrong
            works.append(1.0)
    return works


def _say_interrupted(job: Job, done: int, count: int) -> None:
    """Says after Ctrl-C what is whole, and how the others can follow."""
    if was_written(job.out):
        complain(f"{job.out} is whole; what comes back from it was not judged", "interrupted")
        done += 1
    if count > 1:
        complain(
            f"{done} of {count} files are done; --skip-existing goes on with the others",
            "interrupted",
        )


def _failure(inputs: Sequence[Path], message: str) -> str:
    return json.dumps({"inputs": [*map(str, inputs)], "error": message})
