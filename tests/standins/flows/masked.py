"""``(x, x_mask=None, reverse=False, **kwargs)``: masked lengths, one kernel that groups share."""

import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case


class InvConvNear(nn.Module):
    """Glow-TTS: halves of n_split / 2 channels meet; ``weight_inv`` from ``store_inverse`` on."""

    def __init__(self, channels, n_split=4, no_jacobian=False, **kwargs):
        super().__init__()
        self.channels, self.n_split, self.no_jacobian = channels, n_split, no_jacobian
        self.weight = nn.Parameter(parts.orthogonal(n_split, positive=True))

    def forward(self, x, x_mask=None, reverse=False, **kwargs):
        b, c, t = x.size()
        n = len(self.weight)
        lengths = x.new_full((b,), t) if x_mask is None else x_mask.sum([1, 2])
        # channels (2, groups, n / 2) -> (2, n / 2, groups)
        x = x.view(b, 2, c // n, n // 2, t).transpose(2, 3).reshape(b, n, c // n, t)
        weight, logdet = self.weight, None
        if reverse:
            weight = getattr(self, "weight_inv", None)
            if weight is None:
                weight = self.weight.float().inverse().to(self.weight.dtype)
        else:
            logdet = 0 if self.no_jacobian else torch.logdet(weight) * (c / n) * lengths
        z = F.conv2d(x, weight.view(n, n, 1, 1))
        z = z.view(b, 2, n // 2, c // n, t).transpose(2, 3).reshape(b, c, t)
        return z if x_mask is None else z * x_mask, logdet

    def store_inverse(self):
        self.weight_inv = self.weight.float().inverse().to(self.weight.dtype)


class CoquiConvNear(InvConvNear):
    """coqui-ai/TTS: ``weight_inv`` is None, and a Parameter from ``store_inverse`` on."""

    def __init__(self, channels, num_splits=4, no_jacobian=False, **kwargs):
        super().__init__(channels, num_splits, no_jacobian)
        del self.n_split
        self.num_splits, self.weight_inv = num_splits, None

    def store_inverse(self):
        inverse = self.weight.float().inverse().to(self.weight.dtype)
        self.weight_inv = nn.Parameter(inverse, requires_grad=False)


class ActNorm(parts.Norm):
    """The same signature, a ``store_inverse`` that does nothing, a first batch that it takes."""

    def __init__(self, channels, ddi=False, **kwargs):
        super().__init__(channels, rank=1)
        self.inited = not ddi

    def set_ddi(self, ddi):
        self.inited = not ddi

    def forward(self, x, x_mask=None, reverse=False, **kwargs):
        x_mask = torch.ones_like(x[:, :1]) if x_mask is None else x_mask
        if reverse:
            return self.back(x) * x_mask, None
        return self.there(x) * x_mask, self.logs.sum() * x_mask.sum([1, 2])

    def store_inverse(self):
        pass


class CouplingBlock(parts.Affine):
    def __init__(self, channels):
        super().__init__(channels, rank=1)

    def forward(self, x, x_mask=None, reverse=False, g=None, **kwargs):
        x_mask = torch.ones_like(x[:, :1]) if x_mask is None else x_mask
        if reverse:
            return self.uncouple(x) * x_mask, None
        first, second = x.split(self.sizes, 1)
        shift, scale = self.parameters_of(first * x_mask)
        z = torch.cat([first, (second + shift) * scale], 1) * x_mask
        return z, (scale.log() * x_mask).sum([1, 2])

    def uncouple(self, z):
        first, second = z.split(self.sizes, 1)
        shift, scale = self.parameters_of(first)
        return torch.cat([first, second / scale - shift], 1)

    def store_inverse(self):
        pass


class FlowSpecDecoder(nn.Module):
    def __init__(self, layer, channels=8):
        super().__init__()
        self.flows = nn.ModuleList()
        for _ in range(2):
            self.flows.extend(
                [ActNorm(channels, ddi=True), layer(channels, 4), CouplingBlock(channels)]
            )

    def forward(self, x, x_mask, g=None, reverse=False):
        total = None if reverse else 0
        for flow in reversed(self.flows) if reverse else self.flows:
            x, logdet = flow(x, x_mask, g=g, reverse=reverse)
            total = None if reverse else total + logdet
        return x, total

    def store_inverse(self):
        for flow in self.flows:
            flow.store_inverse()


def glow_tts():
    return FlowSpecDecoder(InvConvNear)


def coqui():
    return FlowSpecDecoder(CoquiConvNear)


def mask_of(x):
    """The second sequence is shorter by two."""
    mask = torch.ones_like(x[:, :1])
    mask[1:, :, -2:] = 0
    return mask


def sequences():
    x = torch.randn(2, 8, 5)
    return x * mask_of(x)


CALLS = {
    "forward": lambda layer, x: layer(x),
    "forward, mask": lambda layer, x: layer(x, mask_of(x), g=None, reverse=False),
    "forward, mask by keyword": lambda layer, x: layer(x, x_mask=mask_of(x)),
    "reverse": lambda layer, x: layer(x, reverse=True),
    "reverse, mask": lambda layer, x: layer(x, mask_of(x), g=None, reverse=True),
    "reverse, by position": lambda layer, x: layer(x, mask_of(x), True),
}


def case(name, like, build):
    return Case(
        name=name,
        like=like,
        build=build,
        layers=("flows.1", "flows.4"),
        x=sequences,
        forward=lambda model, x: model(x, mask_of(x)),
        inverse=lambda model, z: model(z, mask_of(z), reverse=True)[0],
        layer_x=sequences,
        layer_calls=CALLS,
        nan_below_zero=True,
        notes="masked positions are no part of the Jacobian",
    )


CASES = [
    case("(x, x_mask, reverse), groups share a kernel", "jaywalnut310/glow-tts", glow_tts),
    case("(x, x_mask, reverse), weight_inv a Parameter later", "coqui-ai/TTS", coqui),
]
