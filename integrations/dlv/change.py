"""Puts a second latent w and a WIC into a checkout of IRN's code, or takes them out again.

python integrations/dlv/change.py CHECKOUT [--show | --undo]
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: changing.py lies beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from integrations.changing import Change, Edit, main
from integrations.irn import change as irn

CHANGE = Change(
    irn.REPOSITORY,
    irn.COMMIT,
    {file: irn.ORIGINALS[file] for file in (irn.MODEL, irn.BASE)},
    (
        Edit(
            irn.MODEL,
            "from .base_model import BaseModel",
            "from .base_model import BaseModel\n"
            "from wic_layers import WellPosed\n"
            "from wic_layers.blocks import Latent\n"
            "from wic_layers.models import DualLatent",
        ),
        Edit(
            irn.MODEL,
            "self.netG = networks.define_G(opt)",
            "self.netG = DualLatent(Latent(opt['network_G']['in_nc'] - opt['network_G']"
            "['out_nc']), WellPosed(networks.define_G(opt), opt['network_G']['in_nc'] * "
            "opt['network_G']['scale'] ** 2, opt['network_G']['out_nc']))",
        ),
        Edit(
            irn.MODEL,
            "self.output = self.netG(x=self.input)",
            "self.output = self.netG(x=self.input, w=self.netG.module.draw(self.input))",
        ),
        *irn.RESCALING,
        *irn.RESUMING,
    ),
    note="Set in_nc: 5 under network_G among the options: three channels and two of w.",
)

if __name__ == "__main__":
    sys.exit(main(CHANGE))
