"""Damaged files through the command line: an image or one sentence, and never half a file."""

import io
import os
import random
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage import data
from strangers.drawing import mutated

from wic_layers import cli
from wic_layers.models import WIN

FILES = 250


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Encoded pictures by the command that reads them, and the weights that made them."""
    folder = tmp_path_factory.mktemp("originals")
    shared = {"couplings": 1, "growth": 4, "completion": "zero", "modules": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        WIN(6, 3, scale=1, width=32, **shared).save_pretrained(folder / "hiding")
        WIN(3, 3, scale=2, width=16, **shared).save_pretrained(folder / "rescaling")
        WIN(3, 1, scale=1, width=16, **shared).save_pretrained(folder / "decolorization")
    photo = Image.fromarray(data.chelsea()[100:133, 100:141])
    photo.save(folder / "photo.png")
    path = str(folder / "photo.png")
    for command, words, made in (
        ("hide", [path, path], "hiding"),
        ("down", [path], "rescaling"),
        ("gray", [path], "decolorization"),
    ):
        arguments = ["--weights", str(folder / made), "-o", str(folder / f"{command}.png")]
        assert cli.main([command, *words, *arguments]) == 0
    jpegs = []
    for options in ({}, {"progressive": True}, {"subsampling": 0, "quality": 95}):
        buffer = io.BytesIO()
        photo.save(buffer, "JPEG", **options)
        jpegs.append(buffer.getvalue())
    palette = io.BytesIO()
    photo.quantize(16).save(palette, "PNG")
    png = {name: (folder / f"{name}.png").read_bytes() for name in ("hide", "down", "gray")}
    plain = [(folder / "photo.png").read_bytes(), palette.getvalue(), *jpegs]
    return folder, {
        ("reveal", "hiding"): [png["hide"], *jpegs],
        ("up", "rescaling"): [png["down"], *jpegs],
        ("color", "decolorization"): [png["gray"], *jpegs],
        ("down", "rescaling"): plain,
        ("gray", "decolorization"): plain,
    }


@pytest.mark.slow
def test_damaged_files(originals, tmp_path, monkeypatch, capsys):
    folder, pictures = originals
    monkeypatch.chdir(tmp_path)
    chance = random.Random(0)
    seen = Counter()
    commands = list(pictures)
    for index in range(FILES):
        command, made = commands[index % len(commands)]
        content = mutated(chance.choice(pictures[command, made]), chance)
        Path("in.png").write_bytes(content)
        code = cli.main([command, "in.png", "-o", "out.png", "--weights", str(folder / made)])
        out, err = capsys.readouterr()
        left = sorted(os.listdir())
        if code == 0:
            assert left == ["in.png", "out.png"]
            Image.open("out.png").load()
            Path("out.png").unlink()
            assert "wic: error" not in err
        else:
            assert code == 2
            assert left == ["in.png"]
            assert out == ""
            assert err.startswith("wic: error: ")
            assert err.count("\n") == 1
        seen[command, code] += 1
    # every command read some, refused some; what is marked and damaged is never taken for whole
    assert all(seen[command, 2] for command, _ in commands)
    assert seen["down", 0]
    assert seen["gray", 0]
    print(dict(seen))
