"""Invertible 1x1 convolutions that may change the number of channels."""

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
