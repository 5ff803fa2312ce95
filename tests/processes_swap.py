"""What test_swap_modes.py runs in two processes: trains swapped models, and saves them."""

import torch
from swapping import batch, built, latent, moved, named, objective
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from wic_layers import swap_1x1

NAMES = ("(x, logdet, reverse), free", "forward, reverse(y), LU")


class Run(nn.Module):
    """The loss of a case, or its way back, as a module."""

    def __init__(self, model, case):
        super().__init__()
        self.model, self.case = model, case

    def forward(self, x, rev=False):
        return self.case.inverse(self.model, x) if rev else objective(self.case, self.model, x)


def train(how, folder):
    """Two steps, each process on its half of the batch, and a sample."""
    rank = distributed.get_rank()
    for name in NAMES:
        case = named(name)
        model = moved(case, built(case))
        for parameter in model.parameters():  # fully_shard takes no others
            parameter.data = parameter.data.contiguous()
        swap_1x1(model)
        if how == "ddp":
            run = DistributedDataParallel(Run(model, case))
        else:
            run = fully_shard(Run(model, case), mesh=init_device_mesh("cpu", (2,)))
        optimizer = torch.optim.SGD(run.parameters(), 0.05)
        x, z = batch(case), latent(case)
        for _ in range(2):
            optimizer.zero_grad()
            run(x.chunk(2)[rank]).backward()
            optimizer.step()
        with torch.no_grad():
            run(z, rev=True)
            sample = run(z, rev=True)
        state = {
            key: value.full_tensor() if hasattr(value, "full_tensor") else value
            for key, value in model.state_dict().items()
        }
        torch.save({**state, "sample": sample}, folder / f"{name}-{rank}.pt")
