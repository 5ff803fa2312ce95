import torch
import torch.nn as nn
import config as c
from standins.parts import Coupling, Dense


class Steep(Dense):
    slope = 0.01


class Block(Coupling):
    shift, add, scale, kind = 'f', 'y', 'r', Steep

    def factor(self, a):
        return torch.exp(4 * (torch.sigmoid(self.r(a)) - 0.5))


class Hinet(nn.Module):
    def __init__(self):
        super(Hinet, self).__init__()
        self.inv1, self.inv2 = Block(24, 12, 4), Block(24, 12, 4)

    def forward(self, x, rev=False):
        for block in (self.inv2, self.inv1) if rev else (self.inv1, self.inv2):
            x = block(x, rev)
        return x


class Model(nn.Module):
    def __init__(self):
        super(Model, self).__init__()
        self.model = Hinet()

    def forward(self, x, rev=False):
        return self.model(x, rev=True) if rev else self.model(x)


def init_model(mod):
    for key, param in mod.named_parameters():
        split = key.split('.')
        param.data = c.init_scale * torch.randn(param.data.shape).cuda()
        if split[-2] == 'conv5':
            param.data.fill_(0.)
