"""``write_images``: what came back from a picture, as files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from wic_layers.codec.beside import Beside
from wic_layers.codec.checking import Written
from wic_layers.codec.work import part
from wic_layers.pictures import as_grey, size_of, write_png

__all__ = ["write_images"]


def write_images(
    images: Sequence[Tensor],
    targets: Sequence[Path],
    grey: Sequence[bool],
    beside: Beside,
    written: Written,
    *,
    share: float,
    keep_metadata: bool,
    force: bool,
) -> list[Written]:
    """Writes images that came back.

    Args:
        images: Pixels (3, h, w) or (1, h, w), uint8.
        targets: A PNG to write for each.
        grey: Whether each had one channel.
        beside: What travelled beside the pixels.
        written: What is known of all of them.
        share: Of a file's work that it is.
        keep_metadata: Whether EXIF and density are written.
        force: Replace outputs that exist.

    Returns:
        What was written, in their order.
    """
    metadata = beside.metadata if keep_metadata else None
    omitted = () if keep_metadata else beside.metadata.names
    all_written = []
    # the first one last: where it is, the others are too, wherever this was ended
    for image, was_grey, target in reversed(list(zip(images, grey, targets, strict=True))):
        shown = as_grey(image) if was_grey and len(image) > 1 else image
        with part(share / len(images)):
            write_png(beside.restored_with(shown), target, metadata=metadata, force=force)
        all_written.append(
            Written(
                target, size_of(image), written.source, written.weights, doubt=written.doubt,
                omitted=omitted,
            )
        )  # fmt: skip
    return all_written[::-1]
