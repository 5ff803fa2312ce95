"""Networks without this library: one direction as constants (:func:`fuse`), ONNX, torch.export."""

from wic_layers.deploy.export import (
    OPSET,
    Direction,
    Exported,
    Precision,
    export_onnx,
    export_program,
    fuse,
)

__all__ = ["OPSET", "Direction", "Exported", "Precision", "export_onnx", "export_program", "fuse"]
