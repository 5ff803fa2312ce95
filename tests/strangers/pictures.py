"""Doors of pictures: images, what stands beside their pixels, videos."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from strangers.drawing import Door, damaged, mutated
from wic_layers.codec import Codec
from wic_layers.codec.parts import split
from wic_layers.models import WINNaive
from wic_layers.pictures import read_image
from wic_layers.pictures.video import read_frames


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
