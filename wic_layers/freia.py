"""The FrEIA modules under their short name: see :mod:`wic_layers.hosts.freia`."""

from wic_layers.hosts.freia import WIC, Coupling

__all__ = ["WIC", "Coupling"]
