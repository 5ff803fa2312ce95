"""1x1 layers whose kernel torch makes: parametrizations, the old weight_norm and spectral_norm.

Beside them reflections, whose square matrix of vectors is not the kernel.
"""

import warnings

import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, spectral_norm, weight_norm

from .case import Case
from .running_logdet import CALLS, NAMED, InvertibleConv1x1, glow
from .running_logdet import case as running
from .speech import WaveGlow, calls, of_waveglow


class Householder(nn.Module):
    """(x, logdet, reverse): n reflections by the rows of an (n, n) Parameter, log-det 0."""

    def __init__(self, num_channels):
        super().__init__()
        self.v = nn.Parameter(torch.randn(num_channels, num_channels))

    def reflected(self, x, vectors):
        for v in vectors:
            v = v / v.norm()
            along = (x * v.view(1, -1, 1, 1)).sum(1, keepdim=True)
            x = x - 2 * along * v.view(1, -1, 1, 1)
        return x

    def forward(self, x, logdet=None, reverse=False):
        return self.reflected(x, self.v.flip(0) if reverse else self.v), logdet


class Scaled(nn.Module):
    """A parametrization of one's own: the kernel is three halves of the Parameter."""

    def forward(self, weight):
        return 1.5 * weight


def orthogonal():
    return glow(lambda n: parametrizations.orthogonal(InvertibleConv1x1(n)))


def scaled():
    def layer(channels):
        conv = InvertibleConv1x1(channels)
        parametrize.register_parametrization(conv, "weight", Scaled())
        return conv

    return glow(layer)


def new_weight_norm():
    return glow(lambda n: parametrizations.weight_norm(InvertibleConv1x1(n)))


def old(norm):
    def layer(channels):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return norm(InvertibleConv1x1(channels))

    return glow(layer)


def old_weight_norm():
    return old(weight_norm)


def old_spectral_norm():
    return old(spectral_norm)


def householder():
    return glow(Householder)


def child_orthogonal():
    """WaveGlow with the parametrization on the Conv1d that its 1x1 layer has as a child."""
    model = WaveGlow()
    for layer in model.convinv:
        parametrize.register_parametrization(layer.conv, "weight", OrthogonalOfLast())
    return model


class OrthogonalOfLast(nn.Module):
    """exp of the skew part of an (n, n, 1) Parameter: det is +1."""

    def forward(self, weight):
        skew = weight[..., 0] - weight[..., 0].t()
        return torch.linalg.matrix_exp(skew)[..., None]


LIKE = "any of them under torch.nn.utils"

CASES = [
    running("parametrizations.orthogonal", LIKE, orthogonal, CALLS | NAMED, pickles=False),
    running("a parametrization of one's own", LIKE, scaled, CALLS | NAMED, pickles=False),
    running("parametrizations.weight_norm", LIKE, new_weight_norm, CALLS | NAMED, pickles=False),
    running("old weight_norm", LIKE, old_weight_norm, CALLS, copies=False),
    running("old spectral_norm", LIKE, old_spectral_norm, CALLS, copies=False),
    running("reflections by n vectors", "Householder flows", householder, CALLS),
    Case(
        name="a parametrization on the child",
        like="NVIDIA/waveglow under torch.nn.utils",
        build=child_orthogonal,
        layers=("convinv.0", "convinv.1", "convinv.2"),
        x=lambda: torch.randn(2, 8, 5),
        forward=of_waveglow,
        inverse=lambda model, z: model.infer(z),
        layer_x=lambda: torch.randn(2, 8, 5),
        layer_calls=calls("reverse"),
        units="batch",
        pickles=False,
    ),
]
