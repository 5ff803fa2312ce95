"""What runs the hosts' own tests: that it exchanges their classes, and says what differs."""

from pathlib import Path

import host_suites
import pytest

THEIRS = """
import normflows
import torch
from normflows.flows import GlowBlock, Invertible1x1Conv, Planar


def test_both_ways():
    x = torch.randn(2, 4, 3, 3)
    for flow in (Invertible1x1Conv(4, True), GlowBlock(4, 8)):
        z, log_det = flow.inverse(x)
        back, log_det_back = flow(z)
        torch.testing.assert_close(back, x)
        torch.testing.assert_close(log_det, -log_det_back)


def test_what_only_theirs_has():
    assert Invertible1x1Conv(4).W.shape == (4, 4)


def test_another_flow():
    Planar((2,))(torch.randn(3, 2))
"""
OURS = "from normflows.flows import Invertible1x1Conv\n\n\ndef test(): Invertible1x1Conv(2).W\n"


@pytest.mark.slow
def test_what_passes_with_their_modules_only_is_named(tmp_path, monkeypatch, capsys):
    normflows = pytest.importorskip("normflows", reason="needs the extra normflows")
    checkout = tmp_path / "a checkout"
    (checkout / "tests").mkdir(parents=True)
    (checkout / "normflows").symlink_to(Path(normflows.__file__).parent)
    (checkout / "tests" / "test_theirs.py").write_text(THEIRS)
    (tmp_path / "test_ours.py").write_text(OURS)
    monkeypatch.setattr(host_suites, "OWN", {"normflows": [tmp_path / "test_ours.py"]})
    with pytest.raises(SystemExit) as raised:
        host_suites.main([str(tmp_path)])
    name = "tests/test_theirs.py::test_what_only_theirs_has"
    assert str(raised.value).splitlines()[1:] == [f"  a checkout, WIC: {name}"]
    printed = capsys.readouterr().out
    rows = {line[:26].strip(): line[26:].split() for line in printed.splitlines()}
    assert rows["with their modules"] == ["3", "0", "0", "0"]
    assert rows["with our WIC"] == ["2", "1", "0", "2"]
    assert rows["our own tests of it"] == ["1", "0", "0", "0"]
    assert f"{name}: passed, then failed. " in printed
    assert "has no attribute 'W'" in printed


@pytest.mark.parametrize("arguments", [[], ["nowhere"], ["one", "two"]])
def test_the_sources_must_be_there(arguments):
    with pytest.raises(SystemExit, match="Expected the folder that holds the checkouts"):
        host_suites.main(arguments)


def test_a_folder_without_checkouts(tmp_path):
    with pytest.raises(SystemExit, match="Expected checkouts of FrEIA or normflows in"):
        host_suites.main([str(tmp_path)])
