"""Mark: what a file says about itself, so that nothing else brings its images back."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeAlias

from torch import Tensor

from wic_layers.errors import WICArgumentError, WICFileError, WICShapeError
from wic_layers.models import packaged_weights
from wic_layers.models.packaged import described_weights
from wic_layers.pictures import as_channels, size_of
from wic_layers.tasks.base import Task

__all__ = ["Mark", "digest"]

Sizes: TypeAlias = Sequence[tuple[int, int]]


def digest(picture: Tensor) -> str:
    """Returns 16 hex digits that change with any pixel of a uint8 picture."""
    pixels = hashlib.sha256()
    for channel in picture.cpu():  # one after the other, without a copy of them all
        pixels.update(channel.contiguous().numpy())
    return pixels.hexdigest()[:16]


@dataclass(frozen=True)
class Mark:
    """What a file says about itself, as JSON in the part ``mark`` of its chunk.

    Attributes:
        task: Name of the task.
        preset: The preset of the network that made it, or None.
        weights: The first 16 hex digits of the SHA-256 of the weights file; empty if the network
            came from none.
        sizes: The (width, height) of each image that comes back.
        pixels: The (width, height) of the file.
        digest: Of its pixels, without opacity; see :func:`digest`.
        grey: For each image that comes back, whether its three channels were equal: it comes back
            with one.
    """

    task: str
    preset: str | None
    weights: str
    sizes: tuple[tuple[int, int], ...]
    pixels: tuple[int, int]
    digest: str
    grey: tuple[bool, ...]

    def dumps(self) -> str:
        """Returns the mark as ASCII text."""
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str | bytes, source: str | Path = "A file") -> Mark:
        """Returns the mark that a text stands for.

        Args:
            text: What is in the part.
            source: The file, for errors.

        Raises:
            WICFileError: If it stands for none.
        """
        damaged = WICFileError(f"{source} cannot be used: its wic-layers chunk is damaged.")
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError):
            fields = None
        fits = (
            isinstance(fields, dict)
            and fields.keys() == cls.__dataclass_fields__.keys()
            and all(isinstance(fields[key], str) for key in ("task", "weights", "digest"))
            and isinstance(fields["preset"], str | None)
            and isinstance(fields["sizes"], list)
            and all(_is_size(size) for size in (*fields["sizes"], fields["pixels"]))
            and isinstance(fields["grey"], list)
            and len(fields["grey"]) == len(fields["sizes"])
            and all(isinstance(grey, bool) for grey in fields["grey"])
        )
        if not fits:
            raise damaged
        sizes = tuple(tuple(size) for size in fields["sizes"])
        tuples = {"sizes": sizes, "pixels": tuple(fields["pixels"]), "grey": tuple(fields["grey"])}
        return cls(**{**fields, **tuples})

    def task_among(self, tasks: Sequence[Task], source: str | Path) -> Task:
        """Returns the task that the file was made for.

        Raises:
            WICFileError: If it is none of ``tasks``.
        """
        for task in tasks:
            if task.name == self.task:
                return task
        forward, backward = tasks[0].commands
        raise WICFileError(
            f"{source} was made for {self.task!r}; `{backward}` takes what `{forward}` made."
        )

    def check_size(self, size: tuple[int, int], source: str | Path) -> None:
        """Checks what a file says against its size, before its pixels are read.

        Args:
            size: Its (width, height).
            source: The file, for errors.

        Raises:
            WICFileError: If it is another one than was written.
        """
        width, height = size
        if self.pixels != size:
            raise WICFileError(
                f"{source} is {width}x{height} but was written as "
                f"{self.pixels[0]}x{self.pixels[1]}: it was resized or cropped, which destroys "
                f"what it holds."
            )

    def check(
        self,
        task: Task,
        pixels: Tensor,
        source: str | Path,
        sizes: Sizes | None = None,
        *,
        may_differ: bool = False,
    ) -> bool:
        """Checks what a file says against its pixels and what a user says.

        Args:
            task: The task that it names.
            pixels: What the file holds, uint8 (3, H, W) or (1, H, W).
            source: The file, for errors.
            sizes: The (width, height) of each image that comes back, as a user says it.
            may_differ: Whether the network was trained for pixels that differ.

        Returns:
            Whether the pixels are those that were written.

        Raises:
            WICFileError: If they are not, and may not differ.
            WICArgumentError: If the sizes do not agree.
        """
        self.check_size(size_of(pixels), source)
        with suppress(WICShapeError):
            pixels = as_channels(pixels, task.out_channels)
        is_as_written = digest(pixels) == self.digest
        if not is_as_written and not may_differ:
            raise WICFileError(
                f"The pixels of {source} are not those that were written: it was edited or went "
                f"through lossy compression, which destroys what it holds."
            )
        if sizes is not None and tuple(sizes) != self.sizes:
            asked, stated = (
                " ".join(f"{w}x{h}" for w, h in several) for several in (sizes, self.sizes)
            )
            raise WICArgumentError(
                f"--size {asked} does not agree with {source}, which says {stated}; leave it out."
            )
        return is_as_written

    def model_for(self, source: str | Path) -> str:
        """Returns the preset of the weights that made the file.

        Raises:
            WICFileError: If they are not in the package.
        """
        if self.preset is not None and self.preset in packaged_weights():
            return self.preset
        preset = f" of {self.preset!r}" if self.preset else ""
        instead = "pass their folder by --weights"
        if self.preset in described_weights():  # no file of a stranger has something downloaded
            instead = f"--preset {self.preset} fetches them, or {instead}"
        raise WICFileError(
            f"{source} was made with the weights {self.weights!r}{preset}, which are not in this "
            f"package; {instead}."
        )

    def check_weights(self, weights: str, model: object, source: str | Path) -> None:
        """Checks that the weights of a network are those that made the file.

        Raises:
            WICFileError: If they are others.
        """
        if weights != self.weights:
            raise WICFileError(
                f"{source} was made with the weights {self.weights!r}; those at hand ({model}) "
                f"are {weights!r}. Pass the folder of its own weights by --weights; those of "
                f"another version of wic-layers are in that version's package."
            )


def _is_size(value: object) -> bool:
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(side) is int and side > 0 for side in value)
    )
