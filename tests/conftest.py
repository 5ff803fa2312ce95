"""A seed of its own for every test, and hypothesis without chance or deadlines."""

import os

import pytest
import torch
from hypothesis import HealthCheck, Phase, settings

from wic_layers import _pickles

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


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
