"""Invertible blocks around WIC, the network inside couplings, and training in their memory."""

from wic_layers.blocks.block import InvertibleBlock
from wic_layers.blocks.chain import Chain
from wic_layers.blocks.channels import ChannelMean, Latent
from wic_layers.blocks.coupling_net import CouplingNet
from wic_layers.blocks.couplings import AffineCoupling
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.blocks.haar import Haar, InverseHaar
from wic_layers.blocks.memory import LongTermMemory
from wic_layers.blocks.relation import Relation
from wic_layers.blocks.reversible import save_memory
from wic_layers.blocks.squeezed_block import SqueezedBlock
from wic_layers.blocks.squeezes import LearnedSqueeze, Squeeze, Unsqueeze

__all__ = [
    "AffineCoupling",
    "Chain",
    "ChannelMean",
    "CouplingNet",
    "DenseBlock",
    "Haar",
    "InverseHaar",
    "InvertibleBlock",
    "Latent",
    "LearnedSqueeze",
    "LongTermMemory",
    "Relation",
    "Squeeze",
    "SqueezedBlock",
    "Unsqueeze",
    "save_memory",
]
