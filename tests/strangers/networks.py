"""Doors of networks: folders of weights, checkpoints, settings, trainings to be resumed."""

from __future__ import annotations

import hashlib
import json
import math
import os
import random
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from strangers.drawing import VALUES, Door, damaged, mutated
from wic_layers.models import (
    IRN,
    NETWORKS,
    WINNaive,
    from_pretrained,
    load_official,
    save_official,
)


class Weights(Door):
    """A folder of weights: its tensors, whose hash is right, and its arguments."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.honest = WINNaive(3, 1, couplings=1, growth=2).save_pretrained(self.folder / "honest")
        from_pretrained(self.honest)
        slow = {"sympy", "torch._dynamo"} & sys.modules.keys()
        assert not slow, "seconds of imports for weights, such as to draw numbers on no device"
        self.blob = (self.honest / "model.safetensors").read_bytes()
        self.config = json.loads((self.honest / "config.json").read_text())
        self.open = from_pretrained

    def written(self, name: str, blob: bytes, **changes: object) -> Path:
        path = self.folder / name
        path.mkdir(exist_ok=True)
        (path / "model.safetensors").write_bytes(blob)
        sha256 = hashlib.sha256(blob).hexdigest()
        text = json.dumps({**self.config, "sha256": sha256, **changes})
        (path / "config.json").write_text(text)
        return path

    def attacks(self) -> list[Path]:
        networks = {
            "growth": ("IRN", {"growth": 4000}),
            "couplings": ("IRN", {"couplings": 100_000, "growth": 1}),
            "shift": (
                "WINNaive",
                {"in_channels": 10**8, "out_channels": 1, "couplings": 0, "completion": "shift"},
            ),
            "mean": (
                "IICNet",
                {"in_channels": 3 * 10**5, "out_channels": 1, "couplings": 0, "features": 0},
            ),
            "modules": ("WIN", {"in_channels": 6, "out_channels": 3, "modules": 10**8}),
            "steps": ("HCFlow", {"steps": 10**8, "depth": 10**8}),
            "split": ("WIN", {"in_channels": 3, "out_channels": 2, "scale": 4, "split": 5e-324}),
            "infinite": ("WIN", {"in_channels": 6, "out_channels": 3, "split": math.inf}),
            "digits": ("IRN", {"in_channels": 10**4000}),
        }
        paths = [
            self.written(name, self.blob, network=network, arguments=arguments)
            for name, (network, arguments) in networks.items()
        ]
        paths += [
            self.written(dtype, safetensors({"a": (dtype, [2], size)}))
            for dtype, size in (("F8_E8M0", 2), ("F4", 1), ("C64", 16), ("F64", 16))
        ]
        paths.append(self.written("lies", safetensors({"a": ("F32", [10**9], 4)})))
        paths.append(self.written("digits of a shape", safetensors({"a": ("F32", [10**4000], 4)})))
        paths.append(self.written("long", self.blob, card={"a": "x" * 2_000_000}))
        for name in ("model.safetensors", "config.json"):
            for device in ("/dev/zero", "fifo"):
                path = self.written(f"{name} of {device[-4:]}", self.blob)
                (path / name).unlink()
                if device == "fifo":
                    os.mkfifo(path / name)
                else:
                    (path / name).symlink_to(device)
                paths.append(path)
        return paths

    def make(self, chance: random.Random) -> Path:
        if chance.random() < 0.3:
            return self.written("drawn", mutated(self.blob, chance))
        network = NETWORKS[chance.choice(list(NETWORKS))].__name__
        names = [
            "in_channels", "out_channels", "scale", "couplings", "growth", "width", "split",
            "modules", "features", "steps", "depth", "w_channels", "completion", "copies",
            "layout", "order", "haar", "random_z", "z",
        ]  # fmt: skip
        arguments = dict(self.config["arguments"])
        if chance.random() < 0.7:
            arguments = {"in_channels": 3, "out_channels": 1}
        for name in chance.sample(names, chance.randrange(1, 4)):
            arguments[name] = chance.choice(VALUES)
        if chance.random() < 0.2:
            changes = {**self.config, "network": network}
            key = chance.choice(list(changes))
            changes[key] = damaged(changes[key], chance)
            return self.written("drawn", self.blob, **changes)
        return self.written("drawn", self.blob, network=network, arguments=arguments)


def safetensors(tensors: dict[str, tuple[str, list[int], int]]) -> bytes:
    """A file with that many bytes of zeros for each tensor, whatever its shape asks for."""
    header, end = {}, 0
    for name, (dtype, shape, size) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


class Checkpoints(Door):
    """A ``.pth`` file of somebody else's code."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.honest = self.folder / "honest.pth"
        save_official(IRN(couplings=1, growth=2, random_z=True), self.honest)
        self.state = torch.load(self.honest, weights_only=True)
        self.open = load_official

    def saved(self, name: str, value: object) -> Path:
        path = self.folder / f"{name}.pth"
        torch.save(value, path)
        return path

    def attacks(self) -> list[Path]:
        first = "operations.1.F.conv1.bias"
        itself: dict[str, object] = {}
        itself["itself"] = itself
        shared: dict[str, object] = {}
        for _ in range(28):
            shared = {"a": shared, "b": shared}
        deep: dict[str, object] = {}
        for _ in range(200):
            deep = {"k" * 1000: deep}
        few = {first: torch.zeros(1).expand(20_000)}
        changes = {
            "stride": {first: torch.zeros(1).expand(10**9)},
            "growth": few,
            "operations": {"operations.9999999.F": torch.zeros(1)},
            "digits": {f"operations.{'9' * 5000}.F": torch.zeros(1)},
            "meta": {first: torch.zeros(10**12, device="meta")},
            "complex": {first: torch.zeros(2, dtype=torch.complex64)},
            "scalar": {first: torch.zeros(())},
        }
        paths = [self.saved(name, {**self.state, **more}) for name, more in changes.items()]
        paths += [
            self.saved(name, value)
            for name, value in (("itself", itself), ("shared", shared), ("deep", deep))
        ]
        packed = self.folder / "packed.pth"
        torch.save({first: torch.zeros(100_000_000)}, self.folder / "large.pth")
        with (
            zipfile.ZipFile(self.folder / "large.pth") as source,
            zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as target,
        ):
            for part in source.infolist():
                target.writestr(part.filename, source.read(part))
        (self.folder / "large.pth").unlink()
        endless = self.folder / "endless.pth"
        endless.symlink_to("/dev/zero")
        return [*paths, packed, endless]

    def make(self, chance: random.Random) -> Path:
        kind = chance.randrange(4)
        if kind == 0:
            path = self.folder / "drawn.pth"
            path.write_bytes(mutated(self.honest.read_bytes(), chance))
            return path
        if kind == 1:  # the values inside, of an archive that is whole
            path = self.folder / "drawn.pth"
            with zipfile.ZipFile(self.honest) as source, zipfile.ZipFile(path, "w") as target:
                for part in source.infolist():
                    content = source.read(part)
                    is_pickle = part.filename.endswith("data.pkl")
                    target.writestr(part, mutated(content, chance) if is_pickle else content)
            return path
        state = damaged(self.state, chance)
        if kind == 2 and isinstance(state, dict) and state:
            key = chance.choice(list(state))
            parts = key.split(".")
            parts[chance.randrange(len(parts))] = chance.choice(
                ["9" * 6, "9" * 12, "9" * 5000, "F", "haar_weights", "conv_weights", ""]
            )
            state[".".join(parts)] = state.pop(key)
        return self.saved("drawn", state)


class Settings(Door):
    """A YAML file of a training."""

    def __init__(self, folder: Path) -> None:
        from wic_layers.training.recipe import Settings

        super().__init__(folder)
        self.honest = self.folder / "honest.yaml"
        Settings(preset="rescaling-x2-tiny", data=("a", "b")).write(self.honest, {})
        self.open = lambda path: Settings.from_dict(Settings.read(path), str(path))

    def written(self, name: str, text: str) -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(text)
        return path

    def attacks(self) -> list[Path]:
        names = ["data", "levels", "steps", "batch", "crop", "every", "seed", "warmup", "clip"]
        nine = "[x, x, x, x, x, x, x, x, x]"
        laughs = [f"{names[0]}: &n0 {nine}"]
        merged = ["a: &n0 {x1: 1, x2: 2, x3: 3, x4: 4, x5: 5, x6: 6, x7: 7, x8: 8}"]
        for index, name in enumerate(names[1:], 1):
            below = ", ".join([f"*n{index - 1}"] * 9)
            laughs.append(f"{name}: &n{index} [{below}]")
            merged.append(f"{name}: &n{index} {{<<: [{below}]}}")
        texts = {
            "aliases": "\n".join(laughs),
            "aliases as a text": "\n".join([*laughs, "preset: *n8"]),
            "merged": "\n".join(merged),
            "itself": "steps: &a [*a]",
            "brackets": "steps: " + "[" * 5000,
            "digits": "seed: " + "9" * 6000,
            "hexadecimal": "seed: 0x" + "9" * 6000,
            "hexadecimal in a list": "steps: [0x" + "9" * 6000 + "]",
            "a large seed": "seed: 99999999999999999999",
            "a name": f"{'x' * 50_000}: 1",
            "date": "steps: 2001-99-99",
            "long": "steps: " + "x" * 90_000,
            "too long": "steps: " + "x" * 2_000_000,
            "sexagesimal": "steps: 1" + ":59" * 20_000,
        }
        endless = self.folder / "endless.yaml"
        endless.symlink_to("/dev/zero")
        return [*(self.written(name, text) for name, text in texts.items()), endless]

    def make(self, chance: random.Random) -> Path:
        lines = self.honest.read_text().splitlines()
        values = [line for line in lines if line and not line.startswith("#")]
        if chance.random() < 0.5:
            content = mutated("\n".join(values).encode(), chance)
        else:
            place = chance.randrange(len(values))
            value = chance.choice([repr(each) for each in VALUES if each != 10**400])
            values[place] = f"{values[place].partition(':')[0]}: {value}"
            content = "\n".join(values).encode()
        path = self.folder / "drawn.yaml"
        path.write_bytes(content)
        return path


class Trainings(Door):
    """The checkpoint of a training that is to be resumed."""

    def __init__(self, folder: Path) -> None:
        from wic_layers.models import WIN
        from wic_layers.tasks import TASKS
        from wic_layers.training import Photographs, Training
        from wic_layers.training.recipe import Settings

        super().__init__(folder)
        pixels = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(self.folder / "a.png")
        images = Photographs([self.folder / "a.png"], smallest=32, cache=self.folder / "cache")
        chosen = Settings(
            steps=2, batch=1, crop=16, warmup=1, every=1, ema=0.9, levels=1, accelerator="cpu"
        )
        model = WIN.from_preset("rescaling-x2-tiny", growth=2, couplings=1, width=16)
        self.training = Training(
            model, TASKS["rescaling-x2"], images, chosen, self.folder,
            held_out=torch.rand(1, 3, 16, 16),
        )  # fmt: skip
        self.training.run()
        self.honest = self.folder / "checkpoint.pt"
        self.content = self.honest.read_bytes()
        self.state = torch.load(self.honest, weights_only=True)

    def open(self, path: Path) -> None:
        if path != self.honest:
            path.replace(self.honest)
        try:
            self.training.load()
        finally:
            self.honest.write_bytes(self.content)

    def make(self, chance: random.Random) -> Path:
        path = self.folder / "drawn.pt"
        if chance.random() < 0.1:
            path.write_bytes(mutated(self.content, chance))
        else:
            torch.save(damaged(self.state, chance), path)
        return path
