"""Invertible blocks around WIC: chain, squeeze, Haar, coupling, long-term memory."""

from wic_layers.blocks.chain import Chain, InvertibleBlock
from wic_layers.blocks.channels import ChannelMean, Latent, Relation
from wic_layers.blocks.couplings import AffineCoupling, LongTermMemory
from wic_layers.blocks.squeezes import Haar, InverseHaar, LearnedSqueeze, Squeeze, Unsqueeze

__all__ = [
    "AffineCoupling",
    "Chain",
    "ChannelMean",
    "Haar",
    "InverseHaar",
    "InvertibleBlock",
    "Latent",
    "LearnedSqueeze",
    "LongTermMemory",
    "Relation",
    "Squeeze",
    "Unsqueeze",
]
