"""Networks without this library: one direction as constants (:func:`fuse`), ONNX, torch.export."""

from wic_layers.deploy.calling import calling, export_model
from wic_layers.deploy.export import (
    OPSET,
    Exported,
    Precision,
    export_onnx,
    export_program,
)
from wic_layers.deploy.fusing import Direction, fuse

__all__ = [
    "OPSET",
    "Direction",
    "Exported",
    "Precision",
    "calling",
    "export_model",
    "export_onnx",
    "export_program",
    "fuse",
]
