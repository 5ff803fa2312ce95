"""Training: photographs, objective, loop, and the command ``wic train``."""

from wic_layers.training.data import Photographs
from wic_layers.training.engine import Settings, train
from wic_layers.training.objective import Losses, Objective

__all__ = ["Losses", "Objective", "Photographs", "Settings", "train"]
