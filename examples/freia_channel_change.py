"""A FrEIA graph that changes the number of channels: a photograph to a quarter of it, and back.

    pip install 'wic-layers[freia,images]' scikit-image
    python examples/freia_channel_change.py

The graph squeezes pixels into channels, widens 12 to 16, couples, and narrows to the 3 channels of
a picture of half the size. It is trained for a minute on three photographs, so that the small
picture looks like the large one; then another photograph goes through an 8-bit picture and comes
back.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data
from torch import Tensor

from wic_layers import det_loss, quantize, record_wic, shift_loss
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.freia import WIC, Coupling

CROP = 48


def subnet(c_in: int, c_out: int) -> torch.nn.Module:
    return DenseBlock(c_in, c_out, growth=12)


def build() -> Ff.GraphINN:
    nodes = [Ff.InputNode(3, CROP, CROP, name="photograph")]

    def add(module: type, name: str, **arguments: object) -> None:
        nodes.append(Ff.Node(nodes[-1], module, arguments, name=name))

    add(Fm.IRevNetDownsampling, "squeeze")
    add(WIC, "widen", out_channels=16)
    for index in range(3):
        add(Coupling, f"couple {index}", subnet_constructor=subnet)
    add(WIC, "narrow", out_channels=3, completion="zero")
    return Ff.GraphINN([*nodes, Ff.OutputNode(nodes[-1], name="small picture")])


def widen() -> None:
    """12 channels to 48 and exactly back: one node."""
    source = Ff.InputNode(12, 32, 32)
    node = Ff.Node(source, WIC, {"out_channels": 48})
    graph = Ff.GraphINN([source, node, Ff.OutputNode(node)])
    x = torch.randn(4, 12, 32, 32)
    y, log_det = graph(x)
    back, log_det_back = graph(y, rev=True)
    print(f"{tuple(x.shape)} -> {tuple(y.shape)} and back within {(back - x).abs().max():.1e}")
    print(f"log-volumes {tuple(log_det.shape)}, the negative on the way back:", end=" ")
    print(torch.equal(log_det, -log_det_back), end="\n\n")


def pixels(image: np.ndarray) -> Tensor:
    """(1, 3, H, W) in [0, 1], even sizes."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    return torch.from_numpy(even.copy()).permute(2, 0, 1)[None].float() / 255


def picture(tensor: Tensor) -> Image.Image:
    return Image.fromarray((tensor[0] * 255).round().byte().permute(1, 2, 0).numpy())


def psnr(a: Tensor, b: Tensor) -> float:
    return float(-10 * (a - b).square().mean().log10())


def reduced(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=0.5, mode="bicubic", antialias=True).clamp(0, 1)


def train(model: Ff.GraphINN, photographs: list[Tensor], steps: int) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for step in range(steps):
        crops = []
        for _ in range(8):
            image = photographs[int(torch.randint(len(photographs), ()))]
            i, j = (int(torch.randint(side - CROP + 1, ())) for side in image.shape[2:])
            crops.append(image[..., i : i + CROP, j : j + CROP])
        x = torch.cat(crops)
        target = reduced(x)
        with record_wic(model) as records:
            small, _ = model(x, jac=False)
        back, _ = model(quantize(small), rev=True, jac=False)
        loss = (back - x).abs().sum() / len(x) + 8 * (small - target).square().sum() / len(x)
        loss = loss + 0.1 * det_loss(model) + 0.01 * shift_loss(records, target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(
                f"step {step:4d}  small {psnr(small.detach(), target):5.2f} dB, "
                f"restored {psnr(back.detach(), x):5.2f} dB",
                flush=True,
            )


@torch.no_grad()
def show(model: Ff.GraphINN, photograph: Tensor, path: Path) -> None:
    """Sends a photograph that was not trained on through 8 bits, and draws what comes back."""
    model.eval()
    small, _ = model(photograph)
    small = quantize(small)
    restored = quantize(model(small, rev=True)[0])
    wanted = quantize(reduced(photograph))
    plain = F.interpolate(wanted, size=photograph.shape[2:], mode="bicubic").clamp(0, 1)
    print(f"small picture: {psnr(small, wanted):.2f} dB from bicubic's")
    print(f"restored:      {psnr(restored, photograph):.2f} dB")
    print(f"by bicubic:    {psnr(plain, photograph):.2f} dB")
    pictures = [picture(tensor) for tensor in (photograph, small, restored)]
    width, height = sum(image.width + 10 for image in pictures), pictures[0].height
    sheet = Image.new("RGB", (width - 10, height), "white")
    left = 0
    for image in pictures:
        sheet.paste(image, (left, 0))
        left += image.width + 10
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
    print(f"See {path}: the photograph, the small picture, the restored one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--out", type=Path, default=Path("freia-channel-change.png"))
    options = parser.parse_args()
    torch.manual_seed(0)
    widen()
    model = build()
    left, _, _ = data.stereo_motorcycle()
    train(model, [pixels(image) for image in (data.coffee(), data.chelsea(), left)], options.steps)
    show(model, pixels(data.astronaut()[:320, 60:380]), options.out)


if __name__ == "__main__":
    main()
