"""Invertible 1x1 convolutions that may change the number of channels.

What is public here is imported when it is asked for: the command line has something to say before
torch is there, which takes seconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wic_layers import blocks as blocks
    from wic_layers import errors as errors
    from wic_layers import hosts as hosts
    from wic_layers import layer as layer
    from wic_layers.errors import WICError
    from wic_layers.hosts import WellPosed, swap_1x1
    from wic_layers.layer.conv import WIC
    from wic_layers.layer.losses import charbonnier, det_loss, record_wic, shift_loss
    from wic_layers.layer.quantization import quantize

__version__ = "0.1.0.dev0"
__all__ = [
    "WIC",
    "WICError",
    "WellPosed",
    "charbonnier",
    "det_loss",
    "quantize",
    "record_wic",
    "shift_loss",
    "swap_1x1",
]

_PLACES = {
    "WIC": "layer.conv",
    "WICError": "errors",
    "WellPosed": "hosts",
    "charbonnier": "layer.losses",
    "det_loss": "layer.losses",
    "quantize": "layer.quantization",
    "record_wic": "layer.losses",
    "shift_loss": "layer.losses",
    "swap_1x1": "hosts",
}
_ROOMS = ("blocks", "errors", "hosts", "layer")

if not TYPE_CHECKING:  # or every name would be one of this module

    def __getattr__(name: str) -> object:
        if name in _ROOMS:
            for place in _PLACES.values():  # which bring everything below the rooms too
                import_module(f"{__name__}.{place}")
            return import_module(f"{__name__}.{name}")
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
