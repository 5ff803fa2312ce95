"""Networks that turn images into smaller ones and back."""

from wic_layers.models.inspection import Inspection, inspect
from wic_layers.models.official import load_official, save_official
from wic_layers.models.presets import PRESETS, Preset
from wic_layers.models.weights import packaged_weights
from wic_layers.models.win import WIN, WINNaive, from_pretrained

__all__ = [
    "PRESETS",
    "WIN",
    "Inspection",
    "Preset",
    "WINNaive",
    "from_pretrained",
    "inspect",
    "load_official",
    "packaged_weights",
    "save_official",
]
