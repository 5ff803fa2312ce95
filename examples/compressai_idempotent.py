"""A learned codec that loses nothing when its picture is compressed again, with CompressAI.

Programs open a picture and save it again, and every time a lossy codec takes a little more. It
does not where the encoder f has a right inverse g, f(g(y)) = y: what was decoded is encoded to the
very same numbers (Idempotent Learned Image Compression with Right-Inverse, Li et al., NeurIPS
2023). A narrowing WIC is such a layer, and so is a chain of narrowing ones with squeezes and
couplings: ``inverse`` is g. Beside it stands a transform of strided convolutions with as many
parameters, both trained for as many steps with CompressAI's entropy bottleneck, which writes the
bits.

    pip install 'wic-layers[images]' compressai scikit-image
    python examples/compressai_idempotent.py --steps 1500

Prints bits per pixel and PSNR of the first round and of the last, each through 8-bit pixels; the
share of latents of the last that are not those of the first; the last round whose file was another
than the one before; and the share of latents that change in one round whose pixels are not rounded
to 8 bits, which the right inverse makes 0.
"""

from __future__ import annotations

import argparse
import itertools
import time

import torch
import torch.nn.functional as F
from compressai.entropy_models import EntropyBottleneck
from skimage import data
from torch import Tensor, nn

from wic_layers import WIC, quantize
from wic_layers.blocks import AffineCoupling, Chain, DenseBlock, Squeeze

LATENT = 32  # channels, at an eighth of the sides
STEP = 24.0  # quantization steps in the range of a pixel, at the start


class RightInvertible(nn.Module):
    """Squeezes, couplings and narrowing layers: 3 channels to 32 at an eighth of the sides."""

    def __init__(self) -> None:
        super().__init__()
        self.chain = Chain(
            Squeeze(2), *_couplings(12), WIC(12, 8), Squeeze(2), *_couplings(32), WIC(32, 16),
            Squeeze(2), *_couplings(64), WIC(64, LATENT),
        )  # fmt: skip

    def encode(self, x: Tensor) -> Tensor:
        """The latent of pictures in [0, 1]."""
        return STEP * self.chain(x - 0.5)

    def decode(self, y: Tensor) -> Tensor:
        """Pictures of which :meth:`encode` makes this latent."""
        return self.chain.inverse(y / STEP) + 0.5


def _couplings(channels: int) -> list[nn.Module]:
    def subnet(inner: int, outer: int) -> nn.Module:
        return DenseBlock(inner, outer, growth=16)

    return [AffineCoupling(channels, subnet=subnet) for _ in range(2)]


class Strided(nn.Module):
    """The usual transform: convolutions with strides there, transposed ones back."""

    def __init__(self, width: int) -> None:
        super().__init__()
        there, back = (3, width, width, LATENT), (LATENT, width, width, 3)
        self.there = nn.Sequential(*_layers(nn.Conv2d, there, {}))
        self.back = nn.Sequential(*_layers(nn.ConvTranspose2d, back, {"output_padding": 1}))

    def encode(self, x: Tensor) -> Tensor:
        """The latent of pictures in [0, 1]."""
        latent: Tensor = STEP * self.there(x - 0.5)
        return latent

    def decode(self, y: Tensor) -> Tensor:
        """Pictures that look like those of this latent."""
        pictures: Tensor = self.back(y / STEP) + 0.5
        return pictures


def _layers(
    kind: type[nn.Module], sizes: tuple[int, ...], more: dict[str, int]
) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for inner, outer in itertools.pairwise(sizes):
        layers += [kind(inner, outer, 5, stride=2, padding=2, **more), nn.LeakyReLU()]
    return layers[:-1]


class Codec(nn.Module):
    """A transform, and the entropy bottleneck that writes its latent."""

    def __init__(self, transform: RightInvertible | Strided) -> None:
        super().__init__()
        self.transform = transform
        self.bottleneck = EntropyBottleneck(LATENT)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The pictures that come back, and bits per pixel."""
        y, likelihoods = self.bottleneck(self.transform.encode(x))
        bits = -likelihoods.log2().sum() / (x.shape[0] * x.shape[2] * x.shape[3])
        return self.transform.decode(y), bits

    @torch.no_grad()
    def again(self, x: Tensor) -> tuple[Tensor, list[bytes]]:
        """8-bit pictures through a file: what is read from it, and its bytes."""
        strings: list[bytes] = self.bottleneck.compress(self.transform.encode(x))
        return quantize(self.transform.decode(self.read(strings, x)).clamp(0, 1)), strings

    def read(self, strings: list[bytes], x: Tensor) -> Tensor:
        """The latent of files of pictures that are as large as these."""
        sides = [side // 8 for side in x.shape[2:]]
        latent: Tensor = self.bottleneck.decompress(strings, sides)
        return latent


def photographs(side: int) -> tuple[Tensor, Tensor]:
    """Those of scikit-image to train on, and three squares of another to judge by."""
    names = ("coffee", "chelsea", "rocket", "immunohistochemistry")
    train = [_tensor(getattr(data, name)()) for name in names]
    smallest = [min(picture.shape[axis] for picture in train) for axis in (1, 2)]
    pictures = torch.stack([each[:, : smallest[0], : smallest[1]] for each in train])
    judged = _tensor(data.astronaut())
    corners = ((0, 128), (128, 256), (256, 64))
    squares = [judged[:, y : y + side, x : x + side] for y, x in corners]
    return pictures, torch.stack(squares)


def _tensor(pixels: object) -> Tensor:
    return torch.as_tensor(pixels).movedim(2, 0).float() / 255


def train(codec: Codec, pictures: Tensor, steps: int, weight: float) -> float:
    """Trains for the bits and ``weight`` times the squared error; returns the seconds."""
    quantiles = [codec.bottleneck.quantiles]
    others = [p for name, p in codec.named_parameters() if not name.endswith("quantiles")]
    optimizer = torch.optim.Adam(others, 1e-3)
    tails = torch.optim.Adam(quantiles, 1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    begin = time.perf_counter()
    for _ in range(steps):
        crops = []
        for _ in range(4):
            index = int(torch.randint(len(pictures), ()))
            top, left = (int(torch.randint(size - 64, ())) for size in pictures.shape[2:])
            crops.append(pictures[index, :, top : top + 64, left : left + 64])
        x = torch.stack(crops)
        back, bits = codec(x)
        loss = bits + weight * 255**2 * F.mse_loss(back, x)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        optimizer.step()
        schedule.step()
        tails.zero_grad()
        codec.bottleneck.loss().backward()
        tails.step()
    codec.eval()
    codec.bottleneck.update(force=True)
    return time.perf_counter() - begin


def psnr(x: Tensor, y: Tensor) -> float:
    """In dB, of all pictures together."""
    return float(-10 * (x - y).square().mean().log10())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--weight", type=float, default=0.01, help="of the squared error")
    parser.add_argument("--side", type=int, default=192, help="of the judged squares")
    args = parser.parse_args()
    pictures, judged = photographs(args.side)
    for name, build in (("right-invertible", RightInvertible), ("strided", lambda: Strided(102))):
        torch.manual_seed(0)
        codec = Codec(build())
        parameters = sum(p.numel() for p in codec.transform.parameters())
        seconds = train(codec, pictures, args.steps, args.weight)
        print(f"{name}: {parameters:,} parameters, trained in {seconds:.0f} s")
        judge(codec, judged, args.rounds)


def judge(codec: Codec, judged: Tensor, rounds: int) -> None:
    """Prints what becomes of pictures in some rounds."""

    def show(number: int, x: Tensor, strings: list[bytes]) -> None:
        bits = 8 * sum(map(len, strings)) / judged[:, 0].numel()
        print(f"  round {number:>2}: {bits:.3f} bits per pixel, {psnr(x, judged):.2f} dB")

    x, first = codec.again(judged)
    show(1, x, first)
    last, changed_in = first, 1
    for number in range(2, rounds + 1):
        before = last
        x, last = codec.again(x)
        changed_in = number if last != before else changed_in
    show(rounds, x, last)
    latent = codec.read(first, judged)
    changed = float((codec.read(last, judged) != latent).float().mean())
    print(f"  {changed:.3%} of latents changed; the last file that did was of round {changed_in}")
    with torch.no_grad():
        strings = codec.bottleneck.compress(codec.transform.encode(codec.transform.decode(latent)))
    changed = float((codec.read(strings, judged) != latent).float().mean())
    print(f"  {changed:.3%} in a round without 8-bit pixels", flush=True)


if __name__ == "__main__":
    main()
