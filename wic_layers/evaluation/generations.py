"""``evaluate_generations``: what forward and back, done again and again, leaves of an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from wic_layers.codec.attacks import attacks
from wic_layers.codec.running import backward_pixels, forward_pixels
from wic_layers.evaluation.protocol import bicubic, mean_of_finite, samples
from wic_layers.models import Network
from wic_layers.pictures import psnr, size_of
from wic_layers.tasks import Task

__all__ = ["Generation", "evaluate_generations", "generation_table"]

_SHOWN = (1, 2, 3, 5, 10, 20, 30)
JPEG = "jpeg:90"


@dataclass(frozen=True)
class Generation:
    """What an image is after it went forward and back some number of times.

    Attributes:
        way: What did it: the network's way, bicubic, or JPEG.
        number: How often, from 1.
        first: PSNR in dB, RGB, against the original.
        previous: Against the generation before; infinite where nothing changed any more.
    """

    way: str
    number: int
    first: float
    previous: float


def evaluate_generations(
    task: Task,
    network: Network,
    images: Sequence[Tensor],
    count: int,
    *,
    tile: int | None = None,
) -> Iterator[list[Generation]]:
    """Runs every image forward and back, through 8 bits, ``count`` times.

    A cover is in the next generation what it looked like in the one before. Beside it, the same
    by bicubic reduction and enlargement where the picture is smaller, and the image saved as JPEG
    of quality 90 each time.

    Args:
        task: What the network is for.
        network: The network.
        images: Pixels (3, H, W), uint8.
        count: How many generations.
        tile: See :func:`wic_layers.codec.running.forward_pixels`.

    Yields:
        For each image, all generations of one way after the other.
    """
    (jpeg,) = attacks([JPEG])
    for inputs in samples(task, images):
        originals = list(inputs[-task.restored_count :])
        sizes = [size_of(image) for image in originals]
        covers = list(inputs[: len(inputs) - task.restored_count])
        by_network = partial(_by_network, task, network, covers, sizes, tile)
        by_bicubic = partial(_by_bicubic, task.scale)
        ways: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {"network": by_network}
        if task.scale > 1 and len(originals) == 1:
            ways["bicubic"] = by_bicubic
        ways[JPEG] = lambda restored: [jpeg(image).pixels for image in restored]
        yield [
            each
            for way, again in ways.items()
            for each in _generations(way, originals, again, count)
        ]


def _by_network(
    task: Task,
    network: Network,
    covers: list[Tensor],
    sizes: list[tuple[int, int]],
    tile: int | None,
    restored: list[Tensor],
) -> list[Tensor]:
    """A generation; ``covers`` become what they look like in it."""
    picture = forward_pixels(task, network, task.packed(*covers, *restored), tile=tile)
    if covers:
        height, width = covers[0].shape[1:]
        covers[0] = picture[:, :height, :width]
    return backward_pixels(task, network, picture, sizes, tile=tile)


def _by_bicubic(scale: int, restored: list[Tensor]) -> list[Tensor]:
    width, height = size_of(restored[0])
    return [bicubic(bicubic(restored[0], (width // scale, height // scale)), (width, height))]


def _generations(
    way: str, originals: list[Tensor], again: Callable[[list[Tensor]], list[Tensor]], count: int
) -> Iterator[Generation]:
    before, whole = originals, torch.cat([image.flatten() for image in originals])[None, None]
    last, first = whole, 0.0
    for number in range(1, count + 1):
        before = again(before)
        now = torch.cat([image.flatten() for image in before])[None, None]
        first, previous = psnr(now, whole), psnr(now, last)
        last = now
        yield Generation(way, number, first, previous)


def generation_table(title: str, images: Sequence[Sequence[Generation]]) -> str:
    """Returns the means over images as a table in Markdown.

    Beside a mean against the generation before stands, in how many images nothing changed.
    """
    ways = list(dict.fromkeys(each.way for each in images[0]))
    last = max(each.number for each in images[0])
    heads = " | ".join(f"{way} | {way}, to the one before" for way in ways)
    lines = [f"| {title}, generation | {heads} |", f"|---|{'---|' * (2 * len(ways))}"]
    for number in sorted({*(each for each in _SHOWN if each < last), last}):
        cells = []
        for way in ways:
            some = [e for image in images for e in image if (e.way, e.number) == (way, number)]
            still = sum(each.previous == float("inf") for each in some)
            cells.append(f"{mean_of_finite([each.first for each in some]):.2f}")
            previous = mean_of_finite([each.previous for each in some])
            unchanged = f" ({still} unchanged)" if 0 < still < len(some) else ""
            cells.append("unchanged" if still == len(some) else f"{previous:.2f}{unchanged}")
        lines.append(f"| {number} | {' | '.join(cells)} |")
    return "\n".join(lines)
