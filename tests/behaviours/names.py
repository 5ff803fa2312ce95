"""Names that move when the package is rebuilt: the one place to say where they are now."""

import importlib

# by name: the places where it may be, the newest first
PLACES = {
    "main": ("wic_layers.cli:main",),
    "DenseBlock": ("wic_layers.blocks:DenseBlock", "wic_layers.subnets:DenseBlock"),
    "Learned": (
        "wic_layers.layer:Learned",
        "wic_layers.layer.completion:Learned",
        "wic_layers.completion:Learned",
    ),
    "register_1x1": ("wic_layers.hosts:register_1x1", "wic_layers.convert:register_1x1"),
    "save_memory": ("wic_layers.blocks:save_memory", "wic_layers.reversible:save_memory"),
}

# presets that are no longer named: their network is built from this one with these changes
DERIVED_PRESETS: dict[str, tuple[str, dict]] = {}

# what makes a command judge a large picture as a whole, where it does not by itself
WHOLE_CHECK = ("--check", "all")


def at(name):
    """What a name stands for."""
    for place in PLACES[name]:
        module, _, attribute = place.partition(":")
        try:
            return getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError):
            continue
    raise ImportError(f"{name} is in none of {PLACES[name]}; say in behaviours/names.py where.")


def preset(name, **changes):
    """The network of a preset, with random weights."""
    from wic_layers.models import NETWORKS, PRESETS

    derived, more = DERIVED_PRESETS.get(name, (name, {}))
    return NETWORKS[PRESETS[derived].network].from_preset(derived, **{**more, **changes})
