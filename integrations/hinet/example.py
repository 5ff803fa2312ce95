"""A small HiNet with its random z, upgraded by ``wic upgrade``, and a picture of both.

    python -m integrations.hinet.example

Trains on crops of scikit-image's photographs for half a minute, writes the checkpoint as HiNet's
own code does, upgrades and fine-tunes it as long again, and draws what is revealed: twice from the
same stego image, with the difference x20. After so few steps neither is good; what differs is that
one draws numbers and the other does not.
"""

from __future__ import annotations

import tempfile

from skimage import data

from integrations.showing import Workshop, arguments, compared, decibel, write_sheet
from wic_layers import tasks


def main() -> None:
    args = arguments(__doc__, "hinet.png")
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(folder, args.steps)
        published = workshop.train("hinet-z-small")
        upgraded = workshop.upgrade("hinet", published)

    cover, secret = data.coffee()[60:316, 120:376], data.cat()[20:276, 100:356]
    rows = []
    for title, network in (("with its random z", published), ("with a WIC", upgraded)):
        stego = tasks.hide(cover, [secret], model=network)
        back, spread = compared(*(tasks.reveal(stego, model=network)[0] for _ in range(2)))
        rows.append([cover, stego, secret, *back])
        print(
            f"{title}: stego {decibel(stego, cover):.2f} dB, secret "
            f"{decibel(back[0], secret):.2f} dB; from one time to the next a pixel changes by "
            f"{spread:.2f} grey levels"
        )
    write_sheet(rows, args.out)
    print(
        f"{args.out}: above with z, below with a WIC; the cover, the stego image, the secret, "
        "what was revealed first and second, their difference x20"
    )


if __name__ == "__main__":
    main()
