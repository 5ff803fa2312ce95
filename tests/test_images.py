import contextlib
import io
import os
import struct
import sys
import threading
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageCms

from wic_layers import pictures
from wic_layers.errors import WICError, WICFileError, WICShapeError, WICWarning
from wic_layers.pictures import (
    as_kind,
    as_layer,
    as_pixels,
    check_output,
    find_images,
    pad_to,
    psnr,
    read_carrier,
    read_image,
    read_layer,
    size_of,
    write_png,
)


def random_pixels(width, height, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def noise(width, height):
    return as_kind(random_pixels(width, height), Image.new("RGB", (1, 1)))


def raw_png(width, height, bits, rows):
    def chunk(kind, data):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def png_of_size(width, height):
    """A PNG that claims a size and has nothing to show for it."""
    return raw_png(width, height, 8, b"\0" * 100)


def encode(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


# ---------------------------------------------------------------------------------- padding


@given(
    *(st.integers(1, 12) for _ in range(2)),
    *(st.integers(0, 30) for _ in range(2)),
)
def test_padding_keeps_the_image_and_reflects(width, height, right, bottom):
    image = random_pixels(width, height)
    padded = pad_to(image, (width + right, height + bottom))
    assert size_of(padded) == (width + right, height + bottom)
    assert torch.equal(padded[:, :height, :width], image)
    for step in range(right):
        assert torch.equal(padded[:, :height, width + step], image[..., max(width - 2 - step, 0)])
    for step in range(bottom):
        assert torch.equal(padded[:, height + step, :width], image[:, max(height - 2 - step, 0)])


def test_padding_does_not_shrink():
    with pytest.raises(WICShapeError, match="at most 3x9; got 4x2"):
        pad_to(random_pixels(4, 2), (3, 9))


def test_psnr():
    a = torch.zeros(3, 4, 4, dtype=torch.uint8)
    assert psnr(a, a) == float("inf")
    assert psnr(a, a + 1) == pytest.approx(48.1308, abs=1e-4)
    assert psnr(a, a + 255) == pytest.approx(0)


# ------------------------------------------------------------------------------ kinds in memory


def test_kinds_agree_and_come_back():
    pixels = random_pixels(5, 3)
    array = pixels.permute(1, 2, 0).numpy()
    picture = Image.fromarray(array)
    for given_image in (pixels, array, picture, array[:, ::-1][:, ::-1]):
        assert torch.equal(as_pixels(given_image), pixels)
    assert torch.equal(as_kind(pixels, pixels), pixels)
    back = as_kind(pixels, array)
    assert isinstance(back, np.ndarray)
    assert np.array_equal(back, array)
    assert as_kind(pixels, picture).tobytes() == picture.tobytes()


def test_read_only_array_is_taken_without_a_warning():
    array = np.zeros((2, 2, 3), np.uint8)
    array.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        as_pixels(array)


@pytest.mark.parametrize(
    ("image", "error", "match"),
    [
        (torch.zeros(3, 2, 2), TypeError, "uint8; got torch.float32"),
        (np.zeros((2, 2, 3)), TypeError, "uint8; got float64"),
        (np.zeros((2, 2, 3), np.uint16), TypeError, "uint8; got uint16"),
        ("cover.png", TypeError, "got str"),
        (torch.zeros(2, 2, 3, dtype=torch.uint8), WICShapeError, r"\(1, H, W\); got \(2, 2, 3\)"),
        (np.zeros((3, 2, 2), np.uint8), WICShapeError, r"\(H, W\); got \(3, 2, 2\)"),
        (np.zeros((2,), np.uint8), WICShapeError, r"got \(2,\)"),
        (torch.zeros(3, 0, 2, dtype=torch.uint8), WICShapeError, r"got \(3, 0, 2\)"),
        (torch.zeros(1, 3, 2, 2, dtype=torch.uint8), WICShapeError, r"got \(1, 3, 2, 2\)"),
        (Image.new("RGBA", (2, 2)), WICFileError, "cover is partly transparent"),
        (Image.new("F", (2, 2)), WICFileError, "more than 8 bits"),
        (Image.new("RGB", (0, 2)), WICShapeError, "with pixels; got 0x2"),
    ],
)
def test_what_is_no_image(image, error, match):
    with pytest.raises(error, match=match):
        as_pixels(image, "cover")


# ------------------------------------------------------------------------------- reading files


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "WEBP"])
def test_lossless_formats_are_read_exactly(tmp_path, kind):
    pixels = random_pixels(7, 5)
    options = {"lossless": True} if kind == "WEBP" else {}
    (tmp_path / "a").write_bytes(
        encode(as_kind(pixels, Image.new("RGB", (1, 1))), kind, **options)
    )
    assert torch.equal(read_image(tmp_path / "a"), pixels)


def test_modes_become_rgb(tmp_path):
    rgb = noise(6, 4)
    opaque = rgb.copy()
    opaque.putalpha(255)
    for name, image in {
        "L": rgb.convert("L"),
        "1": rgb.convert("1"),
        "P": rgb.quantize(8),
        "LA": opaque.convert("LA"),
        "RGBA": opaque,
    }.items():
        image.save(tmp_path / f"{name}.png")
        expected = as_pixels(image.convert("RGB"))
        assert torch.equal(read_image(tmp_path / f"{name}.png"), expected), name


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_but_not_to_carriers(tmp_path, orientation):
    pixels = random_pixels(6, 4)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "a.png"
    as_kind(pixels, Image.new("RGB", (1, 1))).save(path, exif=exif)
    turned = read_image(path)
    assert size_of(turned) == ((6, 4) if orientation < 5 else (4, 6))
    if orientation == 3:
        assert torch.equal(turned, pixels.flip(1, 2))
    assert torch.equal(read_carrier(path)[0], pixels)
    with Image.open(path) as image:
        assert torch.equal(as_pixels(image), turned)


def test_colour_profiles(tmp_path):
    rgb = noise(8, 8)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    # the primaries of this one are not those of sRGB, as its red and blue change places
    swapped = bytearray(srgb)
    tags = {bytes(swapped[p : p + 4]): p for p in range(132, 132 + 12 * 20, 12)}
    red, blue = tags[b"rXYZ"], tags[b"bXYZ"]
    swapped[red + 4 : red + 12], swapped[blue + 4 : blue + 12] = (
        swapped[blue + 4 : blue + 12],
        swapped[red + 4 : red + 12],
    )
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))
    for name, profile, is_same in (
        ("srgb", srgb, True),
        ("broken", b"no profile", True),
        ("swapped", bytes(swapped), False),
    ):
        rgb.save(tmp_path / f"{name}.png", icc_profile=profile)
        broken = pytest.warns(WICWarning, match=r"broken.png: the colour profile cannot be used")
        with broken if name == "broken" else contextlib.nullcontext():
            read = read_image(tmp_path / f"{name}.png")
        assert torch.equal(read, as_pixels(rgb)) == is_same, name
        assert torch.equal(read_carrier(tmp_path / f"{name}.png")[0], as_pixels(rgb))


def bad_files():
    rgb = noise(40, 30)
    half = rgb.copy()
    half.putalpha(128)
    keyed = encode(Image.new("RGB", (4, 4)), "PNG", transparency=(0, 0, 0))
    png, jpeg = encode(rgb, "PNG"), encode(rgb, "JPEG")
    return {
        "empty": (b"", "is not an image"),
        "text": (b"hello\n" * 50, "is not an image"),
        "gif": (encode(rgb, "GIF"), "is not an image"),
        "short png": (png[: len(png) // 2], "damaged or cut short"),
        "short jpeg": (jpeg[: len(jpeg) // 2], "damaged or cut short"),
        "flipped bit": (png[:60] + bytes([png[60] ^ 8]) + png[61:], "damaged or cut short"),
        "bomb": (png_of_size(60000, 60000), "exhaust the memory"),
        "smaller bomb": (png_of_size(14000, 14000), "exhaust the memory"),
        "hollow": (png_of_size(10000, 10000), "bytes cannot hold"),
        "no pixels": (png_of_size(500, 500), "damaged or cut short"),
        "16 bit": (raw_png(2, 2, 16, (b"\0" + bytes(range(12))) * 2), "more than 8 bits"),
        "16 bit grey": (encode(Image.new("I;16", (4, 4), 258), "PNG"), "more than 8 bits"),
        "float": (encode(Image.new("F", (4, 4)), "TIFF"), "more than 8 bits"),
        "alpha": (encode(half, "PNG"), "partly transparent"),
        "colour key": (keyed, "partly transparent"),
        "cmyk": (encode(rgb.convert("CMYK"), "JPEG"), "CMYK without"),
        "lab": (encode(Image.new("LAB", (4, 4)), "TIFF"), "colour mode LAB"),
        "animation": (
            encode(rgb, "PNG", save_all=True, append_images=[half.convert("L").convert("RGB")]),
            "holds several frames",
        ),
        "pages": (encode(rgb, "TIFF", save_all=True, append_images=[rgb]), "holds several frames"),
    }


@pytest.mark.parametrize("name", list(bad_files()))
def test_bad_files_are_refused(tmp_path, name):
    data, match = bad_files()[name]
    path = tmp_path / "bad.png"
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(WICFileError, match=match) as caught:
            read_image(path)
    assert str(path) in str(caught.value)


def test_bad_places_are_refused(tmp_path):
    (tmp_path / "a").write_bytes(b"")
    for path, match in (
        (tmp_path, "is a folder"),
        (tmp_path / "missing.png", "does not exist"),
        (tmp_path / "a" / "b.png", "cannot be read: Not a directory"),
        (tmp_path / ("n" * 300 + ".png"), "cannot be read: File name too long"),
    ):
        with pytest.raises(WICFileError, match=match):
            read_image(path)


@given(st.data())
def test_mutated_files_are_read_or_refused(tmp_path_factory, data):
    rgb = noise(12, 9)
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "WEBP", "TIFF", "BMP"]))
    mutated = bytearray(encode(rgb, kind))
    for _ in range(data.draw(st.integers(1, 4))):
        mutated[data.draw(st.integers(0, len(mutated) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "mutated"
    path.write_bytes(mutated[: data.draw(st.integers(0, len(mutated)))])
    for read in (read_image, read_carrier):
        with contextlib.suppress(WICFileError):
            read(path)


def test_carriers_are_png(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(WICFileError, match="is a JPEG file"):
        read_carrier(tmp_path / "a.jpg")


# ------------------------------------------------------------------------------- writing files


def test_written_pixels_and_chunk_come_back(tmp_path):
    pixels = random_pixels(9, 4)
    write_png(pixels, tmp_path / "a.png", chunk=b"\3\0")
    write_png(pixels, tmp_path / "b.PNG")
    assert torch.equal(read_image(tmp_path / "a.png"), pixels)
    assert read_carrier(tmp_path / "a.png")[1] == b"\3\0"
    assert read_carrier(tmp_path / "b.PNG")[1] is None
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o666 & ~current_umask()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.PNG"]


def current_umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_outputs_that_are_refused(tmp_path):
    cover = tmp_path / "cover.png"
    write_png(random_pixels(2, 2), cover)
    (tmp_path / "link.png").symlink_to(cover)
    (tmp_path / "dangling.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "hard.png").hardlink_to(cover)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "loop.png").symlink_to(tmp_path / "loop.png")
    for name, force, match in (
        ("a.jpg", True, "lossy compression, which destroys"),
        ("a.WebP", True, "lossy compression"),
        ("a.tif", True, "ends in .png"),
        ("a", True, "ends in .png"),
        ("folder.png", True, "is a folder"),
        ("nope/a.png", True, "there is no folder"),
        ("cover.png", True, "is an input too"),
        ("../" + tmp_path.name + "/cover.png", True, "is an input too"),
        ("link.png", True, "is an input too"),
        ("hard.png", True, "is an input too"),
        ("dangling.png", False, "exists"),
        ("loop.png", False, "exists|cannot be written"),
        ("n" * 300 + ".png", True, "cannot be written"),
    ):
        with pytest.raises(WICFileError, match=match):
            check_output(tmp_path / name, inputs=[cover], force=force)
    with pytest.raises(WICFileError, match=r"exists; .* --force"):
        write_png(random_pixels(3, 3), cover)
    write_png(random_pixels(3, 3), cover, force=True)
    assert size_of(read_image(cover)) == (3, 3)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path, monkeypatch):
    target = tmp_path / "a.png"
    save = Image.Image.save

    def slow_save(self, file, **options):
        save(self, file, **options)
        target.write_text("mine")

    monkeypatch.setattr(Image.Image, "save", slow_save)
    with pytest.raises(WICFileError, match="exists"):
        write_png(random_pixels(2, 2), target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_text() == "mine"


class Failing:
    """A file whose writing fails in the middle."""

    def __init__(self, file, write):
        self.file, self.write = file, write

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch, error):
    target = tmp_path / "a.png"
    target.write_text("old")

    own = Path.open

    def failing(self, mode="r", *args, **more):
        file = own(self, mode, *args, **more)
        if "x" not in mode:
            return file

        def write(content):
            type(file).write(file, content[: len(content) // 2])
            raise error

        return Failing(file, write)

    monkeypatch.setattr(Path, "open", failing)
    with pytest.raises((KeyboardInterrupt, WICFileError)) as caught:
        write_png(random_pixels(2, 2), target, force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert target.read_text() == "old"
    if isinstance(error, OSError):
        assert "cannot be written: No space left" in str(caught.value)


def test_pillow_is_named_where_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(WICError, match=r"pip install 'wic-layers\[cli\]'"):
        pictures.read_image("a.png")


def test_hidden_files_and_folders_are_no_images(tmp_path):
    for name in ("a.png", "._a.png", ".hidden/b.png", "c/.d.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2)).save(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    assert find_images(tmp_path) == [tmp_path / "a.png"]
    inside = tmp_path / ".hidden"
    assert find_images(inside) == [inside / "b.png"]


def test_threads_leave_the_warnings_of_others_alone(tmp_path, monkeypatch):
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    Image.new("RGB", (50, 50)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    before = list(warnings.filters)

    def read(index):
        if index % 2:
            return size_of(read_image(tmp_path / "a.png"))
        with pytest.raises(WICFileError, match="more than 1800"):
            read_image(tmp_path / "bomb.png")
        return None

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read, range(200))) == [None, (4, 4)] * 100
    assert warnings.filters == before


def test_reading_keeps_its_own_warnings_back_and_no_others(tmp_path, monkeypatch):
    Image.new("RGB", (50, 50)).save(tmp_path / "bomb.bmp")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    reads, others_warned = threading.Event(), threading.Event()
    original = Image.open

    def opened(*args, **keywords):
        reads.set()
        assert others_warned.wait(60)
        warnings.warn("of the one who reads", stacklevel=1)
        return original(*args, **keywords)

    monkeypatch.setattr(Image, "open", opened)

    def read():
        with pytest.raises(WICFileError, match="more than 1800"):
            read_image(tmp_path / "bomb.bmp")

    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(2) as pool:
        warnings.simplefilter("always")
        reading = [pool.submit(read) for _ in range(2)]
        assert reads.wait(60)
        warnings.warn("of another thread", stacklevel=1)
        others_warned.set()
        for each in reading:
            each.result()
        warnings.warn("afterwards", stacklevel=1)
    assert [str(each.message) for each in caught] == ["of another thread", "afterwards"]


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_an_animated_layer_is_refused(tmp_path, kind):
    frames = [Image.new("RGBA", (8, 8), (255, 0, 0, value)) for value in (10, 200)]
    path = tmp_path / "moving"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    for read in (read_layer, read_image):
        with pytest.raises(WICFileError, match="holds several frames or pages"):
            read(path)
    with (
        Image.open(path) as image,
        pytest.raises(WICFileError, match="holds several frames or pages"),
    ):
        as_layer(image)
