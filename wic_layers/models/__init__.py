"""WIN, WINNaive, IRN, HiNet, IICNet, DLV... and HCFlow: images into smaller ones, and back."""

from wic_layers.models.base import NETWORKS, Network, from_pretrained, with_wic
from wic_layers.models.dlv import DLVIRN, DLVHiNet, DualLatent
from wic_layers.models.hcflow import DLVHCFlow, HCFlow
from wic_layers.models.hinet import HiNet
from wic_layers.models.iicnet import IICNet
from wic_layers.models.inspection import Inspection, inspect
from wic_layers.models.irn import IRN
from wic_layers.models.official import load_official, save_official
from wic_layers.models.packaged import packaged_weights
from wic_layers.models.presets import PRESETS, Preset
from wic_layers.models.win import WIN, WINNaive

__all__ = [
    "DLVIRN",
    "IRN",
    "NETWORKS",
    "PRESETS",
    "WIN",
    "DLVHCFlow",
    "DLVHiNet",
    "DualLatent",
    "HCFlow",
    "HiNet",
    "IICNet",
    "Inspection",
    "Network",
    "Preset",
    "WINNaive",
    "from_pretrained",
    "inspect",
    "load_official",
    "packaged_weights",
    "save_official",
    "with_wic",
]
