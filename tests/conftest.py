"""A seed of its own for every test, hypothesis without chance or deadlines, and ``wic``."""

import functools
import os

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from wic_layers import _pickles

collect_ignore = ["standins/checkouts"]  # scripts, as other code bases have them

settings.register_profile(
    "wic",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
# of code that ``mutants`` broke nobody reads the smallest example, and looking for it takes long
settings.register_profile(
    "mutants", settings.get_profile("wic"), phases=[Phase.explicit, Phase.generate]
)
settings.load_profile("mutants" if "MUTANTS" in os.environ else "wic")


@pytest.fixture(autouse=True, scope="session")
def _cache(tmp_path_factory):
    """Decoded photographs do not end up among the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _own_pickles():
    """An older torch reads the files that the tests write themselves."""
    with pytest.MonkeyPatch.context() as patch:
        if _pickles.why_not_safe(torch.__version__):
            patch.setattr(_pickles, "why_not_safe", lambda version: "")
        yield


@pytest.fixture(scope="session")
def one_registry():
    """torch reads its hundreds of operators for ONNX once, and not for every file again."""
    exporter = pytest.importorskip("torch.onnx._internal.exporter._registration")
    read_once = functools.cache(exporter.ONNXRegistry.from_torchlib)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter.ONNXRegistry, "from_torchlib", staticmethod(read_once))
        yield


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def _noise(width, height, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    from wic_layers.models import WIN, IICNet

    folder = tmp_path_factory.mktemp("weights")
    shared = {"couplings": 1, "growth": 4, "completion": "zero", "modules": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WIN(6, 3, scale=1, width=32, **shared).save_pretrained(folder / "h")
        WIN(9, 3, scale=1, width=48, **shared).save_pretrained(folder / "h2")
        WIN(3, 3, scale=2, width=16, **shared).save_pretrained(folder / "r")
        WIN(3, 1, scale=1, width=16, **shared).save_pretrained(folder / "d")
        few = {"couplings": 1, "growth": 4, "features": 2}
        IICNet(6, 3, **few).save_pretrained(folder / "p2")
        IICNet(9, 3, **few).save_pretrained(folder / "p3")
        IICNet(9, 3, scale=2, **few).save_pretrained(folder / "p3h")
    return folder


@pytest.fixture
def wic(tmp_path, weights, monkeypatch, capsys):
    """Runs a command in a folder with a.png (11x8) and b.png (6x5).

    h, h2, r, d, p2, p3, p3h are weights.
    """
    from wic_layers import cli
    from wic_layers.pictures import write_png

    monkeypatch.chdir(tmp_path)
    write_png(_noise(11, 8, 0), "a.png")
    write_png(_noise(6, 5, 1), "b.png")

    def run(command):
        words = [
            str(weights / word) if word in os.listdir(weights) else word
            for word in command.split()
        ]
        try:
            code = cli.main(words)
        except SystemExit as error:
            code = error.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run
