"""A stand-in for HiNet's code base: the interface that its integration changes, and nothing else.

Names, calls and shapes are those of ``train.py``; what they do is written anew, for a network of
two couplings.
"""

from types import SimpleNamespace

import torch
from torch import nn

from wic_layers.blocks import Haar
from wic_layers.models import HiNet

c = SimpleNamespace(channels_in=3, device_ids=None)
dwt, iwt = Haar(), Haar().inverse


class Inner(nn.Module):
    """Sub-bands in, sub-bands out, under the names inv1, inv2."""

    def __init__(self):
        super().__init__()
        self.inv1, self.inv2 = list(HiNet(couplings=2, growth=4, random_z=True))[1:3]

    def forward(self, x, rev=False):
        for block in (self.inv2, self.inv1) if rev else (self.inv1, self.inv2):
            x = block(x, rev)
        return x


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.model = Inner()

    def forward(self, x, rev=False):
        return self.model(x, rev=True) if rev else self.model(x)


def init_model(mod):
    for key, param in mod.named_parameters():
        param.data = 0.01 * torch.randn(param.shape)
        if key.split(".")[-2] == "conv5":
            param.data.fill_(0.0)


def gauss_noise(shape):
    return torch.randn(tuple(shape))


def start():
    net = Model()
    init_model(net)
    net = torch.nn.DataParallel(net, device_ids=c.device_ids)
    return net


def train(net, data, steps):
    """The losses of some steps, and the last secret that came back with its stego image."""
    optim = torch.optim.Adam(net.parameters(), lr=1e-3)
    losses = []
    cover, secret = data[len(data) // 2 :], data[: len(data) // 2]
    for _ in range(steps):
        input_img = torch.cat((dwt(cover), dwt(secret)), 1)
        output = net(input_img)
        output_steg = output.narrow(1, 0, 4 * c.channels_in)
        output_z = output.narrow(1, 4 * c.channels_in, output.shape[1] - 4 * c.channels_in)
        steg_img = iwt(output_steg)
        output_z_guass = gauss_noise(output_z.shape)
        output_rev = torch.cat((output_steg, output_z_guass), 1)
        output_image = net(output_rev, rev=True)
        secret_rev = iwt(output_image[:, 4 * c.channels_in :])
        loss = (steg_img - cover).square().sum() + 5 * (secret_rev - secret).square().sum()
        loss.backward()
        optim.step()
        optim.zero_grad()
        losses.append(float(loss.detach()))
    return losses, secret_rev.detach(), steg_img.detach()
