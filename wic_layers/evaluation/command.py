"""``wic eval``: how good a network is, by PSNR and SSIM, through real 8-bit files."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from wic_layers._files import check_place, write_whole
from wic_layers.codec.running import (
    backward_pixels,
    forward_pixels,
    load_network,
    reference_pixels,
)
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.pictures import (
    as_channels,
    as_kind,
    as_pixels,
    encode_png,
    find_images,
    read_image,
    size_of,
)
from wic_layers.tasks import TASKS, Task

__all__ = [
    "Row",
    "add_arguments",
    "compare",
    "evaluate",
    "mean_of_finite",
    "mean_rows",
    "reduce_by",
    "run",
    "table",
]

_METRICS = ("psnr_rgb", "ssim_rgb", "psnr_y", "ssim_y")
_TITLES = ("PSNR RGB", "SSIM RGB", "PSNR Y", "SSIM Y")
_REACH, _SIGMA = 5, 1.5  # of the Gaussian window of SSIM, in pixels
_FLOAT = ", float"  # the end of the names of rows without rounding
# luma of ITU-R BT.601, 16 to 235, of RGB in [0, 1]
_WEIGHTS_OF_Y, _OFFSET_OF_Y = (65.481, 128.553, 24.966), 16.0


@dataclass(frozen=True)
class Row:
    """One comparison of two pictures, or the mean of several.

    Attributes:
        what: Which picture, and how it was made.
        psnr_rgb: PSNR in dB over all channels.
        ssim_rgb: SSIM, the mean over the channels.
        psnr_y: PSNR in dB of the luma of BT.601 (16 to 235); of a grey picture None.
        ssim_y: SSIM of that luma; of a grey picture None.
        bits: Bits per pixel of the picture's PNG, where it is the forward picture; else None.
        identical: How many of the comparisons found no difference. Their PSNR is infinite; a mean
            is of the others, unless there are none.
    """

    what: str
    psnr_rgb: float
    ssim_rgb: float
    psnr_y: float | None = None
    ssim_y: float | None = None
    bits: float | None = None
    identical: int = 0


def compare(what: str, found: Tensor, wanted: Tensor, *, bits: float | None = None) -> Row:
    """Compares two pictures (C, H, W): uint8, or float in [0, 1].

    SSIM takes a Gaussian window of 11 x 11, sigma 1.5, where it lies within the picture; smaller
    pictures have none (NaN).
    """
    # float32 would do for PSNR; of bright flat pictures, SSIM would be wrong in its fourth digit
    a, b = (x.cpu().double() / (255 if x.dtype == torch.uint8 else 1) for x in (found, wanted))
    rgb = _psnr(a, b, 1.0), _ssim(a, b, 1.0)
    luma: tuple[float | None, float | None] = None, None
    if len(a) == 3:
        weights = a.new_tensor(_WEIGHTS_OF_Y)[:, None, None]
        x, y = (_OFFSET_OF_Y + (picture * weights).sum(0, keepdim=True) for picture in (a, b))
        luma = _psnr(x, y, 255.0), _ssim(x, y, 255.0)
    return Row(what, *rgb, *luma, bits, int(math.isinf(rgb[0])))


def _psnr(a: Tensor, b: Tensor, top: float) -> float:
    error = float((a - b).square().mean())
    return 10 * math.log10(top**2 / error) if error else math.inf


def _ssim(a: Tensor, b: Tensor, top: float) -> float:
    if min(a.shape[1:]) < 2 * _REACH + 1:
        return math.nan
    means = [_blurred(x) for x in (a, b)]
    product = means[0] * means[1]
    squares = means[0].square() + means[1].square()
    covariance = _blurred(a * b) - product
    variances = _blurred(a.square() + b.square()) - squares
    c1, c2 = (0.01 * top) ** 2, (0.03 * top) ** 2
    similarity = (2 * product + c1) * (2 * covariance + c2)
    return float((similarity / ((squares + c1) * (variances + c2))).mean())


def _blurred(x: Tensor) -> Tensor:
    """Gaussian means of pictures (C, H, W) over windows that lie within: (C, H - 10, W - 10)."""
    offsets = torch.arange(-_REACH, _REACH + 1, dtype=x.dtype)
    window = torch.softmax(-((offsets / _SIGMA) ** 2) / 2, dim=0).tolist()
    for axis in (1, 2):
        size = x.shape[axis] - 2 * _REACH
        x = sum(weight * x.narrow(axis, k, size) for k, weight in enumerate(window))
    return x


def _bicubic(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resizes pixels (C, H, W), uint8, to (width, height) by Pillow's BICUBIC."""
    picture = as_kind(image, Image.new("RGB", (1, 1)))
    resized = picture.resize(size, Image.Resampling.BICUBIC)
    return as_channels(as_pixels(resized, carrier=True, channels=3), len(image))


def evaluate(
    task: Task,
    network: Any,
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
    if len(images) < task.sources:
        raise WICArgumentError(
            f"Expected at least {task.sources} images to judge {task.name}, which takes as many "
            f"for a sample; got {len(images)}."
        )
    for index, image in enumerate(images):
        inputs = [image]
        if task.is_composed:
            several = [images[(index + k) % len(images)] for k in range(task.sources)]
            inputs = _composed(task, several)
        elif task.scale > 1:
            height, width = (side // task.scale * task.scale for side in image.shape[1:])
            inputs = [image[:, :height, :width]]
        for step in range(1, 1 if task.is_composed else task.images):
            other = images[(index + step) % len(images)]
            turned = other if other.shape == image.shape else other.transpose(1, 2)
            inputs.append(turned[:, : image.shape[1], : image.shape[2]].contiguous())
        yield list(_judge(task, network, inputs, tile, refine))


def _composed(task: Task, images: Sequence[Tensor]) -> list[Tensor]:
    """A sample made of the middles of images, the same every time."""
    height, width = (min(image.shape[axis] for image in images) for axis in (1, 2))
    sources = []
    for image in images:
        top, left = (image.shape[1] - height) // 2, (image.shape[2] - width) // 2
        cut = image[:, top : top + height, left : left + width]
        sources.append(cut[None].float() / 255)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = task.compose(*sources)
    height, width = (side // task.multiple * task.multiple for side in found[0].shape[2:])
    return [(x[0, :, :height, :width] * 255).round().to(torch.uint8) for x in found]


def _judge(
    task: Task, network: Any, inputs: Sequence[Tensor], tile: int | None, refine: int
) -> Iterator[Row]:
    wanted = inputs[-task.restored_count :]
    sizes = [size_of(image) for image in wanted]
    forward, back = task.titles
    numbers = [f" {k}" for k in range(1, len(wanted) + 1)] if len(wanted) > 1 else [""]
    crop = task.scale if task.scale > 1 else 0

    def inner(image: Tensor) -> Tensor:
        return image[:, crop : image.shape[1] - crop, crop : image.shape[2] - crop]

    # what is written is what is read: the file's own bytes are decoded again
    picture = forward_pixels(task, network, *inputs, tile=tile, refine=refine)
    encoded = encode_png(picture)
    picture = as_channels(_decoded(encoded), task.out_channels)
    width, height = size_of(inputs[0]) if task.scale == 1 else size_of(picture)
    if task.scale > 1:
        # of a clip it is the middle frame that stands first
        large = task.pack(*(image[None] for image in inputs))[0, :3]
        reference = _bicubic(large, (width, height))
    else:
        reference = reference_pixels(task, *inputs)[:, :height, :width]
    pixels = width * height
    seen = picture[:, :height, :width]
    yield compare(forward, seen, reference, bits=8 * len(encoded) / pixels)
    restored = backward_pixels(task, network, picture, sizes, tile=tile)
    for number, found, original in zip(numbers, restored, wanted, strict=True):
        yield compare(f"{back}{number}", inner(found), inner(original))
    if task.scale > 1:
        enlarged = _bicubic(reference, sizes[0])
        plain = 8 * len(encode_png(reference)) / pixels
        yield compare(f"{back} by bicubic", inner(enlarged), inner(large), bits=plain)
    exact = forward_pixels(task, network, *inputs, tile=tile, rounded=False, refine=refine)
    yield compare(f"{forward}{_FLOAT}", exact[:, :height, :width].clamp(0, 1), reference)
    floats = backward_pixels(task, network, exact, sizes, tile=tile)
    for number, found, original in zip(numbers, floats, wanted, strict=True):
        yield compare(f"{back}{number}{_FLOAT}", inner(found), inner(original))
    # a second round trip of what came back; covers are taken as they look
    covers = [seen] if task.restored_count < task.images else []
    again = forward_pixels(task, network, *covers, *restored, tile=tile, refine=refine)
    second = backward_pixels(task, network, again, sizes, tile=tile)
    yield compare(f"{forward}, second time", again[:, :height, :width], reference)
    for number, found, original in zip(numbers, second, wanted, strict=True):
        yield compare(f"{back}{number}, second time", inner(found), inner(original))
    for number, found, first in zip(numbers, second, restored, strict=True):
        yield compare(f"{back}{number}, second time from the first", inner(found), inner(first))


def _decoded(encoded: bytes) -> Tensor:
    with Image.open(io.BytesIO(encoded)) as image:
        return as_pixels(image, carrier=True, channels=1 if image.mode == "L" else 3)


def mean_rows(found: Sequence[Sequence[Row]]) -> list[Row]:
    """Returns the mean over images of each row, see :class:`Row`."""
    rows = []
    for column in zip(*found, strict=True):
        values: dict[str, float | None] = {}
        for name in (*_METRICS, "bits"):
            numbers = [getattr(row, name) for row in column]
            values[name] = None if None in numbers else mean_of_finite(numbers)
        identical = sum(row.identical for row in column)
        rows.append(Row(column[0].what, **values, identical=identical))  # type: ignore[arg-type]
    return rows


def mean_of_finite(numbers: Sequence[float]) -> float:
    """Returns the mean of those numbers that are not infinite; infinity if all are, as of PSNR."""
    finite = [number for number in numbers if not math.isinf(number)]
    return sum(finite) / len(finite) if finite else math.inf


def table(title: str, rows: Sequence[Row]) -> str:
    """Returns rows as a table in Markdown: through 8-bit files, and beside them as floats.

    Beside a mean of PSNR stands how many identical pictures it leaves out.
    """
    floats = {row.what: row for row in rows if row.what.endswith(_FLOAT)}
    titles = " | ".join(f"{title} | float" for title in _TITLES)
    lines = [
        f"| {title} | {titles} | bits per pixel |", f"|---|{'---|' * (2 * len(_TITLES) + 1)}"
    ]  # fmt: skip
    for row in rows:
        if row.what in floats:
            continue
        beside = floats.get(f"{row.what}{_FLOAT}")
        cells = [_cell(each, name) for name in _METRICS for each in (row, beside)]
        bits = "" if row.bits is None else f"{row.bits:.2f}"
        lines.append(f"| {row.what} | {' | '.join(cells)} | {bits} |")
    return "\n".join(lines)


def _cell(row: Row | None, name: str) -> str:
    value = getattr(row, name, None)
    if row is None or value is None:
        return ""
    if "ssim" in name:
        return f"{value:.4f}"
    beside = row.identical and math.isfinite(value)
    return f"{value:.2f} ({row.identical} identical)" if beside else f"{value:.2f}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what ``wic eval`` takes to ``parser``."""
    add = parser.add_argument
    add("network", help="preset with weights in the package, or the folder of weights")
    add("folders", metavar="FOLDER", type=Path, nargs="+", help="images to judge on")
    add(
        "--reduce",
        type=int,
        default=1,
        metavar="N",
        help="first make every image that many times smaller, which hides JPEG's halved chroma",
    )
    add("--csv", type=Path, metavar="FILE", help="write a row for every comparison too")
    add("--tile", metavar="N", type=int, help="side of the tiles in which large images are run")
    add("--refine", metavar="N", type=int, default=0, help="as of the commands that are judged")
    add("--device", default="cpu", help="where to run, such as cuda")
    add("--fast", action="store_true", help="as of the commands that are judged")
    add("--force", action="store_true", help="replace the CSV if it exists")


def run(args: argparse.Namespace, bar: Callable[[int, str], Any]) -> int:
    """Prints a table for every folder.

    Args:
        args: See :func:`add_arguments`.
        bar: Makes a progress bar from a total and a unit.

    Raises:
        WICArgumentError: If an argument is out of range.
        WICFileError: If weights or images cannot be read, or the CSV exists.
    """
    if args.reduce < 1:
        raise WICArgumentError(f"Expected --reduce of at least 1; got {args.reduce}.")
    files = {folder: find_images(folder) for folder in args.folders}
    if args.csv is not None:
        inputs = [path for paths in files.values() for path in paths]
        check_place(args.csv, inputs=inputs, force=args.force)
    task, network = load_network(list(TASKS.values()), args.network, args.device, fast=args.fast)
    refined = f", refined in {args.refine} steps" if args.refine else ""
    precision = ", couplings in bfloat16" if args.fast else ""
    title = f"{network.preset or args.network}, {task.name}, weights {network.weights_id}"
    print(f"{title}{refined}{precision}")
    rows: list[dict[str, Any]] = []
    for folder, paths in files.items():
        paths, images = _large_enough(task, paths, args.reduce)
        found = []
        with bar(len(images), "file") as tick:
            for judged in evaluate(task, network, images, tile=args.tile, refine=args.refine):
                found.append(judged)
                tick(1, len(images))
        reduced = f" reduced by {args.reduce}" if args.reduce > 1 else ""
        title = f"{folder.resolve().name}{reduced}, {len(images)} images"
        print(f"\n{table(title, mean_rows(found))}", flush=True)
        for path, judged in zip(paths, found, strict=True):
            rows += [{"folder": str(folder), "image": path.name, **asdict(row)} for row in judged]
    if args.csv is not None:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        write_whole(args.csv, text.getvalue().encode())
    return 0


def _large_enough(
    task: Task, paths: Sequence[Path], reduce: int
) -> tuple[list[Path], list[Tensor]]:
    """The images, reduced, that can be judged; says which cannot."""
    # SSIM has a window of 11 pixels, in the forward picture too, and a border is cropped
    inside = 11 if task.scale == 1 else max(11 * task.scale, 11 + 2 * task.scale)
    least = task.source_side(-(-inside // task.multiple) * task.multiple)
    kept, images = [], []
    for path in paths:
        image = reduce_by(read_image(path), reduce)
        if min(size_of(image)) < least:
            width, height = size_of(image)
            print(
                f"wic: warning: {path}, {width}x{height}, is left out: {task.name} is judged "
                f"from {least}x{least} on",
                file=sys.stderr,
            )
            continue
        kept.append(path)
        images.append(image)
    if not images:
        raise WICFileError(f"Expected images of at least {least}x{least} to judge; got none.")
    return kept, images


def reduce_by(image: Tensor, factor: int) -> Tensor:
    """Returns an image (3, H, W), uint8, that many times smaller, by Pillow's BICUBIC."""
    width, height = size_of(image)
    small = (max(width // factor, 1), max(height // factor, 1))
    return _bicubic(image, small) if factor > 1 else image
