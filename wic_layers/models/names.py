"""Names of weights as types, so that an editor completes them and knows the network of each."""

from __future__ import annotations

from typing import Literal, TypeAlias

__all__ = ["WINNaiveWeights", "WINWeights"]

WINWeights: TypeAlias = Literal["rescaling-x2"]
"""Weights of :class:`~wic_layers.models.WIN`."""

WINNaiveWeights: TypeAlias = Literal[
    "clip-3-naive-tiny",
    "clip-3-x2-naive-tiny",
    "clip-5-naive-tiny",
    "clip-5-x2-naive-tiny",
    "clip-7-naive-tiny",
    "clip-9-naive-tiny",
    "decolorization-jpeg-naive-small",
    "decolorization-naive-small",
    "hiding-1-jpeg-naive-small",
    "hiding-1-naive-small",
    "hiding-2-naive-small",
    "hiding-3-naive-small",
    "hiding-4-naive-small",
    "layers-naive-small",
    "rescaling-x2-jpeg-naive-small",
    "rescaling-x2-naive-small",
    "rescaling-x4-plain-naive-small",
    "stereo-naive-small",
    "zoom-x2-naive-small",
    "zoom-x4-naive-small",
    "zoom-x8-naive-small",
]
"""Weights of :class:`~wic_layers.models.WINNaive`."""
