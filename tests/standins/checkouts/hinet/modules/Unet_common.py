import torch.nn as nn

from wic_layers.blocks import Haar


class DWT(nn.Module):
    def forward(self, x):
        return Haar()(x)


class IWT(nn.Module):
    def forward(self, x):
        return Haar().inverse(x)
