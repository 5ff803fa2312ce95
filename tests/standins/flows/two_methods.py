"""``forward(x)`` -> (z, log-det), ``inverse(z)`` -> x or (x, log-det)."""

from math import prod

import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case


class Conv1x1(nn.Module):
    """survae: any spatial rank, log-det (B,), the inverse without it."""

    def __init__(self, num_channels, orthogonal_init=True, slogdet_cpu=True):
        super().__init__()
        self.num_channels, self.slogdet_cpu = num_channels, slogdet_cpu
        self.orthogonal_init = orthogonal_init
        self.weight = nn.Parameter(parts.orthogonal(num_channels))

    def _conv(self, weight, v):
        features = v.dim() - 2
        conv = (F.conv1d, F.conv2d, F.conv3d)[features - 1]
        return conv(v, weight.view(*weight.shape, *(1,) * features))

    def forward(self, x):
        ldj = torch.slogdet(self.weight.cpu() if self.slogdet_cpu else self.weight)[1]
        ldj = ldj * prod(x.shape[2:])
        return self._conv(self.weight, x), ldj.expand([len(x)]).to(x.device)

    def inverse(self, z):
        return self._conv(self.weight.inverse(), z)


class Invertible1x1Conv(nn.Module):
    """kamenbliznashki: both with a scalar log-det; the factors are Parameters, P too.

    The LU layer leaves its kernel on itself as ``w``, a tensor with a graph.
    """

    def __init__(self, n_channels=3, lu_factorize=False):
        super().__init__()
        self.lu_factorize = lu_factorize
        if lu_factorize:
            p, l, u = parts.lu(n_channels)
            self.p, self.l, self.u = nn.Parameter(p), nn.Parameter(l), nn.Parameter(u)
            self.log_s = nn.Parameter(u.diag().abs().log())
            self.register_buffer("sign_s", u.diag().sign())
            self.register_buffer("l_mask", torch.ones_like(l).tril(-1))
        else:
            self.w = nn.Parameter(parts.orthogonal(n_channels))

    def triangles(self):
        lower = self.l * self.l_mask + torch.eye(len(self.l), device=self.l.device)
        return lower, self.u * self.l_mask.t() + torch.diag(self.sign_s * self.log_s.exp())

    def logdet(self, x):
        one = self.log_s.sum() if self.lu_factorize else torch.slogdet(self.w)[-1]
        return one * parts.pixels(x)

    def forward(self, x):
        if self.lu_factorize:
            lower, upper = self.triangles()
            self.w = self.p @ lower @ upper
        return F.conv2d(x, self.w[..., None, None]), self.logdet(x)

    def inverse(self, z):
        if self.lu_factorize:
            lower, upper = self.triangles()
            w_inv = upper.inverse() @ lower.inverse() @ self.p.inverse()
        else:
            w_inv = self.w.inverse()
        return F.conv2d(z, w_inv[..., None, None]), -self.logdet(z)


class SurvaeNorm(parts.Norm):
    def forward(self, x):
        return self.there(x), self.logdet(x).expand(len(x))

    def inverse(self, z):
        return self.back(z)


class SurvaeCoupling(parts.Affine):
    def forward(self, x):
        return self.couple(x)

    def inverse(self, z):
        return self.uncouple(z)


class SurvaeSqueeze(nn.Module):
    def forward(self, x):
        return parts.squeeze(x), torch.zeros(len(x))

    def inverse(self, z):
        return parts.unsqueeze(z)


class SurvaeFlow(nn.Module):
    """``transforms`` in a list, ``inverse`` without log-det."""

    def __init__(self, transforms):
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, x):
        total = torch.zeros(len(x))
        for transform in self.transforms:
            x, ldj = transform(x)
            total = total + ldj
        return x, total

    def inverse(self, z):
        for transform in reversed(self.transforms):
            z = transform.inverse(z)
        return z


class Actnorm(parts.Norm):
    """kamenbliznashki: initialises in any mode, log-dets in both directions."""

    def __init__(self, channels):
        super().__init__(channels)
        self.register_buffer("initialized", torch.tensor(0).byte())

    def start(self, x):
        self.inited = bool(self.initialized)
        super().start(x)
        self.initialized.fill_(1)

    def forward(self, x):
        return self.there(x), self.logdet(x)

    def inverse(self, z):
        return self.back(z), -self.logdet(z)


class AffineCoupling(parts.Affine):
    def forward(self, x):
        return self.couple(x)

    def inverse(self, z):
        x = self.uncouple(z)
        return x, -self.couple(x)[1]


class FlowSequential(nn.Sequential):
    """kamenbliznashki's containers: log-dets summed both ways."""

    def forward(self, x):
        total = 0.0
        for module in self:
            x, logdet = module(x)
            total = total + logdet
        return x, total

    def inverse(self, z):
        total = 0.0
        for module in reversed(list(self)):
            z, logdet = module.inverse(z)
            total = total + logdet
        return z, total


class FlowStep(FlowSequential):
    def __init__(self, channels, lu_factorize):
        super().__init__(
            Actnorm(channels), Invertible1x1Conv(channels, lu_factorize), AffineCoupling(channels)
        )


def survae():
    steps = [[SurvaeNorm(12), Conv1x1(12), SurvaeCoupling(12)] for _ in range(2)]
    return SurvaeFlow([SurvaeSqueeze(), *steps[0], *steps[1]])


def survae_sequences():
    steps = [[SurvaeNorm(6, rank=1), Conv1x1(6), SurvaeCoupling(6, rank=1)] for _ in range(2)]
    return SurvaeFlow([*steps[0], *steps[1]])


def kamen():
    return FlowSequential(FlowStep(4, False), FlowStep(4, False))


def kamen_factors():
    return FlowSequential(FlowStep(4, True), FlowStep(4, True))


CALLS = {
    "forward": lambda layer, x: layer(x),
    "forward, by keyword": lambda layer, x: layer(x=x),
    "inverse": lambda layer, x: layer.inverse(x),
    "inverse, by keyword": lambda layer, x: layer.inverse(z=x),
}


def of_kamen(name, build, **options):
    return Case(
        name=name,
        like="kamenbliznashki/normalizing_flows",
        build=build,
        layers=("0.1", "1.1"),
        x=lambda: torch.randn(2, 4, 3, 3),
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.inverse(z)[0],
        layer_x=lambda: torch.randn(2, 4, 3, 3),
        layer_calls=CALLS,
        **options,
    )


CASES = [
    Case(
        name="forward, inverse without log-det",
        like="didriknielsen/survae_flows",
        build=survae,
        layers=("transforms.2", "transforms.5"),
        x=lambda: torch.randn(2, 3, 4, 4),
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.inverse(z),
        layer_x=lambda: torch.randn(2, 12, 2, 2),
        layer_calls=CALLS
        | {
            "1D": lambda layer, x: layer(x.flatten(2)),
            "3D": lambda layer, x: layer.inverse(x[..., None]),
        },
    ),
    Case(
        name="forward, inverse without log-det, 1D",
        like="didriknielsen/survae_flows",
        build=survae_sequences,
        layers=("transforms.1", "transforms.4"),
        x=lambda: torch.randn(2, 6, 5),
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.inverse(z),
        layer_x=lambda: torch.randn(2, 6, 5),
        layer_calls=CALLS,
    ),
    of_kamen("forward, inverse, both with log-det, free", kamen),
    of_kamen(
        "forward, inverse, both with log-det, LU with a trained P",
        kamen_factors,
        drifts=(".p",),
        copies=False,
        notes="once P is no permutation the host's log-det lacks log |det P|",
    ),
]
