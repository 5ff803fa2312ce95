"""OWNERS: the trainings of each code base that are tried."""

from __future__ import annotations

from integrations.trying.hiding import HiNet
from integrations.trying.owner import Owner
from integrations.trying.rescaling import DLV, IRN, Colour, Compressed, Perceptual
from integrations.trying.several import HALVED, WHOLE, IICNet

__all__ = ["OTHERS", "OWNERS"]

OWNERS: tuple[Owner, ...] = (
    IRN("IRN x2", 2),
    IRN("IRN x4", 4),
    IRN("IRN x3", 3, which_model_G={"subnet_type": "DBNet", "use_ConvDownsampling": True}),
    Colour("IRN decolorization"),
    HiNet("HiNet"),
    IICNet("IICNet stereo", WHOLE, "stereo", 2),
    IICNet("IICNet clip-3-x2", HALVED, "clip-3-x2", 3),
    DLV("DLV-IRN x2", 2),
)
OTHERS: tuple[Compressed | Perceptual, ...] = (Compressed("IRN-CRM"), Perceptual("IRN+"))
