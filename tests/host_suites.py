"""The hosts' own test suites, with modules of this library in place of theirs.

    make host-suites SOURCES=FOLDER

The folder holds checkouts of FrEIA and normflows (any number, under any names; nothing of them is
kept here and nothing is written there):

    git clone https://github.com/vislearn/FrEIA FOLDER/FrEIA-main
    git -C FOLDER/FrEIA-main worktree add ../FrEIA-0.2 b059127  # what PyPI has as 0.2
    git clone https://github.com/VincentStimper/normalizing-flows FOLDER/normflows-main
    git -C FOLDER/normflows-main worktree add ../normflows-1.7.3 v1.7.3

Each suite runs as it is, then once for every set of substitutes below, and this library's own
tests of the host run against the checkout. The run fails where a test that passes with their
modules does not pass with ours, where no test came across a substitute, and where a test of our
own fails. Each suite takes about a minute for every time that it runs.

The file is the pytest plugin of those runs, too.
"""

import importlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import pytest
import torch

PROJECT = Path(__file__).resolve().parents[1]
OWN = {
    "FrEIA": ["test_freia.py", "test_convert.py", "test_hosts.py"],
    "normflows": ["test_normflows.py", "test_convert.py", "test_hosts.py"],
}
PARTS = {  # what must be loaded before a class is exchanged everywhere
    "FrEIA": ["FrEIA.modules", "FrEIA.framework", "FrEIA.distributions"],
    "normflows": ["normflows"],
}


def freia_wic():
    """Square maps of the channels, and the block with a permutation in it."""
    from FrEIA.modules import AllInOneBlock

    from wic_layers.freia import WIC

    class Square(WIC):
        def __init__(self, dims_in, dims_c=None, M=None, **theirs):
            super().__init__(dims_in, dims_c, out_channels=dims_in[0][0])
            if M is not None:
                self.conv.weight.data.copy_(M.T)
            came_across(self)

    class Block(Square):
        def __new__(cls, dims_in, dims_c=None, **theirs):
            if dims_c:  # a kernel takes no conditions
                return AllInOneBlock(dims_in, dims_c, **theirs)
            return super().__new__(cls)

    squares = dict.fromkeys(("Fixed1x1Conv", "PermuteRandom", "HouseholderPerm"), Square)
    return {**squares, "AllInOneBlock": Block}


def freia_coupling():
    """Affine couplings, and the block with one in it."""
    from wic_layers.freia import Coupling

    class Affine(Coupling):
        def __init__(
            self, dims_in, dims_c=None, subnet_constructor=None, clamp=1.0, split_len=0.5, **theirs
        ):
            super().__init__(
                dims_in,
                dims_c,
                subnet_constructor=subnet_constructor,
                clamp=clamp,
                split_len=split_len,
            )
            came_across(self)

    return dict.fromkeys(("RNVPCouplingBlock", "GLOWCouplingBlock", "AllInOneBlock"), Affine)


def normflows_wic():
    """Square maps of the channels, with LU factors where theirs have them."""
    from wic_layers.normflows import WIC

    class Square(WIC):
        def __init__(self, num_channels, use_lu=False):
            super().__init__(
                in_channels=num_channels,
                out_channels=num_channels,
                parametrization="lu" if use_lu else "free",
            )
            came_across(self)

    class Permuting(Square):
        def __init__(self, num_channels, mode="shuffle"):
            super().__init__(num_channels)

    class WithFactors(Square):
        def __init__(self, num_channels, identity_init=True):
            super().__init__(num_channels, use_lu=True)

    return {
        "Invertible1x1Conv": Square,
        "InvertibleAffine": Square,
        "Permute": Permuting,
        "LULinearPermute": WithFactors,
    }


SUBSTITUTES = {
    "FrEIA": {"WIC": freia_wic, "Coupling": freia_coupling},
    "normflows": {"WIC": normflows_wic},
}

# ---------------------------------------------------------------------------- the plugin of a run

_running = None
_found = {"outcomes": {}, "reasons": {}, "ours": set()}


def came_across(module):
    """Notes that the running test builds or calls a substitute."""
    if _running is not None:
        _found["ours"].add(_running)


def substitute(host, name):
    """Exchanges classes of the host for ours under every name that they have there."""
    for part in PARTS[host]:
        try:
            importlib.import_module(part)
        except ModuleNotFoundError as error:
            if error.name != part:
                raise
    substitutes = SUBSTITUTES[host][name]()
    modules = [module for key, module in sys.modules.items() if f"{key}.".startswith(f"{host}.")]
    for module in modules:
        for attribute, value in list(vars(module).items()):
            ours = substitutes.get(getattr(value, "__name__", None))
            if ours and isinstance(value, type) and value.__module__.startswith(f"{host}."):
                setattr(module, attribute, ours)
    classes = tuple(set(substitutes.values()))
    torch.nn.modules.module.register_module_forward_pre_hook(
        lambda module, arguments: came_across(module) if isinstance(module, classes) else None
    )


def pytest_addoption(parser):
    parser.addoption("--host", help="the package whose classes are exchanged")
    parser.addoption("--substitute", help="for which of our modules, if any")
    parser.addoption("--outcomes", help="the file for what became of each test")


def pytest_configure(config):
    if config.option.substitute:
        substitute(config.option.host, config.option.substitute)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item):
    global _running
    _running = item.nodeid
    torch.manual_seed(0)  # their tests draw from what the ones before have left
    try:
        return (yield)
    finally:
        _running = None


def pytest_collectreport(report):
    if report.failed:
        _note(report)


def pytest_runtest_logreport(report):
    _note(report)


def _note(report):
    ranks = ("passed", "skipped", "failed")  # of a test's parts, the last of these is the test's
    before = _found["outcomes"].get(report.nodeid, "passed")
    _found["outcomes"][report.nodeid] = max(before, report.outcome, key=ranks.index)
    if report.failed:
        lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
        _found["reasons"].setdefault(report.nodeid, lines[0][1:].strip() if lines else "")


def pytest_sessionfinish(session):
    path = session.config.option.outcomes
    if path:
        Path(path).write_text(json.dumps({**_found, "ours": sorted(_found["ours"])}))


# ------------------------------------------------------------------------------------- the script


def checkouts(sources):
    """Yields folders of the sources and the host that each holds."""
    for folder in sorted(path for path in sources.iterdir() if path.is_dir()):
        for host in SUBSTITUTES:
            if (folder / host / "__init__.py").is_file():
                yield folder, host


def run(folder, host, tests, substitute=None, root=None):
    """Runs tests against the host of a checkout, and returns what became of them."""
    with tempfile.TemporaryDirectory() as scratch:
        outcomes, settings = Path(scratch, "outcomes.json"), Path(scratch, "pytest.ini")
        settings.write_text("[pytest]\n")  # and no settings of a project around the checkout
        command = [sys.executable, "-m", "pytest", "-q", "-p", "host_suites"]
        command += ["-p", "no:cacheprovider", "--host", host, "--outcomes", str(outcomes)]
        if root is None:
            command += ["--rootdir", str(folder), "-c", str(settings)]
        else:
            command += ["-m", "not slow"]
        if substitute:
            command += ["--substitute", substitute]
        paths = (folder, PROJECT, PROJECT / "tests")
        done = subprocess.run(
            [*command, *map(str, tests)],
            cwd=scratch if root is None else root,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(map(str, paths)),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        if not outcomes.is_file():
            raise SystemExit(f"{folder.name}: pytest stopped early.\n{done.stdout}{done.stderr}")
        return json.loads(outcomes.read_text())


def line(title, found):
    counts = Counter(found["outcomes"].values())
    numbers = [counts[outcome] for outcome in ("passed", "failed", "skipped")]
    return f"  {title:24}" + "".join(f"{number:9}" for number in [*numbers, len(found["ours"])])


def judge(folder, host):
    """Prints the table of a checkout, and returns what is wrong with it."""
    tests = [folder / "tests"] if (folder / "tests").is_dir() else [folder / host]
    header = "".join(f"{word:>9}" for word in ("passed", "failed", "skipped", "on ours"))
    print(f"{folder.name}, tests of {host}:\n  {'':24}{header}", flush=True)
    theirs = run(folder, host, tests)
    print(line("with their modules", theirs), flush=True)
    wrong = []
    for name in SUBSTITUTES[host]:
        ours = run(folder, host, tests, substitute=name)
        print(line(f"with our {name}", ours), flush=True)
        if not ours["ours"]:
            wrong.append(f"{folder.name}: no test came across {name}")
        for test in sorted(theirs["outcomes"] | ours["outcomes"]):
            before, after = (found["outcomes"].get(test, "absent") for found in (theirs, ours))
            if before != after:
                print(f"    {test}: {before}, then {after}. {ours['reasons'].get(test, '')}")
                if before == "passed":
                    wrong.append(f"{folder.name}, {name}: {test}")
    own = run(folder, host, [PROJECT / "tests" / name for name in OWN[host]], root=PROJECT)
    print(line("our own tests of it", own) + "\n", flush=True)
    wrong += [f"{folder.name}: {test}" for test, end in own["outcomes"].items() if end == "failed"]
    return wrong


def main(arguments):
    if len(arguments) != 1 or not Path(arguments[0]).is_dir():
        raise SystemExit("Expected the folder that holds the checkouts: host_suites.py SOURCES.")
    found = list(checkouts(Path(arguments[0]).resolve()))
    if not found:
        raise SystemExit(
            f"Expected checkouts of FrEIA or normflows in {arguments[0]}; none found."
        )
    wrong = [entry for folder, host in found for entry in judge(folder, host)]
    if wrong:
        raise SystemExit("Not as with their modules:\n  " + "\n  ".join(wrong))


if __name__ == "__main__":
    main(sys.argv[1:])
