"""Codec, a network at work on 8-bit images and files; Carrier, what files do to its pictures."""

from wic_layers.codec.carrier import Carrier, EightBit, Lossy
from wic_layers.codec.checking import Check, Written
from wic_layers.codec.codec import Codec, Options

__all__ = ["Carrier", "Check", "Codec", "EightBit", "Lossy", "Options", "Written"]
