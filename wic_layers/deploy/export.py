"""export_program and export_onnx: one direction of a network, images in and images out."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import torch
from torch import Tensor, nn

import wic_layers
from wic_layers._files import check_place, write_whole
from wic_layers.deploy.fusing import Direction, check_direction, fuse, lowered
from wic_layers.errors import (
    WICArgumentError,
    WICDependencyError,
    WICError,
    WICFileError,
    needing,
)
from wic_layers.pictures.pixels import continued
from wic_layers.pictures.silence import quiet

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

    from wic_layers.models import Network
    from wic_layers.tasks import Task

__all__ = ["OPSET", "Exported", "Precision", "export_onnx", "export_program"]

Precision = Literal["float32", "float16"]

OPSET = 18
"""Version of ONNX's standard operators that :func:`export_onnx` writes; it needs no others."""

_ALGEBRA = ("Det", "Inverse")
_EXPORTING = threading.Lock()  # two at once would leave the level of torch's logger behind


class _Images(nn.Module):
    """A network's way forward on 8-bit images: padded as the command line does, and rounded."""

    def __init__(self, task: Task, fused: nn.Module) -> None:
        super().__init__()
        self.task = task
        self.fused = fused

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Maps images (h, w, 3), uint8, to the picture, (H, W, 3) or (H, W)."""
        first = images[0]
        cell = self.task.multiple
        rows, columns = ((side + cell - 1) // cell * cell for side in first.shape[:2])
        padded = [  # as pad_to does; a side that is longer is cut
            image.index_select(0, continued(image.shape[0], rows)).index_select(
                1, continued(image.shape[1], columns)
            )
            for image in images
        ]
        return (_to_image(self.fused(self.task.pack(*map(_to_tensor, padded)))),)


class _Picture(_Images):
    """A network's way back on the 8-bit picture."""

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:  # type: ignore[override]
        """Maps the picture, (H, W, 3) or (H, W), uint8, to the images that come back."""
        images = self.task.restored(self.fused(_to_tensor(picture)))
        return tuple(map(_to_image, images))


def _to_tensor(image: Tensor) -> Tensor:
    planes = image[None] if image.ndim == 2 else image.permute(2, 0, 1)
    return planes[None].float() / 255


def _to_image(x: Tensor) -> Tensor:
    pixels = (x[0].clamp(0, 1) * 255).round().to(torch.uint8)
    return pixels[0] if len(pixels) == 1 else pixels.permute(1, 2, 0)


@dataclass(frozen=True)
class Exported:
    """What :func:`export_onnx` wrote.

    Attributes:
        path: The file.
        bytes: Its size.
        task: The name of the task.
        inputs: The sides and channels of every input by its name, such as ``("height", "width",
            3)``; all are uint8.
        outputs: The same of the outputs.
        metadata: What the file says about itself.
    """

    path: Path
    bytes: int
    task: str
    inputs: dict[str, tuple[str | int, ...]]
    outputs: dict[str, tuple[str | int, ...]]
    metadata: dict[str, str]


def export_program(
    model: str | Path | nn.Module,
    direction: Direction = "forward",
    *,
    precision: Precision = "float32",
) -> torch.export.ExportedProgram:
    """Returns one direction of a network on 8-bit images, as ``torch.export`` gives it.

    Every image is a uint8 tensor, (height, width, 3) in RGB or (height, width) in grey, as arrays
    of decoded files are, with sides longer than what the network makes one pixel of (2, or 4 for
    x4); an ONNX file takes smaller ones too. Forward takes the images of the task (cover and
    secrets, or the photo) and pads them as the command line does: to the first one's size and to
    what the network can halve; a secret larger than its cover is cut. Reverse takes the picture,
    which must be as it was made, and returns the images with their padding: cut them to their own
    sizes, as the mark in the PNG says them. Pixels are those of the command line, or one step
    beside them where the last bits of a float decide its rounding.

    Args:
        model: A preset with weights in the package, the folder of weights, ``"hub:owner/name"`` on
            the Hugging Face hub, or a network of :mod:`wic_layers.models`.
        direction: ``"forward"`` or ``"reverse"``.
        precision: ``"float16"`` stores and runs the networks inside couplings in float16, as
            autocast does; what is inverted stays in float32.

    Raises:
        WICArgumentError: For another direction or precision, a preset without weights here, or a
            network that is for none of the tasks.
        WICFileError: If weights cannot be read.
        WICDependencyError: If torch is older than 2.6.

    Example:
        >>> from wic_layers.models import WINNaive
        >>> model = WINNaive(3, 3, scale=2, couplings=1, growth=4)
        >>> program = export_program(model, "reverse")
        >>> program.module()(torch.zeros(5, 7, 3, dtype=torch.uint8))[0].shape
        torch.Size([10, 14, 3])
    """
    check_direction(direction)
    network, task = _network_and_task(model)
    return _program(network, task, direction, precision)


def _network_and_task(model: str | Path | nn.Module) -> tuple[Network, Task]:
    from wic_layers.models import PRESETS, from_pretrained
    from wic_layers.tasks import TASKS

    network = cast("Network", model) if isinstance(model, nn.Module) else from_pretrained(model)
    if not hasattr(network, "config"):
        raise TypeError(
            f"Expected a network of wic_layers.models; got {type(network).__name__}. For others "
            "there is torch.onnx.export(fuse(model, direction), ...)."
        )
    preset = PRESETS.get(network.preset or "")
    stated = TASKS.get((preset.task if preset else network.task) or "")
    if stated is not None:
        return network, stated
    config = network.config
    channels = (config["in_channels"], config["out_channels"], config.get("scale", 1))
    for task in TASKS.values():
        if task.channels == channels:
            return network, task
    raise WICArgumentError(
        f"Expected a network for {', '.join(TASKS)}; got one of channels {channels[0]} to "
        f"{channels[1]}, scale {channels[2]}. For others there is torch.onnx.export(fuse(model, "
        "direction), ...)."
    )


def _program(
    network: nn.Module, task: Task, direction: Direction, precision: str
) -> torch.export.ExportedProgram:
    if precision not in get_args(Precision):
        raise WICArgumentError(f'Expected precision "float32" or "float16"; got {precision!r}.')
    if not hasattr(torch.export, "Dim") or not hasattr(torch.export.Dim, "DYNAMIC"):
        raise WICDependencyError(
            f"Exporting needs torch 2.6 or newer; this is {torch.__version__}. Run: pip install "
            "-U torch"
        )
    fused = fuse(network, direction).cpu().float()
    if precision == "float16":
        fused = lowered(fused, torch.float16)
    dynamic = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    # all sides differ, or they would be taken to be equal
    sides = iter(range(6 * task.multiple, 99 * task.multiple, task.multiple))
    with exporting():
        if direction == "forward":
            images = [_blank(next(sides), next(sides), 3) for _ in task.image_names]
            whole: nn.Module = _Images(task, fused)
            shapes: Any = {"images": (dynamic,) * len(images)}
            return torch.export.export(whole, tuple(images), dynamic_shapes=shapes)
        picture = _blank(next(sides), next(sides), task.out_channels)
        whole = _Picture(task, fused)
        return torch.export.export(whole, (picture,), dynamic_shapes=(dynamic,))


def _blank(height: int, width: int, channels: int) -> Tensor:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return torch.zeros(shape, dtype=torch.uint8)


@contextmanager
def exporting() -> Iterator[None]:
    """Keeps back what torch says about itself while it exports."""
    logger = logging.getLogger("torch.onnx")
    with _EXPORTING, quiet():
        level = logger.level
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)


def export_onnx(
    model: str | Path | nn.Module,
    path: str | Path,
    direction: Direction = "forward",
    *,
    precision: Precision = "float32",
    force: bool = False,
) -> Exported:
    """Writes one direction of a network as an ONNX file of its own, images in and images out.

    Inputs and outputs are those of :func:`export_program`, named as the task names its images
    (``cover``, ``secret``, ``stego``; ``photo``, ``small``; ``photo``, ``gray``; several secrets
    are ``secret_1``, ``secret_2``, ...). The file holds convolutions, reshapes and arithmetic of
    ONNX's standard operators of opset 18, in any height and width, and nothing of linear algebra:
    whatever a runtime offers for images runs it. It says about itself, as metadata: the version of
    this library, task, preset, direction, precision, weights (the first 16 hex digits of their
    SHA-256, as in the mark of a PNG), scale, what sides must be divisible by on the way back
    (multiple), how far results depend on pixels around (overlap, for tiles, in pixels of the large
    image), and the opset.

    Args:
        model: See :func:`export_program`.
        path: The file to write, all at once; its name ends in ``.onnx``.
        direction: ``"forward"`` or ``"reverse"``.
        precision: See :func:`export_program`; float16 halves the file.
        force: Whether a file that exists may be replaced.

    Returns:
        What was written.

    Raises:
        WICArgumentError: See :func:`export_program`.
        WICFileError: If weights cannot be read or the file cannot be written; nothing is left
            behind.
        WICDependencyError: If onnx or onnxscript is not installed, or torch is older than 2.6.
    """
    target = check_onnx_target(path, force=force)
    onnx = onnx_module()
    check_direction(direction)
    network, task = _network_and_task(model)
    program = _program(network, task, direction, precision)
    picture = (task.picture_name,)
    given, wanted = task.image_names, task.image_names[-task.restored_count :]
    names = (given, picture) if direction == "forward" else (picture, wanted)
    with exporting():
        made = torch.onnx.export(
            program,
            dynamo=True,
            opset_version=OPSET,
            input_names=list(names[0]),
            output_names=list(names[1]),
            verbose=False,
        )
    proto = made.model_proto  # type: ignore[union-attr]
    metadata = _metadata(network, task, direction, precision)
    _clean(proto)
    proto.producer_name, proto.producer_version = "wic-layers", wic_layers.__version__
    onnx.helper.set_model_props(proto, metadata)
    onnx.checker.check_model(proto, full_check=True)
    content = proto.SerializeToString()
    # others may have made it since
    write_whole(check_onnx_target(target, force=force), content, replace=force)
    inputs, outputs = (
        {value.name: _shape(value) for value in values}
        for values in (proto.graph.input, proto.graph.output)
    )
    return Exported(target, len(content), task.name, inputs, outputs, metadata)


def onnx_module() -> ModuleType:
    """The package onnx, which torch's exporter needs besides onnxscript."""
    with needing("Writing ONNX files needs {name}", "onnx"):
        import onnx
        import onnxscript  # noqa: F401 - torch's exporter needs it
    module: ModuleType = onnx
    return module


def _metadata(network: Network, task: Task, direction: str, precision: str) -> dict[str, str]:
    from wic_layers.models.inspection import pixel_grid, receptive_field

    cell = 1 if direction == "forward" else task.multiple // task.scale
    reach = receptive_field(network, task.channels[0])
    grid = math.lcm(task.multiple, pixel_grid(network, task.channels[0]))
    overlap = -(-reach // grid) * grid
    return {
        "library": f"wic-layers {wic_layers.__version__}",
        "task": task.name,
        "preset": network.preset or "",
        "weights": network.weights_id or "",
        "direction": direction,
        "precision": precision,
        "scale": str(task.scale),
        "multiple": str(cell),
        "overlap": str(overlap),
        "opset": str(OPSET),
    }


def _clean(proto: ModelProto) -> None:
    """Leaves what runs: no traces of the export, no inner shapes, sides by the images' names."""
    refuse_algebra(proto)
    graph = proto.graph
    for part in (proto, graph, *graph.node, *graph.initializer, *graph.input, *graph.output):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")
    graph.name = "wic-layers"
    for value in (*graph.input, *graph.output):
        for side, dim in zip(("height", "width"), value.type.tensor_type.shape.dim, strict=False):
            dim.dim_param = f"{value.name}_{side}"


def refuse_algebra(proto: ModelProto) -> None:
    """Raises WICError for an operator that deployed networks must not have."""
    for node in proto.graph.node:
        if node.domain or node.op_type in _ALGEBRA:
            raise WICError(
                f"Expected operators of ONNX's own and no linear algebra; got {node.op_type} of "
                f"{node.domain or 'ai.onnx'}. Please report it."
            )


def _shape(value: ValueInfoProto) -> tuple[str | int, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(
        dim.dim_value if index > 1 else ("height", "width")[index]
        for index, dim in enumerate(dims)
    )


def check_onnx_target(path: str | Path, *, force: bool) -> Path:
    """The path of a file to write, if its name ends in ``.onnx`` and its place is free."""
    target = Path(path)
    if target.suffix.lower() != ".onnx":
        raise WICFileError(f"Expected an output whose name ends in .onnx; got {target}.")
    return check_place(target, force=force)
