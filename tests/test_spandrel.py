"""Rescaling networks in programs that load models by spandrel, by a stand-in for its contract."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from skimage import data

from wic_layers import tasks
from wic_layers.deploy.spandrel import ID, install, preset_of
from wic_layers.errors import WICDependencyError
from wic_layers.models import IRN, packaged_weights

PRESET = "rescaling-x2-naive-small"


class Descriptor:
    """What spandrel makes of a model: loaded strictly, called on one picture in [0, 1]."""

    def __init__(self, model, state, *, architecture, purpose, scale, call_fn, **facts):
        model.load_state_dict(state)
        assert (purpose, architecture.id) == ("SR", ID)
        self.model, self.scale, self.facts, self._call = model, scale, facts, call_fn

    @torch.inference_mode()
    def __call__(self, picture):
        return self._call(self.model, picture).clamp_(0, 1)


class Registry(dict):
    def add(self, support):
        assert support.architecture.id not in self
        self[support.architecture.id] = support

    def load(self, state):
        for support in self.values():
            if support.detect(state):
                return support.architecture.load(state)
        raise KeyError("unsupported")


class Architecture:
    def __init__(self, *, id, detect, name):
        self.id, self.name, self.detect = id, name, detect


@pytest.fixture
def registry(monkeypatch):
    module = ModuleType("spandrel")
    module.MAIN_REGISTRY = Registry()
    module.Architecture, module.ImageModelDescriptor = Architecture, Descriptor
    module.ArchSupport = SimpleNamespace(
        from_architecture=lambda each: SimpleNamespace(architecture=each, detect=each.detect)
    )
    module.SizeRequirements = lambda multiple_of: multiple_of
    module.ModelTiling = SimpleNamespace(SUPPORTED="supported")
    monkeypatch.setitem(sys.modules, "spandrel", module)
    install()
    install()
    return module.MAIN_REGISTRY


def test_up_works_there(registry):
    photo = torch.from_numpy(data.astronaut()[100:164, 100:180]).movedim(2, 0)
    small = tasks.down(photo, model=PRESET)
    model = registry.load(load_file(packaged_weights()[PRESET] / "model.safetensors"))
    assert model.scale == 2
    assert model.facts["size_requirements"] == 1
    assert not model.facts["supports_half"]
    back = model(small[None].float() / 255)
    expected = tasks.up(small, model=PRESET)
    written = (255 * back[0]).to(torch.uint8)  # cut off, as ComfyUI does
    different = (written.int() - expected).abs()
    assert int(different.max()) <= 1  # on the edge of two
    assert float(different.float().mean()) < 1e-3


def test_only_networks_of_presets_are_taken_for_ours(registry):
    assert preset_of({}) is None
    assert preset_of({"model.0.weight": torch.zeros(3, 3)}) is None
    state = load_file(packaged_weights()["hiding-1-naive-small"] / "model.safetensors")
    assert preset_of(state) is None
    with pytest.raises(KeyError, match="unsupported"):
        registry.load(state)
    assert preset_of(IRN.from_preset("irn-x4-small").state_dict()) == "irn-x4-small"


def test_without_spandrel_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "spandrel", None)
    with pytest.raises(WICDependencyError, match=r"wic-layers\[spandrel\]"):
        install()
