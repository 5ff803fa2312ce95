"""Strangers' files by the thousand: each door opens, or says why not, within memory and time.

``make fuzz`` runs ``python tests/fuzz.py``; ``tests/test_doors.py`` a small share of it.
"""

from __future__ import annotations

import argparse
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections import Counter
from pathlib import Path

import torch
from strangers.drawing import Door
from strangers.networks import Checkpoints, Settings, Trainings, Weights
from strangers.pictures import Marks, Pictures, Videos

from wic_layers.errors import WICError

SECONDS = 5  # of processor time, for a file
ROOM = 512 * 2**20  # bytes above those of torch and of an honest file of each kind

DOORS = (Weights, Checkpoints, Settings, Trainings, Pictures, Marks, Videos)


class TooLong(BaseException):
    """Nothing catches it by accident."""


def _stop(*_: object) -> None:
    raise TooLong


def wrong_with(door: Door, path: Path) -> tuple[bool, str]:
    """Whether a file was read, and what is wrong with how it was read or refused."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        door.open(path)
    except WICError as error:
        cause, texts = error, []
        while cause is not None:
            texts.append(f"{type(cause).__name__} {cause}")
            cause = cause.__cause__ or cause.__context__
        if "allocate memory" in " ".join(texts) or "MemoryError" in " ".join(texts):
            return False, f"no memory: {texts}"
        if len(str(error)) > 1500 or "\n" in str(error):
            return False, f"an error of {len(str(error))} characters: {str(error)[:300]}"
        return False, ""
    except TooLong:
        return False, f"more than {SECONDS} s: {traceback.format_exc(limit=-6)}"
    except Exception:
        return False, traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return True, ""


def main() -> int:
    """Tries all doors; the exit code is how many files were handled wrongly, at most 100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="drawn for each door")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(0)
    signal.signal(signal.SIGPROF, _stop)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        doors = [kind(Path(folder)) for kind in DOORS]
        attacks = {door: door.attacks() for door in doors}
        for door in doors:  # what an honest file loads is no part of the limit
            assert wrong_with(door, door.honest) == (True, ""), (
                door,
                wrong_with(door, door.honest),
            )
        if sys.platform == "linux":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + ROOM
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        for door in doors:
            chance = random.Random(args.seed)
            seen: Counter[str] = Counter()
            for index in range(-len(attacks[door]), args.files):
                path = attacks[door][index] if index < 0 else door.make(chance)
                was_read, wrong = wrong_with(door, path)
                seen["read" if was_read else "refused"] += 1
                if was_read and index < 0:
                    wrong = "an attack was read"
                if wrong:
                    failures += 1
                    print(f"{type(door).__name__} {index} {path.name}: {wrong}")
            print(f"{type(door).__name__}: {len(attacks[door])} attacks, {dict(seen)}", flush=True)
    return min(failures, 100)


if __name__ == "__main__":
    raise SystemExit(main())
