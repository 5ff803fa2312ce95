"""``evaluate_attacked``: what comes back after JPEG and the like; ``attack_table`` shows it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from wic_layers.codec.attacks import Attack, Attacked, attacks
from wic_layers.codec.running import backward_pixels, forward_pixels, reference_pixels
from wic_layers.codec.work import part
from wic_layers.errors import WICArgumentError
from wic_layers.evaluation.metrics import METRICS, Row, compare
from wic_layers.evaluation.protocol import bicubic, samples
from wic_layers.models import Network
from wic_layers.pictures import encode_png, size_of
from wic_layers.tasks import Task

__all__ = ["attack_table", "evaluate_attacked", "fixed_attacks"]

PNG = "png"
"""What stands for no attack in the names of rows."""


def fixed_attacks(texts: Sequence[str]) -> list[Attack]:
    """Returns the attacks that judging goes through: see :mod:`wic_layers.codec.attacks`.

    Raises:
        WICArgumentError: If a text stands for none, or for one with a range.
    """
    several = attacks(texts)
    for attack in several:
        if not attack.is_fixed:
            raise WICArgumentError(
                f"Expected single numbers to judge through, such as jpeg:90,75; got {attack}."
            )
    return several


def evaluate_attacked(
    task: Task,
    network: Network,
    images: Sequence[Tensor],
    several: Sequence[Attack],
    *,
    tile: int | None = None,
    refine: int = 0,
) -> Iterator[list[Row]]:
    """Judges what comes back after each attack, on every image.

    Samples, references and borders are those of :func:`~wic_layers.evaluation.protocol.evaluate`.
    The first rows are of the PNG itself. Where something is cut off, what is left is judged, run
    backwards from its place alone.

    Args:
        task: What the network is for.
        network: The network.
        images: Pixels (3, H, W), uint8.
        several: The attacks, without ranges.
        tile: See :func:`wic_layers.codec.running.forward_pixels`.
        refine: See there.

    Yields:
        The rows of an image: for each attack the forward picture, what comes back, and for
        rescaling the same of bicubic's small picture.
    """
    for inputs in samples(task, images):
        x = task.packed(*inputs)
        sizes = [size_of(image) for image in inputs[-task.restored_count :]]
        with part(0.5):
            picture = forward_pixels(task, network, x, sizes, tile=tile, refine=refine)
        reference = reference_pixels(task, x)
        if task.scale > 1:  # as Pillow has it; of a clip the middle frame stands first
            large = task.pack(*(image[None] for image in inputs))[0, :3]
            reference = bicubic(large, size_of(picture))
        rows: list[Row] = []
        for attack in (None, *several):
            with part(0.5 / (1 + len(several))):
                rows += _rows(task, network, inputs, picture, reference, attack, tile)
        yield rows


def _rows(
    task: Task,
    network: Network,
    inputs: Sequence[Tensor],
    picture: Tensor,
    reference: Tensor,
    attack: Attack | None,
    tile: int | None,
) -> Iterator[Row]:
    name = PNG if attack is None else str(attack)
    arrived = _arrived(picture, attack)
    left, top, width, height = arrived.box
    if task.scale == 1:  # what was padded is in the file, and is not judged
        height, width = (
            min(side, whole - start)
            for side, whole, start in zip(
                (height, width), inputs[0].shape[1:], (top, left), strict=True
            )
        )
    seen = reference[:, top : top + height, left : left + width]
    picture_seen = arrived.pixels[:, :height, :width]
    yield compare(f"{task.titles[0]}, {name}", picture_seen, seen, size=arrived.size)
    originals = inputs[-task.restored_count :]
    parts = [_part(image, arrived, task.scale) for image in originals]
    sizes = [size_of(each) for each in parts]
    restored = backward_pixels(task, network, arrived.pixels, sizes, tile=tile)
    for number, (image, original) in enumerate(zip(restored, parts, strict=True), start=1):
        title = f"{task.titles[1]} {number}" if len(parts) > 1 else task.titles[1]
        yield compare(f"{title}, {name}", *(_inner(each, task) for each in (image, original)))
    if task.scale > 1:
        arrived = _arrived(reference, attack)
        enlarged = bicubic(arrived.pixels, sizes[0])
        what = f"{task.titles[1]} by bicubic, {name}"
        pair = (_inner(each, task) for each in (enlarged, parts[0]))
        yield compare(what, *pair, size=arrived.size)


def _arrived(picture: Tensor, attack: Attack | None) -> Attacked:
    if attack is not None:
        return attack(picture)
    return Attacked(picture, (0, 0, *size_of(picture)), len(encode_png(picture)))


def _part(image: Tensor, arrived: Attacked, scale: int) -> Tensor:
    """What of an image there is behind what is left of the picture."""
    left, top, width, height = (scale * each for each in arrived.box)
    return image[:, top : top + height, left : left + width]


def _inner(image: Tensor, task: Task) -> Tensor:
    border = task.scale if task.scale > 1 else 0
    return image[:, border : image.shape[1] - border, border : image.shape[2] - border]


def attack_table(title: str, rows: Sequence[Row]) -> str:
    """Returns rows as a table in Markdown, with the bytes of the file at each picture."""
    lines = [
        f"| {title} | {' | '.join(METRICS.values())} | bytes |", f"|---|{'---|' * 5}"
    ]  # fmt: skip
    for row in rows:
        cells = []
        for name in METRICS:
            value = getattr(row, name)
            cells.append("" if value is None else f"{value:.{4 if 'ssim' in name else 2}f}")
        size = "" if row.size is None else f"{row.size:,.0f}"
        lines.append(f"| {row.what} | {' | '.join(cells)} | {size} |")
    return "\n".join(lines)
