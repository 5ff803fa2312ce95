"""Weights in and out: one safetensors file that says which network it is for."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

from wic_layers.completion import CompletionName
from wic_layers.conv import WIC
from wic_layers.errors import WICArgumentError, WICDependencyError, WICFileError
from wic_layers.models.presets import PRESETS, find_preset
from wic_layers.models.win import NETWORKS, WIN, WINNaive

__all__ = ["from_pretrained", "packaged_weights", "save_weights"]

_FORMAT = "1"


def _safetensors() -> Any:
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise WICDependencyError(
            "Weights are stored as safetensors, which is not installed. Run: pip install "
            "'wic-layers[images]'"
        ) from error
    return safetensors


def packaged_weights() -> dict[str, Path]:
    """Returns the presets whose weights come with the package, with the path of each file."""
    folder = Path(str(resources.files("wic_layers.models"))) / "weights"
    return {path.stem: path for path in sorted(folder.glob("*.safetensors"))}


def save_weights(
    model: WIN | WINNaive, path: str | Path, card: Mapping[str, str] | None = None
) -> None:
    """Writes the weights of ``model`` with what it takes to build it again.

    WIC kernels keep their dtype; everything else (the networks inside the couplings) is stored as
    float16, which halves the file. Figures should be measured with the stored file.

    Args:
        model: The network; built from a preset or from its constructor.
        path: The file to write, ending in ``.safetensors``; replaced if it exists.
        card: More to say about the weights: data, steps, licence.

    Raises:
        WICArgumentError: If the network holds a completion that is not a name, and so cannot be
            written down.
        WICFileError: If the file cannot be written.
    """
    safetensors = _safetensors()
    completion = model.config["completion"]
    if completion is not None and not isinstance(completion, str):
        raise WICArgumentError(
            "Expected a network whose completion has a name "
            f"({', '.join(get_args(CompletionName))}); got {type(completion).__name__}. Save its "
            "state_dict with torch.save instead."
        )
    kernels = {f"{name}." for name, module in model.named_modules() if isinstance(module, WIC)}
    state = {
        key: tensor.detach().cpu().contiguous().to(_stored_dtype(key, tensor, kernels))
        for key, tensor in model.state_dict().items()
    }
    metadata = {
        **{f"card.{key}": value for key, value in (card or {}).items()},
        "format": _FORMAT,
        "network": type(model).__name__,
        "arguments": json.dumps(model.config),
        "preset": model.preset or "",
    }
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        # by hand, as safetensors' own files can be read by their owner only
        temporary.write_bytes(safetensors.torch.save(state, metadata))
        os.replace(temporary, target)
    except OSError as error:
        raise WICFileError(f"{target} cannot be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _stored_dtype(key: str, tensor: Tensor, kernels: set[str]) -> torch.dtype:
    owner, _, _ = key.rpartition(".")
    is_kernel = any(f"{owner}.".startswith(kernel) for kernel in kernels)
    return tensor.dtype if is_kernel or not tensor.is_floating_point() else torch.float16


def from_pretrained(name: str | Path) -> Any:
    """Returns a network with trained weights, in ``eval()`` mode, on the CPU, in float32.

    Args:
        name: A preset whose weights come with the package (see :func:`packaged_weights`), or the
            path of a ``.safetensors`` file that :func:`save_weights` wrote.

    Returns:
        The network. Its ``preset`` is the preset's name or None; its ``weights_id`` the first 16
        hex digits of the file's SHA-256; its ``card`` what :func:`save_weights` was told about the
        weights.

    Raises:
        WICArgumentError: If it is neither a file nor a preset, or a preset without weights here.
        WICFileError: If the file is missing, damaged, or not one of this library. Never random
            weights.
    """
    safetensors = _safetensors()
    path = _locate(name)
    try:
        blob = path.read_bytes()
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        state = safetensors.torch.load(blob)
    except OSError as error:
        raise WICFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except safetensors.SafetensorError as error:
        raise WICFileError(f"{path} is damaged or no safetensors file: {error}.") from error
    network = NETWORKS.get(metadata.get("network", ""))
    if metadata.get("format") != _FORMAT or network is None:
        raise WICFileError(
            f"Expected weights written by wic-layers in format {_FORMAT}; {path} says format "
            f"{metadata.get('format')!r} and network {metadata.get('network')!r}."
        )
    try:
        model = network(**json.loads(metadata["arguments"]))
        model.load_state_dict({key: tensor.float() for key, tensor in state.items()})
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise WICFileError(
            f"{path} does not hold the weights that it says it does: {error}"
        ) from error
    model.preset = metadata.get("preset") or None
    model.weights_id = hashlib.sha256(blob).hexdigest()[:16]
    model.card = {key[5:]: value for key, value in metadata.items() if key.startswith("card.")}
    return model.eval()


def _locate(name: str | Path) -> Path:
    path = Path(name)
    if path.suffix == ".safetensors":
        return path
    packaged = packaged_weights()
    if str(name) in packaged:
        return packaged[str(name)]
    if str(name) not in PRESETS and path.exists():
        raise WICFileError(f"Expected weights in a .safetensors file; got {path}.")
    find_preset(str(name))
    raise WICArgumentError(
        f"Expected a preset with weights in the package ({', '.join(packaged) or 'none here'}); "
        f"there are none for '{name}'. Train it with `wic train {name}`, or pass the path of a "
        ".safetensors file."
    )
