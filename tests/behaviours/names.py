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

_OURS = (
    *("decolorization", "rescaling-x2", "rescaling-x4", "rescaling-x4-plain"),
    *(f"hiding-{secrets}" for secrets in range(1, 5)),
)
_PACKING = ("stereo", "zoom-x2", "zoom-x4", "zoom-x8", "layers")
_CLIPS = ("clip-3", "clip-5", "clip-7", "clip-9", "clip-3-x2", "clip-5-x2")
_PUBLISHED = (
    *("irn-x2", "irn-x3", "irn-x4", "irn-decolorization", "hinet", "hcflow"),
    *("dlv-irn-x2", "dlv-irn-x4", "dlv-hinet", "dlv-hcflow"),
)
_IICNETS = tuple(
    f"iicnet-{task}" for task in (*_OURS[4:], *_PACKING, *_CLIPS, "x2", "decolorization")
)

# presets that are in no list any more: their network is built from this one with these changes;
# by these names a rule makes them
DERIVED_PRESETS: dict[str, tuple[str, dict]] = {
    name: (name, {})
    for name in (
        *(f"{name}{size}" for name in _OURS for size in ("-small", "-tiny", "-naive-tiny")),
        "rescaling-x4-naive-small",
        *(f"{name}-naive-tiny" for name in _PACKING),
        *(f"{name}-naive-small" for name in _CLIPS),
        *(f"{name}{size}" for name in _PUBLISHED for size in ("-small", "-z", "-z-small")),
        *(
            f"{name}{size}"
            for name in _IICNETS
            for size in ("-small", "-squeeze", "-squeeze-small")
        ),
    )
    if name != "irn-x3-small"
}

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
