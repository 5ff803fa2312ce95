"""What the stand-ins' networks are made of, under the names that the code bases give their tensors."""

import torch
import torch.nn.functional as F
from torch import nn

SIGNS = [[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]


class Dense(nn.Module):
    """Five convolutions, each of which sees all before it; the last one is small at the start."""

    def __init__(self, inputs, outputs, growth):
        super().__init__()
        for n in range(1, 6):
            made = growth if n < 5 else outputs
            conv = nn.Conv2d(inputs + (n - 1) * growth, made, 3, padding=1)
            conv.weight.data *= 0.1
            self.add_module(f"conv{n}", conv)

    def forward(self, x):
        for n in range(1, 5):
            conv = self.get_submodule(f"conv{n}")
            x = torch.cat((x, F.leaky_relu(conv(x), self.slope)), 1)
        return self.conv5(x)

    slope = 0.2


class Coupling(nn.Module):
    """``shift`` of the first channels, ``add`` and ``scale`` of the others."""

    shift, add, scale = "F", "G", "H"
    kind = Dense

    def __init__(self, channels, first, growth):
        super().__init__()
        self.first = first
        self.add_module(self.shift, self.kind(channels - first, first, growth))
        for name in (self.add, self.scale):
            self.add_module(name, self.kind(first, channels - first, growth))

    def factor(self, a):
        return torch.exp(2 * torch.sigmoid(getattr(self, self.scale)(a)) - 1)

    def forward(self, x, rev=False):
        shift, add = getattr(self, self.shift), getattr(self, self.add)
        a, b = x[:, : self.first], x[:, self.first :]
        if not rev:
            a = a + shift(b)
            return torch.cat((a, b * self.factor(a) + add(a)), 1)
        b = (b - add(a)) / self.factor(a)
        return torch.cat((a - shift(b), b), 1)


class Haar(nn.Module):
    """Bands of all channels, one band behind the other, as a frozen parameter."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        one = torch.tensor(SIGNS, dtype=torch.float32).view(4, 1, 2, 2)
        self.haar_weights = nn.Parameter(one.repeat(channels, 1, 1, 1), requires_grad=False)

    def forward(self, x, rev=False):
        if not rev:
            x = F.conv2d(x, self.haar_weights, stride=2, groups=self.channels) / 4
            return x.unflatten(1, (self.channels, 4)).transpose(1, 2).flatten(1, 2)
        x = x.unflatten(1, (4, self.channels)).transpose(1, 2).flatten(1, 2)
        return F.conv_transpose2d(x, self.haar_weights, stride=2, groups=self.channels)


class Operations(nn.Module):
    """Layers one behind the other, and back."""

    def __init__(self, *layers):
        super().__init__()
        self.operations = nn.ModuleList(layers)

    def forward(self, x, rev=False):
        for layer in reversed(self.operations) if rev else self.operations:
            x = layer(x, rev)
        return x
