"""``(x, rev=False)`` without a log-det, and normflows' images from the latent to the data."""

import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case
from .vectors import CALLS, InvertibleAffine, normflows, of_normflows


class InvertibleConv1x1(nn.Module):
    """IICNet: (n, n), ``get_weight(input, rev)`` gives the kernel alone."""

    def __init__(self, num_channels):
        super().__init__()
        self.w_shape = [num_channels, num_channels]
        self.weight = nn.Parameter(parts.orthogonal(num_channels))

    def get_weight(self, input, rev):
        weight = self.weight.double().inverse().float() if rev else self.weight
        return weight.view(*self.w_shape, 1, 1)

    def forward(self, input, rev=False):
        return F.conv2d(input, self.get_weight(input, rev))


class InvBlock(parts.Affine):
    """A coupling with the same call."""

    def forward(self, x, rev=False):
        return self.uncouple(x) if rev else self.couple(x)[0]


class InvNet(nn.Module):
    def __init__(self, channels=12):
        super().__init__()
        self.operations = nn.ModuleList(
            layer(channels) for layer in (InvertibleConv1x1, InvBlock) * 2
        )

    def forward(self, x, rev=False):
        x = x if rev else parts.squeeze(x)
        for operation in reversed(self.operations) if rev else self.operations:
            x = operation(x, rev)
        return parts.unsqueeze(x) if rev else x


class Invertible1x1Conv(InvertibleAffine):
    """normflows: the kernel acts on channels, the log-det counts positions; no context."""

    def conv(self, z, W):
        return F.conv2d(z, W[..., None, None])

    def forward(self, z):
        W = self._assemble_W(inverse=True) if self.use_lu else self.W.double().inverse().float()
        return self.conv(z, W), -self.log_det() * z.size(2) * z.size(3)

    def inverse(self, z):
        W = self._assemble_W() if self.use_lu else self.W
        return self.conv(z, W), self.log_det() * z.size(2) * z.size(3)


def free():
    return normflows(lambda n: Invertible1x1Conv(n, use_lu=False), 4, 2)


def factors():
    return normflows(lambda n: Invertible1x1Conv(n, use_lu=True), 4, 2)


def images():
    return torch.randn(2, 4, 3, 3)


CASES = [
    Case(
        name="(x, rev)",
        like="felixcheng97/IICNet",
        build=InvNet,
        layers=("operations.0", "operations.2"),
        x=lambda: torch.randn(2, 3, 4, 4),
        forward=lambda model, x: (model(x), None),
        inverse=lambda model, z: model(z, rev=True),
        layer_x=lambda: torch.randn(2, 12, 2, 2),
        layer_calls={
            "forward": lambda layer, x: layer(x),
            "forward, by position": lambda layer, x: layer(x, False),
            "rev": lambda layer, x: layer(x, rev=True),
            "rev, by position": lambda layer, x: layer(x, True),
            "rev, by keyword": lambda layer, x: layer(input=x, rev=True),
            "get_weight": lambda layer, x: layer.get_weight(x, False),
        },
    ),
    of_normflows("forward from latent to data, free", free, x=images, calls=CALLS),
    of_normflows("forward from latent to data, LU", factors, x=images, calls=CALLS),
]
