r"""Whether a small picture should carry more: what was dropped, coarsely, in the same file.

    python benchmarks/detail.py BSD100 PHOTOS [--most 10] [--reduce 1 4]

``down`` throws away what is not in the small picture. Here its file has a part more: the residual
between the photograph and what comes back, or the channels that the last WIC drops less their
completion, quantised and coded by AVIF. Beside it stand what else the same bytes buy, each at the
best quality that fits: bicubic's small PNG with the residual of its enlargement as WebP or AVIF,
and the whole photograph as JPEG, WebP and AVIF (JPEG XL where Pillow writes it). Bytes are those
of whole files in all rows, PSNR is that of the photograph in RGB, means over the pictures.

``--reduce`` says for each folder how many times smaller its pictures are made first; sides are
then cut to 512. Writes ``results/detail.md``.
"""

from __future__ import annotations

import argparse
import io
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from trials import RESULTS

from wic_layers.codec.carrier import CARRIER
from wic_layers.evaluation.protocol import bicubic, reduce_by
from wic_layers.layer.conv import WIC
from wic_layers.layer.losses import record_wic
from wic_layers.models import Network, from_pretrained
from wic_layers.pictures import as_pixels, encode_png, find_images, psnr, read_image, size_of
from wic_layers.pictures.writing import to_pil

SETTINGS = (15, 35, 55, 75, 90)  # qualities of the part
STEP = 1 / 255  # of the dropped channels

Coded = tuple[int, Tensor]
"""Bytes of a file, and the pixels that come out of it."""


def coded(pixels: Tensor, kind: str, quality: int) -> Coded:
    buffer = io.BytesIO()
    options = {"speed": 8} if kind == "AVIF" else {}
    to_pil(pixels).save(buffer, kind, quality=quality, **options)
    with Image.open(buffer) as image:
        out = as_pixels(image.convert("RGB"))
    return len(buffer.getvalue()), out[: len(pixels)]


def with_residual(
    small: int, base: Tensor, photo: Tensor, kind: str, quality: int
) -> tuple[int, Tensor]:
    """A small picture of some bytes, and the residual of what comes back from it."""
    residual = (photo.int() - base.int() + 128).clamp(0, 255).byte()
    size, back = coded(residual, kind, quality)
    return small + size, (base.int() + back.int() - 128).clamp(0, 255).byte()


class Stored(nn.Module):
    """A completion that was stored, in place of one computed from what is left."""

    def __init__(self, channels: Tensor) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, y: Tensor) -> Tensor:
        return self.channels[None]


def with_dropped(model: Network, small: Tensor, photo: Tensor, size: int, quality: int) -> Coded:
    """A small picture, and the channels that its last WIC drops, side by side in one picture."""
    x = photo[None].float() / 255
    last = [module for module in model.modules() if isinstance(module, WIC)][-1]
    with torch.no_grad():
        with record_wic(model) as records:
            model(x)
        dropped = next(iter(records)).extra[0]  # the completion is zero
        tiles = (dropped / STEP + 128).round().clamp(0, 255).byte()
        side = round(len(tiles) ** 0.5)
        mosaic = torch.cat([torch.cat(list(row), 1) for row in tiles.split(side)], 0)
        bytes_now, back = coded(mosaic[None], "AVIF", quality)
        height, width = dropped.shape[1:]
        parts = [strip.split(width, 1) for strip in back[0].split(height, 0)]
        extra = torch.stack([part for strip in parts for part in strip]).float()
        own = last.completion
        last.completion = Stored((extra - 128) * STEP)
        try:
            restored = CARRIER.pixels(model.inverse(small[None].float() / 255))[0]
        finally:
            last.completion = own
    return size + bytes_now, restored


def best(code: Callable[[int], Coded], most: int) -> Coded | None:
    """What comes out at the highest quality of at most so many bytes; None if none is small."""
    low, high, found = 1, 100, None
    while low <= high:
        quality = (low + high) // 2
        result = code(quality)
        if result[0] <= most:
            found, low = result, quality + 1
        else:
            high = quality - 1
    return found


def measured(model: Network, photo: Tensor) -> list[dict[str, tuple[int, float] | None]]:
    """Bytes and PSNR of every way, for each setting; ours first."""
    with torch.no_grad():
        small = CARRIER.pixels(model(photo[None].float() / 255))[0]
        base = CARRIER.pixels(model.inverse(small[None].float() / 255))[0]
    size = len(encode_png(small))
    width, height = size_of(photo)
    plain = bicubic(photo, (width // 2, height // 2))
    plain_size, enlarged = len(encode_png(plain)), bicubic(plain, (width, height))
    others: dict[str, Callable[[int], Coded]] = {
        f"bicubic's PNG + {kind} of the residual": partial(
            with_residual, plain_size, enlarged, photo, kind
        )
        for kind in ("WEBP", "AVIF")
    }
    Image.init()
    kinds = [kind for kind in ("JPEG", "WEBP", "AVIF", "JXL") if kind in Image.SAVE]
    others |= {f"{kind} of the photograph": partial(coded, photo, kind) for kind in kinds}
    rows = []
    for quality in SETTINGS:
        ours = {
            "small PNG + residual": with_residual(size, base, photo, "AVIF", quality),
            "small PNG + dropped channels": with_dropped(model, small, photo, size, quality),
        }
        most = max(each[0] for each in ours.values())
        every = {**ours, **{name: best(code, most) for name, code in others.items()}}
        rows.append(
            {
                name: None if each is None else (each[0], min(psnr(each[1], photo), 99.0))
                for name, each in every.items()
            }
        )
    rows.insert(0, {"small PNG": (size, psnr(base, photo))})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--most", type=int, default=10)
    parser.add_argument("--reduce", type=int, nargs="+", default=[1, 4])
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = from_pretrained("rescaling-x2-naive-small")
    text = []
    for folder, factor in zip(args.folders, args.reduce, strict=True):
        paths = find_images(folder)
        paths = paths[:: max(len(paths) // args.most, 1)][: args.most]
        found = []
        for path in paths:
            photo = reduce_by(read_image(path), factor)[:, :512, :512]
            height, width = (side // 2 * 2 for side in photo.shape[1:])
            found.append(measured(model, photo[:, :height, :width].contiguous()))
            print(path.name, flush=True)
        text += [f"## {folder.resolve().name}, {len(found)} pictures, reduced by {factor}", ""]
        names = list(found[0][1])
        text += [f"| part | {' | '.join(names)} |", f"|---{'|---' * len(names)}|"]
        (bare,) = ([each[0]["small PNG"] for each in found],)
        alone = [each for each in bare if each is not None]
        text.append(
            f"| none | {statistics.mean(e[0] for e in alone):,.0f} bytes, "
            f"{statistics.mean(e[1] for e in alone):.2f} dB |" + " |" * (len(names) - 1)
        )
        for index, quality in enumerate(SETTINGS, start=1):
            cells = []
            for name in names:
                values = [each[index][name] for each in found]
                fits = [value for value in values if value is not None]
                if len(fits) < len(values):
                    cells.append("does not fit")
                    continue
                size = statistics.mean(value[0] for value in fits)
                cells.append(f"{size:,.0f} bytes, {statistics.mean(v[1] for v in fits):.2f} dB")
            text.append(f"| AVIF {quality} | {' | '.join(cells)} |")
        text.append("")
    (RESULTS / "detail.md").write_text("\n".join(text).strip() + "\n", encoding="utf-8")
    print("\n".join(text))


if __name__ == "__main__":
    main()
