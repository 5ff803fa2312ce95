"""A Glow of normflows for whose 1x1 convolutions WICs answer, and that trains on.

    pip install 'wic-layers[normflows]' scikit-image matplotlib
    python examples/normflows_glow.py

Trains a Glow on patches of scikit-image's photographs with normflows alone, copies it, swaps the
copy's convolutions, and compares log-likelihoods at the swap. Then both train on, on the same
patches, with optimizers in the same state and a rate that falls to zero. Prints bits per dimension
in one table and draws one plot. (The two do not stay equal to the last digit: rounding differs.)
"""

from __future__ import annotations

import argparse
import copy
import math
import time
import warnings
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import normflows as nf
import numpy as np
import torch
from skimage import data
from torch import Tensor

from wic_layers import swap_1x1

SIZE, LEVELS, BLOCKS, HIDDEN, BATCH = 16, 2, 4, 64, 32
RATE = 1e-3
DIMENSIONS = 3 * SIZE**2


def glow() -> nf.MultiscaleFlow:
    q0, flows, merges = [], [], []
    for level in range(LEVELS):
        channels = 3 * 2 ** (LEVELS + 1 - level)
        blocks = [nf.flows.GlowBlock(channels, HIDDEN) for _ in range(BLOCKS)]
        flows.append([*blocks, nf.flows.Squeeze()])
        side = SIZE // 2 ** (LEVELS - level)
        if level:
            merges.append(nf.flows.Merge())
        q0.append(
            nf.distributions.DiagGaussian((channels // 2 if level else channels, side, side))
        )
    return nf.MultiscaleFlow(q0, flows, merges, class_cond=False)


def photographs() -> tuple[list[Tensor], list[Tensor]]:
    """Photographs to train on, and others to judge by, as 8-bit pixels (3, H, W)."""
    left, right, _ = data.stereo_motorcycle()
    trained = (data.coffee(), data.chelsea(), left, data.rocket())
    judged = (data.astronaut(), right[:, 300:])
    return [to_tensor(image) for image in trained], [to_tensor(image) for image in judged]


def to_tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def patches(images: list[Tensor], count: int, seed: int) -> Tensor:
    """Random patches, dequantized: (count, 3, SIZE, SIZE) in [-0.5, 0.5]."""
    chance = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        image = images[int(torch.randint(len(images), (), generator=chance))]
        i, j = (int(torch.randint(s - SIZE, (), generator=chance)) for s in image.shape[1:])
        found.append(image[:, i : i + SIZE, j : j + SIZE])
    whole = torch.stack(found).float()
    return (whole + torch.rand(whole.shape, generator=chance)) / 256 - 0.5


def bits(log_prob: Tensor) -> float:
    """Bits per dimension of 8-bit pixels."""
    return float(8 - log_prob.mean() / DIMENSIONS / math.log(2))


@torch.no_grad()
def judge(model: nf.MultiscaleFlow, x: Tensor) -> float:
    model.eval()
    found = bits(model.log_prob(x, None))
    model.train()
    return found


def train(
    model: nf.MultiscaleFlow,
    optimizer: torch.optim.Optimizer,
    images: list[Tensor],
    steps: range,
    held_out: Tensor,
    *,
    falling: bool,
) -> tuple[list[tuple[int, float]], float]:
    """Trains, and returns bits per dimension along the way and seconds of processor time."""
    curve = []
    began = time.process_time()
    for step in steps:
        left = (steps.stop - step) / len(steps) if falling else 1
        for group in optimizer.param_groups:
            group["lr"] = RATE * left
        optimizer.zero_grad(set_to_none=True)
        model.forward_kld(patches(images, BATCH, seed=step)).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 50.0)
        optimizer.step()
        if (step + 1) % 20 == 0:
            curve.append((step + 1, judge(model, held_out)))
    return curve, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=300, help="before the swap; half after")
    parser.add_argument("--out", type=Path, default=Path("normflows-glow.png"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "torch.lu is deprecated")  # normflows calls it
    torch.manual_seed(0)
    images, others = photographs()
    held_out = patches(others, 128, seed=1_000_000)
    original = glow()
    optimizer = torch.optim.Adam(original.parameters(), RATE)
    before, _ = train(original, optimizer, images, range(options.steps), held_out, falling=False)

    swapped, swapped_optimizer = copy.deepcopy((original, optimizer))
    print(swap_1x1(swapped))
    swapped.load_state_dict(original.state_dict())  # checkpoints go both ways
    original.load_state_dict(swapped.state_dict())
    with torch.no_grad():
        theirs, ours = (m.eval().log_prob(held_out, None) for m in (original, swapped))
    off = float(((theirs - ours) / theirs).abs().max())
    print(f"\nlog-likelihoods at the swap differ by {off:.1e} of themselves at most")

    further = range(options.steps, options.steps + options.steps // 2)
    curves = {}
    print("\n| bits per dimension | at the swap | at the end | processor time of the training |")
    print("|---|---|---|---|")
    for name, model, steps, start in (
        ("Glow of normflows", original.train(), optimizer, bits(theirs)),
        ("the same, with WIC", swapped.train(), swapped_optimizer, bits(ours)),
    ):
        curve, seconds = train(model, steps, images, further, held_out, falling=True)
        curves[name] = curve
        print(f"| {name} | {start:.4f} | {curve[-1][1]:.4f} | {seconds:.1f} s |", flush=True)

    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    axes.plot(*zip(*before, strict=True), color="0.6", label="before the swap")
    for (name, curve), style in zip(curves.items(), ("-", "--"), strict=True):
        axes.plot(*zip(before[-1], *curve, strict=True), style, linewidth=2, label=name)
    axes.axvline(options.steps, color="0.8", zorder=0)
    axes.set(xlabel="step", ylabel="bits per dimension, other photographs")
    axes.legend()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(options.out, dpi=120)
    print(f"\nSee {options.out}")


if __name__ == "__main__":
    main()
