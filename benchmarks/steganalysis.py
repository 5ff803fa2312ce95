r"""What an attacker sees who looks for hidden images: statistics of least bits, a small detector.

    python benchmarks/steganalysis.py run --photos PHOTOS --eval EVAL [--network TITLE=NETWORK ...]
    python benchmarks/steganalysis.py report

``run`` hides every picture of EVAL/BSD100, reduced by 2 and cut to 160 x 160, in the one before
it, by the package's weights, by every NETWORK (a preset or a folder of weights), by replacing the
four least bits of the cover by the secret's four highest, and the single least bit by random ones.
It adds a line for each to ``results/steganalysis.jsonl``, and leaves out what is there already.
``report`` writes ``results/steganalysis.md`` and ``.csv``. What an attacker who has neither cover
nor weights knows:

- pairs: the chi-square statistic of Westfeld and Pfitzmann (1999). Replacing least bits evens the
  numbers of pixels of the values 2i and 2i + 1 out.
- SPA: the rate of replaced least bits by sample pair analysis (Dumitrescu, Wu and Wang, 2003).
- detector: a network of 18,000 parameters on the noise of pixels (differences to neighbours),
  trained for this way of hiding on 39 PHOTOS and their stegos, crops of 64, 8 pairs a step. Its
  attacker has the hider's program, as anyone has who has this package.

AUC: how often a stego looks more suspicious than a cover does; 0.5 is guessing, 1 is certainty.
"found": how many of covers and stegos the detector sorts correctly, at the threshold that it was
trained with. All pictures are 8-bit; PSNR in dB, RGB.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
import trials
from torch import Tensor, nn

from wic_layers.codec.running import backward_pixels, load_network
from wic_layers.evaluation.protocol import mean_of_finite, reduce_by
from wic_layers.pictures import find_images, psnr, read_image
from wic_layers.tasks import HIDING
from wic_layers.training import Photographs, Settings
from wic_layers.training.command import split_off
from wic_layers.training.data import Batches, pack_crops

TRIALS = trials.Trials("steganalysis")
TASK = HIDING[0]
STEPS, BATCH, CROP = 300, 8, 64
SIDE = 160  # of what is cut out of pictures, so that all have as many pixels

Hide = Callable[[Tensor, Tensor], Tensor]  # batches of pixels, (B, 3, H, W), uint8
Reveal = Callable[[Tensor], Tensor]


def four_bits(cover: Tensor, secret: Tensor) -> Tensor:
    return (cover & 0xF0) | (secret >> 4)


def four_bits_back(stego: Tensor) -> Tensor:
    return ((stego & 0x0F) << 4) + 8


def one_bit(cover: Tensor, secret: Tensor) -> Tensor:
    return (cover & 0xFE) | torch.randint_like(cover, 2)


def by_network(name: str) -> tuple[Hide, Reveal]:
    _, network = load_network((TASK,), name)

    @torch.no_grad()
    def hide(cover: Tensor, secret: Tensor) -> Tensor:
        images = torch.cat((cover, secret), dim=1).float() / 255
        return (network(images).clamp(0, 1) * 255).round().byte()

    def reveal(stego: Tensor) -> Tensor:
        return backward_pixels(TASK, network, stego, [(SIDE, SIDE)])[-1]

    return hide, reveal


def pairs(image: Tensor) -> float:
    """How even values 2i and 2i + 1 are: minus the chi-square a degree of freedom."""
    found = []
    for channel in image:
        counts = torch.bincount(channel.flatten().long(), minlength=256).double().view(128, 2)
        counts = counts[counts.sum(1) >= 10]
        expected = counts.sum(1) / 2
        chi = ((counts[:, 0] - expected).square() / expected).sum()
        found.append(float(chi) / max(len(counts) - 1, 1))
    return -statistics.mean(found)


def sample_pairs(image: Tensor) -> float:
    """The estimated rate of replaced least bits, of neighbours in rows."""
    found = []
    for channel in image.long():
        r, s = channel[:, :-1].flatten(), channel[:, 1:].flatten()
        even = s % 2 == 0
        x = int((even & (r < s)).sum() + (~even & (r > s)).sum())
        y = int((even & (r > s)).sum() + (~even & (r < s)).sum())
        k = int((r // 2 == s // 2).sum())
        # the smaller root of 2k b^2 + 2 (2x - n) b + (y - x) = 0, twice
        a, b, c = 2 * k, 2 * (2 * x - len(r)), y - x
        root = max(b * b - 4 * a * c, 0) ** 0.5
        roots = [(-b + sign * root) / (2 * a) for sign in (1, -1)] if a else [0.0]
        found.append(2 * min(map(abs, roots)))
    return statistics.mean(found)


class Detector(nn.Module):
    """Says whether noise looks as if something was hidden: above 0 it does."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(9, width, 3, padding=1), nn.BatchNorm2d(width))
        self.rest = nn.Sequential(
            nn.AvgPool2d(2),
            *(nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()),
            nn.AvgPool2d(2),
            *(nn.Conv2d(width, 2 * width, 3, padding=1), nn.BatchNorm2d(2 * width), nn.ReLU()),
        )
        self.head = nn.Linear(2 * width, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, 3, H, W) of 0 to 255 to scores (B,)."""
        x = pixels.float()
        inner = x[..., 1:-1, 1:-1]
        across, down = inner - x[..., 1:-1, 2:], inner - x[..., 2:, 1:-1]
        around = (4 * inner - x[..., 1:-1, :-2] - x[..., 1:-1, 2:]) - (
            x[..., :-2, 1:-1] + x[..., 2:, 1:-1]
        )
        noise = torch.cat((across, down, around), 1).clamp(-6, 6) / 3
        found: Tensor = self.head(self.rest(self.first(noise).abs()).mean((2, 3)))
        return found[:, 0]


def train(hide: Hide, photos: Photographs) -> Detector:
    torch.manual_seed(0)
    detector = Detector()
    optimizer = torch.optim.AdamW(detector.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, STEPS)
    settings = Settings(preset=TASK.preset, batch=BATCH, crop=CROP, seed=0)
    batches = Batches(photos, TASK, settings, 0, 1)
    for step in range(STEPS):
        packed, _ = pack_crops(batches[step], TASK)
        covers, secrets = ((packed * 255).round().byte()).split(3, dim=1)
        scores = detector(torch.cat((covers, hide(covers, secrets))))
        labels = torch.arange(2).repeat_interleave(BATCH).float()
        loss = nn.functional.binary_cross_entropy_with_logits(scores, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 99:
            print(f"  step {step + 1}: loss {loss.item():.3f}", flush=True)
    return detector.eval()


def auc(covers: list[float], stegos: list[float]) -> float:
    difference = torch.tensor(stegos)[:, None] - torch.tensor(covers)
    return float(((difference > 0).double() + (difference == 0).double() / 2).mean())


def run(args: argparse.Namespace) -> None:
    networks = {f"package ({TASK.preset})": TASK.preset}
    networks.update(given.split("=", 1) for given in args.network)
    ways: dict[str, tuple[Hide, Reveal | None]] = {
        "least bit, random": (one_bit, None),
        "4 least bits": (four_bits, four_bits_back),
    }
    photos, _ = split_off(find_images(args.photos), 4)
    images = [reduce_by(read_image(path), 2) for path in find_images(args.eval / "BSD100")]
    images = [image[:, :SIDE, :SIDE] for image in images]
    rows = ({"hidden by": title, "steps": STEPS} for title in (*ways, *networks))
    for row in TRIALS.missing(rows, args.hours):
        title = row["hidden by"]
        hide, reveal = ways[title] if title in ways else by_network(networks[title])
        torch.manual_seed(0)
        secrets = images[1:] + images[:1]
        stegos = [hide(c[None], s[None])[0] for c, s in zip(images, secrets, strict=True)]
        result = {"stego": mean_of_finite([*map(psnr, stegos, images)])}
        if reveal is not None:
            result["secret"] = mean_of_finite([*map(psnr, map(reveal, stegos), secrets)])
        for name, statistic in (("pairs", pairs), ("SPA", sample_pairs)):
            of_covers, of_stegos = (
                [statistic(image) for image in found] for found in (images, stegos)
            )
            result[f"{name}, AUC"] = auc(of_covers, of_stegos)
        result["SPA, covers"], result["SPA, stegos"] = map(statistics.mean, (of_covers, of_stegos))
        detector = train(hide, Photographs(photos, reduce=2, levels=3))
        with torch.no_grad():
            of_covers, of_stegos = (
                [float(detector(image[None])) for image in found] for found in (images, stegos)
            )
        right = sum(score <= 0 for score in of_covers) + sum(score > 0 for score in of_stegos)
        result["detector, AUC"] = auc(of_covers, of_stegos)
        result["detector, found"] = right / len(images) / 2
        TRIALS.add(row, result)


def report() -> None:
    lines = TRIALS.read()
    text = [
        "| hidden by | stego | secret | pairs, AUC | SPA, AUC | SPA's rate, covers / stegos | "
        "detector, AUC | found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        secret = f"{line['secret']:.2f}" if "secret" in line else ""
        text.append(
            f"| {line['hidden by']} | {line['stego']:.2f} | {secret} | {line['pairs, AUC']:.2f} | "
            f"{line['SPA, AUC']:.2f} | {line['SPA, covers']:.2f} / {line['SPA, stegos']:.2f} | "
            f"{line['detector, AUC']:.2f} | {line['detector, found']:.0%} |"
        )
    TRIALS.write(text, lines)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--network", action="append", default=[], metavar="TITLE=NETWORK")


if __name__ == "__main__":
    trials.main(__doc__, arguments, run, report)
