"""Vectors ``x @ W`` and channels last (B, N, C): ``forward``, ``inverse``, both with log-dets."""

import torch
from torch import nn

from . import context, parts
from .case import Case


class InvertibleAffine(nn.Module):
    """normflows: z @ W, ``forward`` from the latent to the data with the inverse kernel."""

    def __init__(self, num_channels, use_lu=True):
        super().__init__()
        self.num_channels, self.use_lu = num_channels, use_lu
        if use_lu:
            p, lower, upper = parts.lu(num_channels)
            self.register_buffer("P", p)
            self.L = nn.Parameter(lower)
            self.register_buffer("sign_S", upper.diag().sign())
            self.log_S = nn.Parameter(upper.diag().abs().log())
            self.U = nn.Parameter(upper.triu(1))
            self.register_buffer("eye", torch.eye(num_channels))
        else:
            self.W = nn.Parameter(parts.orthogonal(num_channels))

    def _assemble_W(self, inverse=False):
        lower = self.L.tril(-1) + self.eye
        W = self.P @ lower @ (self.U.triu(1) + torch.diag(self.sign_S * self.log_S.exp()))
        return W.double().inverse().to(W.dtype) if inverse else W

    def log_det(self):
        return self.log_S.sum() if self.use_lu else torch.slogdet(self.W)[1]

    def forward(self, z, context=None):
        W = self._assemble_W(inverse=True) if self.use_lu else self.W.double().inverse().float()
        return z @ W, -self.log_det()

    def inverse(self, z, context=None):
        return z @ (self._assemble_W() if self.use_lu else self.W), self.log_det()


class LULinearPermute(nn.Module):
    """normflows: a permutation and an LULinear as children; data -> latent is ``inverse``."""

    def __init__(self, num_channels, identity_init=True):
        super().__init__()
        self.permutation = context.RandomPermutation(num_channels)
        self.linear = context.LULinear(num_channels, identity_init=identity_init)

    def forward(self, z, context=None):
        z, log_det = self.linear.inverse(z, context=context)
        return self.permutation.inverse(z, context=context)[0], log_det.view(-1)

    def inverse(self, z, context=None):
        z, log_det = self.linear(self.permutation(z, context=context)[0], context=context)
        return z, log_det.view(-1)


class InvertibleConv1x1_1D(nn.Module):
    """PU-Flow: channels first (``dim=1``) or last (``dim=2``), by the equation of an einsum."""

    def __init__(self, channel, dim):
        super().__init__()
        self.W = nn.Parameter(parts.orthogonal(channel))
        self.equation = "ij,bjn->bin" if dim == 1 else "ij,bnj->bni"
        self.Ndim = 2 if dim == 1 else 1

    def forward(self, x):
        log_det = torch.slogdet(self.W)[1] * x.shape[self.Ndim]
        return torch.einsum(self.equation, self.W, x), log_det

    def inverse(self, z):
        log_det = -torch.slogdet(self.W)[1] * z.shape[self.Ndim]
        return torch.einsum(self.equation, self.W.inverse(), z), log_det


class ShufflePermutation(nn.Module):
    """PU-Flow: indices as buffers, log-det None."""

    def __init__(self, channel):
        super().__init__()
        self.register_buffer("direct_idx", torch.arange(channel).flip(0))
        self.register_buffer("inverse_idx", self.direct_idx.argsort())

    def forward(self, x):
        return x[:, :, self.direct_idx], None

    def inverse(self, z):
        return z[:, :, self.inverse_idx], None


class Permutation(nn.Module):
    """PU-Flow: a wrapper with a second argument around one of the two."""

    def __init__(self, permutation, channel, dim):
        super().__init__()
        if permutation == "inv1x1":
            self.permutater = InvertibleConv1x1_1D(channel, dim)
        else:
            self.permutater = ShufflePermutation(channel)

    def forward(self, x, _c):
        return self.permutater(x)

    def inverse(self, z, _c):
        return self.permutater.inverse(z)


class PointNorm(parts.Norm):
    def __init__(self, channel):
        super().__init__(channel, rank=1, last=True)

    def forward(self, x, _=None):
        return self.there(x), self.logdet(x)

    def inverse(self, z, _=None):
        return self.back(z), -self.logdet(z)


class FlowBlock(nn.Module):
    """PU-Flow: the wrapper of the 1x1 layer, a coupling, the wrapper of a fixed reversal."""

    def __init__(self, channel):
        super().__init__()
        self.actnorm = PointNorm(channel)
        self.permutate1 = Permutation("inv1x1", channel, dim=2)
        self.coupling1 = parts.Affine(channel, last=True)
        self.permutate2 = Permutation("reverse", channel, dim=2)

    def forward(self, x, c=None):
        x, first = self.actnorm(x)
        x, second = self.permutate1(x, c)
        x, third = self.coupling1.couple(x)
        x, _ = self.permutate2(x, c)
        return x, first + second + third

    def inverse(self, z, c=None):
        z, _ = self.permutate2.inverse(z, c)
        z, _ = self.permutate1.inverse(self.coupling1.uncouple(z), c)
        return self.actnorm.inverse(z)[0]


class PointFlow(nn.Module):
    def __init__(self, channel=4):
        super().__init__()
        self.blocks = nn.ModuleList(FlowBlock(channel) for _ in range(2))

    def forward(self, x, c=None):
        total = 0
        for block in self.blocks:
            x, logdet = block(x, c)
            total = total + logdet
        return x, total

    def inverse(self, z, c=None):
        for block in reversed(self.blocks):
            z = block.inverse(z, c)
        return z


class ActNorm(parts.Norm):
    """normflows: as the 1x1 layer, latent -> data; takes its first batch in any mode."""

    def __init__(self, channels, rank):
        super().__init__(channels, rank, last=rank == 0)
        self.register_buffer("data_dep_init_done", torch.tensor(0.0))

    def start(self, x):
        self.inited = bool(self.data_dep_init_done > 0)
        super().start(x)
        self.data_dep_init_done.fill_(1.0)

    def forward(self, z, context=None):
        return self.back(z), -self.logdet(z)

    def inverse(self, z, context=None):
        return self.there(z), self.logdet(z)


class AffineCoupling(parts.Affine):
    def forward(self, z, context=None):
        x = self.uncouple(z)
        return x, -self.couple(x)[1]

    def inverse(self, z, context=None):
        return self.couple(z)


class NormalizingFlow(nn.Module):
    """normflows: a list of flows from the latent to the data."""

    def __init__(self, flows):
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def inverse_and_log_det(self, x):
        total = torch.zeros(len(x))
        for flow in reversed(self.flows):
            x, log_det = flow.inverse(x)
            total += log_det
        return x, total

    def forward(self, z):
        for flow in self.flows:
            z, _ = flow(z)
        return z


def normflows(layer, channels=6, rank=0):
    flows = []
    for _ in range(2):
        coupling = AffineCoupling(channels, rank or 1, last=rank == 0)
        flows += [coupling, layer(channels), ActNorm(channels, rank)]
    return NormalizingFlow(flows)


def affine():
    return normflows(lambda n: InvertibleAffine(n, use_lu=False))


def affine_factors():
    return normflows(InvertibleAffine)


def permuted():
    return normflows(lambda n: LULinearPermute(n, identity_init=False))


CALLS = {
    "forward": lambda layer, x: layer(x),
    "inverse": lambda layer, x: layer.inverse(x),
}
CONTEXT = CALLS | {
    "forward, context": lambda layer, x: layer(x, context=None),
    "inverse, context": lambda layer, x: layer.inverse(x, context=torch.ones(2)),
    "forward, by keyword": lambda layer, x: layer(z=x),
}


def rows():
    return torch.randn(5, 6)


def of_normflows(name, build, layers=("flows.1", "flows.4"), x=rows, calls=CONTEXT, **options):
    return Case(
        name=name,
        like="VincentStimper/normalizing-flows",
        build=build,
        layers=layers,
        x=x,
        forward=lambda model, x: model.inverse_and_log_det(x),
        inverse=lambda model, z: model(z),
        layer_x=x,
        layer_calls=calls,
        **options,
    )


CASES = [
    of_normflows("z @ W from latent to data, free", affine),
    of_normflows("z @ W from latent to data, LU", affine_factors),
    of_normflows(
        "LU behind a permutation, children",
        permuted,
        ("flows.1.linear", "flows.4.linear"),
        calls=context.CALLS,
        left={"flows.1.permutation": "permutation", "flows.4.permutation": "permutation"},
    ),
    Case(
        name="channels last, through a wrapper",
        like="unknownue/puflow",
        build=PointFlow,
        layers=("blocks.0.permutate1.permutater", "blocks.1.permutate1.permutater"),
        left={
            "blocks.0.permutate2.permutater": "permutation",
            "blocks.1.permutate2.permutater": "permutation",
        },
        x=lambda: torch.randn(2, 5, 4),
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.inverse(z),
        layer_x=lambda: torch.randn(2, 5, 4),
        layer_calls=CALLS,
        notes="n points of 4 channels: a square (4, 4) batch does not tell the two layouts apart",
    ),
]
