"""Puts a WIC in place of IICNet's channel squeeze into a checkout, or takes it out again.

python integrations/iicnet/change.py CHECKOUT [--show | --undo]
"""

from __future__ import annotations

import sys
from pathlib import Path

if __package__ in (None, ""):  # run as a script: changing.py lies beside this folder
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from integrations.changing import Change, Edit, main

NET = "codes/models/InvNet.py"
BASE = "codes/models/InvNetBase.py"
LOSS = "codes/models/modules/loss.py"

CHANGE = Change(
    "felixcheng97/IICNet",
    "5ce17975",
    {
        NET: "e6f88cf71aec262dde235334dea58f065ab63dc98b5f59cbfdcc231fbe899c20",
        BASE: "8edf0196949fb46ba79bedf7d2bb7ad845a60f9961ec6af1f51ce92f5c18a2f5",
        LOSS: "e86ceeab9d1f5d5d5b2ab2adc9a9f981cbacf875d6aa6b86171ea6a65ad1db98",
    },
    (
        Edit(
            NET,
            "from .InvNetBase import InvNetBase",
            "from .InvNetBase import InvNetBase\nfrom wic_layers.blocks import ChannelMean",
        ),
        Edit(
            NET,
            "self.cs = CSLayer(self.lcs_opt)",
            "self.cs = ChannelMean(self.lcs_opt['in_nc'] // self.lcs_opt['out_nc'])"
            ".as_wic(self.lcs_opt['out_nc'])",
        ),
        Edit(
            NET,
            "net.load_state_dict(state_dict_clean, strict=True)",
            "state_dict_clean.setdefault('3.weight', self.cs.weight.detach())\n"
            "net.load_state_dict(state_dict_clean, strict=True)",
        ),
        Edit(
            BASE,
            "from torch.nn.parallel import DistributedDataParallel",
            "from torch.nn.parallel import DistributedDataParallel\n"
            "from wic_layers.hosts import load_optimizer_state",
        ),
        Edit(
            BASE,
            "self.optimizer.load_state_dict(resume_state['optimizer'])",
            "load_optimizer_state(self.optimizer, resume_state['optimizer'])",
        ),
        # a torch that WIC runs on has no torch.rfft
        Edit(
            LOSS,
            "x_fft = torch.rfft(x, signal_ndim=2, normalized=False, onesided=True)",
            "x_fft = torch.view_as_real(torch.fft.rfft2(x))",
        ),
        Edit(
            LOSS,
            "target_fft = torch.rfft(target, signal_ndim=2, normalized=False, onesided=True)",
            "target_fft = torch.view_as_real(torch.fft.rfft2(target))",
        ),
    ),
)

if __name__ == "__main__":
    sys.exit(main(CHANGE))
