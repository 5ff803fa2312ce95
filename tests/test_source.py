"""Pictures that images come back from: refused before their pixels, saved again, through JPEG."""

import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from wic_layers import tasks
from wic_layers.codec import codec, source
from wic_layers.codec.history import went_through_jpeg
from wic_layers.codec.mark import Mark
from wic_layers.codec.parts import Part, join
from wic_layers.errors import WICFileError, WICWarning
from wic_layers.pictures import CHUNK, as_pixels, psnr, read_image

PHOTO = data.astronaut()[:192, 100:292]
PRESET = "rescaling-x2-naive-small"


def jpeg(image, quality, path="through.jpg"):
    Image.fromarray(image).save(path, quality=quality)
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """small.png of photo.png, and what is in it."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("photo.png")
    tasks.down_file("photo.png", "small.png", check="none")
    return np.asarray(Image.open("small.png"))


def test_what_was_saved_without_loss_is_brought_back_and_what_was_jpeg_is_doubted(small):
    model = {"model": PRESET, "size": (192, 192)}
    tasks.up_file("small.png", "back.png")
    expected = read_image("back.png")
    deep = (small.astype(">u2") * 257).reshape(96, -1).view(np.uint8)
    rows = np.concatenate((np.zeros((96, 1), np.uint8), deep), 1).tobytes()
    png_of_bits(rows, 96, 16, 2)
    Image.fromarray(small).save("a.webp", lossless=True, exact=True)
    Image.fromarray(small).save("a.tiff", compression="tiff_lzw")
    Image.fromarray(small).save("a.bmp")
    for name in ("deep.png", "a.webp", "a.tiff", "a.bmp"):
        with pytest.raises(WICFileError, match="does not say that `wic down` made it"):
            tasks.up_file(name, "no.png")
        written = tasks.up_file(name, "back.png", force=True, **model)
        assert written.doubt is None
        assert torch.equal(read_image("back.png"), expected)
    # 6 dB are lost, which nothing else tells
    Image.fromarray(jpeg(small, 95)).save("a.webp", lossless=True, exact=True)
    written = tasks.up_file("a.webp", "back.png", force=True, **model)
    assert "had been a JPEG file" in written.doubt
    photo = as_pixels(PHOTO)
    assert psnr(read_image("back.png"), photo) < psnr(expected, photo) - 4
    with pytest.warns(WICWarning, match="had been a JPEG file"):
        tasks.up(jpeg(small, 95))


def png_of_bits(rows, side, bits, colour, chunk=None, name="deep.png"):
    """A PNG file of rows that are made elsewhere."""
    content = b"\x89PNG\r\n\x1a\n"
    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    own = [] if chunk is None else [(CHUNK, chunk)]
    for kind, body in [(b"IHDR", head), *own, (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]:
        checksum = struct.pack(">I", zlib.crc32(kind + body))
        content += struct.pack(">I", len(body)) + kind + body + checksum
    with open(name, "wb") as file:
        file.write(content)


def test_pictures_are_refused_before_their_pixels_are_read(small, monkeypatch):
    def unread(*arguments, **options):
        raise AssertionError("the pixels were read")

    def marked(**changes):
        mark = Mark("rescaling-x2", PRESET, "", ((8, 8),), (9440, 9440), "0" * 16, (False,))
        return join([Part.of("mark", replace(mark, **changes).dumps().encode())])

    monkeypatch.setattr(source, "read_carrier", unread)
    monkeypatch.setattr(codec.Codec, "_load", unread)
    rows = (b"\0" + bytes(1180)) * 9440  # of one bit: 11 kB in the file
    for chunk, options, match in (
        (None, {}, "does not say that"),
        (marked(), {}, None),
        (marked(sizes=((18880, 18880),)), {}, "What comes back .* 18880x18880.*--max-pixels"),
        (marked(pixels=(9440, 9438)), {}, "is 9440x9440 but was written as 9440x9438"),
        (marked(task="hiding-1"), {}, "was made for 'hiding-1'"),
        (None, {"model": PRESET, "size": (18880, 18880)}, "What comes back .*--max-pixels"),
        (None, {"max_pixels": 10**6}, "9440x9440, has more than 1000000 pixels"),
        (b"\3", {}, "damaged"),
    ):
        png_of_bits(rows, 9440, 1, 0, chunk)
        error = AssertionError if match is None else WICFileError
        with pytest.raises(error, match=match or "were read"):
            tasks.up_file("deep.png", "no.png", **options)


def test_jpeg_is_seen_by_its_steps_and_nothing_else_is(tmp_path):
    grey = PHOTO[..., 1].copy()
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), np.uint8)
    for image in (PHOTO, grey, noise, noise * 0 + 77, noise[:7]):
        pixels = as_pixels(image, channels=1 if image.ndim == 2 else 3)
        assert not went_through_jpeg(pixels)
    for quality, image in ((98, PHOTO), (95, PHOTO[:128, :133].copy()), (95, grey), (40, grey)):
        through = jpeg(image, quality, tmp_path / "a.jpg")
        pixels = as_pixels(through, channels=1 if image.ndim == 2 else 3)
        assert went_through_jpeg(pixels), quality
    assert not went_through_jpeg(pixels[:, 3:, 5:])
    # of a photograph that was a JPEG, with what a network does to it: steps, and no rounding
    cover = as_pixels(jpeg(PHOTO, 40, tmp_path / "a.jpg")).float()
    changes = 1.5 * torch.randn(cover.shape, generator=torch.Generator().manual_seed(0))
    assert not went_through_jpeg((cover + changes).round().clamp(0, 255).byte())
