"""A telephone's folder, taken through ``wic down`` and ``wic up``: what comes back, what is said.

Run with: python tests/phone.py FOLDER [--megapixels 108], an empty folder. Each picture is of
scikit-image's; HEIC needs pillow-heif.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from test_image_colours import P3, profile

SIZE = (61, 45)


def write(folder, size=SIZE):
    """Writes the files, and returns the names of those that are pictures."""
    folder.mkdir(parents=True)
    width, height = size
    photo = Image.fromarray(data.astronaut()).crop((150, 60, 150 + width, 60 + height))
    about = Image.Exif()
    about[0x010F], about[0x0132], about[0x0112] = "Telephone", "2026:11:29 12:00:00", 6
    about[0x8825] = {1: "N", 2: (47.0, 30.0, 1.0)}
    photo.save(folder / "portrait.jpg", exif=about, dpi=(72, 72), quality=95)
    photo.save(folder / "wide.jpeg", icc_profile=profile(gamma=2.2, points=P3), quality=95)
    photo.save(folder / "from-the-web.jfif", format="JPEG", quality=95)
    photo.convert("L").save(folder / "scan.png")
    cut = photo.copy()
    cut.putalpha(Image.fromarray(np.tri(height, width, dtype=np.uint8) * 255))
    cut.save(folder / "sticker.png")
    if find_spec("pillow_heif"):
        import_module("pillow_heif").register_heif_opener()
        photo.save(folder / "new.heic", quality=95)
    pictures = sorted(path.name for path in folder.iterdir())
    (folder / "film.mov").write_bytes(b"")
    (folder / "other.dng").write_bytes(b"")
    return pictures


def main():
    """Writes the folder, runs both commands and prints what they say."""
    from wic_layers import cli

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--megapixels", type=int, default=0, help="of one picture more")
    args = parser.parse_args()
    print(", ".join(write(args.folder / "phone", (301, 257))))
    if args.megapixels:
        width = round((args.megapixels * 1e6 * 4 / 3) ** 0.5)
        Image.new("RGB", (width, width * 3 // 4), (90, 120, 160)).save(
            args.folder / "phone" / "large.jpg"
        )
    down, up = (str(args.folder / name) for name in ("down", "up"))
    print(cli.main(["down", str(args.folder / "phone"), "-o", down, "--keep-metadata"]))
    print(cli.main(["up", down, "-o", up, "--keep-metadata"]))


if __name__ == "__main__":
    main()
