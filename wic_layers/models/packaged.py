"""Weights in the package: which there are, and which of them a wheel only describes."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

__all__ = ["CARD", "CONFIG", "TENSORS", "described_weights", "packaged_weights"]

TENSORS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def described_weights() -> dict[str, Path]:
    """Presets with trained weights; a wheel has no tensors in the folders of large ones."""
    folder = Path(str(resources.files("wic_layers.models"))) / "weights"
    return {path.parent.name: path.parent for path in sorted(folder.glob(f"*/{CONFIG}"))}


def packaged_weights() -> dict[str, Path]:
    """Returns the presets whose weights come with the package, with the folder of each."""
    every = described_weights()
    return {name: folder for name, folder in every.items() if (folder / TENSORS).is_file()}
