"""The normflows flow under its short name: see :mod:`wic_layers.hosts.normflows`."""

from wic_layers.hosts.normflows import WIC

__all__ = ["WIC"]
