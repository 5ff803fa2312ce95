"""``forward(x)`` -> (y, scalar log-det) and ``reverse(y)`` -> x; the kernel is (n, n, 1, 1)."""

import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case


class InvConv2d(nn.Module):
    """rosinality, MoFlow."""

    def __init__(self, in_channel):
        super().__init__()
        self.weight = nn.Parameter(parts.orthogonal(in_channel)[..., None, None])

    def forward(self, input):
        _, _, height, width = input.shape
        logdet = height * width * torch.slogdet(self.weight.squeeze().double())[1].float()
        return F.conv2d(input, self.weight), logdet

    def reverse(self, output):
        return F.conv2d(output, self.weight.squeeze().inverse()[..., None, None])


class InvConv2dLU(nn.Module):
    """rosinality, MoFlow: ``calc_weight()`` is (n, n, 1, 1)."""

    def __init__(self, in_channel):
        super().__init__()
        p, l, u = parts.lu(in_channel)
        self.register_buffer("w_p", p)
        self.register_buffer("u_mask", torch.ones_like(u).triu(1))
        self.register_buffer("l_mask", torch.ones_like(l).tril(-1))
        self.register_buffer("s_sign", u.diag().sign())
        self.register_buffer("l_eye", torch.eye(in_channel))
        self.w_l = nn.Parameter(l)
        self.w_s = nn.Parameter(u.diag().abs().log())
        self.w_u = nn.Parameter(u.triu(1))

    def calc_weight(self):
        lower = self.w_l * self.l_mask + self.l_eye
        upper = self.w_u * self.u_mask + torch.diag(self.s_sign * self.w_s.exp())
        return (self.w_p @ lower @ upper)[..., None, None]

    def forward(self, input):
        _, _, height, width = input.shape
        return F.conv2d(input, self.calc_weight()), height * width * self.w_s.sum()

    def reverse(self, output):
        return F.conv2d(output, self.calc_weight().squeeze().inverse()[..., None, None])


class ActNorm(parts.Norm):
    """Called like the 1x1 layer; a buffer says that it has seen a batch, in any mode."""

    def __init__(self, in_channel):
        super().__init__(in_channel)
        self.register_buffer("initialized", torch.tensor(0, dtype=torch.uint8))

    def start(self, x):
        self.inited = bool(self.initialized.item())
        super().start(x)
        self.initialized.fill_(1)

    def forward(self, input):
        return self.there(input), self.logdet(input)

    def reverse(self, output):
        return self.back(output)


class AffineCoupling(parts.Affine):
    def forward(self, input):
        return self.couple(input)

    def reverse(self, output):
        return self.uncouple(output)


class Flow(nn.Module):
    def __init__(self, in_channel, conv_lu=True):
        super().__init__()
        self.actnorm = ActNorm(in_channel)
        self.invconv = InvConv2dLU(in_channel) if conv_lu else InvConv2d(in_channel)
        self.coupling = AffineCoupling(in_channel)

    def forward(self, input):
        out, logdet = self.actnorm(input)
        out, det1 = self.invconv(out)
        out, det2 = self.coupling(out)
        return out, logdet + det1 + det2

    def reverse(self, output):
        return self.actnorm.reverse(self.invconv.reverse(self.coupling.reverse(output)))


class Block(nn.Module):
    def __init__(self, in_channel, n_flow=2, conv_lu=True):
        super().__init__()
        self.flows = nn.ModuleList(Flow(4 * in_channel, conv_lu) for _ in range(n_flow))

    def forward(self, input):
        out, logdet = parts.squeeze(input), 0
        for flow in self.flows:
            out, det = flow(out)
            logdet = logdet + det
        return out, logdet

    def reverse(self, output):
        for flow in self.flows[::-1]:
            output = flow.reverse(output)
        return parts.unsqueeze(output)


def free():
    return Block(3, conv_lu=False)


def factors():
    return Block(3)


CALLS = {
    "forward": lambda layer, x: layer(x),
    "forward, by keyword": lambda layer, x: layer(input=x),
    "reverse": lambda layer, x: layer.reverse(x),
    "reverse, by keyword": lambda layer, x: layer.reverse(output=x),
}


def case(name, build, calls):
    return Case(
        name=name,
        like="rosinality, MoFlow",
        build=build,
        layers=("flows.0.invconv", "flows.1.invconv"),
        x=lambda: torch.randn(2, 3, 4, 4),
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.reverse(z),
        layer_x=lambda: torch.randn(2, 12, 2, 2),
        layer_calls=calls,
    )


CASES = [
    case("forward, reverse(y), kernel (n, n, 1, 1)", free, CALLS),
    case(
        "forward, reverse(y), LU",
        factors,
        CALLS | {"calc_weight": lambda layer, x: layer.calc_weight()},
    ),
]
