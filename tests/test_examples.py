"""The examples run as they stand, briefly."""

import math
import runpy
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import processes
import pytest
import torch
from PIL import Image
from torch import nn

pytestmark = [pytest.mark.slow, processes.needs_fork]
EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture(autouse=True)
def _copies(monkeypatch):
    """The commands that an example starts are copies too."""
    honest = subprocess.run

    def start(command, **more):
        if command[:3] != [sys.executable, "-m", "wic_layers"]:
            return honest(command, **more)
        done = processes.wic(*command[3:], folder=more["cwd"])
        done.check_returncode()
        return done

    monkeypatch.setattr(subprocess, "run", start)


def run(name, folder, *arguments):
    done = processes.script(EXAMPLES / name, *arguments, folder=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_freia_channel_change(tmp_path):
    for needed in ("FrEIA", "skimage"):
        pytest.importorskip(needed)
    printed = run("freia_channel_change.py", tmp_path, "--steps", "3", "--out", "a.png")
    assert "(4, 12, 32, 32) -> (4, 48, 32, 32) and back within" in printed
    assert "negative on the way back: True" in printed
    assert Image.open(tmp_path / "a.png").size == (2 * 320 + 160 + 20, 320)


def test_normflows_glow(tmp_path):
    for needed in ("normflows", "skimage", "matplotlib"):
        pytest.importorskip(needed)
    printed = run("normflows_glow.py", tmp_path, "--steps", "40", "--out", "b/b.png")
    assert "WICs answer for 8 invertible 1x1 convolutions" in printed
    (line,) = (line for line in printed.splitlines() if line.startswith("log-likelihoods"))
    assert float(line.split("by ")[1].split()[0]) <= 1e-5
    rows = [line for line in printed.splitlines() if line.startswith("| ") and " s |" in line]
    ends = [float(row.split("|")[3]) for row in rows]
    assert ends[0] == pytest.approx(ends[1], abs=0.05)
    assert (tmp_path / "b" / "b.png").is_file()


def test_compressai_idempotent(monkeypatch):
    """Its two transforms, without CompressAI, which no extra brings."""
    pytest.importorskip("skimage")
    models = ModuleType("compressai.entropy_models")
    models.EntropyBottleneck = nn.Identity
    monkeypatch.setitem(sys.modules, "compressai", ModuleType("compressai"))
    monkeypatch.setitem(sys.modules, models.__name__, models)
    names = runpy.run_path(str(EXAMPLES / "compressai_idempotent.py"))
    torch.manual_seed(0)
    transforms = names["RightInvertible"](), names["Strided"](102)
    y = torch.randn(1, names["LATENT"], 4, 6)
    changes = []
    with torch.no_grad():
        for transform in transforms:
            for p in transform.parameters():
                p.add_(torch.randn_like(p), alpha=0.01)
            picture = transform.decode(y)
            assert picture.shape == (1, 3, 32, 48)
            changes.append(float((transform.encode(picture) - y).abs().max()))
    assert changes[0] < 1e-3 < 0.5 < changes[1]
    sizes = [sum(p.numel() for p in each.parameters()) for each in transforms]
    assert sizes[0] == pytest.approx(sizes[1], rel=0.01)


def test_packing(tmp_path):
    pytest.importorskip("skimage")
    printed = run("packing.py", tmp_path, "--out", "p", "--tasks", "stereo", "clip-3-x2")
    lines = {line.split(":")[0]: line for line in printed.splitlines() if "back come" in line}
    assert lines.keys() == {"stereo", "clip-3-x2"}
    for line in lines.values():
        assert all(float(number) > 28 for number in line.split("come ")[1][:-3].split(", "))
    with Image.open(tmp_path / "p" / "packing.png") as picture:
        assert min(picture.size) > 300


def test_limits(tmp_path):
    pytest.importorskip("skimage")
    run("limits.py", tmp_path, "--out", "l")
    with Image.open(tmp_path / "l" / "limits.png") as picture:
        assert min(picture.size) > 300


def test_injective_flow(tmp_path):
    for needed in ("normflows", "sklearn", "matplotlib"):
        pytest.importorskip(needed)
    printed = run("injective_flow.py", tmp_path, "--steps", "30", "--out", "i/i.png")
    cells = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:1] == "|"]
    table = {name: [float(number) for number in rest[:4]] for name, *rest, _ in cells[2:]}
    assert [row[0] for row in table.values()] == [8, 8, 8, 8, 64]
    back = {name: row[1] for name, row in table.items()}
    assert back["full width"] == pytest.approx(100, abs=0.1)
    assert back["density alone (the trap)"] < 0 < back["reconstruction plus density"]
    assert table["density alone (the trap)"][2] > table["reconstruction plus density"][2]
    assert all(math.isfinite(number) for row in table.values() for number in row)
    assert (tmp_path / "i" / "i.png").is_file()
