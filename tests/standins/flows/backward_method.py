"""``forward`` and ``backward``, both with a log-det: ``(x)``, or ``(z, log_df_dz)``."""

import torch
from torch import nn

from . import parts
from .case import Case


class RowsTimesW(nn.Module):
    """karpathy: x @ W, S itself with its signs, P a plain tensor that no ``.to()`` moves."""

    def __init__(self, dim):
        super().__init__()
        self.dim = dim
        self.P, lower, upper = parts.lu(dim)
        self.L, self.S = nn.Parameter(lower), nn.Parameter(upper.diag())
        self.U = nn.Parameter(upper.triu(1))

    def _assemble_W(self):
        lower = self.L.tril(-1) + torch.eye(self.dim)
        return self.P @ lower @ (self.U.triu(1) + self.S.diag())

    def forward(self, x):
        return x @ self._assemble_W(), self.S.abs().log().sum()

    def backward(self, z):
        return z @ self._assemble_W().inverse(), -self.S.abs().log().sum()


class InvertibleConv1x1(nn.Module):
    """tatsy: masks, P and int pivots are Parameters without gradient; log_df_dz changes in place.

    ``backward`` runs without gradients.
    """

    def __init__(self, in_out_channels):
        super().__init__()
        n = in_out_channels
        packed, pivots = torch.linalg.lu_factor(parts.orthogonal(n))
        p, lower, upper = torch.lu_unpack(packed, pivots)

        def fixed(value):
            return nn.Parameter(value, requires_grad=False)

        self.P, self.L, self.U = fixed(p), nn.Parameter(lower), nn.Parameter(upper)
        self.I, self.pivots = fixed(torch.eye(n)), fixed(pivots)
        self.L_mask = fixed(torch.ones(n, n).tril(-1))
        self.U_mask = fixed(torch.ones(n, n).triu(1))
        self.log_s = nn.Parameter(upper.diag().abs().log())
        self.sign_s = fixed(upper.diag().sign())

    def triangles(self):
        upper = self.U * self.U_mask + torch.diag(self.sign_s * self.log_s.exp())
        return self.L * self.L_mask, upper

    def forward(self, z, log_df_dz):
        lower, upper = self.triangles()
        flat = z.view(*z.shape[:2], -1)
        log_df_dz += self.log_s.sum() * flat.size(2)
        return (self.P @ (lower + self.I) @ upper @ flat).view(z.size()), log_df_dz

    def backward(self, y, log_df_dz):
        flat = y.view(*y.shape[:2], -1)
        with torch.no_grad():
            lower, upper = self.triangles()
            x = torch.linalg.lu_solve((lower + upper)[None], self.pivots[None], flat)
        log_df_dz -= self.log_s.sum() * flat.size(2)
        return x.view(y.size()).contiguous(), log_df_dz


class ActNormOfRows(parts.Norm):
    """karpathy: the same call as the 1x1 layer, the first batch taken in any mode."""

    def __init__(self, dim):
        super().__init__(dim, rank=0, last=True)

    def forward(self, x):
        return self.there(x), self.logdet(x)

    def backward(self, z):
        return self.back(z), -self.logdet(z)


class CouplingOfRows(parts.Affine):
    def __init__(self, dim):
        super().__init__(dim, last=True)

    def forward(self, x):
        return self.couple(x)

    def backward(self, z):
        x = self.uncouple(z)
        return x, -self.couple(x)[1]


class NormalizingFlow(nn.Module):
    """karpathy: calls ``flow.forward(x)``, past ``__call__`` and its hooks; keeps all between."""

    def __init__(self, flows):
        super().__init__()
        self.flows = nn.ModuleList(flows)

    def forward(self, x):
        log_det, zs = torch.zeros(len(x)), [x]
        for flow in self.flows:
            x, ld = flow.forward(x)
            log_det += ld
            zs.append(x)
        return zs, log_det

    def backward(self, z):
        log_det, xs = torch.zeros(len(z)), [z]
        for flow in self.flows[::-1]:
            z, ld = flow.backward(z)
            log_det += ld
            xs.append(z)
        return xs, log_det


class ActNorm(parts.Norm):
    """tatsy: in place too."""

    def forward(self, z, log_df_dz):
        y = self.there(z)
        log_df_dz += self.logdet(z)
        return y, log_df_dz

    def backward(self, y, log_df_dz):
        log_df_dz -= self.logdet(y)
        return self.back(y), log_df_dz


class AffineCoupling(parts.Affine):
    def forward(self, z, log_df_dz):
        y, change = self.couple(z)
        log_df_dz += change
        return y, log_df_dz

    def backward(self, y, log_df_dz):
        z = self.uncouple(y)
        log_df_dz -= self.couple(z)[1]
        return z, log_df_dz


class Compose(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, z, log_df_dz):
        for layer in self.layers:
            z, log_df_dz = layer(z, log_df_dz)
        return z, log_df_dz

    def backward(self, z, log_df_dz):
        for layer in reversed(self.layers):
            z, log_df_dz = layer.backward(z, log_df_dz)
        return z, log_df_dz


class Glow(nn.Module):
    """tatsy: images, or vectors of rank 0 through the same layer."""

    def __init__(self, channels, rank):
        super().__init__()
        layers = []
        for _ in range(2):
            coupling = AffineCoupling(channels, rank, last=rank == 0)
            layers += [ActNorm(channels, rank), InvertibleConv1x1(channels), coupling]
        self.net = Compose(layers)

    def forward(self, z):
        return self.net(z, torch.zeros(len(z)))

    def backward(self, z):
        return self.net.backward(z, torch.zeros(len(z)))


def karpathy():
    steps = [[ActNormOfRows(6), RowsTimesW(6), CouplingOfRows(6)] for _ in range(2)]
    return NormalizingFlow(steps[0] + steps[1])


def tatsy():
    return Glow(4, 2)


def tatsy_rows():
    return Glow(6, 0)


def last_of(pair):
    states, log_det = pair
    return states[-1], log_det


CALLS = {
    "forward": lambda layer, x: layer(x, torch.zeros(len(x))),
    "forward, by keyword": lambda layer, x: layer(x, log_df_dz=torch.ones(len(x))),
    "backward": lambda layer, x: layer.backward(x, torch.zeros(len(x))),
    "backward, by keyword": lambda layer, x: layer.backward(y=x, log_df_dz=torch.ones(len(x))),
}


def of_tatsy(name, build, x):
    return Case(
        name=name,
        like="tatsy/normalizing-flows-pytorch",
        build=build,
        layers=("net.layers.1", "net.layers.4"),
        x=x,
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.backward(z)[0],
        layer_x=x,
        layer_calls=CALLS,
    )


CASES = [
    Case(
        name="forward, backward, x @ W, LU",
        like="karpathy/pytorch-normalizing-flows",
        build=karpathy,
        layers=("flows.1", "flows.4"),
        x=lambda: torch.randn(5, 6),
        forward=lambda model, x: last_of(model(x)),
        inverse=lambda model, z: model.backward(z)[0][-1],
        layer_x=lambda: torch.randn(5, 6),
        layer_calls={
            "forward": lambda layer, x: layer(x),
            "forward, past __call__": lambda layer, x: layer.forward(x),
            "backward": lambda layer, x: layer.backward(x),
            "backward, by keyword": lambda layer, x: layer.backward(z=x),
            "_assemble_W": lambda layer, x: layer._assemble_W(),
        },
    ),
    of_tatsy("(z, log_df_dz), backward, LU", tatsy, lambda: torch.randn(2, 4, 3, 3)),
    of_tatsy("(z, log_df_dz), backward, LU, vectors", tatsy_rows, lambda: torch.randn(5, 6)),
]
