"""A small IRN, a DLV-IRN and a DLV-IRN with a WIC, and a picture of what is random in each.

    python -m integrations.dlv.example

Trains each on crops of scikit-image's photographs for half a minute and draws, for another
photograph, the small picture with two draws of w and their difference x20, then what comes back
twice from the small picture without w, and their difference x20. After so few steps none is good;
what differs is where they draw numbers.
"""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from skimage import data

from integrations.showing import Picture, Workshop, arguments, compared, decibel, write_sheet
from wic_layers import tasks

NETWORKS = {
    "IRN, z drawn": "irn-x2-z-small",
    "DLV-IRN, z zero": "dlv-irn-x2-z-small",
    "DLV-IRN with a WIC": "dlv-irn-x2-small",
}


@torch.no_grad()
def with_a_draw(network: Any, photo: Picture) -> Picture:
    """The small picture with a w that is drawn, where the network takes one."""
    x = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
    y = network(x, w=network.draw(x)) if hasattr(network, "draw") else network(x)
    return (y[0].clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()


def main() -> None:
    args = arguments(__doc__, "dlv.png")
    photo = data.coffee()[60:316, 120:376]
    rows, lines = [], []
    with tempfile.TemporaryDirectory() as folder:
        workshop = Workshop(folder, args.steps)
        for title, preset in NETWORKS.items():
            network = workshop.train(preset)
            forward, of_w = compared(*(with_a_draw(network, photo) for _ in range(2)))
            small = tasks.down(photo, scale=2, model=network)
            back, of_z = compared(*(tasks.up(small, scale=2, model=network) for _ in range(2)))
            rows.append([*forward, *back])
            lines.append(
                f"{title}: {decibel(back[0], photo):.2f} dB; a pixel changes by {of_w:.2f} grey "
                f"levels with w on the way forward, by {of_z:.2f} from one time to the next on "
                "the way back"
            )
    write_sheet(rows, args.out)
    print("\n".join(lines))
    print(
        f"{args.out}: IRN, DLV-IRN, DLV-IRN with a WIC; the small picture with two draws of w, "
        "their difference x20, what comes back first and second, their difference x20"
    )


if __name__ == "__main__":
    main()
