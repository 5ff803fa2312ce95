"""Networks that turn images into smaller ones and back."""

from wic_layers.models.official import load_official, save_official
from wic_layers.models.presets import PRESETS, Preset
from wic_layers.models.weights import from_pretrained, packaged_weights, save_weights
from wic_layers.models.win import WIN, WINNaive

__all__ = [
    "PRESETS",
    "WIN",
    "Preset",
    "WINNaive",
    "from_pretrained",
    "load_official",
    "packaged_weights",
    "save_official",
    "save_weights",
]
