"""Target: the file that a forward picture is written to, a PNG or a JPEG of some quality."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from wic_layers.codec.beside import Beside
from wic_layers.codec.carrier import CARRIER, Carrier, carrier_of
from wic_layers.codec.surviving import preset_through, trained_through, who_can
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures import (
    as_channels,
    check_output,
    decoded_jpeg,
    read_carrier,
    write_jpeg,
    write_png,
)
from wic_layers.tasks.base import Task

__all__ = ["QUALITY", "Target"]

QUALITY = 90
"""Of the JPEG files that are written where nobody says another."""


@dataclass(frozen=True)
class Target:
    """The file that a forward picture is written to.

    Attributes:
        path: Its name.
        quality: Of a JPEG, from 1 to 100; None of a PNG.
        force: Whether it may take the place of another one.
    """

    path: Path
    quality: int | None
    force: bool

    @classmethod
    def of(
        cls, out: str | Path, inputs: Iterable[str | Path], quality: int | None, *, force: bool
    ) -> Target:
        """Returns the file of that name, once it may be written.

        Raises:
            WICFileError: If it may not.
            WICArgumentError: If the quality is none, or that of a PNG.
        """
        path = check_output(out, inputs=inputs, force=force, jpeg=True)
        is_jpeg = path.suffix.lower() != ".png"
        if quality is not None and not is_jpeg:
            raise WICArgumentError(
                f"Expected a quality for a JPEG alone, whose name ends in .jpg; got {out}."
            )
        if quality is not None and not 1 <= quality <= 100:
            raise WICArgumentError(f"Expected a quality from 1 to 100; got {quality}.")
        return cls(path, (quality or QUALITY) if is_jpeg else None, force)

    @property
    def carrier(self) -> Carrier:
        """What the picture becomes in it."""
        return CARRIER if self.quality is None else carrier_of([f"jpeg:{self.quality}"])

    def model_for(
        self, tasks: Sequence[Task], model: str | Path | nn.Module | None
    ) -> str | Path | nn.Module | None:
        """Returns the network that writes it: the one that was asked for, or the package's.

        Raises:
            WICFileError: If it is a JPEG, and the network was not trained for that, or none is
                asked for and the package has none.
            WICArgumentError: If there are no such weights.
        """
        if self.quality is None:
            return model
        chosen = preset_through(tasks[:1]) if model is None else model
        if chosen is None or not trained_through(chosen):
            raise WICFileError(
                f"{self.path} would be written with lossy compression, which destroys what it "
                f"holds; choose a name that ends in .png. {who_can(tasks)}"
            )
        return chosen

    def write(
        self,
        picture: Tensor,
        scale: int,
        beside: Beside,
        chunk_of: Callable[[Tensor], bytes] | None,
    ) -> None:
        """Writes a picture.

        Args:
            picture: Pixels (3, H, W) or (1, H, W), uint8.
            scale: How many times smaller than its photograph it is.
            beside: What travels beside its pixels.
            chunk_of: Returns what the file says of the pixels that it holds; None if nothing.

        Raises:
            WICFileError: If writing fails, or a JPEG should show what is transparent.
        """
        if self.quality is None:
            chunk = None if chunk_of is None else chunk_of(picture)
            shown = beside.shown_with(picture, scale)
            write_png(shown, self.path, chunk=chunk, force=self.force)
            return
        if beside.opacity is not None:
            raise WICFileError(
                f"Expected an opaque photo for {self.path}, as JPEG has no transparency; choose a "
                f"name that ends in .png."
            )
        own = None if chunk_of is None else chunk_of(decoded_jpeg(picture, self.quality))
        write_jpeg(picture, self.path, self.quality, own=own, force=self.force)

    def read(self, channels: int, max_pixels: int | None) -> Tensor:
        """Returns the pixels that whoever gets it will see."""
        is_lossy = self.quality is not None
        pixels, _ = read_carrier(self.path, max_pixels=max_pixels, lossy=is_lossy)
        return as_channels(pixels, channels, str(self.path))
