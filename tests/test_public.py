"""What is public: the names that ``dir()`` and editors show, and the types of weights' names."""

import importlib
import subprocess
import sys
from typing import get_args

import pytest

from wic_layers.models import PRESETS
from wic_layers.models.names import WINNaiveWeights, WINWeights

MODULES = [
    "wic_layers",
    *(
        f"wic_layers.{name}"
        for name in (
            "blocks",
            "codec",
            "deploy",
            "errors",
            "freia",
            "functional",
            "hosts",
            "injective",
            "layer",
            "models",
            "normflows",
            "pictures",
            "tasks",
            "testing",
            "training",
        )
    ),
]


@pytest.mark.parametrize("name", MODULES)
def test_dir_shows_what_is_public(name):
    for needed, of in (("FrEIA", "freia"), ("normflows", "normflows")):
        if name.endswith(of):
            pytest.importorskip(needed)
    module = importlib.import_module(name)
    shown = dir(module)
    assert set(module.__all__) <= set(shown)
    assert shown == sorted(shown)
    for each in module.__all__:
        assert getattr(module, each) is not None
    with pytest.raises(AttributeError, match="nothing_of_this_name"):
        module.nothing_of_this_name  # noqa: B018


def test_names_of_weights_have_the_type_of_their_network():
    of = {"WIN": WINWeights, "WINNaive": WINNaiveWeights}
    for network, names in of.items():
        expected = [
            name
            for name, preset in PRESETS.items()
            if preset.has_weights and preset.network == network
        ]
        assert sorted(get_args(names)) == sorted(expected)
    others = {PRESETS[name].network for name in PRESETS if PRESETS[name].has_weights}
    assert others <= of.keys()


def test_a_command_does_not_wait_for_torchs_compiler():
    """It takes 70 MB and seconds to load, and files need nothing of it."""
    loaded = "import sys, wic_layers.codec.codec; sys.exit('torch._dynamo' in sys.modules)"
    subprocess.run([sys.executable, "-c", loaded], check=True, timeout=60)
