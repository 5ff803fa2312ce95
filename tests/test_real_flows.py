"""What runs the layers of public code bases: two with modules of one name, and none at all."""

import dataclasses
import io
import sys

import pytest
import torch
from real_flows import facts, main
from real_flows_sources import Source
from standins.flows import two_methods

LAYERS = """
from nowhere_to_be_installed.deeper import thing
from torch import nn


class Layer(nn.Linear):
    size = {size}

    @thing
    def forward(self, x):
        return super().forward(x)
"""


@pytest.fixture
def sources(tmp_path):
    found = []
    for size in (2, 3):
        folder = tmp_path / f"owner+flow{size}" / "code" / "models"
        folder.mkdir(parents=True)
        (folder / "__init__.py").write_text("raise ImportError('what the layers do not need')")
        (folder / "layers.py").write_text(LAYERS.format(size=size))
        missing, bare = ("nowhere_to_be_installed",), ("models",)
        found.append(Source(f"owner/flow{size}", ("code",), absent=missing, bare=bare))
        assert found[-1].find(tmp_path)
    yield found
    if Source.entered is not None:
        Source.entered.leave()


def test_each_source_has_modules_of_its_own(sources):
    before = list(sys.path), list(sys.meta_path)
    two, three = (source.load("models.layers").Layer for source in sources)
    assert (two.size, three.size) == (2, 3)
    file = io.BytesIO()
    sources[0].enter()
    torch.save(two(1, 1), file)
    sources[1].enter()
    sources[0].enter()  # as a new process would
    file.seek(0)
    assert type(torch.load(file, weights_only=False)) is two
    assert two(1, 4)(torch.ones(2, 1)).shape == (2, 4)
    sources[0].leave()
    assert (sys.path, sys.meta_path) == before
    assert not {"models", "models.layers", "nowhere_to_be_installed"} & set(sys.modules)


def test_a_source_takes_the_place_of_an_installed_package_only_while_it_is_entered(
    sources, monkeypatch
):
    installed = type(sys)("models")
    monkeypatch.setitem(sys.modules, "models", installed)
    sources[0].load("models.layers")
    assert sys.modules["models"] is not installed
    sources[0].leave()
    assert sys.modules["models"] is installed


def test_nothing_there_is_no_success(tmp_path, capsys):
    assert main(tmp_path)
    assert "0 cases" in capsys.readouterr().out


def test_what_a_case_says_and_is_not_so_is_wrong():
    case = next(case for case in two_methods.CASES if case.pickles and case.copies)
    assert facts(case).wrong == []
    off = dataclasses.replace(case, inverse=lambda model, z: case.inverse(model, z) + 1e-2)
    assert facts(off).wrong == ["WRONG"]
    assert facts(dataclasses.replace(case, pickles=False)).wrong == ["pickles is not False"]
    named = dataclasses.replace(case, left={"nothing": "a reason"})
    assert facts(named).wrong == ["no module 'nothing'"]
