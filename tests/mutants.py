"""Breaks the code in one place at a time and requires that the tests named for it notice.

``make mutants`` works on copies of the checkout, with what is not committed yet: first all named
tests must pass there unchanged, then every edit of ``mutations`` must make its own fail. An edit
that no test notices fails the run, and so does one that no longer finds its place.

    python tests/mutants.py                 all of them
    python tests/mutants.py shift loss      those with one of these words in name, path or tests
    python tests/mutants.py --places        look for the places only
"""

from __future__ import annotations

import argparse
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mutations import MUTANTS as CORE
from mutations import Mutant
from mutations_above import ABOVE
from mutations_carriers import CARRIERS
from mutations_swap import SWAPPED
from mutations_terminal import TERMINAL

MUTANTS = (*CORE, *ABOVE, *CARRIERS, *SWAPPED, *TERMINAL)

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 600
"""Seconds after which tests count as hanging."""


def misplaced(mutant: Mutant, root: Path) -> str:
    """Says what keeps an edit from its place or its tests; empty where nothing does."""
    path = root / mutant.path
    if not path.is_file():
        return f"there is no {mutant.path}"
    count = path.read_text(encoding="utf-8").count(mutant.old)
    if count != 1:
        return f"{mutant.old!r} is in {mutant.path} {count} times, not once"
    if mutant.old == mutant.new:
        return "the edit changes nothing"
    tests = [word for word in shlex.split(mutant.tests) if word.startswith("tests/")]
    if not tests:
        return f"{mutant.tests!r} names no file of tests"
    for test in tests:
        file, *names = test.partition("[")[0].split("::")
        if not (root / file).is_file():
            return f"there is no {file}"
        text = (root / file).read_text(encoding="utf-8")
        for name in names:
            if not re.search(rf"^ *(def|class) {name}\b", text, re.MULTILINE):
                return f"there is no {name} in {file}"
    return ""


def misplaced_of(mutants: Sequence[Mutant], root: Path = ROOT) -> dict[str, str]:
    """The names of the edits without a place, with the reason."""
    wrong = {mutant.name: reason for mutant in mutants if (reason := misplaced(mutant, root))}
    twice = [name for name, count in Counter(m.name for m in mutants).items() if count > 1]
    return wrong | dict.fromkeys(twice, "two edits have this name")


def copied(root: Path, target: Path) -> Path:
    """Copies what git knows or would take, as it is in the working tree."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=root, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(root / name, target / name)
    return target


def environment(root: Path) -> dict[str, str]:
    """Imports the package from a copy, whatever is installed."""
    own = {
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",  # an edit within a second looks like the original
        "OMP_NUM_THREADS": "1",
        "MUTANTS": "1",  # see conftest
    }
    return os.environ | own


def require_own_package(root: Path, package: str) -> None:
    """Stops unless the package of the copy is the one that is imported there."""
    code = f"import {package}; print({package}.__file__)"
    command = [sys.executable, "-c", code]
    with tempfile.TemporaryDirectory() as elsewhere:
        done = subprocess.run(
            command, cwd=elsewhere, env=environment(root), capture_output=True, text=True
        )
    place = done.stdout.strip()
    if not place or root.resolve() not in Path(place).resolve().parents:
        sys.exit(f"Expected {package} from {root}; got {place or done.stderr}.")


def tested(tests: Sequence[str], root: Path) -> tuple[int | None, str]:
    """Runs tests; returns pytest's exit code, None if they hang, and what it printed."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "--tb=line", "-p", "no:cacheprovider"]
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as out:
        try:
            code = subprocess.run(
                [*command, *tests],
                cwd=root,
                env=environment(root),
                stdout=out,
                stderr=subprocess.STDOUT,
                timeout=LIMIT,
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
        out.seek(0)
        return code, out.read()


def judged(mutant: Mutant, root: Path) -> tuple[str, str]:
    """Edits the copy, runs the tests, restores it: (caught, SURVIVED or BROKEN, and why)."""
    path = root / mutant.path
    original = path.read_bytes()
    edited = original.decode().replace(mutant.old, mutant.new)
    try:
        path.write_bytes(edited.encode())
        code, output = tested(shlex.split(mutant.tests), root)
    finally:
        path.write_bytes(original)
    if code == 0:
        return "SURVIVED", f"{mutant.tests} passes"
    failed = re.search(r"^FAILED (.+?)(?: - |$)", output, re.MULTILINE)
    if code == 1 and failed:
        return "caught", failed[1]
    # nothing was tested: an error while importing, of usage, in a fixture, or no end
    last = (output.strip().splitlines() or [""])[-1]
    return "BROKEN", f"the tests did not run ({'no end' if code is None else code}): {last}"


def unchanged(mutants: Sequence[Mutant], root: Path) -> str:
    """What pytest printed where the named tests fail without an edit; empty where they pass."""
    selections = [shlex.split(tests) for tests in dict.fromkeys(m.tests for m in mutants)]
    plain, others = [], []
    for selection in selections:
        alone = any(not word.startswith("tests/") for word in selection)  # options: not for all
        (others if alone else plain).append(selection)
    together = list(dict.fromkeys(word for selection in plain for word in selection))
    for selection in filter(None, [together, *others]):
        code, output = tested(selection, root)
        if code != 0:
            return output
    return ""


def run(mutants: Sequence[Mutant], root: Path, *, jobs: int, package: str) -> int:
    """Judges every edit on copies of ``root``, a line for each; returns how many fail."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        copies: queue.Queue[Path] = queue.Queue()
        for index in range(jobs):
            place = copied(root, Path(folder) / str(index))
            require_own_package(place, package)
            copies.put(place)
        print(f"{len(mutants)} edits; their tests without any ...", flush=True)
        if output := unchanged(mutants, place):
            print(output)
            print("Expected the tests to pass without an edit.")
            return len(mutants)

        def judge(mutant: Mutant) -> str:
            copy = copies.get()
            try:
                verdict, why = judged(mutant, copy)
            finally:
                copies.put(copy)
            print(f"{verdict:8}  {mutant.name}: {why}", flush=True)
            return verdict

        with ThreadPoolExecutor(jobs) as pool:
            verdicts = Counter(pool.map(judge, mutants))
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return len(mutants) - verdicts["caught"]


def main(
    arguments: Sequence[str] | None = None,
    mutants: Sequence[Mutant] = MUTANTS,
    root: Path = ROOT,
    package: str = "wic_layers",
) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("words", nargs="*", help="only edits with one of these words")
    parser.add_argument("--places", action="store_true", help="only look for the places")
    parser.add_argument("--jobs", type=int, default=2, help="edits at a time (default 2)")
    options = parser.parse_args(arguments)
    wrong = misplaced_of(mutants, root)
    for name, reason in wrong.items():
        print(f"misplaced {name}: {reason}")
    if wrong or options.places:
        print(f"{len(wrong)} of {len(mutants)} edits do not find their place.")
        return int(bool(wrong))
    words = options.words or [""]
    chosen = [m for m in mutants if any(word in f"{m.name} {m.path} {m.tests}" for word in words)]
    if not chosen:
        print(f"No edit with {' or '.join(words)} in it.")
        return 2
    return int(bool(run(chosen, root, jobs=max(options.jobs, 1), package=package)))


if __name__ == "__main__":
    sys.exit(main())
