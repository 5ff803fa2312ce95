"""Puts a WIC into a checkout of IRN's code, where its two models draw z, or takes it out again.

python integrations/irn/change.py CHECKOUT [--show | --undo]
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: changing.py lies beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from integrations.changing import Change, Edit, main

MODEL = "codes/models/IRN_model.py"
COLOUR = "codes/models/IRN_color_model.py"
BASE = "codes/models/base_model.py"

REPOSITORY = "pkuxmq/Invertible-Image-Rescaling"
COMMIT = "0ebe8f9d"
ORIGINALS = {
    MODEL: "6f051f607a46a8bc6a21d6a93f58f41d085e1eb7d5086969431de28bfeeec2c0",
    COLOUR: "562c4ebec26918a3ddc6f0863d03808c74bfd1e5f8501a90e79be7a53bf5508e",
    BASE: "44e63993c4404feea73a1366bcfd79ab14f22514e9881ceb346180f84243a6b4",
}
# z has no channels any more: what is cut off for it is empty, and needs no other change
RESCALING = (
    Edit(MODEL, "z = z.reshape([out.shape[0], -1])", "z = z.flatten(1)"),
    Edit(
        MODEL,
        "y_forw = torch.cat((self.forw_L, gaussian_scale * self.gaussian_batch(zshape)), dim=1)",
        "y_forw = self.forw_L",
    ),
    Edit(
        MODEL,
        "y_ = torch.cat((LR_img, gaussian_scale * self.gaussian_batch(zshape)), dim=1)",
        "y_ = LR_img",
    ),
)
RESUMING = (
    Edit(
        BASE,
        "from torch.nn.parallel import DistributedDataParallel",
        "from torch.nn.parallel import DistributedDataParallel\n"
        "from wic_layers.hosts import load_optimizer_state",
    ),
    Edit(
        BASE,
        "self.optimizers[i].load_state_dict(o)",
        "load_optimizer_state(self.optimizers[i], o)",
    ),
)
CHANGE = Change(
    REPOSITORY,
    COMMIT,
    ORIGINALS,
    (
        Edit(
            MODEL,
            "from .base_model import BaseModel",
            "from .base_model import BaseModel\nfrom wic_layers import WellPosed",
        ),
        Edit(
            MODEL,
            "self.netG = networks.define_G(opt)",
            "self.netG = WellPosed(networks.define_G(opt), opt['network_G']['in_nc'] * "
            "opt['network_G']['scale'] ** 2, opt['network_G']['out_nc'])",
        ),
        *RESCALING,
        Edit(
            COLOUR,
            "from .base_model import BaseModel",
            "from .base_model import BaseModel\nfrom wic_layers import WellPosed",
        ),
        Edit(
            COLOUR,
            "self.netG = networks.define_grey(opt)",
            "self.netG = WellPosed(networks.define_grey(opt), 3, 1)",
        ),
        Edit(COLOUR, "z = z.reshape([out.shape[0], -1])", "z = z.flatten(1)"),
        Edit(
            COLOUR,
            "y_forw = torch.cat((self.forw_L, gaussian_scale * self.gaussian_batch(zshape)), "
            "dim=1)",
            "y_forw = self.forw_L",
        ),
        Edit(
            COLOUR,
            "y_ = torch.cat((Grey_img, gaussian_scale * self.gaussian_batch(zshape)), dim=1)",
            "y_ = Grey_img",
        ),
        *RESUMING,
    ),
)

if __name__ == "__main__":
    sys.exit(main(CHANGE))
