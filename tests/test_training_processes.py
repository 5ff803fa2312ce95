"""Several processes (gloo): the gradients of one, shared optimizer state, and the command."""

import os
import subprocess
import sys
from pathlib import Path

import photographs
import processes
import pytest
import torch
from processes_training import train

import wic_layers
from wic_layers.models import from_pretrained

pytestmark = [
    pytest.mark.ddp,
    pytest.mark.slow,
    processes.needs_fork,
    pytest.mark.skipif(not torch.distributed.is_available(), reason="needs torch.distributed"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return photographs.write(tmp_path_factory.mktemp("photographs") / "all")


@pytest.fixture(scope="module")
def results(folder, tmp_path_factory):
    """What one process and two, and two that share the optimizer's state, come to."""
    root, found = tmp_path_factory.mktemp("results"), {}
    for name, count, words in [
        ("one", 1, ()), ("two", 2, ()), ("shared", 2, ("shard",)),
        ("two, muon", 2, ("muon",)), ("shared, muon", 2, ("muon", "shard")),
    ]:  # fmt: skip
        processes.together(count, train, folder, root / name, *words)
        found[name] = [torch.load(root / name / f"result-{rank}.pt") for rank in range(count)]
    return found


def test_gradients_are_those_of_one_process(results):
    (one,), two = results["one"], results["two"]
    for other in two:
        for expected, found in zip(one["gradients"][0], other["gradients"][0], strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * expected.norm())
    for first, second in zip(two[0]["gradients"], two[1]["gradients"], strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("optimizer", ["", ", muon"])
def test_a_shared_optimizer_takes_the_same_steps(results, optimizer):
    two, shared = results[f"two{optimizer}"][0], results[f"shared{optimizer}"]
    for name, tensor in two["model"].items():
        for other in shared:
            torch.testing.assert_close(other["model"][name], tensor, rtol=1e-5, atol=1e-6)
    # each process holds about half of the moments
    for other in shared:
        assert other["held"] < 0.7 * two["held"]


def test_a_shared_optimizer_resumes(folder, results, tmp_path):
    processes.together(2, train, folder, tmp_path / "cut", "shard", "stop")
    assert (tmp_path / "cut" / "checkpoint.pt").is_file()
    processes.together(2, train, folder, tmp_path / "cut", "shard", "resume")
    found = torch.load(tmp_path / "cut" / "result-0.pt")
    for name, tensor in results["shared"][0]["model"].items():
        assert torch.equal(found["model"][name], tensor), name


@pytest.mark.parametrize("launched", ["torchrun", "by itself"])
def test_the_command_in_two_processes(folder, tmp_path, launched):
    out = tmp_path / "run"
    launcher = ["torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    words = [
        sys.executable, "-m", *(launcher if launched == "torchrun" else []), "wic_layers",
        "train", "rescaling-x2-tiny", "--data", folder, "-o", out, "--steps", 2, "--crop", 32,
        "--batch", 2, "--held-out", 1, "--accelerator", "cpu",
        *(["--devices", 2] if launched == "by itself" else []),
    ]  # fmt: skip
    root = str(Path(wic_layers.__file__).parents[1])
    done = subprocess.run(
        [*map(str, words)], env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root},
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"--weights {out}") == 1
    assert from_pretrained(out).preset == "rescaling-x2-tiny"
