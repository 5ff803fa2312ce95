"""What a file says about itself, so that nothing else is needed to bring a picture back."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from torch import Tensor

from wic_layers.errors import WICFileError

__all__ = ["Mark", "digest"]

_FORMAT = 2


def digest(picture: Tensor) -> str:
    """Returns 16 hex digits that change with any pixel of a uint8 picture."""
    return hashlib.sha256(picture.cpu().contiguous().numpy().tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Mark:
    """What a file says about itself, as JSON in its text chunk.

    Attributes:
        task: Name of the task.
        preset: The preset of the network that made it, or None.
        weights: The first 16 hex digits of the SHA-256 of the weights file.
        sizes: The (width, height) of each image that comes back.
        pixels: The (width, height) of the file.
        digest: Of its pixels; see :func:`digest`.
    """

    task: str
    preset: str | None
    weights: str
    sizes: tuple[tuple[int, int], ...]
    pixels: tuple[int, int]
    digest: str

    def dumps(self) -> str:
        """Returns the mark as ASCII text."""
        return json.dumps({"format": _FORMAT, **asdict(self)})

    @classmethod
    def loads(cls, text: str) -> Mark:
        """Returns the mark that a text stands for.

        Raises:
            WICFileError: If it stands for none, or for one of another format.
        """
        try:
            found = json.loads(text)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise WICFileError("its wic-layers chunk is damaged.")
        if found.pop("format", None) != _FORMAT:
            raise WICFileError(
                f"its wic-layers chunk is not of format {_FORMAT}, the one known to this version."
            )
        fits = (
            found.keys() == cls.__dataclass_fields__.keys()
            and all(isinstance(found[key], str) for key in ("task", "weights", "digest"))
            and isinstance(found["preset"], str | None)
            and isinstance(found["sizes"], list)
            and all(_is_size(size) for size in (*found["sizes"], found["pixels"]))
        )
        if not fits:
            raise WICFileError("its wic-layers chunk is damaged.")
        sizes = tuple(tuple(size) for size in found["sizes"])
        return cls(**{**found, "sizes": sizes, "pixels": tuple(found["pixels"])})


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and side > 0 for side in value)
    )
