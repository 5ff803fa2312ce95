"""``forward`` and ``inverse`` of ``(inputs, context=None)``: a kernel, a bias and a cache."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case


class Cache:
    """nflows' LinearCache: no module, an attribute of the layer."""

    def __init__(self):
        self.invalidate()

    def invalidate(self):
        self.weight = self.inverse = self.logabsdet = None


class Linear(nn.Module):
    """nflows' abstract Linear: ``weight()``, ``weight_inverse()``, ``logabsdet()`` are methods."""

    def __init__(self, features, using_cache=False):
        super().__init__()
        self.features, self.using_cache, self.cache = features, using_cache, Cache()
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, inputs, context=None):
        if self.training or not self.using_cache:
            return self.forward_no_cache(inputs)
        if self.cache.weight is None:
            self.cache.weight = self.weight()
        if self.cache.logabsdet is None:
            self.cache.logabsdet = self.logabsdet()
        outputs = F.linear(inputs, self.cache.weight, self.bias)
        return outputs, self.cache.logabsdet * outputs.new_ones(len(outputs))

    def inverse(self, inputs, context=None):
        if self.training or not self.using_cache:
            return self.inverse_no_cache(inputs)
        if self.cache.inverse is None:
            self.cache.inverse = self.weight_inverse()
        if self.cache.logabsdet is None:
            self.cache.logabsdet = self.logabsdet()
        outputs = F.linear(inputs - self.bias, self.cache.inverse)
        return outputs, -self.cache.logabsdet * outputs.new_ones(len(outputs))

    def forward_no_cache(self, inputs):
        outputs = F.linear(inputs, self.weight(), self.bias)
        return outputs, self.logabsdet() * inputs.new_ones(len(inputs))

    def inverse_no_cache(self, inputs):
        outputs = torch.linalg.solve(self.weight(), (inputs - self.bias).t()).t()
        return outputs, -self.logabsdet() * inputs.new_ones(len(inputs))

    def train(self, mode=True):
        if mode:
            self.cache.invalidate()
        return super().train(mode)

    def use_cache(self, mode=True):
        self.using_cache = mode

    def weight_inverse(self):
        return self.weight().inverse()


class NaiveLinear(Linear):
    def __init__(self, features, orthogonal_initialization=True, using_cache=False):
        super().__init__(features, using_cache)
        self._weight = nn.Parameter(parts.orthogonal(features))

    def weight(self):
        return self._weight

    def logabsdet(self):
        return torch.slogdet(self._weight)[1]


class LULinear(Linear):
    """Packed triangles, numpy indices, softplus of the diagonal."""

    def __init__(self, features, using_cache=False, identity_init=True, eps=1e-3):
        super().__init__(features, using_cache)
        self.eps = eps
        self.lower_indices = np.tril_indices(features, k=-1)
        self.upper_indices = np.triu_indices(features, k=1)
        self.diag_indices = np.diag_indices(features)
        entries = features * (features - 1) // 2
        self.lower_entries = nn.Parameter(torch.zeros(entries))
        self.upper_entries = nn.Parameter(torch.zeros(entries))
        start = float(np.log(np.exp(1 - eps) - 1))
        self.unconstrained_upper_diag = nn.Parameter(torch.full((features,), start))
        if not identity_init:
            for parameter in (self.lower_entries, self.upper_entries):
                nn.init.normal_(parameter, std=0.3)

    @property
    def upper_diag(self):
        return F.softplus(self.unconstrained_upper_diag) + self.eps

    def _create_lower_upper(self):
        lower = torch.eye(self.features).index_put(
            tuple(map(torch.from_numpy, self.lower_indices)), self.lower_entries
        )
        upper = self.upper_diag.diag().index_put(
            tuple(map(torch.from_numpy, self.upper_indices)), self.upper_entries
        )
        return lower, upper

    def weight(self):
        lower, upper = self._create_lower_upper()
        return lower @ upper

    def logabsdet(self):
        return self.upper_diag.log().sum()


class HouseholderSequence(nn.Module):
    """Reflections one after another, called as any transform; no square Parameter."""

    def __init__(self, features, num_transforms):
        super().__init__()
        self.features, self.num_transforms = features, num_transforms
        self.q_vectors = nn.Parameter(torch.randn(num_transforms, features))

    def reflected(self, inputs, q_vectors):
        for q in q_vectors:
            inputs = inputs - torch.outer(inputs @ q, 2 * q / q.square().sum())
        return inputs, inputs.new_zeros(len(inputs))

    def forward(self, inputs, context=None):
        return self.reflected(inputs, self.q_vectors)

    def inverse(self, inputs, context=None):
        return self.reflected(inputs, self.q_vectors.flip(0))


class QRLinear(Linear):
    """R packed with an exponential diagonal, Q a child of reflections."""

    def __init__(self, features, num_householder, using_cache=False):
        super().__init__(features, using_cache)
        self.upper_indices = np.triu_indices(features, k=1)
        self.diag_indices = np.diag_indices(features)
        entries = features * (features - 1) // 2
        self.upper_entries = nn.Parameter(0.2 * torch.randn(entries))
        self.log_upper_diag = nn.Parameter(0.2 * torch.randn(features))
        self.orthogonal = HouseholderSequence(features, num_householder)

    def weight(self):
        upper = self.log_upper_diag.exp().diag().index_put(
            tuple(map(torch.from_numpy, self.upper_indices)), self.upper_entries
        )
        return self.orthogonal(upper.t())[0].t()

    def logabsdet(self):
        return self.log_upper_diag.sum()


class SVDLinear(Linear):
    def __init__(self, features, num_householder, using_cache=False, eps=1e-3):
        super().__init__(features, using_cache)
        self.eps = eps
        self.orthogonal_1 = HouseholderSequence(features, num_householder)
        self.unconstrained_diagonal = nn.Parameter(torch.rand(features))
        self.orthogonal_2 = HouseholderSequence(features, num_householder)

    @property
    def diagonal(self):
        return self.eps + F.softplus(self.unconstrained_diagonal)

    def weight(self):
        weight = self.orthogonal_2.inverse(self.diagonal.diag())[0]
        return self.orthogonal_1(weight.t())[0].t()

    def logabsdet(self):
        return self.diagonal.log().sum()


class RandomPermutation(nn.Module):
    def __init__(self, features, dim=1):
        super().__init__()
        self._dim = dim
        self.register_buffer("_permutation", torch.randperm(features))

    def forward(self, inputs, context=None):
        return inputs.index_select(self._dim, self._permutation), inputs.new_zeros(len(inputs))

    def inverse(self, inputs, context=None):
        order = self._permutation.argsort()
        return inputs.index_select(self._dim, order), inputs.new_zeros(len(inputs))


class OneByOneConvolution(LULinear):
    """Images only; a permutation of its own in front, and ``weight()`` knows nothing of it."""

    def __init__(self, num_channels, using_cache=False, identity_init=True):
        super().__init__(num_channels, using_cache, identity_init)
        self.permutation = RandomPermutation(num_channels, dim=1)

    def forward(self, inputs, context=None):
        if inputs.dim() != 4:
            raise ValueError("Inputs must be a 4D tensor.")
        b, c, h, w = inputs.shape
        flat = self.permutation(inputs)[0].permute(0, 2, 3, 1).reshape(-1, c)
        outputs, logabsdet = super().forward(flat)
        return outputs.view(b, h, w, c).permute(0, 3, 1, 2), logabsdet.view(b, -1).sum(1)

    def inverse(self, inputs, context=None):
        if inputs.dim() != 4:
            raise ValueError("Inputs must be a 4D tensor.")
        b, c, h, w = inputs.shape
        flat = inputs.permute(0, 2, 3, 1).reshape(-1, c)
        outputs, logabsdet = super().inverse(flat)
        outputs = outputs.view(b, h, w, c).permute(0, 3, 1, 2)
        return self.permutation.inverse(outputs)[0], logabsdet.view(b, -1).sum(1)


class ActNorm(parts.Norm):
    """nflows: a buffer says whether a batch was seen; only in train mode."""

    def __init__(self, features, rank):
        super().__init__(features, rank)
        self.register_buffer("initialized", torch.tensor(False))

    def start(self, x):
        self.inited = bool(self.initialized) or not self.training
        super().start(x)
        self.initialized.fill_(bool(self.initialized) or self.training)

    def forward(self, inputs, context=None):
        return self.there(inputs), self.logdet(inputs) * inputs.new_ones(len(inputs))

    def inverse(self, inputs, context=None):
        return self.back(inputs), -self.logdet(inputs) * inputs.new_ones(len(inputs))


class Coupling(parts.Affine):
    def forward(self, inputs, context=None):
        return self.couple(inputs)

    def inverse(self, inputs, context=None):
        x = self.uncouple(inputs)
        return x, -self.couple(x)[1]


class CompositeTransform(nn.Module):
    def __init__(self, transforms):
        super().__init__()
        self._transforms = nn.ModuleList(transforms)

    def forward(self, inputs, context=None):
        return self.cascade(inputs, self._transforms, context)

    def inverse(self, inputs, context=None):
        return self.cascade(inputs, [each.inverse for each in self._transforms[::-1]], context)

    def cascade(self, inputs, functions, context):
        total = inputs.new_zeros(len(inputs))
        for function in functions:
            inputs, logabsdet = function(inputs, context)
            total = total + logabsdet
        return inputs, total


def composite(layer, features, rank):
    steps = []
    for _ in range(2):
        steps += [ActNorm(features, rank), layer(features), Coupling(features, max(rank, 1))]
    return CompositeTransform(steps)


class VectorCoupling(Coupling):
    def __init__(self, features, rank):
        super().__init__(features, last=True)


def vectors(layer):
    steps = []
    for _ in range(2):
        steps += [ActNorm(6, 0), layer(6), VectorCoupling(6, 0)]
    return CompositeTransform(steps)


def one_by_one():
    return composite(OneByOneConvolution, 4, 2)


def one_by_one_cached():
    return composite(lambda n: OneByOneConvolution(n, using_cache=True, identity_init=False), 4, 2)


def naive():
    return vectors(NaiveLinear)


def packed():
    return vectors(lambda n: LULinear(n, identity_init=False))


def packed_cached():
    return vectors(lambda n: LULinear(n, using_cache=True, identity_init=False))


def reflections():
    return vectors(lambda n: QRLinear(n, num_householder=3))


def singular():
    return vectors(lambda n: SVDLinear(n, num_householder=4))


CALLS = {
    "forward": lambda layer, x: layer(x),
    "forward, context": lambda layer, x: layer(x, context=torch.ones(2, 3)),
    "forward, by position": lambda layer, x: layer(x, None),
    "forward, by keyword": lambda layer, x: layer(inputs=x),
    "inverse": lambda layer, x: layer.inverse(x),
    "inverse, context": lambda layer, x: layer.inverse(x, context=torch.ones(2, 3)),
    "inverse, by position": lambda layer, x: layer.inverse(x, None),
    "weight": lambda layer, x: layer.weight(),
    "weight_inverse": lambda layer, x: layer.weight_inverse(),
    "logabsdet": lambda layer, x: layer.logabsdet(),
}


def images():
    return torch.randn(2, 4, 3, 3)


def rows():
    return torch.randn(5, 6)


def case(name, build, x=rows, **options):
    return Case(
        name=f"(inputs, context=None), {name}",
        like="bayesiains/nflows",
        build=build,
        layers=("_transforms.1", "_transforms.4"),
        x=x,
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.inverse(z)[0],
        layer_x=x,
        layer_calls=CALLS,
        **options,
    )


CASES = [
    case("images, LU behind a permutation", one_by_one, images),
    case("images, LU behind a permutation, cached", one_by_one_cached, images),
    case("vectors, free with bias", naive),
    case("vectors, packed LU with bias", packed),
    case("vectors, packed LU with bias, cached", packed_cached),
    case("vectors, QR of reflections", reflections),
    case("vectors, SVD of reflections", singular),
]
