"""Puts a WIC into a checkout of HiNet's code, where it draws z, or takes it out again.

python integrations/hinet/change.py CHECKOUT [--show | --undo]
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: changing.py lies beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from integrations.changing import Change, Edit, main

TRAINS = ("train.py", "train_logging.py")
IMPORT = "import modules.Unet_common as common"
# z has no channels any more: what is cut off for it is empty, and needs no other change
CLOSED = (
    "net = torch.nn.DataParallel(net,",
    "net = torch.nn.DataParallel(WellPosed(net, 8 * c.channels_in, 4 * c.channels_in),",
)

CHANGE = Change(
    "TomTomTommi/HiNet",
    "5c2682a6",
    {
        "train.py": "6a3b5c7a5abc5e72d93bbd94cf4da405cc2af62da651cc438c633d112bd38b5a",
        "train_logging.py": "d3f4db9a209d0c7ae065fca8741ae3aa10472e232ab4b1880dacd0f8a7eb4560",
        "test.py": "f638fbb3f433cf9d247181dcb5e9de88af05dc5aea15dd41e1afceeafd84f263",
    },
    (
        *(
            edit
            for file in TRAINS
            for edit in (
                Edit(
                    file,
                    IMPORT,
                    f"{IMPORT}\nfrom wic_layers import WellPosed\n"
                    "from wic_layers.hosts import load_optimizer_state",
                ),
                Edit(
                    file,
                    "optim.load_state_dict(state_dicts['opt'])",
                    "load_optimizer_state(optim, state_dicts['opt'])",
                ),
                Edit(file, *CLOSED),
            )
        ),
        Edit("test.py", IMPORT, f"{IMPORT}\nfrom wic_layers import WellPosed"),
        Edit("test.py", *CLOSED),
    ),
)

if __name__ == "__main__":
    sys.exit(main(CHANGE))
