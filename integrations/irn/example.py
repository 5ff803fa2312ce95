"""A small IRN with its random z, upgraded by ``wic upgrade``, and a picture of both.

    python -m integrations.irn.example

Trains on crops of scikit-image's photographs for half a minute, writes the checkpoint as IRN's own
code does, upgrades and fine-tunes it as long again, and draws what comes back of another
photograph: twice from the same small picture, with the difference x20. After so few steps neither
is good; what differs is that one draws numbers and the other does not.
"""

from __future__ import annotations

import tempfile

from skimage import data

from integrations.showing import Workshop, arguments, compared, decibel, write_sheet
from wic_layers import tasks


def main() -> None:
    args = arguments(__doc__, "irn.png")
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(folder, args.steps)
        published = workshop.train("irn-x2-z-small")
        upgraded = workshop.upgrade("irn", published)

    photo = data.coffee()[60:316, 120:376]
    rows = []
    for title, network in (("with its random z", published), ("with a WIC", upgraded)):
        small = tasks.down(photo, scale=2, model=network)
        back, spread = compared(*(tasks.up(small, scale=2, model=network) for _ in range(2)))
        rows.append([photo, small, *back])
        print(
            f"{title}: {decibel(back[0], photo):.2f} dB; from one time to the next a pixel "
            f"changes by {spread:.2f} grey levels"
        )
    write_sheet(rows, args.out)
    print(
        f"{args.out}: above with z, below with a WIC; the photograph, the small picture, what "
        "came back first and second, their difference x20"
    )


if __name__ == "__main__":
    main()
