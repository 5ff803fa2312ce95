"""What the stand-ins share: mathematics of ActNorm, couplings and squeezes, no interface.

Each family of stand-ins subclasses or calls these under the names and signatures of its own.
"""

import torch
from torch import nn


def orthogonal(n, positive=False):
    """A random orthogonal matrix, with det +1 where asked for."""
    q = torch.linalg.qr(torch.randn(n, n))[0]
    if positive and torch.det(q) < 0:
        q[:, 0] *= -1
    return q


def lu(n):
    """P, L, U of a random orthogonal matrix."""
    return torch.linalg.lu(orthogonal(n))


def pixels(x):
    """How many positions the channels of one sample have: dimension 1 holds the channels."""
    return x[0, 0].numel()


def squeeze(x):
    """(B, C, H, W) -> (B, 4C, H/2, W/2)."""
    return nn.functional.pixel_unshuffle(x, 2)


def unsqueeze(x):
    return nn.functional.pixel_shuffle(x, 2)


class Norm(nn.Module):
    """ActNorm that takes its scale and shift from the first batch, in any mode."""

    def __init__(self, channels, rank=2, last=False):
        super().__init__()
        shape = (1,) * (rank + 1) + (channels,) if last else (1, channels, *(1,) * rank)
        self.bias, self.logs = (nn.Parameter(torch.zeros(shape)) for _ in range(2))
        self.last, self.inited = last, False

    def start(self, x):
        if self.inited:
            return
        with torch.no_grad():
            flat = x.flatten(0, -2) if self.last else x.movedim(1, -1).flatten(0, -2)
            self.bias.copy_(-flat.mean(0).view_as(self.bias))
            self.logs.copy_(-(flat.std(0, correction=0) + 1e-6).log().view_as(self.logs))
        self.inited = True

    def there(self, x):
        self.start(x)
        return (x + self.bias) * self.logs.exp()

    def back(self, z):
        return z * (-self.logs).exp() - self.bias

    def logdet(self, x):
        positions = x[0].numel() // self.logs.numel()
        return self.logs.sum() * positions


class Zero(nn.Module):
    """A last layer that starts at zero."""

    def __init__(self, layer):
        super().__init__()
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        self.layer = layer

    def forward(self, x):
        return self.layer(x)


def net(inputs, outputs, hidden, rank=2):
    """A coupling's net; its middle layer is square, 1x1, and no flow layer."""
    if rank == 0:
        first, middle, last = (
            nn.Linear(inputs, hidden),
            nn.Linear(hidden, hidden),
            nn.Linear(hidden, outputs),
        )
    else:
        conv = (nn.Conv1d, nn.Conv2d)[rank - 1]
        first = conv(inputs, hidden, 3, padding=1)
        middle, last = conv(hidden, hidden, 1), conv(hidden, outputs, 3, padding=1)
    return nn.Sequential(first, nn.ReLU(), middle, nn.ReLU(), Zero(last))


class Affine(nn.Module):
    """An affine coupling: ``couple(x)`` -> (z, log-det (B,)), ``uncouple(z)`` -> x."""

    def __init__(self, channels, rank=2, last=False, hidden=None):
        super().__init__()
        self.sizes, self.dim = (channels // 2, channels - channels // 2), -1 if last else 1
        self.net = net(self.sizes[0], 2 * self.sizes[1], hidden or channels, 0 if last else rank)

    def parameters_of(self, first):
        shift, raw = self.net(first).chunk(2, self.dim)
        return shift, torch.sigmoid(raw + 2)

    def couple(self, x):
        first, second = x.split(self.sizes, self.dim)
        shift, scale = self.parameters_of(first)
        z = torch.cat([first, (second + shift) * scale], self.dim)
        return z, scale.log().flatten(1).sum(1)

    def uncouple(self, z):
        first, second = z.split(self.sizes, self.dim)
        shift, scale = self.parameters_of(first)
        return torch.cat([first, second / scale - shift], self.dim)
