"""A seed of its own for every test, and hypothesis without chance or deadlines."""

import pytest
import torch
from hypothesis import HealthCheck, settings

settings.register_profile(
    "wic",
    deadline=None,
    derandomize=True,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("wic")


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
