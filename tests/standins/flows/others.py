"""Layers called past ``forward`` or without a log-det, and models in which everything is left."""

import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case
from .running_logdet import CALLS as RUNNING
from .running_logdet import NAMED, ActNorm, InvertibleConv1x1, LowerUpper, Permute2d


class Conv2d1x1(InvertibleConv1x1):
    """Noise2NoiseFlow: ``(input, reverse=False)`` -> (z, log-det), the sign the same both ways.

    The flow calls ``_forward_and_log_det_jacobian(x, **kwargs)`` and ``_inverse(z, **kwargs)``.
    The log-det counts the last side squared, so images are square.
    """

    def __init__(self, num_channels, LU_decomposed=True, name="Conv2d1x1"):
        super().__init__(num_channels, LU_decomposed)
        self.name = name

    def forward(self, input, reverse=False):
        weight, dlogdet = self.get_weight(input, reverse)
        return F.conv2d(input, weight), dlogdet

    def _forward_and_log_det_jacobian(self, x, **kwargs):
        return self.forward(x)

    def _inverse(self, z, **kwargs):
        return self.forward(z, reverse=True)[0]


class ConditionalConv2d1x1(nn.Module):
    """Noise2NoiseFlow: 25 kernels, of which ``iso`` and ``cam`` of the call choose one."""

    def __init__(self, num_channels, name="Conv2d1x1"):
        super().__init__()
        self.name, self.w_shape = name, [num_channels, num_channels]
        kernels = [parts.orthogonal(num_channels) for _ in range(25)]
        self.weight = nn.Parameter(torch.stack(kernels))

    def forward(self, input, reverse=False, iso_cam=None):
        weight = self.weight[iso_cam]
        dlogdet = torch.slogdet(weight)[1] * parts.pixels(input)
        weight = weight.double().inverse().float() if reverse else weight
        return F.conv2d(input, weight[..., None, None]), dlogdet

    def _forward_and_log_det_jacobian(self, x, **kwargs):
        return self.forward(x, iso_cam=5 * kwargs["iso"] + kwargs["cam"])

    def _inverse(self, z, **kwargs):
        return self.forward(z, reverse=True, iso_cam=5 * kwargs["iso"] + kwargs["cam"])[0]


class NoiseCoupling(parts.Affine):
    name = "unc"

    def _forward_and_log_det_jacobian(self, x, **kwargs):
        return self.couple(x)

    def _inverse(self, z, **kwargs):
        return self.uncouple(z)


class NoiseFlow(nn.Module):
    def __init__(self, layer, channels=4):
        super().__init__()
        self.model = nn.ModuleList()
        for _ in range(2):
            self.model.extend([layer(channels), NoiseCoupling(channels)])

    def forward(self, x, **kwargs):
        objective = torch.zeros(len(x))
        for bijector in self.model:
            x, change = bijector._forward_and_log_det_jacobian(x, **kwargs)
            objective += change
        return x, objective

    def inverse(self, z, **kwargs):
        for bijector in reversed(self.model):
            z = bijector._inverse(z, **kwargs)
        return z


class InvISPBlock(nn.Module):
    """Invertible-ISP: a lambda of the step with ``logdet=0``, dropped; ``s`` stays behind."""

    def __init__(self, channel_num=3, channel_split_num=1):
        super().__init__()
        self.split = (channel_split_num, channel_num - channel_split_num)
        one, two = self.split
        self.F, self.G, self.H = (
            parts.net(*sizes, 3) for sizes in ((two, one), (one, two), (one, two))
        )
        self.invconv = LowerUpper(channel_num, LU_decomposed=True)
        self.flow_permutation = lambda z, logdet, rev: self.invconv(z, logdet, rev)

    def forward(self, x, rev=False):
        if not rev:
            x, _ = self.flow_permutation(x, logdet=0, rev=False)
            first, second = x.split(self.split, 1)
            first = first + self.F(second)
            self.s = 0.8 * (2 * torch.sigmoid(self.H(first)) - 1)
            return torch.cat([first, second * self.s.exp() + self.G(first)], 1)
        first, second = x.split(self.split, 1)
        self.s = 0.8 * (2 * torch.sigmoid(self.H(first)) - 1)
        second = (second - self.G(first)) / self.s.exp()
        x = torch.cat([first - self.F(second), second], 1)
        return self.flow_permutation(x, logdet=0, rev=True)[0]


class InvISPNet(nn.Module):
    """Calls ``op.forward``, past hooks."""

    def __init__(self):
        super().__init__()
        self.operations = nn.ModuleList(InvISPBlock() for _ in range(2))

    def forward(self, x, rev=False):
        for operation in reversed(self.operations) if rev else self.operations:
            x = operation.forward(x, rev)
        return x


class ConditionalConv1x1(nn.Module):
    """A net turns the condition into a kernel for each sample; the net's Linear is square."""

    def __init__(self, channels):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(channels, channels), nn.Tanh())
        self.weight = nn.Parameter(parts.orthogonal(channels))

    def forward(self, x, logdet=None, reverse=False, condition=None):
        condition = x.new_ones(len(x), x.size(1)) if condition is None else condition
        kernels = self.weight + 0.1 * torch.diag_embed(self.net(condition))
        if logdet is not None:
            change = torch.slogdet(kernels)[1] * parts.pixels(x)
            logdet = logdet - change if reverse else logdet + change
        kernels = kernels.inverse() if reverse else kernels
        return torch.einsum("bij,bjhw->bihw", kernels, x), logdet


class OfMeans(nn.Module):
    """A kernel for each sample, from the mean of the channel that the layer leaves unchanged."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(parts.orthogonal(channels - 1))

    def forward(self, x, logdet=None, reverse=False):
        first, rest = x[:, :1], x[:, 1:]
        scale = torch.exp(0.3 * torch.tanh(first.flatten(1).mean(1)))[:, None, None]
        kernels = scale * self.weight
        if logdet is not None:
            change = torch.slogdet(kernels)[1] * parts.pixels(x)
            logdet = logdet - change if reverse else logdet + change
        kernels = kernels.inverse() if reverse else kernels
        return torch.cat([first, torch.einsum("bij,bjhw->bihw", kernels, rest)], 1), logdet


class Bent(nn.Module):
    """A square matrix, the same call, a log-det, and a bend: no convolution."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(parts.orthogonal(channels))

    def forward(self, x, logdet=None, reverse=False):
        kernel = self.weight[..., None, None]
        if reverse:
            bent = F.leaky_relu(x, 2.0)
            z = F.conv2d(bent, self.weight.inverse()[..., None, None])
        else:
            bent = F.conv2d(x, kernel)
            z = F.leaky_relu(bent, 0.5)
        if logdet is not None:
            negative = (z if not reverse else x) < 0
            change = torch.slogdet(self.weight)[1] * parts.pixels(x)
            change = change - negative.flatten(1).sum(1) * torch.tensor(2.0).log()
            logdet = logdet - change if reverse else logdet + change
        return z, logdet


class Mix(nn.Module):
    """A square 1x1 convolution with a bias that is a net's: rows of x, no inverse, no log-det."""

    def __init__(self, channels):
        super().__init__()
        self.linear = nn.Linear(channels, channels)
        self.conv = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        return self.conv(self.linear(x.movedim(1, -1)).movedim(-1, 1))


class Coupling(parts.Affine):
    """(x, logdet, reverse), linear as long as its last layer is zero; a square net of its own."""

    def __init__(self, channels):
        super().__init__(channels)
        self.mix = Mix(channels // 2)

    def parameters_of(self, first):
        return super().parameters_of(self.mix(first))

    def forward(self, x, logdet=None, reverse=False):
        if reverse:
            z = self.uncouple(x)
            return z, None if logdet is None else logdet - self.couple(z)[1]
        z, change = self.couple(x)
        return z, None if logdet is None else logdet + change


class Diagonal(nn.Module):
    """A square Parameter of which only the diagonal counts: linear, but no mixing of channels."""

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(channels) + 0.1 * torch.randn(channels, channels))

    def forward(self, x, logdet=None, reverse=False):
        scale = self.weight.diag().view(1, -1, 1, 1)
        if logdet is not None:
            change = scale.abs().log().sum() * parts.pixels(x)
            logdet = logdet - change if reverse else logdet + change
        return x / scale if reverse else x * scale, logdet


class Shuffled(nn.Module):
    """Permute2d under the same signature as all others."""

    def __init__(self, channels):
        super().__init__()
        self.permute = Permute2d(channels, shuffle=True)

    def forward(self, x, logdet=None, reverse=False):
        return self.permute(x, reverse), logdet


class Chain(nn.Module):
    """A container with the same signature, linear at first."""

    def __init__(self, layers):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x, logdet=None, reverse=False):
        for layer in reversed(self.layers) if reverse else self.layers:
            x, logdet = layer(x, logdet, reverse)
        return x, logdet


class NotOne(nn.Module):
    """Nothing in it becomes a WIC; ``head`` beside the flow is a plain classifier."""

    def __init__(self, channels=4):
        super().__init__()
        self.flow = Chain(
            [
                ActNorm(channels),
                Shuffled(channels),
                ConditionalConv1x1(channels),
                OfMeans(channels),
                Bent(channels),
                Coupling(channels),
                Diagonal(channels),
                ActNorm(channels),
                Coupling(channels),
            ]
        )
        self.head = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Conv2d(channels, 1, 1))

    def forward(self, x, logdet=None, reverse=False):
        return self.flow(x, logdet, reverse)


def noise():
    return NoiseFlow(Conv2d1x1)


def noise_free():
    return NoiseFlow(lambda n: Conv2d1x1(n, LU_decomposed=False))


def noise_conditional():
    return NoiseFlow(ConditionalConv2d1x1)


def images():
    return torch.randn(2, 4, 3, 3)


CAMERA = {"iso": 1, "cam": 3}

NOISE = {
    "forward": lambda layer, x: layer(x),
    "reverse": lambda layer, x: layer(x, reverse=True),
    "reverse, by position": lambda layer, x: layer(x, True),
    "_forward_and_log_det_jacobian": lambda layer, x: layer._forward_and_log_det_jacobian(
        x, **CAMERA
    ),
    "_inverse": lambda layer, x: layer._inverse(x, **CAMERA),
}


def of_noise(name, build, **options):
    return Case(
        name=name,
        like="SamsungLabs/Noise2NoiseFlow",
        build=build,
        x=images,
        forward=lambda model, x: model(x, **CAMERA),
        inverse=lambda model, z: model.inverse(z, **CAMERA),
        layer_x=images,
        **options,
    )


CASES = [
    of_noise(
        "_forward_and_log_det_jacobian, _inverse, LU",
        noise,
        layers=("model.0", "model.2"),
        layer_calls=NOISE,
    ),
    of_noise(
        "_forward_and_log_det_jacobian, _inverse, free",
        noise_free,
        layers=("model.0", "model.2"),
        layer_calls=NOISE,
    ),
    of_noise(
        "a kernel per condition",
        noise_conditional,
        layers=(),
        layer_calls={},
        left={"model.0": "condition", "model.2": "condition"},
    ),
    Case(
        name="through a lambda of the step, log-det dropped",
        like="yzxing87/Invertible-ISP",
        build=InvISPNet,
        layers=("operations.0.invconv", "operations.1.invconv"),
        x=lambda: torch.randn(2, 3, 4, 4),
        forward=lambda model, x: (model(x), None),
        inverse=lambda model, z: model(z, rev=True),
        layer_x=lambda: torch.randn(2, 3, 4, 4),
        layer_calls=RUNNING | NAMED,
        pickles=False,
        copies=False,
    ),
    Case(
        name="everything is left",
        like="layers that are called like a 1x1 layer and are none",
        build=NotOne,
        layers=(),
        left={
            "flow.layers.1": "permutation",
            "flow.layers.2": "sample",
            "flow.layers.3": "sample",
        },
        x=images,
        forward=lambda model, x: model(x, torch.zeros(len(x))),
        inverse=lambda model, z: model(z, reverse=True)[0],
        layer_x=images,
        layer_calls={},
    ),
]
