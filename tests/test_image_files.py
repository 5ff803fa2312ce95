"""Files of kinds that people have: what is read exactly, and what is said of the others."""

import io
import logging
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from wic_layers.errors import WICFileError
from wic_layers.pictures import (
    as_pixels,
    check_pixels,
    read_carrier,
    read_carrier_head,
    read_image,
    read_layer,
    size_of,
    tiff,
)

RGB = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
PIXELS = torch.from_numpy(RGB).permute(2, 0, 1)
GREY = torch.from_numpy(RGB[..., 0])[None]


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, colour, rows, *more):
    """A PNG file of rows of bytes, each behind the number of its filter, with other chunks."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(more) + pixels + chunk(b"IEND", b"")


def bmp(bits, compression, masks=b"", header=40):
    size = struct.pack("<IiiHHIIiiII", header, 2, 2, 1, bits, compression, 16, 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 70, 0, 0, 54 + len(masks)) + size + masks + bytes(16)


def encode(array, kind, **options):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def read(tmp_path, content, reader=read_image, name="a.png"):
    path = tmp_path / name
    path.write_bytes(content)
    return reader(path)


# ------------------------------------------------------------------------------------------- TIFF


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw"])
@pytest.mark.parametrize("top", [255, 65535])
def test_colour_maps_have_8_or_16_bits(tmp_path, compression, top):
    """libtiff's own rule, in tif_getimage.c: a map without any number above 255 has 8 bits."""
    indices = np.arange(1200, dtype=np.uint8).reshape(30, 40)
    colours = np.random.default_rng(1).integers(0, top + 1, (3, 256))
    colours[:, 0] = top
    options = {"compression": compression, "tiffinfo": {320: tuple(map(int, colours.flatten()))}}
    image = Image.fromarray(indices).convert("P")
    buffer = io.BytesIO()
    image.save(buffer, "TIFF", **options)
    # Pillow writes a map of its own; ours has as many numbers, of the same kind
    content = bytearray(buffer.getvalue())
    with Image.open(io.BytesIO(content)) as written:
        old = struct.pack("<768H", *written.tag_v2[320])
    assert content.count(old) == 1
    content = bytes(content).replace(old, struct.pack("<768H", *colours.flatten()))
    expected = (colours // 256 if top > 255 else colours)[:, indices]
    assert torch.equal(read(tmp_path, content).int(), torch.from_numpy(expected).int())
    with Image.open(io.BytesIO(content)) as image:
        assert torch.equal(as_pixels(image).int(), torch.from_numpy(expected).int())


def pages(*kinds, bigtiff=False):
    """A TIFF whose pages have these numbers in tag 254, each a step darker and smaller."""
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=bigtiff) as writer:
        for index, kind in enumerate(kinds):
            part = RGB[: 30 >> index, : 40 >> index] >> index
            if kind & 4:  # a mask has one bit
                writer.write(part[..., 0] > 9, photometric=4, subfiletype=kind, metadata=None)
            else:
                writer.write(part, photometric="rgb", subfiletype=kind, metadata=None)
    return buffer.getvalue()


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    ("kinds", "page"), [((0, 1), 0), ((0, 1, 1, 4), 0), ((1, 0), 1), ((0, 5), 0), ((1, 1), 0)]
)
def test_thumbnails_overviews_and_masks_are_no_pages(tmp_path, kinds, page, bigtiff):
    expected = PIXELS[:, : 30 >> page, : 40 >> page] >> page
    assert torch.equal(read(tmp_path, pages(*kinds, bigtiff=bigtiff)), expected)


def test_pages_are_refused_at_the_second(tmp_path, monkeypatch):
    for kinds in ((0, 0), (0, 1, 2), (2, 2, 2), (0, 1, 0, 1)):
        with pytest.raises(WICFileError, match="several frames or pages"):
            read(tmp_path, pages(*kinds))
    # 20,000 more directories of one number each, linked behind the first page
    first = pages(0)
    (start,) = struct.unpack_from("<I", first, 4)
    link = start + 2 + 12 * struct.unpack_from("<H", first, start)[0]
    places = [len(first) + 18 * index for index in range(20000)]
    content = first[:link] + struct.pack("<I", places[0]) + first[link + 4 :]
    for following in [*places[1:], 0]:
        content += struct.pack("<HHHIII", 1, 254, 4, 1, 0, following)
    visited = []
    original = tiff._Directories.read
    monkeypatch.setattr(
        tiff._Directories, "read", lambda *each: visited.append(each) or original(*each)
    )
    with pytest.raises(WICFileError, match="several frames or pages"):
        read(tmp_path, content)
    assert len(visited) < 12


def kinds_of_tiff():
    signed = np.arange(16, dtype=np.int8).reshape(4, 4)
    return {
        "signed": (signed.astype(np.int64), None, "64 bits"),
        "half": (signed.astype(np.float16), None, "16 bits, grey, floating-point numbers"),
        "double": (signed.astype(np.float64), None, "64 bits, grey, floating-point numbers"),
        "mask": (RGB[:4, :4, 0], 4, "a mask"),
        "raw": (RGB[:4, :4, 0], 32803, "a colour filter array"),
        "ten": (np.stack([RGB[:4, :4, 0]] * 10, -1), 1, "10 channels of 8 bits"),
    }


@pytest.mark.parametrize("name", list(kinds_of_tiff()))
def test_kinds_of_tiff_are_called_what_they_are(tmp_path, name):
    array, photometric, match = kinds_of_tiff()[name]
    buffer = io.BytesIO()
    options = {"planarconfig": "contig"} if array.ndim > 2 else {}
    tifffile.imwrite(
        buffer, array, photometric=photometric or "minisblack", metadata=None, **options
    )
    with pytest.raises(WICFileError, match=f"TIFF of a kind.*{match}.*save it as PNG"):
        read(tmp_path, buffer.getvalue(), name="a.tif")


def test_a_compression_without_a_name_is_said(tmp_path):
    content = bytearray(encode(RGB, "TIFF", compression="tiff_lzw"))
    place = content.index(struct.pack("<HHIH", 259, 3, 1, 5))
    for number, name in ((34712, "JPEG 2000"), (34887, "LERC"), (12345, "12345")):
        content[place + 8 : place + 10] = struct.pack("<H", number)
        with pytest.raises(WICFileError, match=f"TIFF of a kind.*compression {name}"):
            read(tmp_path, bytes(content), name="a.tif")


def test_what_libtiff_and_pillow_print_does_not_leak(tmp_path, capfd):
    content = bytearray(encode(RGB, "TIFF", compression="tiff_adobe_deflate"))
    content[8:60] = b"x" * 52  # in the middle of the pixels
    many = bytearray(encode(RGB, "TIFF"))
    place = many.index(struct.pack("<HHIH", 277, 3, 1, 3))
    many[place + 8 : place + 10] = struct.pack("<H", 999)
    for each in (content, many):
        with pytest.raises(WICFileError, match=r"TIFF of a kind|damaged"):
            read(tmp_path, bytes(each))
    assert capfd.readouterr().err == ""
    # without a handler Python would print errors, as it does where no test runner has some
    assert any(isinstance(each, logging.NullHandler) for each in logging.getLogger("PIL").handlers)


# -------------------------------------------------------------------------------------------- BMP


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (bmp(64, 0), "pixel depth"),
        (bmp(2, 0), "pixel depth"),
        (bmp(24, 4), "compression"),
        (bmp(0, 5), "pixel depth"),
        (bmp(16, 3, struct.pack("<III", 0xF00, 0xF0, 0xF)), "bitfields"),
        (bmp(24, 0, header=16), "header type"),
    ],
)
def test_kinds_of_bmp_are_called_what_they_are(tmp_path, content, match):
    with pytest.raises(WICFileError, match=f"a BMP of a kind .*{match}.*save it as PNG"):
        read(tmp_path, content, name="a.bmp")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (encode(RGB, "GIF"), "is a GIF, which is not an image that can be read"),
        (b"8BPS\0\1" + bytes(60), "is a Photoshop file"),
        (b"\0\0\0\x18ftypmp42" + bytes(60), "is a video"),
        (b"\xff\xd8\xff\xc3" + bytes(60), "a JPEG of a kind|damaged"),
        (b"%PDF-1.4\n" + bytes(60), "is a PDF"),
        (bytes(100), "expected PNG, JPEG, WebP, TIFF, BMP"),
    ],
)
def test_other_files_are_called_what_they_are(tmp_path, content, match):
    with pytest.raises(WICFileError, match=match):
        read(tmp_path, content)


# -------------------------------------------------------------------------------------------- PNG


def test_long_texts_and_profiles_beside_the_pixels_are_read(tmp_path):
    profile = encode(RGB, "PNG", icc_profile=b"x" * 3_000_000)
    with pytest.warns(UserWarning, match="profile cannot be used"):
        assert torch.equal(read(tmp_path, profile), PIXELS)
    info = PngImagePlugin.PngInfo()
    for index in range(70):
        info.add_text(f"workflow {index}", "x" * 1_100_000, zip=True)
        info.add_itxt(f"prompt {index}", "x" * 1_100_000, zip=True)
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = encode(RGB, "PNG", pnginfo=info, exif=exif)
    with pytest.raises(ValueError, match="too large"):
        Image.open(io.BytesIO(turned))
    assert torch.equal(read(tmp_path, turned), PIXELS.flip(1, 2))
    assert torch.equal(read(tmp_path, turned, read_carrier)[0], PIXELS)


def test_a_text_may_say_what_is_up(tmp_path):
    """ImageMagick's old way to store EXIF, and XMP; each may be deflated."""
    exif = Image.Exif()
    exif[0x0112] = 6
    content = b"Exif\0\0" + exif.tobytes().removeprefix(b"Exif\0\0")
    old = f"\nexif\n{len(content):8}\n{content.hex()}\n"
    xmp = '<x tiff:Orientation="6"/>'
    for name, text in (("Raw profile type exif", old), ("XML:com.adobe.xmp", xmp)):
        for is_deflated in (False, True):
            info = PngImagePlugin.PngInfo()
            if name.startswith("XML"):
                info.add_itxt(name, text, zip=is_deflated)
            else:
                info.add_text(name, text, zip=is_deflated)
            turned = read(tmp_path, encode(RGB, "PNG", pnginfo=info))
            assert torch.equal(turned, PIXELS.rot90(-1, (1, 2))), name


@given(st.data())
@settings(max_examples=15)
def test_a_png_is_the_same_in_many_parts(tmp_path_factory, data):
    """What is left out stands anywhere between what is read, and IDAT in parts of any length."""
    content = encode(RGB, "PNG")
    start, end = content.index(b"IDAT") - 4, content.index(b"IEND") - 4
    stream = content[start + 8 : end - 4]
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))
    parts = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    texts = st.sampled_from([chunk(b"tEXt", b"a\0b"), chunk(b"zTXt", b"a\0\0b"), b""])
    whole = content[:33] + data.draw(texts) + data.draw(texts)
    whole += b"".join(chunk(b"IDAT", part) for part in parts)
    whole += data.draw(texts) + content[end:]
    path = tmp_path_factory.getbasetemp() / "parts.png"
    path.write_bytes(whole)
    assert torch.equal(read_image(path), PIXELS)


def doubled(array):
    return array.astype(np.uint16) * 257


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("kind", ["png", "tiff", "big-endian tiff", "deflated tiff"])
def test_16_bits_that_say_no_more_than_8_are_read(tmp_path, kind, channels):
    array = np.concatenate((RGB, np.full_like(RGB[..., :1], 255)), -1)
    array = array[..., 0] if channels == 1 else array[..., :channels].copy()

    def content(deep):
        if kind == "png":
            rows = deep.astype(">u2").reshape(30, -1).view(np.uint8)
            rows = np.concatenate((np.zeros((30, 1), np.uint8), rows), 1)
            return png(40, 30, 16, {1: 0, 3: 2, 4: 6}[channels], rows.tobytes())
        buffer = io.BytesIO()
        tifffile.imwrite(
            buffer, deep, photometric="minisblack" if channels == 1 else "rgb",
            byteorder=">" if kind == "big-endian tiff" else "<", metadata=None,
            compression="zlib" if kind == "deflated tiff" else None,
            extrasamples=["unassalpha"] if channels == 4 else None,
        )  # fmt: skip
        return buffer.getvalue()

    expected = GREY.expand(3, -1, -1) if channels == 1 else PIXELS
    assert torch.equal(read(tmp_path, content(doubled(array))), expected)
    stored, own = read(tmp_path, content(doubled(array)), read_carrier)
    assert torch.equal(stored.expand(3, -1, -1), expected)
    assert own is None
    deep = doubled(array)
    deep.flat[777] ^= 1
    for reader in (read_image, read_carrier, read_layer):
        with pytest.raises(WICFileError, match="more than 8 bits"):
            read(tmp_path, content(deep), reader)
    reduced = read_image(tmp_path / "a.png", reduce_depth=True)
    assert torch.equal(reduced, expected)


# --------------------------------------------------------------------------------------- carriers


def test_what_was_saved_without_loss_is_read_as_it_is(tmp_path):
    cases = {
        "bmp": encode(RGB, "BMP"),
        "webp": encode(RGB, "WEBP", lossless=True, exact=True),
        "webp with metadata": encode(RGB, "WEBP", lossless=True, exif=Image.Exif(), xmp=b"<x/>"),
        "tiff": encode(RGB, "TIFF"),
        "lzw": encode(RGB, "TIFF", compression="tiff_lzw"),
        "deflate": encode(RGB, "TIFF", compression="tiff_adobe_deflate"),
    }
    for name, content in cases.items():
        assert torch.equal(read(tmp_path, content, read_carrier)[0], PIXELS), name
        head = read_carrier_head(tmp_path / "a.png")
        assert head == ((40, 30), None, ""), name
    for name, content in {
        "JPEG": encode(RGB, "JPEG", quality=100),
        "WEBP": encode(RGB, "WEBP", quality=100),
        "TIFF": encode(RGB, "TIFF", compression="jpeg"),
    }.items():
        for reader in (read_carrier, read_carrier_head):
            with pytest.raises(WICFileError, match=f"is a {name} file.*lossy compression"):
                read(tmp_path, content, reader)


# -------------------------------------------------------------------------------- how many pixels


def test_the_limit_is_where_pillow_refuses_and_can_be_raised(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    path = tmp_path / "a"
    for kind, options in (
        ("PNG", {}), ("BMP", {}), ("TIFF", {}), ("TIFF", {"compression": "tiff_lzw"}),
        ("WEBP", {"lossless": True, "exact": True}), ("JPEG", {}),
    ):  # fmt: skip
        path.write_bytes(encode(RGB[:25], kind, **options))  # 1000 pixels: it warns, as above 500
        assert size_of(read_image(path)) == (40, 25)
        path.write_bytes(encode(RGB, kind, **options))
        for most in (None, 1199):
            with pytest.raises(WICFileError, match=r"more than 1\d+ pixels.*--max-pixels"):
                read_image(path, max_pixels=most)
        assert size_of(read_image(path, max_pixels=1200)) == (40, 30)
        assert Image.MAX_IMAGE_PIXELS == 500
    with pytest.raises(WICFileError, match="40x30"):
        check_pixels((40, 30), "it", None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    check_pixels((10**6, 10**6), "it")


MEASURED = """
import resource, PIL.Image, PIL.PngImagePlugin, PIL.ImageCms
from wic_layers.pictures import read_carrier
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
pixels, _ = read_carrier({path!r})
assert pixels.shape == (1, 4720, 4720)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_one_bit_costs_one_byte_a_pixel(tmp_path):
    """4720 x 4720 of one bit, 3 kB, took 300 MB; Pillow and the tensor need 21 MiB each."""
    rows = (b"\0" + bytes(590)) * 4720
    (tmp_path / "a.png").write_bytes(png(4720, 4720, 1, 0, rows))
    command = [sys.executable, "-c", MEASURED.format(path=str(tmp_path / "a.png"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 60
