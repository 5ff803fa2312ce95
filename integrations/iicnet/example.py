"""A small IICNet for stereo pairs, upgraded by ``wic upgrade``, and a picture of both.

    python -m integrations.iicnet.example

Trains as published on pairs made of scikit-image's photographs for a minute, writes the
checkpoint as IICNet's own code does, upgrades and fine-tunes it as long again, and packs
scikit-image's stereo pair, which is from a camera: left view, right view, the one file's picture,
and both views as they come back. After so few steps neither is good.
"""

from __future__ import annotations

import os
import tempfile

import numpy as np
import skimage
from PIL import Image

from integrations.showing import Picture, Workshop, arguments, decibel, write_sheet
from wic_layers import tasks


def views() -> list[Picture]:
    """The pair as it lies in scikit-image, which offers it by a download only."""
    folder = os.path.join(os.path.dirname(skimage.__file__), "data")
    found = []
    for side in ("left", "right"):
        with Image.open(f"{folder}/motorcycle_{side}.png") as image:
            found.append(np.asarray(image.convert("RGB"))[100:356, 240:496])
    return found


def main() -> None:
    args = arguments(__doc__, "iicnet.png")
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(folder, args.steps)
        original = workshop.train("iicnet-stereo-squeeze-small")
        upgraded = workshop.upgrade("iicnet", original, "--task", "stereo")

    left, right = views()
    rows = []
    for title, network in (("channel squeeze", original), ("WIC", upgraded)):
        packed = tasks.pack("stereo", [left, right], model=network)
        back = tasks.unpack(packed, "stereo", model=network)
        rows.append([left, right, packed, *back])
        print(
            f"{title}: the picture {decibel(packed, left):.2f} dB from the left view; the views "
            f"come back with {decibel(back[0], left):.2f} and {decibel(back[1], right):.2f} dB"
        )
    write_sheet(rows, args.out)
    print(
        f"{args.out}: above with the channel squeeze, below with a WIC; the left and the right "
        "view, the packed picture, both views as they come back"
    )


if __name__ == "__main__":
    main()
