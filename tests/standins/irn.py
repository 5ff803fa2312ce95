"""A stand-in for IRN's code base: the interface that its integration changes, and nothing else.

Names, calls and shapes are those of ``codes/models/networks.py`` and ``IRN_model.py`` beside it;
what they do is written anew, for a network of two couplings.
"""

import torch
from torch import nn

from wic_layers.models import IRN


class Network(nn.Module):
    """Picture and z in one tensor, and the state dict's own names."""

    def __init__(self, in_channels, scale):
        super().__init__()
        blocks = IRN(in_channels, 3, scale=scale, couplings=2, growth=4, random_z=True)
        self.operations = nn.ModuleList(list(blocks)[:-1])

    def forward(self, x, rev=False, cal_jacobian=False):
        for operation in reversed(self.operations) if rev else self.operations:
            x = operation(x, rev)
        return x


def define_G(opt):
    opt_net = opt["network_G"]
    netG = Network(opt_net["in_nc"], opt_net["scale"])
    return netG


class Model:
    """One training step and one test, as IRN's code runs them."""

    def __init__(self, opt):
        self.netG = nn.DataParallel(define_G(opt))
        self.optimizer_G = torch.optim.Adam(self.netG.parameters(), 1e-3)

    def feed_data(self, small, large):
        self.ref_L, self.real_H = small, large

    def gaussian_batch(self, shape):
        return torch.randn(tuple(shape))

    def Quantization(self, x):
        return x + (x.clamp(0, 1).mul(255).round() / 255 - x).detach()

    def loss_forward(self, out, y, z):
        z = z.reshape([out.shape[0], -1])
        return (out - y).square().sum() / len(out), z.square().sum() / len(z)

    def optimize_parameters(self):
        self.optimizer_G.zero_grad()
        self.output = self.netG(x=self.real_H)
        zshape = self.output[:, 3:, :, :].shape
        LR_ref = self.ref_L.detach()
        l_forw_fit, l_forw_ce = self.loss_forward(self.output[:, :3, :, :], LR_ref, self.output[:, 3:, :, :])
        LR = self.Quantization(self.output[:, :3, :, :])
        gaussian_scale = 1
        y_ = torch.cat((LR, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
        found = self.netG(x=y_, rev=True)[:, :3, :, :]
        loss = l_forw_fit + l_forw_ce + (found - self.real_H).abs().sum() / len(found)
        loss.backward()
        self.optimizer_G.step()
        return float(loss.detach())

    def test(self):
        shape, scale = self.ref_L.shape, self.real_H.shape[2] // self.ref_L.shape[2]
        zshape = [shape[0], shape[1] * (scale**2 - 1), shape[2], shape[3]]
        gaussian_scale = 1
        self.netG.eval()
        with torch.no_grad():
            self.forw_L = self.Quantization(self.netG(x=self.real_H)[:, :3, :, :])
            y_forw = torch.cat((self.forw_L, gaussian_scale * self.gaussian_batch(zshape)), dim=1)
            self.fake_H = self.netG(x=y_forw, rev=True)[:, :3, :, :]
        self.netG.train()
        return zshape

    def checkpoint(self):
        return self.netG.module.state_dict()


