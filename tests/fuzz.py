"""Strangers' files by the thousand: each door opens, or says why not, within memory and time.

``make fuzz`` runs ``python tests/fuzz.py``; ``tests/test_doors.py`` a small share of it.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import traceback
import zipfile
import zlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wic_layers.codec import Codec
from wic_layers.codec.parts import split
from wic_layers.errors import WICError
from wic_layers.models import (
    IRN,
    NETWORKS,
    WINNaive,
    from_pretrained,
    load_official,
    save_official,
)
from wic_layers.pictures import read_image
from wic_layers.pictures.video import read_frames

SECONDS = 5  # of processor time, for a file
ROOM = 512 * 2**20  # bytes above those of torch and of an honest file of each kind
VALUES = (
    0, -1, 1, 2, 7, 4000, 10**5, 3 * 10**8, 10**18, 10**400, 0.5, 5e-324, 1e308, math.nan,
    math.inf, True, None, "x", "shift", "learned", "x" * 10**5, [], [1], {}, {"a": 1},
)  # fmt: skip


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A file with flipped bytes, a hole, a doubled piece, or cut short."""
    changed = bytearray(content)
    kind = chance.randrange(5)
    start = chance.randrange(len(changed))
    length = chance.randrange(1, 40)
    if kind == 0:
        for _ in range(chance.randrange(1, 9)):
            changed[chance.randrange(len(changed))] = chance.randrange(256)
    elif kind == 1:
        del changed[start : start + length]
    elif kind == 2:
        changed[start:start] = changed[start : start + length]
    elif kind == 3:
        del changed[start:]
    else:
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def damaged(value: object, chance: random.Random) -> object:
    """A copy of nested values with one of them missing, or another in its place."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        key = chance.choice(list(value))
        if chance.random() < 0.15:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: damaged(value[key], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], damaged(value[place], chance), *value[place + 1 :]]
    if isinstance(value, torch.Tensor) and chance.random() < 0.7:
        return chance.choice(
            [
                value.double(), value.to(torch.complex64), value.flatten(), value[None],
                value.new_zeros(1).expand(3 * 10**8), value * math.nan, value.to("meta"),
                value.to_sparse(), value[..., :0],
            ]
        )  # fmt: skip
    return chance.choice(VALUES)


class Door:
    """A kind of file: ``attacks`` are those by hand, ``make`` draws one, ``open`` reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / type(self).__name__
        self.folder.mkdir()

    def attacks(self) -> list[Path]:
        return []


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


class Pictures(Door):
    """An image."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        pixels = np.random.default_rng(0).integers(256, size=(33, 41, 3), dtype=np.uint8)
        image = Image.fromarray(pixels)
        self.contents = []
        for kind, options in (
            ("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("BMP", {}), ("TIFF", {}),
            ("WEBP", {}), ("GIF", {}),
        ):  # fmt: skip
            buffer = io.BytesIO()
            image.save(buffer, kind, **options)
            self.contents.append(buffer.getvalue())
        self.honest = self.folder / "honest.png"
        self.honest.write_bytes(self.contents[0])
        self.open = read_image

    def make(self, chance: random.Random) -> Path:
        path = self.folder / "drawn.png"
        path.write_bytes(mutated(chance.choice(self.contents), chance))
        return path


class Marks(Door):
    """A picture that says what it is: the chunk beside its pixels, whose sums are right."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        torch.manual_seed(0)
        network = WINNaive(3, 3, scale=2, couplings=1, growth=2)
        self.codec = Codec("rescaling-x2", network)
        photo = torch.randint(256, (4, 33, 41), dtype=torch.uint8)  # with opacity
        self.honest = self.folder / "honest.png"
        self.codec.encode_files([photo], self.honest)
        self.chunks = chunks_of(self.honest.read_bytes())
        (self.content,) = (content for kind, content in self.chunks if kind == b"wiCl")
        self.parts = split(self.content)
        self.mark = json.loads(self.parts["mark"])

    def open(self, path: Path) -> None:
        self.codec.decode_file(path, self.folder / "back.png", force=True)

    def written(self, name: str, content: bytes) -> Path:
        path = self.folder / f"{name}.png"
        body = b"".join(
            chunk(kind, content if kind == b"wiCl" else own) for kind, own in self.chunks
        )
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
        return path

    def part(self, name: str, content: bytes, *, required: bool = True) -> bytes:
        head = bytes([required, 1, len(name)]) + name.encode()
        return head + struct.pack(">I", len(content)) + content

    def attacks(self) -> list[Path]:
        def marked(**changes: object) -> bytes:
            text = json.dumps({**self.mark, **changes}).encode()
            rest = [self.part(n, c) for n, c in self.parts.items() if n != "mark"]
            return bytes([3]) + self.part("mark", text) + b"".join(rest)

        huge = Image.new("L", (20_000, 20_000))
        buffer = io.BytesIO()
        huge.save(buffer, "PNG")
        mark = self.part("mark", self.parts["mark"])
        contents = {
            "sizes": marked(sizes=[[10**9, 10**9]]),
            "many": marked(sizes=[[1, 1]] * 3000),
            "pixels": marked(pixels=[10**9, 10**9]),
            "deep": bytes([3]) + self.part("mark", b"[" * 8000),
            "long": bytes([3]) + self.part("mark", b" " * 9000),
            "required": bytes([3]) + mark + self.part("new", b"x"),
            "parts": bytes([3]) + mark + self.part("new", b"x", required=False) * 100,
            "alpha": bytes([3]) + mark + self.part("alpha", buffer.getvalue()),
            "cut": self.content[:-3],
            "format": bytes([4]) + self.content[1:],
        }
        return [self.written(name, content) for name, content in contents.items()]

    def make(self, chance: random.Random) -> Path:
        if chance.random() < 0.5:
            return self.written("drawn", mutated(self.content, chance))
        text = json.dumps(damaged(self.mark, chance)).encode()
        rest = [self.part(n, c) for n, c in self.parts.items() if n != "mark"]
        return self.written("drawn", bytes([3]) + self.part("mark", text) + b"".join(rest))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(
        ">I", zlib.crc32(kind + content)
    )  # fmt: skip


def chunks_of(png: bytes) -> list[tuple[bytes, bytes]]:
    """The kinds and contents of a PNG file's chunks."""
    chunks, place = [], 8
    while place < len(png):
        (length,) = struct.unpack_from(">I", png, place)
        chunks.append((png[place + 4 : place + 8], png[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


class Videos(Door):
    """A video file."""

    def __init__(self, folder: Path) -> None:
        import av

        super().__init__(folder)
        self.contents = []
        for name, codec in (("honest.mkv", "ffv1"), ("honest.mp4", "mpeg4"), ("a.avi", "mjpeg")):
            with av.open(str(self.folder / name), "w") as container:
                stream = container.add_stream(codec, rate=25)
                stream.width = stream.height = 32
                stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
                for index in range(4):
                    pixels = np.full((32, 32, 3), 40 * index, np.uint8)
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    container.mux(stream.encode(frame))
                container.mux(stream.encode())
            self.contents.append((self.folder / name).read_bytes())
        self.honest = self.folder / "honest.mkv"

    def open(self, path: Path) -> None:
        for _ in read_frames(path, max_pixels=10**6):
            pass

    def attacks(self) -> list[Path]:
        texts = {
            "list.m3u8": f"#EXTM3U\n#EXTINF:1,\n{self.honest}\n#EXT-X-ENDLIST\n",
            "list.mp4": f"ffconcat version 1.0\nfile {self.honest}\n",
            "session.mp4": "v=0\nm=video 9 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        }
        for name, text in texts.items():
            (self.folder / name).write_text(text)
        return [self.folder / name for name in texts]

    def make(self, chance: random.Random) -> Path:
        path = self.folder / "drawn.mp4"
        path.write_bytes(mutated(chance.choice(self.contents), chance))
        return path


DOORS = (Weights, Checkpoints, Settings, Trainings, Pictures, Marks, Videos)


class TooLong(BaseException):
    """Nothing catches it by accident."""


def _stop(*_: object) -> None:
    raise TooLong


def wrong_with(door: Door, path: Path) -> tuple[bool, str]:
    """Whether a file was read, and what is wrong with how it was read or refused."""
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        door.open(path)
    except WICError as error:
        cause, texts = error, []
        while cause is not None:
            texts.append(f"{type(cause).__name__} {cause}")
            cause = cause.__cause__ or cause.__context__
        if "allocate memory" in " ".join(texts) or "MemoryError" in " ".join(texts):
            return False, f"no memory: {texts}"
        if len(str(error)) > 1500 or "\n" in str(error):
            return False, f"an error of {len(str(error))} characters: {str(error)[:300]}"
        return False, ""
    except TooLong:
        return False, f"more than {SECONDS} s: {traceback.format_exc(limit=-6)}"
    except Exception:
        return False, traceback.format_exc(limit=-6)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return True, ""


def main() -> int:
    """Tries all doors; the exit code is how many files were handled wrongly, at most 100."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000, help="drawn for each door")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(0)
    signal.signal(signal.SIGPROF, _stop)
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        doors = [kind(Path(folder)) for kind in DOORS]
        attacks = {door: door.attacks() for door in doors}
        for door in doors:  # what an honest file loads is no part of the limit
            assert wrong_with(door, door.honest) == (True, ""), (
                door,
                wrong_with(door, door.honest),
            )
        if sys.platform == "linux":
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + ROOM
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
        for door in doors:
            chance = random.Random(args.seed)
            seen: Counter[str] = Counter()
            for index in range(-len(attacks[door]), args.files):
                path = attacks[door][index] if index < 0 else door.make(chance)
                was_read, wrong = wrong_with(door, path)
                seen["read" if was_read else "refused"] += 1
                if was_read and index < 0:
                    wrong = "an attack was read"
                if wrong:
                    failures += 1
                    print(f"{type(door).__name__} {index} {path.name}: {wrong}")
            print(f"{type(door).__name__}: {len(attacks[door])} attacks, {dict(seen)}", flush=True)
    return min(failures, 100)


if __name__ == "__main__":
    raise SystemExit(main())
