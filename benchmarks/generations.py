r"""What saving again and again does: fifty times down and up, and where it ends.

    python benchmarks/generations.py SET14 [--most 4] [--count 50] [--networks NAME ...]

Crops of 128 x 128 from the middle of photographs go down and up, again and again, by
``rescaling-x2-naive-small`` (only square layers before its narrowing one), by ``rescaling-x2``
where its weights are there (it widens first), by bicubic, and as JPEG of quality 90 at full size.
Networks do it three times: on numbers as they are, on numbers that are clipped to [0, 1] after
each way, and on those that are rounded to 8 bits too, as files are. Writes
``results/generations.md`` and ``results/generations.png``; the same for whole folders, through
8 bits, is ``wic eval --generations``.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from trials import RESULTS

from wic_layers.codec.attacks import Attack, attacks
from wic_layers.codec.carrier import CARRIER
from wic_layers.evaluation.protocol import bicubic
from wic_layers.models import Network, from_pretrained, packaged_weights
from wic_layers.pictures import find_images, psnr, read_image

SIDE = 128
SHOWN = (1, 2, 3, 5, 10, 20, 50)
LARGEST = 130.0  # dB, past which float32 has no digits


def as_it_is(x: Tensor) -> Tensor:
    return x


def clipped(x: Tensor) -> Tensor:
    return x.clamp(0, 1)


TREATED: dict[str, Callable[[Tensor], Tensor]] = {
    "numbers as they are": as_it_is, "clipped": clipped, "8 bits": CARRIER.through,
}  # fmt: skip


def by_network(model: Network, treat: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    with torch.no_grad():
        return treat(model.inverse(treat(model(x))))


def by_bicubic(x: Tensor) -> Tensor:
    pixels = CARRIER.pixels(x)[0]
    side = pixels.shape[1]
    return bicubic(bicubic(pixels, (side // 2, side // 2)), (side, side))[None].float() / 255


def by_jpeg(attack: Attack, x: Tensor) -> Tensor:
    return attack(CARRIER.pixels(x)[0]).pixels[None].float() / 255


def ways(names: list[str]) -> dict[str, Callable[[Tensor], Tensor]]:
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for name in names:
        if name in packaged_weights():
            model = from_pretrained(name)
            found |= {
                f"{name}, {how}": partial(by_network, model, f) for how, f in TREATED.items()
            }
    (attack,) = attacks(["jpeg:90"])
    return {**found, "bicubic": by_bicubic, "JPEG 90": partial(by_jpeg, attack)}


def followed(
    again: Callable[[Tensor], Tensor], x: Tensor, count: int
) -> list[tuple[float, float]]:
    """PSNR against the original and against the generation before, of every generation."""
    rows, last = [], x
    for _ in range(count):
        # what did not change will not
        now = last if rows and rows[-1][1] == LARGEST else again(last)
        rows.append((psnr(now, x), min(psnr(now, last), LARGEST)))
        last = now
    return rows


def draw(means: dict[str, list[tuple[float, float]]]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    titles = ("against the original", "against the generation before (130: nothing changes)")
    for index, (axis, title) in enumerate(zip(axes, titles, strict=True)):
        for name, rows in means.items():
            style = "--" if ", " in name and "8 bits" not in name else "-"
            axis.plot(range(1, len(rows) + 1), [row[index] for row in rows], style, label=name)
        axis.set(title=title, xlabel="generation", ylabel="PSNR, dB", xscale="log")
        axis.grid(alpha=0.3)
    axes[1].legend(fontsize=8)
    figure.savefig(RESULTS / "generations.png", dpi=90)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--most", type=int, default=4)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument(
        "--networks", nargs="+", default=["rescaling-x2-naive-small", "rescaling-x2"]
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    photos = []
    for path in find_images(args.folder)[: args.most]:
        image = read_image(path)
        top, left = ((side - SIDE) // 2 for side in image.shape[1:])
        photos.append(image[None, :, top : top + SIDE, left : left + SIDE].float() / 255)
    means, text = {}, [
        f"| {len(photos)} crops of {args.folder.resolve().name}, generation | "
        + " | ".join(str(each) for each in SHOWN if each <= args.count)
        + " | changes no more in |",
        "|---" * (2 + sum(each <= args.count for each in SHOWN)) + "|",
    ]  # fmt: skip
    for name, again in ways(args.networks).items():
        every = [followed(again, photo, args.count) for photo in photos]
        means[name] = [
            (statistics.mean(row[0] for row in rows), statistics.mean(row[1] for row in rows))
            for rows in zip(*every, strict=True)
        ]
        still = [
            next((n for n, row in enumerate(rows, 1) if row[1] >= LARGEST), math.inf)
            for rows in every
        ]
        ended = [n for n in still if n < math.inf]
        end = f"{len(ended)} of {len(still)}" + (f", from {max(ended):.0f} on" if ended else "")
        cells = [
            f"{means[name][n - 1][0]:.2f} ({means[name][n - 1][1]:.1f})"
            for n in SHOWN
            if n <= args.count
        ]
        text.append(f"| {name} | {' | '.join(cells)} | {end} |")
        print(text[-1], flush=True)
    draw(means)
    text += ["", "PSNR in dB against the original, and in brackets against the generation before."]
    (RESULTS / "generations.md").write_text("\n".join(text) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
