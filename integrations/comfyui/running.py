"""Networks at work in ComfyUI: which weights, on its device, with its bar."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from torch import Tensor

from wic_layers.codec import Codec
from wic_layers.models import PRESETS
from wic_layers.models.packaged import described_weights
from wic_layers.pictures import read_carrier
from wic_layers.tasks import TASKS
from wic_layers.tasks.base import Task

__all__ = ["OWN", "REVERSIBLE", "Marked", "codec_of", "encoded", "reader_of", "weights_for"]

REVERSIBLE = "REVERSIBLE_PNG"
"""The type of what Down and Hide hand to Save: a :class:`Marked` for each image of a batch."""


OWN = ("STRING", {"default": "", "tooltip": "a folder of weights of your own, in place of those"})
"""The input that names them."""


class Marked(NamedTuple):
    """A picture, and what its file says of it.

    Attributes:
        pixels: uint8 (3, H, W), or (4, H, W) with opacity last.
        chunk: The content of the chunk that brings back what it was made of.
    """

    pixels: Tensor
    chunk: bytes


def encoded(
    codec: Codec, images: Sequence[Tensor], *, fit: bool = False, refine: int = 0
) -> Marked:
    """The picture of images, uint8 (3, H, W) or (4, H, W), as its file holds it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "picture.png"
        codec.encode_files(images, path, fit=fit, refine=refine, check="none")
        pixels, chunk = read_carrier(path)
    return Marked(pixels, chunk or b"")


def weights_for(tasks: Sequence[Task]) -> list[str]:
    """The presets with weights for tasks, those that are taken by default first."""
    names = [task.name for task in tasks]
    usual = [task.preset for task in tasks if task.preset in described_weights()]
    others = [name for name in described_weights() if PRESETS[name].task in names]
    return list(dict.fromkeys([*usual, *others]))


def codec_of(weights: str, folder: str, tasks: Sequence[Task]) -> Codec:
    """Weights of the package by their preset, or a folder of others; loaded once."""
    if folder:
        codec = _loaded(folder, tuple(task.name for task in tasks), _device())
    else:
        codec = _loaded(weights, (PRESETS[weights].task,), _device())
    codec.progress = _progress()
    return codec


def reader_of(folder: str) -> Codec:
    """What brings back files: by the weights that they name, or by a folder of others."""
    codec = _loaded(folder or None, tuple(TASKS), _device())
    codec.progress = _progress()
    return codec


@lru_cache(maxsize=4)
def _loaded(model: str | None, tasks: tuple[str, ...], device: str) -> Codec:
    return Codec(tasks, model, device=device)


def _device() -> str:
    """Where ComfyUI runs networks."""
    try:
        from comfy import model_management
    except ImportError:
        return "cpu"
    return str(model_management.get_torch_device())


def _progress() -> Callable[[int, int], None] | None:
    """Its bar, and its button that ends a run."""
    try:
        from comfy import model_management, utils
    except ImportError:
        return None

    def show(done: int, total: int) -> None:
        model_management.throw_exception_if_processing_interrupted()
        utils.ProgressBar(total).update_absolute(done, total)

    return show
