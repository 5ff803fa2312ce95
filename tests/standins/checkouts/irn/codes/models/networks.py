import torch
import torch.nn.functional as F
from torch import nn

from standins.parts import Coupling, Haar, Operations


class Blocks(nn.Module):
    """The mean of squares of pixels in front, by a kernel that is trained."""

    def __init__(self, scale):
        super().__init__()
        self.scale = scale
        kernel = torch.eye(scale**2)
        kernel[0] = 1 / scale**2
        self.conv_weights = nn.Parameter(kernel)

    def forward(self, x, rev=False):
        kernel = torch.inverse(self.conv_weights) if rev else self.conv_weights
        if not rev:
            x = F.pixel_unshuffle(x, self.scale).unflatten(1, (-1, self.scale**2))
            return torch.einsum('ij,bcjhw->bichw', kernel, x).flatten(1, 2)
        x = torch.einsum('ij,bjchw->bcihw', kernel, x.unflatten(1, (self.scale**2, -1)))
        return F.pixel_shuffle(x.flatten(1, 2), self.scale)


class Grey(nn.Module):
    def __init__(self):
        super().__init__()
        kernel = [[0.299, 0.587, 0.114], [-0.147, -0.289, 0.436], [0.615, -0.515, -0.1]]
        self.conv_weights = nn.Parameter(torch.tensor(kernel))

    def forward(self, x, rev=False):
        kernel = torch.inverse(self.conv_weights) if rev else self.conv_weights
        return F.conv2d(x, kernel[:, :, None, None])


def define_G(opt):
    opt_net = opt['network_G']
    channels, layers, scale = opt_net['in_nc'], [], opt_net['scale']
    if opt_net['which_model_G'].get('use_ConvDownsampling'):
        layers += [Blocks(scale), Coupling(channels * scale**2, opt_net['out_nc'], opt_net['gc'])]
        return Operations(*layers)
    while scale > 1:
        layers.append(Haar(channels))
        channels, scale = 4 * channels, scale // 2
        layers.append(Coupling(channels, opt_net['out_nc'], opt_net['gc']))
    return Operations(*layers)


def define_grey(opt):
    return Operations(Grey(), Coupling(3, 1, 4))
