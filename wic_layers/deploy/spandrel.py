"""install: networks that bring small pictures back, in programs that load models by spandrel.

Such a program (ComfyUI, chaiNNer) knows a model by the names and shapes in its file alone, and
calls it on pictures. After :func:`install` the ``model.safetensors`` of a rescaling network is one
that it knows, and running it is ``wic up``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError, needing
from wic_layers.layer.quantization import quantize
from wic_layers.models.base import NETWORKS, Network
from wic_layers.models.building import Shapes, outlined
from wic_layers.models.presets import PRESETS
from wic_layers.tasks.registry import RESCALING

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["ID", "install", "preset_of"]

ID = "wic-layers"
"""What the architecture is called among others."""

_OURS = re.compile(r"\d+\.(?:inner\.\d+\.)?[FGH]\.conv[1-5]\.weight")
_TASKS = {task.name: task for task in RESCALING}


def install(registry: Any = None) -> None:
    """Adds the rescaling networks to what spandrel knows; a second time it changes nothing.

    Only what a preset of this library has the shapes of is taken for one of its networks (see
    :data:`wic_layers.models.PRESETS`): with the zero completion, as a file of tensors does not say
    another. Other files are for other architectures, as before.

    The way back is right for pictures that the same weights made smaller, with all of their
    pixels. Of another picture it makes a larger one, and no better one than bicubic enlargement
    does; nothing there can tell.

    Args:
        registry: A ``spandrel.ArchRegistry``; the one that all programs use when None.

    Raises:
        WICDependencyError: If spandrel is not installed.
    """
    spandrel = _spandrel()
    registry = spandrel.MAIN_REGISTRY if registry is None else registry
    if ID not in registry:
        registry.add(spandrel.ArchSupport.from_architecture(_architecture(spandrel)))


def preset_of(state: Mapping[str, Any]) -> str | None:
    """Returns a preset that has tensors of these names and shapes, if a rescaling one does."""
    if not any(_OURS.fullmatch(key) for key in state):  # which costs nothing for other models
        return None
    if not all(isinstance(value, Tensor) for value in state.values()):
        return None
    return _find(frozenset(_shapes(state).items()))


def _spandrel() -> ModuleType:
    with needing("Programs load models by spandrel", "spandrel"):
        import spandrel
    return spandrel


def _architecture(spandrel: Any) -> Any:
    class Architecture(spandrel.Architecture):
        def __init__(self) -> None:
            super().__init__(
                id=ID, name="wic-layers", detect=lambda state: preset_of(state) is not None
            )

        def load(self, state_dict: Mapping[str, Any]) -> Any:
            name = preset_of(state_dict)
            if name is None:
                raise ValueError("Expected the tensors of a rescaling network of wic-layers.")
            preset = PRESETS[name]
            task = _TASKS[preset.task]
            model = NETWORKS[preset.network].from_preset(name)
            return spandrel.ImageModelDescriptor(
                model.eval().requires_grad_(requires_grad=False),
                dict(state_dict),
                architecture=self,
                purpose="SR",
                tags=[name],
                # a picture is right to its last bit or not at all
                supports_half=False,
                supports_bfloat16=False,
                scale=task.scale,
                input_channels=task.out_channels,
                output_channels=3,
                size_requirements=spandrel.SizeRequirements(
                    multiple_of=task.multiple // task.scale
                ),
                tiling=spandrel.ModelTiling.SUPPORTED,
                call_fn=_up,
            )

    return Architecture()


def _up(model: Network, picture: Tensor) -> Tensor:
    """The photograph of a picture that had 8 bits before a program made numbers of it.

    It has 8 bits too: programs that cut off what is behind the point write it as it is.
    """
    return quantize(model.inverse(quantize(picture)))


def _shapes(state: Mapping[str, Tensor]) -> Shapes:
    return {key: tuple(value.shape) for key, value in state.items()}


@lru_cache(maxsize=8)
def _find(signature: frozenset[tuple[str, tuple[int, ...]]]) -> str | None:
    shapes = dict(signature)
    for name in _candidates():
        build = partial(NETWORKS[PRESETS[name].network].from_preset, name)
        with suppress(WICArgumentError), torch.random.fork_rng(devices=[]):
            if _shapes(outlined(build, shapes).state_dict()) == shapes:
                return name
    return None


def _candidates() -> list[str]:
    """Presets that are ours, with a WIC; those that have weights first."""
    names = [
        name
        for name in PRESETS.names()
        if PRESETS[name].task in _TASKS
        and PRESETS[name].network in ("WIN", "WINNaive", "IRN")
        and not PRESETS[name].arguments.get("random_z")
    ]
    return sorted(names, key=lambda name: not PRESETS[name].has_weights)
