"""IICNet led through its owner's whole way: trained there, upgraded, used here, and back there."""

import math
import re

import authors
import numpy as np
import photographs
import torch
from PIL import Image
from standins import iicnet

from wic_layers import cli
from wic_layers.models import from_pretrained, save_official

THEIRS = {
    "heads": "DB_heads",
    "described": "conv_1x1_heads",
    "merges": "conv_merges",
    "merged": "conv_1x1_tails",
    "tails": "DB_tails",
}
"""Parts of the relation module, by the stand-in's names and by the authors'."""
SIZE = {"in_nc": 6, "out_nc": 3}


def renamed(state, names):
    """A state dict with the parts of the relation module called otherwise."""
    part = re.compile(r"(0\.(?:forw|back)_rel)\.(\w+)\.")
    return {
        part.sub(lambda match: f"{match[1]}.{names[match[2]]}.", name): value
        for name, value in state.items()
    }


def read(path):
    """A file as their data sets give it: (1, 3, H, W), blue first."""
    with Image.open(path) as image:
        pixels = np.asarray(image)
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1).flip(0)[None].float() / 255


def test_the_owners_whole_way(tmp_path, monkeypatch):
    def rfft(x, **_):  # of the torch that their code was written for
        return torch.view_as_real(torch.fft.rfft2(x))

    monkeypatch.setattr(torch, "rfft", rfft, raising=False)
    photographs.write(tmp_path / "photographs")
    for name, source in (("left", "astronaut"), ("right", "more/chelsea")):
        with Image.open(tmp_path / f"photographs/{source}.png") as image:
            image.crop((100, 60, 148, 100)).save(tmp_path / f"{name}.png")
    views = torch.cat([read(tmp_path / f"{name}.png") for name in ("left", "right")], 1)

    # trained there, on a part of two pictures that have little in common
    there = iicnet.InvNet(SIZE)
    losses = [there.train(views[..., :32, :32]) for _ in range(10)]
    assert losses[-1] < 0.8 * losses[0], losses
    state = renamed(there.net.state_dict(), THEIRS)
    torch.save({f"module.{name}": value for name, value in state.items()}, tmp_path / "there.pth")
    theirs = there.embed(views)

    # as it is upgraded, its picture is the one that it was; then it is fine-tuned
    upgrade = ["upgrade", "iicnet", f"{tmp_path}/there.pth", "--task", "stereo", "-o"]
    assert cli.main([*upgrade, f"{tmp_path}/converted"]) == 0
    pack = ["pack", "stereo", f"{tmp_path}/left.png", f"{tmp_path}/right.png", "--weights"]
    assert cli.main([*pack, f"{tmp_path}/converted", "-o", f"{tmp_path}/before.png"]) == 0
    assert (read(tmp_path / "before.png") - theirs).abs().max() <= 1 / 255 + 1e-6
    tune = [
        "--data", f"{tmp_path}/photographs", "--steps", "2", "--crop", "32", "--batch", "1",
        "--held-out", "1", "--accelerator", "cpu", "--lr", "1e-3", "--warmup", "0",
    ]  # fmt: skip
    assert cli.main([*upgrade, f"{tmp_path}/here", *tune]) == 0

    # used here: packed, and unpacked again from the file alone
    assert cli.main([*pack, f"{tmp_path}/here", "-o", f"{tmp_path}/mono.png"]) == 0
    unpack = ["unpack", f"{tmp_path}/mono.png", "--weights", f"{tmp_path}/here", "-o"]
    assert cli.main([*unpack, f"{tmp_path}/view.png"]) == 0
    mono = read(tmp_path / "mono.png")
    assert not torch.equal(mono, read(tmp_path / "before.png"))

    # and back there, by their own loading function, with the kernel that was tuned here
    model = from_pretrained(tmp_path / "here")
    save_official(model, tmp_path / "back.pth")
    ours = {name: key for key, name in THEIRS.items()}
    returned = iicnet.InvNet(SIZE)
    returned.cs = authors.closed_iicnet(returned.net, 6).get_submodule("3")
    returned.load_current_state_dict(renamed(torch.load(tmp_path / "back.pth"), ours))
    assert not torch.equal(returned.cs.weight, authors.ChannelMean(2).as_wic(3).weight)
    assert (returned.embed(views) - mono).abs().max() <= 1 / 255 + 1e-6
    back = torch.cat([read(tmp_path / f"view-{number}.png") for number in (1, 2)], 1)
    restored = returned.restore(mono).clamp(0, 1)
    assert (restored - back).abs().max() <= 0.5 / 255 + 1e-5
    assert math.isfinite(returned.train(views))
