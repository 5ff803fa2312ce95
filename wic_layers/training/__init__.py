"""Training: photographs, objective, guard, loop; ``wic train`` and ``wic upgrade``."""

from wic_layers.evaluation.judging import Judgement
from wic_layers.training.data import Crops, Photographs, arrange
from wic_layers.training.diagnosis import diagnose
from wic_layers.training.guard import Guard, Incident
from wic_layers.training.loop import Training, make_fabric
from wic_layers.training.objective import Losses, Objective
from wic_layers.training.optimizers import Muon
from wic_layers.training.recipe import Settings

__all__ = [
    "Crops",
    "Guard",
    "Incident",
    "Judgement",
    "Losses",
    "Muon",
    "Objective",
    "Photographs",
    "Settings",
    "Training",
    "arrange",
    "diagnose",
    "make_fabric",
]
