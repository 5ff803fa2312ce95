"""``(inputs, cond_inputs=None, mode='direct')`` -> (outputs, log-det (B, 1))."""

import torch
from torch import nn

from . import parts
from .case import Case


class InvertibleMM(nn.Module):
    """ikostrikov: inputs @ W."""

    def __init__(self, num_inputs):
        super().__init__()
        self.W = nn.Parameter(parts.orthogonal(num_inputs))

    def forward(self, inputs, cond_inputs=None, mode="direct"):
        logdet = torch.slogdet(self.W)[-1].expand(len(inputs), 1).clone()
        if mode == "direct":
            return inputs @ self.W, logdet
        return inputs @ self.W.inverse(), -logdet


class LUInvertibleMM(nn.Module):
    """ikostrikov: everything but the factors is a plain attribute; ``W`` is what it began with."""

    def __init__(self, num_inputs):
        super().__init__()
        self.W = parts.orthogonal(num_inputs)
        self.L_mask = torch.ones_like(self.W).tril(-1)
        self.U_mask = self.L_mask.t().clone()
        self.P, lower, upper = torch.linalg.lu(self.W)
        self.L, self.U = nn.Parameter(lower), nn.Parameter(upper)
        self.sign_S = upper.diag().sign()
        self.log_S = nn.Parameter(upper.diag().abs().log())
        self.I = torch.eye(num_inputs)

    def forward(self, inputs, cond_inputs=None, mode="direct"):
        lower = self.L * self.L_mask + self.I
        W = self.P @ lower @ (self.U * self.U_mask + torch.diag(self.sign_S * self.log_S.exp()))
        logdet = self.log_S.sum().expand(len(inputs), 1).clone()
        if mode == "direct":
            return inputs @ W, logdet
        return inputs @ W.inverse(), -logdet


class ActNorm(parts.Norm):
    def __init__(self, num_inputs):
        super().__init__(num_inputs, rank=0, last=True)

    def forward(self, inputs, cond_inputs=None, mode="direct"):
        logdet = self.logdet(inputs).expand(len(inputs), 1).clone()
        return (self.there(inputs), logdet) if mode == "direct" else (self.back(inputs), -logdet)


class Shuffle(nn.Module):
    def __init__(self, num_inputs):
        super().__init__()
        self.register_buffer("perm", torch.randperm(num_inputs))
        self.register_buffer("inv_perm", self.perm.argsort())

    def forward(self, inputs, cond_inputs=None, mode="direct"):
        order = self.perm if mode == "direct" else self.inv_perm
        return inputs[:, order], inputs.new_zeros(len(inputs), 1)


class CouplingLayer(parts.Affine):
    def __init__(self, num_inputs):
        super().__init__(num_inputs, last=True)

    def forward(self, inputs, cond_inputs=None, mode="direct"):
        if mode == "direct":
            outputs, logdet = self.couple(inputs)
            return outputs, logdet[:, None]
        outputs = self.uncouple(inputs)
        return outputs, -self.couple(outputs)[1][:, None]


class FlowSequential(nn.Sequential):
    """All its children by position, the sum in place."""

    def forward(self, inputs, cond_inputs=None, mode="direct", logdets=None):
        logdets = torch.zeros(len(inputs), 1) if logdets is None else logdets
        modules = list(self._modules.values())
        for module in modules if mode == "direct" else modules[::-1]:
            inputs, logdet = module(inputs, cond_inputs, mode)
            logdets += logdet
        return inputs, logdets


def flow(layer):
    return FlowSequential(
        ActNorm(6), layer(6), CouplingLayer(6), Shuffle(6), ActNorm(6), layer(6), CouplingLayer(6)
    )


def free():
    return flow(InvertibleMM)


def factors():
    return flow(LUInvertibleMM)


def rows():
    return torch.randn(5, 6)


def case(name, build):
    return Case(
        name=name,
        like="ikostrikov/pytorch-flows",
        build=build,
        layers=("1", "5"),
        left={"3": "permutation"},
        x=rows,
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model(z, mode="inverse")[0],
        layer_x=rows,
        layer_calls={
            "direct": lambda layer, x: layer(x),
            "direct, by position": lambda layer, x: layer(x, torch.ones(len(x), 2), "direct"),
            "inverse": lambda layer, x: layer(x, mode="inverse"),
            "inverse, by position": lambda layer, x: layer(x, None, "inverse"),
            "inverse, by keyword": lambda layer, x: layer(
                inputs=x, cond_inputs=None, mode="inverse"
            ),
        },
    )


CASES = [
    case("(inputs, cond_inputs, mode), free", free),
    case("(inputs, cond_inputs, mode), LU", factors),
]
