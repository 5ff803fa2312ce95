"""Colours that a file says beside its pixels, against the formulas of the specifications."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from wic_layers.errors import WICFileError, WICWarning
from wic_layers.pictures import as_pixels, read_carrier, read_image, read_layer
from wic_layers.pictures.colour import CLIPPED

P3 = (0.3127, 0.329, 0.680, 0.320, 0.265, 0.690, 0.150, 0.060)
BT709 = (0.3127, 0.329, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06)
GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOURS = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunks(image, *chunks):
    """A PNG of pixels with chunks behind its header."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    png = buffer.getvalue()
    return png[:33] + b"".join(chunk(*each) for each in chunks) + png[33:]


def gama(value):
    return b"gAMA", struct.pack(">I", round(value * 100000))


def chrm(points):
    return b"cHRM", struct.pack(">8I", *(round(value * 100000) for value in points))


def iccp(profile):
    return b"iCCP", b"a name\0\0" + zlib.compress(profile)


def cicp(*numbers):
    return b"cICP", bytes(numbers)


def srgb(light):
    """IEC 61966-2-1, from light to 8 bits."""
    light = np.clip(light, 0, 1)
    curved = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    return np.rint(255 * curved)


def from_srgb(pixels):
    value = pixels / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def matrix(points):
    """From light of some primaries to XYZ: SMPTE RP 177."""
    points = np.array([(x / y, 1, (1 - x - y) / y) for x, y in np.reshape(points, (4, 2))])
    return points[1:].T * np.linalg.solve(points[1:].T, points[0])


def converted(light, points=P3):
    """Light of primaries whose white is D65 in those of BT.709."""
    return light @ (np.linalg.inv(matrix(BT709)) @ matrix(points)).T


def profile(space=b"RGB ", gamma=1.0, points=BT709, name=b"sRGB built-in"):
    """An ICC profile (version 2.1) of a matrix and a power, or of grey; D65 adapted to D50."""
    bradford = np.array(
        [[1.0478112, 0.0228866, -0.0501270], [0.0295424, 0.9904844, -0.0170491],
         [-0.0092345, 0.0150436, 0.7521316]]
    )  # fmt: skip

    def xyz(values):
        return b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(65536 * value) for value in values))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(256 * gamma)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", len(name) + 1) + name + b"\0" * 79
    tags = {b"desc": text + b"\0" * (-len(text) % 4), b"wtpt": xyz((0.9642, 1, 0.8249))}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    else:
        for letter, column in zip(b"rgb", (bradford @ matrix(points)).T, strict=True):
            tags[bytes([letter]) + b"XYZ"], tags[bytes([letter]) + b"TRC"] = xyz(column), curve
    table, body, start = b"", b"", 132 + 12 * len(tags)
    for tag, data in tags.items():
        table += tag + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ ")
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + struct.pack(">3i", 63190, 65536, 54061)
    return head + b"\0" * (128 - len(head)) + struct.pack(">I", len(tags)) + table + body


def difference(path, expected):
    """The largest difference in levels of what is read."""
    expected = torch.from_numpy(np.ascontiguousarray(np.atleast_3d(expected))).permute(2, 0, 1)
    return int((read_image(path).int() - expected.int()).abs().max())


LINEAR = srgb(COLOURS / 255)
WIDE = srgb(converted(from_srgb(COLOURS)))
A, B = 1.099296826809442, 0.018053968510807  # ITU-T H.273, table 3, value 1; solved for light
TELEVISION = np.where(
    COLOURS / 255 < 4.5 * B, COLOURS / 255 / 4.5, ((COLOURS / 255 + A - 1) / A) ** (1 / 0.45)
)
SAID = {
    "nothing": ((), COLOURS),
    "gamma of sRGB": ((gama(0.45455),), COLOURS),
    "that within 1 %": ((gama(0.4510), chrm(BT709)), COLOURS),
    "linear": ((gama(1.0),), LINEAR),
    "gamma 1.8": ((gama(0.55556),), srgb((COLOURS / 255) ** (1 / 0.55556))),
    "other colours": ((chrm(P3),), WIDE),
    "other colours and gamma": (
        (gama(0.45455), chrm(P3)), srgb(converted((COLOURS / 255) ** (1 / 0.45455))),
    ),
    "sRGB before gamma": ((gama(1.0), chrm(P3), (b"sRGB", b"\0")), COLOURS),
    "no gamma at all": ((gama(0),), COLOURS),
    "P3": ((cicp(12, 13, 0, 1),), WIDE),
    "P3 before sRGB and all others": (
        (cicp(12, 13, 0, 1), iccp(profile()), (b"sRGB", b"\0"), gama(1.0)), WIDE,
    ),
    "code points of sRGB before a profile": ((cicp(1, 13, 0, 1), iccp(profile())), COLOURS),
    "light": ((cicp(1, 8, 0, 1),), LINEAR),
    "television": ((cicp(1, 1, 0, 1),), srgb(TELEVISION)),
    "television's range": (
        (cicp(1, 13, 0, 0),), srgb(from_srgb(np.clip((COLOURS - 16.0) / 219 * 255, 0, 255))),
    ),
    "a linear profile of the name sRGB": ((iccp(profile()),), LINEAR),
    "a wide one": (
        (iccp(profile(gamma=2.2, points=P3)),), srgb(converted((COLOURS / 255) ** 2.19921875)),
    ),
    "a profile before sRGB": ((iccp(profile()), (b"sRGB", b"\0")), LINEAR),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Colours outside sRGB:wic_layers.errors.WICWarning")
@pytest.mark.parametrize("name", list(SAID))
def test_colours_are_those_that_are_said(tmp_path, name):
    chunks, expected = SAID[name]
    path = tmp_path / "a.png"
    path.write_bytes(with_chunks(COLOURS, *chunks))
    # the CMM computes with 14 bits; what is said in numbers is rounded once
    has_profile = name.startswith("a ")
    assert difference(path, expected) <= (1 if has_profile else 0)
    assert torch.equal(read_carrier(path)[0], torch.from_numpy(COLOURS).permute(2, 0, 1))
    if not any(kind == b"cICP" for kind, _ in chunks):  # which Pillow does not keep
        with Image.open(path) as image:
            assert torch.equal(as_pixels(image), read_image(path))


@pytest.mark.parametrize(
    "said", [cicp(12, 13, 0, 1), iccp(profile(gamma=2.2, points=P3)), chrm(P3)]
)
def test_colours_outside_srgb_are_said_once(tmp_path, said):
    inside = COLOURS // 4 + 96
    for name, image in (("inside", inside), ("outside", COLOURS), ("other", COLOURS[::-1])):
        (tmp_path / f"{name}.png").write_bytes(with_chunks(image, said))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        read_image(tmp_path / "inside.png")
        assert not caught
        for name in ("outside", "other"):
            read_image(tmp_path / f"{name}.png")
    assert [str(each.message) for each in caught] == [CLIPPED]


def test_a_profile_in_a_bmp_counts(tmp_path):
    """BITMAPV5HEADER: bV5CSType is PROFILE_EMBEDDED, then place and length of the profile."""
    said, rows = profile(), np.ascontiguousarray(COLOURS[::-1, :, ::-1]).tobytes()
    head = struct.pack("<IiiHHIIiiII", 124, 16, 16, 1, 24, 0, len(rows), 0, 0, 0, 0)
    head += bytes(16) + b"DEBM" + bytes(48) + struct.pack("<4I", 4, 124 + len(rows), len(said), 0)
    path = tmp_path / "a.bmp"
    size = 14 + len(head) + len(rows) + len(said)
    path.write_bytes(b"BM" + struct.pack("<IHHI", size, 0, 0, 138) + head + rows + said)
    assert len(head) == 124
    assert difference(path, LINEAR) <= 1
    assert torch.equal(read_carrier(path)[0], torch.from_numpy(COLOURS).permute(2, 0, 1))


def test_grey_stays_grey(tmp_path):
    path = tmp_path / "a.png"
    for chunks, expected in (
        ((gama(1.0), chrm(P3)), srgb(GREY / 255)),
        ((cicp(9, 8, 0, 1),), srgb(GREY / 255)),
        ((iccp(profile(b"GRAY")),), srgb(GREY / 255)),
        ((iccp(profile(points=P3)),), srgb(GREY / 255)),
        ((chrm(P3),), GREY),
    ):
        path.write_bytes(with_chunks(GREY, *chunks))
        assert difference(path, np.stack([expected] * 3, -1)) <= 1
        read = read_image(path)
        assert torch.equal(read[0], read[1])
        assert torch.equal(read[0], read[2])


def test_a_grey_profile_counts_with_opacity_too(tmp_path):
    path = tmp_path / "a.png"
    grey = np.stack((GREY, np.full_like(GREY, 255)), -1)
    for opacity in (255, 100):
        grey[..., 1] = opacity
        path.write_bytes(with_chunks(grey, iccp(profile(b"GRAY"))))
        read = read_layer(path).int()
        expected = torch.from_numpy(srgb(GREY / 255)).int()
        assert int((read[:3] - expected).abs().max()) <= 1
        assert bool((read[3:] == opacity).all())
    with pytest.raises(WICFileError, match="partly transparent"):
        read_image(path)


@pytest.mark.parametrize(("transfer", "name"), [(16, "PQ"), (18, "HLG")])
def test_hdr_is_refused(tmp_path, transfer, name):
    path = tmp_path / "a.png"
    path.write_bytes(with_chunks(COLOURS, cicp(9, transfer, 0, 1)))
    for read in (read_image, read_layer):
        with pytest.raises(WICFileError, match=rf"a.png is HDR \({name}\)"):
            read(path)
    assert read_carrier(path)[0].shape == (3, 16, 16)


@pytest.mark.parametrize(
    ("image", "said", "match"),
    [
        (COLOURS, iccp(b"none"), "cannot be used"),
        (COLOURS, (b"iCCP", b"a name\0\0" + zlib.compress(profile())[:40]), "it is damaged"),
        (COLOURS, (b"iCCP", b"a name\0\0" + zlib.compress(bytes(2**26))), "it is damaged"),
        (COLOURS, iccp(profile(b"GRAY")), "it is for GRAY, the image is RGB"),
        (GREY, iccp(b""), "it is damaged"),
        (COLOURS, cicp(2, 2, 0, 1), r"cICP chunk \[2, 2, 0, 1\]"),
        (COLOURS, cicp(1, 13, 1, 1), r"cICP chunk \[1, 13, 1, 1\]"),
        (COLOURS, (b"cICP", b"\1"), r"cICP chunk \[1\]"),
        (COLOURS, chrm((0.3127, 0.329) + (0.3, 0.3) * 3), "colours that cHRM names"),
        (COLOURS, chrm((0,) * 8), "colours that cHRM names"),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, image, said, match):
    path = tmp_path / "a.png"
    path.write_bytes(with_chunks(image, said))
    with pytest.warns(WICWarning, match=match) as caught:
        pixels = read_image(path)
    assert [warning.filename for warning in caught] == [__file__]
    assert "a.png" in str(caught[0].message)
    assert torch.equal(
        pixels[..., 0], torch.from_numpy(np.atleast_3d(image)[:, 0].T).expand(3, -1)
    )


def test_text_beside_the_pixels_is_no_colour(tmp_path):
    path = tmp_path / "a.png"
    texts = (b"gamma\x002.2", b"chromaticity\0none", b"srgb\0no", b"cicp\0no", b"icc_profile\0no")
    path.write_bytes(with_chunks(COLOURS, *((b"tEXt", text) for text in texts)))
    assert difference(path, COLOURS) == 0
