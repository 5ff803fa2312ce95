"""One rectangular kernel: the layer :class:`WIC`, its algebra, its completions and its losses."""

from wic_layers.layer.conv import WIC
from wic_layers.layer.losses import charbonnier, det_loss, record_wic, shift_loss
from wic_layers.layer.quantization import quantize, quantize_by_noise

__all__ = [
    "WIC",
    "charbonnier",
    "det_loss",
    "quantize",
    "quantize_by_noise",
    "record_wic",
    "shift_loss",
]
