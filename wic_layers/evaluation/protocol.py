"""``evaluate``: what ``wic eval`` measures on every image, and how means are taken."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence

import torch
from PIL import Image
from torch import Tensor

from wic_layers.codec.carrier import CARRIER
from wic_layers.codec.running import backward_pixels, forward_pixels, reference_pixels
from wic_layers.codec.work import part
from wic_layers.errors import WICArgumentError
from wic_layers.evaluation.metrics import METRICS, Row, compare
from wic_layers.models import Network
from wic_layers.pictures import (
    as_channels,
    as_kind,
    as_pixels,
    encode_png,
    size_of,
)
from wic_layers.tasks import Task

__all__ = [
    "FLOAT",
    "bicubic",
    "evaluate",
    "least_side",
    "mean_of_finite",
    "mean_rows",
    "reduce_by",
    "samples",
]

FLOAT = ", float"
"""The end of the names of rows without rounding."""


_RUNS = 6
"""Runs of the network that judging an image takes."""


def evaluate(
    task: Task,
    network: Network,
    images: Sequence[Tensor],
    *,
    tile: int | None = None,
    refine: int = 0,
) -> Iterator[list[Row]]:
    """Judges a network on every image; see ``wic eval`` for what the rows mean.

    Rescaling: an image first loses the rows and columns that the scale does not divide, ``scale``
    pixels are cropped at each border, and the small picture is judged against Pillow's bicubic
    reduction. Hiding: the images that follow are the secrets (turned upright where the shapes
    differ). Decolorization: the grey picture is judged against the lightness L*. Tasks that pack
    several images get such as are made of an image (:meth:`~wic_layers.tasks.Task.compose`).

    Args:
        task: What the network is for.
        network: The network.
        images: Pixels (3, H, W), uint8.
        tile: See :func:`wic_layers.codec.running.forward_pixels`.
        refine: See there.

    Yields:
        The rows of an image, in the same order for all.

    Raises:
        WICArgumentError: If there are fewer images than a sample is made of.
    """
    for inputs in samples(task, images):
        yield list(_judge(task, network, inputs, tile, refine))


def samples(task: Task, images: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yields, for every image, the images that go into a network; see :func:`evaluate`.

    Raises:
        WICArgumentError: If there are fewer images than a sample is made of.
    """
    if len(images) < task.sources:
        raise WICArgumentError(
            f"Expected at least {task.sources} images to judge {task.name}, which takes as many "
            f"for a sample; got {len(images)}."
        )
    for index, image in enumerate(images):
        inputs = [image]
        if task.is_composed:
            several = [images[(index + k) % len(images)] for k in range(task.sources)]
            inputs = _compose(task, several)
        elif task.scale > 1:
            height, width = (side // task.scale * task.scale for side in image.shape[1:])
            inputs = [image[:, :height, :width]]
        for step in range(1, 1 if task.is_composed else task.images):
            other = images[(index + step) % len(images)]
            turned = other if other.shape == image.shape else other.transpose(1, 2)
            inputs.append(turned[:, : image.shape[1], : image.shape[2]].contiguous())
        yield inputs


def _compose(task: Task, images: Sequence[Tensor]) -> list[Tensor]:
    """A sample made of the middles of images, the same every time."""
    height, width = (min(image.shape[axis] for image in images) for axis in (1, 2))
    sources = []
    for image in images:
        top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
        cut = image[:, top : top + height, left : left + width]
        sources.append(cut[None].float() / 255)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sample = task.compose(*sources)
    height, width = (side // task.multiple * task.multiple for side in sample[0].shape[2:])
    return [CARRIER.pixels(x[0, :, :height, :width]) for x in sample]


def _judge(
    task: Task, network: Network, inputs: Sequence[Tensor], tile: int | None, refine: int
) -> Iterator[Row]:
    originals = inputs[-task.restored_count :]
    sizes = [size_of(image) for image in originals]
    forward, back = task.titles
    border = task.scale if task.scale > 1 else 0

    def inner(image: Tensor) -> Tensor:
        return image[:, border : image.shape[1] - border, border : image.shape[2] - border]

    def compare_each(
        images: Sequence[Tensor], others: Sequence[Tensor], how: str
    ) -> Iterator[Row]:
        for number, (image, other) in enumerate(zip(images, others, strict=True), start=1):
            title = f"{back} {number}" if len(images) > 1 else back
            yield compare(title + how, inner(image), inner(other))

    # what is written is what is read: the file's own bytes are decoded again
    x = task.packed(*inputs)
    with part(1 / _RUNS):
        rounded = forward_pixels(task, network, x, sizes, tile=tile, refine=refine)
    encoded = encode_png(rounded)
    picture = as_channels(_decode(encoded), task.out_channels)
    width, height = size_of(inputs[0]) if task.scale == 1 else size_of(picture)
    if task.scale > 1:
        # of a clip it is the middle frame that stands first
        large = task.pack(*(image[None] for image in inputs))[0, :3]
        reference = bicubic(large, (width, height))
    else:
        reference = reference_pixels(task, x)[:, :height, :width]
    pixels = width * height
    cover = picture[:, :height, :width]
    yield compare(forward, cover, reference, bits=8 * len(encoded) / pixels)
    with part(1 / _RUNS):
        restored = backward_pixels(task, network, picture, sizes, tile=tile)
    yield from compare_each(restored, originals, "")
    if task.scale > 1:
        enlarged = bicubic(reference, sizes[0])
        plain = 8 * len(encode_png(reference)) / pixels
        yield compare(f"{back} by bicubic", inner(enlarged), inner(large), bits=plain)
    # the same without rounding
    with part(1 / _RUNS):
        exact = forward_pixels(task, network, x, sizes, tile=tile, rounded=False, refine=refine)
    yield compare(f"{forward}{FLOAT}", exact[:, :height, :width].clamp(0, 1), reference)
    with part(1 / _RUNS):
        floats = backward_pixels(task, network, exact, sizes, tile=tile)
    yield from compare_each(floats, originals, FLOAT)
    # a second round trip of what came back; covers are taken as they look
    covers = [cover] if task.restored_count < task.images else []
    x = task.packed(*covers, *restored)
    with part(1 / _RUNS):
        again = forward_pixels(task, network, x, sizes, tile=tile, refine=refine)
    with part(1 / _RUNS):
        second = backward_pixels(task, network, again, sizes, tile=tile)
    yield compare(f"{forward}, second time", again[:, :height, :width], reference)
    yield from compare_each(second, originals, ", second time")
    yield from compare_each(second, restored, ", second time from the first")


def least_side(task: Task) -> int:
    """Returns how large an image must be to be judged.

    SSIM has a window of 11 pixels, in the forward picture too, and a border is cropped.
    """
    inside = 11 if task.scale == 1 else max(11 * task.scale, 11 + 2 * task.scale)
    return task.source_side(-(-inside // task.multiple) * task.multiple)


def _decode(encoded: bytes) -> Tensor:
    with Image.open(io.BytesIO(encoded)) as image:
        return as_pixels(image, carrier=True, channels=1 if image.mode == "L" else 3)


def mean_rows(images: Sequence[Sequence[Row]]) -> list[Row]:
    """Returns the mean over images of each row, see :class:`Row`."""
    rows = []
    for column in zip(*images, strict=True):
        values: dict[str, float | None] = {}
        for name in (*METRICS, "bits", "size"):
            numbers = [getattr(row, name) for row in column]
            values[name] = None if None in numbers else mean_of_finite(numbers)
        identical = sum(row.identical for row in column)
        rows.append(Row(column[0].what, **values, identical=identical))  # type: ignore[arg-type]
    return rows


def mean_of_finite(numbers: Sequence[float]) -> float:
    """Returns the mean of those numbers that are not infinite; infinity if all are, as of PSNR."""
    finite = [number for number in numbers if not math.isinf(number)]
    return sum(finite) / len(finite) if finite else math.inf


def bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes pixels (C, H, W), uint8, to (width, height) by Pillow's BICUBIC."""
    picture = as_kind(image, Image.new("RGB", (1, 1)))
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    return as_channels(as_pixels(resized, carrier=True, channels=3), len(image))


def reduce_by(image: Tensor, factor: int) -> Tensor:
    """Returns an image (3, H, W), uint8, that many times smaller, by Pillow's BICUBIC."""
    width, height = size_of(image)
    small = (max(width // factor, 1), max(height // factor, 1))
    return bicubic(image, small) if factor > 1 else image
