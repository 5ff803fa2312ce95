"""calling, export_model: a method of any model as a module, and as an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers._files import write_whole
from wic_layers.deploy.export import (
    OPSET,
    Precision,
    check_onnx_target,
    exporting,
    onnx_module,
    refuse_algebra,
)
from wic_layers.errors import WICArgumentError

__all__ = ["Calling", "calling", "export_model"]


class Calling(nn.Module):
    """One call of a model as a module of its own; see :func:`calling`."""

    def __init__(self, model: nn.Module, method: str, arguments: dict[str, object]) -> None:
        super().__init__()
        self.model, self.method, self.arguments = model, method, arguments

    def forward(self, *inputs: Any) -> Any:
        """What the method returns for the inputs."""
        return getattr(self.model, self.method)(*inputs, **self.arguments)


def calling(model: nn.Module, method: str = "forward", **arguments: object) -> nn.Module:
    """Returns a module whose forward is a call of a model: ``model.method(*inputs, **arguments)``.

    ``torch.export`` and ONNX take a module's forward; the way back of a flow is another method, or
    the same with a flag.

    Args:
        model: The model, such as :func:`fuse` returns.
        method: Its method.
        **arguments: What every call gives, such as ``reverse=True``.

    Raises:
        WICArgumentError: If the model has no such method; names those that it has.

    Example:
        >>> from wic_layers import WIC
        >>> from wic_layers.deploy import fuse
        >>> back = calling(fuse(WIC(6, 3)), "inverse")
        >>> torch.export.export(back, (torch.randn(2, 3),)).module()(torch.randn(2, 3)).shape
        torch.Size([2, 6])
    """
    if not callable(getattr(model, method, None)):
        own = [name for name, value in vars(type(model)).items() if callable(value)]
        names = ", ".join(name for name in own if not name.startswith("_")) or "none"
        raise WICArgumentError(
            f"Expected a method of {type(model).__name__} ({names}); got {method!r}."
        )
    return Calling(model, method, arguments)


def export_model(
    model: nn.Module,
    inputs: Sequence[Tensor],
    path: str | Path,
    *,
    precision: Precision = "float32",
    force: bool = False,
) -> Path:
    """Writes the forward of any model as an ONNX file, with sizes that may change.

    Batch, lengths and sides may differ from those of the inputs wherever the model's code allows
    it. Operators are ONNX's own of opset 18, none of them of linear algebra.

    Args:
        model: The model, usually of :func:`fuse`, perhaps with :func:`calling`.
        inputs: Tensors as its forward takes them, all of whose sizes differ where they may.
        path: The file to write, all at once; its name ends in ``.onnx``.
        precision: ``"float16"`` runs all of it in float16, and takes such inputs.
        force: Whether a file that exists may be replaced.

    Returns:
        The path.

    Raises:
        WICArgumentError: If the model cannot be exported; says what torch says.
        WICFileError: If the file cannot be written.
        WICDependencyError: If onnx or onnxscript is not installed, or torch is older than 2.6.
    """
    target = check_onnx_target(path, force=force)
    onnx = onnx_module()
    tensors = tuple(inputs)
    if precision == "float16":
        model = model.half()
        tensors = tuple(x.half() if x.is_floating_point() else x for x in tensors)
    auto = torch.export.Dim.AUTO
    shapes = tuple(dict.fromkeys(range(x.ndim), auto) for x in tensors)
    name = type(model).__name__
    module = model if isinstance(model, Calling) else calling(model)
    with exporting(), torch.no_grad():
        try:
            program = torch.export.export(
                module.eval(), tensors, dynamic_shapes={"inputs": shapes}
            )
        except Exception as error:
            raise WICArgumentError(
                f"Expected a model that torch.export takes; {name} is not: "
                f"{error}. Export a model of wic_layers.deploy.fuse."
            ) from error
        made: Any = torch.onnx.export(program, dynamo=True, opset_version=OPSET, verbose=False)
    proto = made.model_proto
    refuse_algebra(proto)
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString()
    # others may have made it since
    write_whole(check_onnx_target(target, force=force), content, replace=force)
    return target
