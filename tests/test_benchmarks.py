"""Each benchmark finds what it imports, and says what it does."""

import runpy
import sys
from pathlib import Path

import photographs
import pytest
import torch

from wic_layers.pictures import find_images
from wic_layers.tasks import TASKS
from wic_layers.training import Photographs

FOLDER = Path(__file__).parents[1] / "benchmarks"
SHARED = ("plain", "trials")  # by the others, and no commands
PATHS = sorted(path for path in FOLDER.glob("*.py") if path.stem not in SHARED)


@pytest.fixture
def modules(monkeypatch):
    """They import one another by plain names, such as "training", which are nobody else's."""
    names = [path.stem for path in FOLDER.glob("*.py")]
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield
    for name in names:
        sys.modules.pop(name, None)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_benchmarks_say_what_they_do(path, modules, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(path), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(path), run_name="__main__")
    assert ended.value.code == 0
    assert f"python benchmarks/{path.name}" in capsys.readouterr().out


def test_comparisons_train_on_crops_as_their_settings_ask(modules, tmp_path):
    import trials

    images = Photographs(find_images(photographs.write(tmp_path / "all")), smallest=48)
    model, settings = photographs.network(), photographs.settings(grey=1.0)
    training = trials.Training(model, TASKS["rescaling-x2"], images, settings)
    seen = []
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    training.step()
    assert torch.equal(seen[0][:, :1].expand(-1, 3, -1, -1), seen[0])
