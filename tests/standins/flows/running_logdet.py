"""``forward(x, logdet=None, reverse=False)`` -> (z, logdet): the log-det runs through layers."""

import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case


class InvertibleConv1x1(nn.Module):
    """chaiyujin, SRFlow, LLFlow: (n, n), or LU with masks that are plain attributes."""

    def __init__(self, num_channels, LU_decomposed=False):
        super().__init__()
        self.w_shape, self.LU = [num_channels, num_channels], LU_decomposed
        if LU_decomposed:
            p, l, u = parts.lu(num_channels)
            self.register_buffer('p', p)
            self.register_buffer('sign_s', u.diag().sign())
            self.l = nn.Parameter(l)
            self.log_s = nn.Parameter(u.diag().abs().log())
            self.u = nn.Parameter(u.triu(1))
            self.l_mask = torch.ones(self.w_shape).tril(-1)
            self.eye = torch.eye(num_channels)
        else:
            self.weight = nn.Parameter(parts.orthogonal(num_channels))

    def triangles(self):
        self.l_mask, self.eye = self.l_mask.to(self.l.device), self.eye.to(self.l.device)
        return (
            self.l * self.l_mask + self.eye,
            self.u * self.l_mask.t() + torch.diag(self.sign_s * self.log_s.exp()),
        )

    def get_weight(self, input, reverse):
        if self.LU:
            l, u = self.triangles()
            dlogdet = self.log_s.sum() * parts.pixels(input)
            if reverse:
                w = u.double().inverse().float() @ l.double().inverse().float() @ self.p.inverse()
            else:
                w = self.p @ l @ u
        else:
            dlogdet = torch.slogdet(self.weight)[1] * parts.pixels(input)
            w = self.weight.double().inverse().float() if reverse else self.weight
        return w.view(*self.w_shape, 1, 1), dlogdet

    def forward(self, input, logdet=None, reverse=False):
        weight, dlogdet = self.get_weight(input, reverse)
        if logdet is not None:
            logdet = logdet - dlogdet if reverse else logdet + dlogdet
        return F.conv2d(input, weight), logdet


class InvertibleConv1x1OfTime(InvertibleConv1x1):
    """StyleGestures: the same over time, the kernel (n, n, 1)."""

    def get_weight(self, input, reverse):
        weight, dlogdet = super().get_weight(input, reverse)
        return weight.squeeze(-1), dlogdet

    def forward(self, input, logdet=None, reverse=False):
        weight, dlogdet = self.get_weight(input, reverse)
        if logdet is not None:
            logdet = logdet - dlogdet if reverse else logdet + dlogdet
        return F.conv1d(input, weight), logdet


class LowerUpper(nn.Module):
    """y0ast, Invertible-ISP: factors named lower and upper."""

    def __init__(self, num_channels, LU_decomposed):
        super().__init__()
        p, lower, upper = parts.lu(num_channels)
        self.register_buffer("p", p)
        self.register_buffer("sign_s", upper.diag().sign())
        self.lower = nn.Parameter(lower)
        self.log_s = nn.Parameter(upper.diag().abs().log())
        self.upper = nn.Parameter(upper.triu(1))
        self.w_shape, self.LU_decomposed = [num_channels, num_channels], LU_decomposed
        self.l_mask, self.eye = torch.ones(self.w_shape).tril(-1), torch.eye(num_channels)

    def get_weight(self, input, reverse):
        b, c, h, w = input.shape
        lower = self.lower * self.l_mask + self.eye
        upper = self.upper * self.l_mask.t() + torch.diag(self.sign_s * self.log_s.exp())
        weight = self.p @ lower @ upper
        return (weight.inverse() if reverse else weight)[..., None, None], self.log_s.sum() * h * w

    def forward(self, input, logdet=None, reverse=False):
        weight, dlogdet = self.get_weight(input, reverse)
        if logdet is not None:
            logdet = logdet + (-dlogdet if reverse else dlogdet)
        return F.conv2d(input, weight), logdet


class KeepsLogdetInReverse(InvertibleConv1x1):
    """HCFlow: in reverse the running log-det comes back as it went in."""

    def get_weight(self, input, reverse):
        weight, dlogdet = super().get_weight(input, reverse)
        return weight, 0 if reverse else dlogdet


class LogOfDet(nn.Module):
    """corenel: no ``get_weight``, log |det W|."""

    def __init__(self, num_channels, lu_decomposition=False):
        super().__init__()
        self.num_channels, self.lu_decomposition = num_channels, lu_decomposition
        self.weight = nn.Parameter(parts.orthogonal(num_channels))

    def forward(self, x, logdet=None, reverse=False):
        change = self.weight.det().abs().log() * parts.pixels(x)
        weight = self.weight.inverse() if reverse else self.weight
        if logdet is not None:
            logdet = logdet - change if reverse else logdet + change
        return F.conv2d(x, weight[..., None, None]), logdet


class InvConv(nn.Module):
    """chrischute: ``sldj`` has no default."""

    def __init__(self, num_channels):
        super().__init__()
        self.num_channels = num_channels
        self.weight = nn.Parameter(parts.orthogonal(num_channels))

    def forward(self, x, sldj, reverse=False):
        ldj = torch.slogdet(self.weight)[1] * x.size(2) * x.size(3)
        weight = self.weight.double().inverse().float() if reverse else self.weight
        return F.conv2d(x, weight[..., None, None]), sldj - ldj if reverse else sldj + ldj


class ActNorm(parts.Norm):
    def forward(self, input, logdet=None, reverse=False):
        z = self.back(input) if reverse else self.there(input)
        if logdet is not None:
            logdet = logdet + (-1 if reverse else 1) * self.logdet(input)
        return z, logdet


class Permute2d(nn.Module):
    """The other choice of permutation: indices as an array of their own, no buffer."""

    def __init__(self, num_channels, shuffle):
        super().__init__()
        self.num_channels = num_channels
        indices = torch.randperm(num_channels) if shuffle else torch.arange(num_channels).flip(0)
        self.indices, self.indices_inverse = indices.numpy(), indices.argsort().numpy()

    def forward(self, input, reverse=False):
        return input[:, self.indices_inverse if reverse else self.indices]


class FlowStep(nn.Module):
    """ActNorm, 1x1, coupling; the 1x1 layer is reached through a table of lambdas on the class."""

    FlowPermutation = {
        "invconv": lambda obj, z, logdet, rev: obj.invconv(z, logdet, rev),
        "shuffle": lambda obj, z, logdet, rev: (obj.shuffle(z, rev), logdet),
    }

    def __init__(self, layer, channels, rank=2, flow_permutation="invconv"):
        super().__init__()
        self.flow_permutation = flow_permutation
        self.actnorm = ActNorm(channels, rank)
        if flow_permutation == "invconv":
            self.invconv = layer(channels)
        else:
            self.shuffle = Permute2d(channels, shuffle=True)
        self.coupling = parts.Affine(channels, rank)

    def permute(self, z, logdet, rev):
        return FlowStep.FlowPermutation[self.flow_permutation](self, z, logdet, rev)

    def forward(self, input, logdet=None, reverse=False):
        if reverse:
            z, logdet = self.permute(self.coupling.uncouple(input), logdet, True)
            return self.actnorm(z, logdet=logdet, reverse=True)
        z, logdet = self.actnorm(input, logdet=logdet, reverse=False)
        z, logdet = self.permute(z, logdet, False)
        z, change = self.coupling.couple(z)
        return z, logdet + change


class LambdaStep(FlowStep):
    """y0ast: a lambda closed over the step: no pickle takes it, its copy calls the first step."""

    def __init__(self, layer, channels, rank=2):
        super().__init__(layer, channels, rank)
        self.flow_permutation = lambda z, logdet, rev: self.invconv(z, logdet, rev)

    def permute(self, z, logdet, rev):
        return self.flow_permutation(z, logdet, rev)


class BoundStep(FlowStep):
    """The layer's method, taken once: what changes its class later does not reach it."""

    def __init__(self, layer, channels, rank=2):
        super().__init__(layer, channels, rank)
        self.permute_with = self.invconv.forward

    def permute(self, z, logdet, rev):
        return self.permute_with(z, logdet, rev)


class Glow(nn.Module):
    """Squeeze and steps; ``layers`` as in the code bases, which walk it forwards and backwards."""

    def __init__(self, steps, squeezed=True):
        super().__init__()
        self.layers, self.squeezed = nn.ModuleList(steps), squeezed

    def forward(self, x, logdet=0.0, reverse=False):
        if not reverse:
            x = parts.squeeze(x) if self.squeezed else x
        for layer in reversed(self.layers) if reverse else self.layers:
            x, logdet = layer(x, logdet, reverse)
        if reverse:
            x = parts.unsqueeze(x) if self.squeezed else x
        return x, logdet


def glow(layer, step=FlowStep, **options):
    return Glow([step(layer, 12, **options), step(layer, 12, **options)])


def free():
    return glow(InvertibleConv1x1)


def factors():
    return glow(lambda channels: InvertibleConv1x1(channels, LU_decomposed=True))


def lambdas():
    return glow(lambda channels: LowerUpper(channels, True), LambdaStep)


def keeps():
    return glow(KeepsLogdetInReverse)


def log_of_det():
    return glow(LogOfDet)


def sldj():
    return glow(InvConv)


def shared():
    """One layer in both steps."""
    layer = InvertibleConv1x1(12)
    return glow(lambda channels: layer)


def bound():
    return glow(InvertibleConv1x1, BoundStep)


def shuffled():
    return Glow([FlowStep(None, 12, flow_permutation="shuffle"), FlowStep(InvertibleConv1x1, 12)])


def over_time(LU_decomposed=False):
    steps = [
        FlowStep(lambda channels: InvertibleConv1x1OfTime(channels, LU_decomposed), 6, rank=1)
        for _ in range(2)
    ]
    return Glow(steps, squeezed=False)


def over_time_factors():
    return over_time(LU_decomposed=True)


def images():
    return torch.randn(2, 3, 4, 4)


def sequences():
    return torch.randn(2, 6, 5)


CALLS = {
    "forward": lambda layer, x: layer(x),
    "forward, log-det (B,)": lambda layer, x: layer(x, torch.arange(len(x)).float()),
    "forward, log-det 0": lambda layer, x: layer(x, 0.0, False),
    "forward, by keyword": lambda layer, x: layer(x, logdet=torch.zeros(()), reverse=False),
    "reverse": lambda layer, x: layer(x, reverse=True),
    "reverse, by position": lambda layer, x: layer(x, None, True),
    "reverse, log-det (B,)": lambda layer, x: layer(x, torch.arange(len(x)).float(), True),
    "reverse, int": lambda layer, x: layer(x, logdet=0, reverse=True),
}
NAMED = {
    "input=": lambda layer, x: layer(input=x, logdet=0.0),
    "get_weight": lambda layer, x: layer.get_weight(x, False),
    "get_weight, reverse": lambda layer, x: layer.get_weight(x, reverse=True),
}
SLDJ = {
    "forward": lambda layer, x: layer(x, torch.zeros(len(x))),
    "forward, by keyword": lambda layer, x: layer(x, sldj=0.0, reverse=False),
    "reverse": lambda layer, x: layer(x, torch.zeros(len(x)), True),
    "reverse, by keyword": lambda layer, x: layer(x=x, sldj=torch.zeros(len(x)), reverse=True),
}


def case(name, like, build, calls, x=images, layer_x=None, **options):
    return Case(
        name=name,
        like=like,
        build=build,
        layers=options.pop("layers", ("layers.0.invconv", "layers.1.invconv")),
        x=x,
        forward=lambda model, x: model(x, torch.zeros(len(x))),
        inverse=lambda model, z: model(z, reverse=True)[0],
        layer_x=layer_x or (lambda: torch.randn(2, 12, 2, 2)),
        layer_calls=calls,
        **options,
    )


CASES = [
    case("(x, logdet, reverse), free", "chaiyujin, SRFlow, LLFlow", free, CALLS | NAMED),
    case("(x, logdet, reverse), LU", "chaiyujin, SRFlow, LLFlow, HCFlow", factors, CALLS | NAMED),
    case(
        "(x, logdet, reverse) through a lambda of the step, LU",
        "y0ast",
        lambdas,
        CALLS | NAMED,
        pickles=False,
    ),
    case("(x, logdet, reverse), log-det kept in reverse", "HCFlow", keeps, CALLS | NAMED),
    case("(x, logdet, reverse), log |det W|", "corenel", log_of_det, CALLS),
    case("(x, sldj, reverse)", "chrischute", sldj, SLDJ),
    case(
        "(x, logdet, reverse), one layer in two places",
        "any of them",
        shared,
        CALLS | NAMED,
        layers=("layers.0.invconv",),
    ),
    case(
        "(x, logdet, reverse) through a method taken before",
        "any of them",
        bound,
        CALLS | NAMED,
        layers=(),
        left={"layers.0.invconv": "method", "layers.1.invconv": "method"},
    ),
    case(
        "(x, logdet, reverse) beside a shuffle",
        "chaiyujin, y0ast, StyleGestures",
        shuffled,
        CALLS | NAMED,
        layers=("layers.1.invconv",),
        left={"layers.0.shuffle": "permutation"},
    ),
    case(
        "(x, logdet, reverse) over time, free",
        "StyleGestures",
        over_time,
        CALLS | NAMED,
        x=sequences,
        layer_x=sequences,
    ),
    case(
        "(x, logdet, reverse) over time, LU",
        "StyleGestures",
        over_time_factors,
        CALLS | NAMED,
        x=sequences,
        layer_x=sequences,
    ),
]
