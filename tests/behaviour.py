"""Holds still what users see while the code behind it is rebuilt.

``python tests/behaviour.py record FOLDER`` runs everything in ``behaviours`` with the code at hand
and keeps photographs, weights, files, checkpoints and results in FOLDER. ``python
tests/behaviour.py compare FOLDER`` runs it again, later, on what FOLDER holds, and says of every
result whether it is equal. Its exit code is 1 if one differs that should not; differences of
sentences are shown, and do not count.

Results are those of one thread on one machine: record and compare on the same one, with the same
torch.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SECTIONS = (
    "commands",
    "memory",
    "refusals",
    "stored",
    "layers",
    "networks",
    "deployed",
    "trainings",
)
ABOUT, RESULTS, DIGESTS = "about.json", "results.pt", "digests.txt"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("record", "compare"))
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="compare these sections"
    )
    parser.add_argument(
        "--allow", nargs="+", default=[], metavar="PATTERN",
        help="results that may differ, such as 'networks/*/repr'",
    )  # fmt: skip
    parser.add_argument("--differing", action="store_true", help="do not list what is equal")
    parser.add_argument(
        "--reference", type=Path, default=ROOT.parent / "shared/reference",
        help="folder of numbers of the authors' code that the repository does not carry",
    )  # fmt: skip
    args = parser.parse_args()
    return record(args) if args.what == "record" else compare(args)


def record(args):
    if args.only != SECTIONS:
        raise SystemExit("Expected a record of all sections; leave out --only.")
    folder = args.folder.resolve()
    if folder.is_dir() and any(folder.iterdir()):
        if not (folder / ABOUT).is_file():
            raise SystemExit(f"{folder} holds something else; choose another folder.")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ABOUT).write_text(json.dumps(about(), indent=2) + "\n")
    results, failures = run_sections(folder, args, records=True)
    import torch
    from behaviours.keeping import digest

    torch.save(results, folder / RESULTS)
    lines = [f"{digest(value)} {name}\n" for name, (_, value) in results.items()]
    (folder / DIGESTS).write_text("".join(lines))
    print(f"{len(results)} results in {folder}")
    return report_failures(failures)


def compare(args):
    prepare()
    import torch
    from behaviours.keeping import compare_results

    folder = args.folder.resolve()
    before = json.loads((folder / ABOUT).read_text())
    for key, value in about().items():
        if before[key] != value and key != "commit":
            print(f"note: recorded with {key} {before[key]}; this is {value}")
    recorded = torch.load(folder / RESULTS, weights_only=False)
    recorded = {name: item for name, item in recorded.items() if name.split("/")[0] in args.only}
    results, failures = run_sections(folder, args, records=False)
    differing = compare_results(
        recorded, results, failures, args.allow, lists_equal=not args.differing
    )
    return 1 if differing else 0


def run_sections(folder, args, *, records):
    """Results by name, and what failed."""
    prepare()
    import importlib

    from behaviours.keeping import Run

    results, failures = {}, {}
    with tempfile.TemporaryDirectory(prefix="behaviour-") as work:
        os.environ["XDG_CACHE_HOME"] = f"{work}/cache"
        for name in args.only:
            began, clock = time.process_time(), time.monotonic()
            run = Run(name, folder, Path(work), args.reference, records=records)
            importlib.import_module(f"behaviours.{name}").run(run)
            results |= run.results
            failures |= run.failures
            print(
                f"ran {name}: {len(run.results)} results, {time.process_time() - began:.0f} s of "
                f"processor time, {time.monotonic() - clock:.0f} s in all",
                flush=True,
            )
    return results, failures


def prepare():
    """One thread, and the code of this checkout."""
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", PYTHONHASHSEED="0")
    for path in (str(ROOT), str(HERE)):
        if path not in sys.path:
            sys.path.insert(0, path)
    os.environ["PYTHONPATH"] = str(ROOT)
    import warnings

    import torch

    import wic_layers

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    if Path(wic_layers.__file__).resolve().parents[1] != ROOT:
        raise SystemExit(f"Expected the code of {ROOT}; got {wic_layers.__file__}.")


def about():
    """With what it was recorded."""
    prepare()
    import torch

    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
    commit = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    python = sys.version.split()[0]
    return {"torch": torch.__version__, "python": python, "commit": commit}


def report_failures(failures):
    for name, text in failures.items():
        print(f"failed: {name}: {text}")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
