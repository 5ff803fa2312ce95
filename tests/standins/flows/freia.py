"""FrEIA: ``forward((x,), rev=False, jac=True)`` -> ((z,), log-det)."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from . import parts
from .case import Case


class InvertibleModule(nn.Module):
    def __init__(self, dims_in, dims_c=None):
        super().__init__()
        self.dims_in, self.dims_c = list(dims_in), list(dims_c or [])

    def output_dims(self, input_dims):
        return input_dims


class Fixed1x1Conv(InvertibleModule):
    """Kernel, inverse and a scalar log-det as Parameters without gradient."""

    def __init__(self, dims_in, dims_c=None, M=None):
        super().__init__(dims_in, dims_c)
        n = len(M)
        self.M = nn.Parameter(M.t().reshape(n, n, 1, 1), requires_grad=False)
        self.M_inv = nn.Parameter(M.t().inverse().reshape(n, n, 1, 1), requires_grad=False)
        self.logDetM = nn.Parameter(torch.slogdet(M)[1], requires_grad=False)

    def forward(self, x, rev=False, jac=True):
        j = self.logDetM * x[0][0, 0].numel()
        return ((F.conv2d(x[0], self.M_inv),), -j) if rev else ((F.conv2d(x[0], self.M),), j)


class FixedLinearTransform(InvertibleModule):
    """y = M x + b: ``self.M`` is M^T, which rows are multiplied with; buffers (FrEIA main)."""

    def __init__(self, dims_in, dims_c=None, M=None, b=None):
        super().__init__(dims_in, dims_c)
        self.register_buffer("M", M.t())
        self.register_buffer("M_inv", M.t().inverse())
        self.register_buffer("b", torch.tensor(0.0) if b is None else b[None])
        self.register_buffer("logDetM", torch.slogdet(M)[1])

    def forward(self, x, rev=False, jac=True):
        j = self.logDetM.expand(len(x[0]))
        if rev:
            return ((x[0] - self.b).mm(self.M_inv),), -j
        return (x[0].mm(self.M) + self.b,), j


class OrthogonalTransform(InvertibleModule):
    """(x W + bias) * exp(scaling), W put back on the orthogonal ones by a backward hook.

    Between two corrections W is not orthogonal and the reverse is W^T all the same.
    """

    def __init__(self, dims_in, dims_c=None, correction_interval=256, clamp=5.0):
        super().__init__(dims_in, dims_c)
        self.width = dims_in[0][0]
        self.clamp, self.correction_interval, self.back_counter = clamp, correction_interval, 0
        self.weights = nn.Parameter(parts.orthogonal(self.width))
        self.bias = nn.Parameter(0.05 * torch.randn(1, self.width))
        self.scaling = nn.Parameter(0.02 * torch.randn(1, self.width))
        self.register_backward_hook(correct)

    def log_scaling(self):
        return self.clamp * 0.636 * torch.atan(self.scaling / self.clamp)

    def forward(self, x, rev=False, jac=True):
        scaling = self.log_scaling()
        j = scaling.sum(1).expand(len(x[0]))
        if rev:
            return [(x[0] * (-scaling).exp() - self.bias).mm(self.weights.t())], -j
        return [(x[0].mm(self.weights) + self.bias) * scaling.exp()], j


def correct(module, grad_in, grad_out):
    module.back_counter += 1
    if module.back_counter > module.correction_interval:
        module.back_counter = 0
        module.weights.data.copy_(torch.linalg.qr(module.weights.data)[0])


class PermuteRandom(InvertibleModule):
    """Indices as Parameters of integers without gradient; the log-det is the float 0."""

    def __init__(self, dims_in, dims_c=None, seed=None):
        super().__init__(dims_in, dims_c)
        order = torch.from_numpy(np.random.RandomState(seed or 0).permutation(dims_in[0][0]))
        self.perm = nn.Parameter(order, requires_grad=False)
        self.perm_inv = nn.Parameter(order.argsort(), requires_grad=False)

    def forward(self, x, rev=False, jac=True):
        return [x[0][:, self.perm_inv if rev else self.perm]], 0.0


class ActNorm(InvertibleModule):
    """The same call; takes its first batch in any mode."""

    def __init__(self, dims_in, dims_c=None):
        super().__init__(dims_in, dims_c)
        rank = len(dims_in[0]) - 1
        self.norm = parts.Norm(dims_in[0][0], rank)

    def forward(self, x, rev=False, jac=True):
        z = self.norm.back(x[0]) if rev else self.norm.there(x[0])
        return [z], (-1) ** rev * self.norm.logdet(x[0]).expand(len(z))


class GLOWCouplingBlock(InvertibleModule):
    def __init__(self, dims_in, dims_c=None):
        super().__init__(dims_in, dims_c)
        rank = len(dims_in[0]) - 1
        self.affine = parts.Affine(dims_in[0][0], rank, last=rank == 0)

    def forward(self, x, rev=False, jac=True):
        if rev:
            z = self.affine.uncouple(x[0])
            return (z,), -self.affine.couple(z)[1]
        z, j = self.affine.couple(x[0])
        return (z,), j


class AllInOneBlock(InvertibleModule):
    """A coupling, a diagonal with a shift, and a matrix behind them, which ``_permute`` applies.

    The matrix is ``w_perm`` with ``w_perm_inv``, Parameters without gradient: (n, n, 1, 1), or
    (n, n) for vectors. With reflections it is made at each forward as a plain attribute from
    ``w_0`` and ``vk_householder``, and None before. A hard permutation is a matrix of zeros and
    ones (FrEIA 0.2, anomalib), or indices (``indices=True``, FrEIA main).
    """

    def __init__(
        self,
        dims_in,
        dims_c=(),
        permute_soft=False,
        learned_householder_permutation=0,
        reverse_permutation=False,
        gin_block=False,
        indices=False,
    ):
        super().__init__(dims_in, dims_c)
        n, rank = dims_in[0][0], len(dims_in[0]) - 1
        self.in_channels, self.input_rank, self.GIN = n, rank, gin_block
        self.conditional, self.condition_channels, self.clamp = False, 0, 2.0
        self.splits = [n - n // 2, n // 2]
        self.reverse_pre_permute = reverse_permutation
        self.householder = learned_householder_permutation
        self.permute_function = (F.linear, F.conv1d, F.conv2d)[rank]
        if indices:
            self.permute_function = take
        self.softplus = nn.Softplus(beta=0.5)
        self.global_scale_activation = self._softplus_global_scale_activation
        start = 2 * float(np.log(np.exp(5.0) - 1))
        self.global_scale = nn.Parameter(torch.full((1, n, *(1,) * rank), start))
        self.global_offset = nn.Parameter(torch.zeros(1, n, *(1,) * rank))
        order = torch.randperm(n)
        w = parts.orthogonal(n, positive=True) if permute_soft else torch.eye(n)[order]
        shape = (n, n, *(1,) * rank)

        def fixed(value):
            return nn.Parameter(value.contiguous(), requires_grad=False)

        if self.householder:
            self.vk_householder = nn.Parameter(0.2 * torch.randn(self.householder, n))
            self.w_perm = self.w_perm_inv = None
            self.w_0 = fixed(w)
        elif indices:
            self.w_perm, self.w_perm_inv = fixed(order), fixed(order.argsort())
        else:
            self.w_perm, self.w_perm_inv = fixed(w.view(shape)), fixed(w.t().reshape(shape))
        self.subnet = parts.net(self.splits[0], 2 * self.splits[1], n, rank)
        self.last_jac = None

    def _softplus_global_scale_activation(self, a):
        return 0.1 * self.softplus(a)

    def _construct_householder_permutation(self):
        w = self.w_0
        for v in self.vk_householder:
            w = w - 2 * torch.outer(w @ v, v) / v.dot(v)
        return w.view(*w.shape, *(1,) * self.input_rank)

    def _permute(self, x, rev=False):
        scale, perm_log_jac = 1.0, 0.0
        if not self.GIN:
            scale = self.global_scale_activation(self.global_scale)
            perm_log_jac = scale.log().sum()
        if rev:
            x = self.permute_function(x, self.w_perm_inv)
            return (x - self.global_offset) / scale, perm_log_jac
        return self.permute_function(x * scale + self.global_offset, self.w_perm), perm_log_jac

    def _pre_permute(self, x, rev=False):
        return self.permute_function(x, self.w_perm if rev else self.w_perm_inv)

    def _affine(self, x, a, rev=False):
        jac, shift = (0.1 * a).chunk(2, 1)
        jac = self.clamp * torch.tanh(jac / self.clamp)
        if self.GIN:
            jac = jac - jac.flatten(1).mean(1).view(-1, *(1,) * (jac.dim() - 1))
        log_det = jac.flatten(1).sum(1)
        return ((x - shift) * (-jac).exp(), -log_det) if rev else (x * jac.exp() + shift, log_det)

    def forward(self, x, c=(), rev=False, jac=True):
        if self.householder:
            self.w_perm = self._construct_householder_permutation()
            if rev or self.reverse_pre_permute:
                self.w_perm_inv = self.w_perm.transpose(0, 1).contiguous()
        (x,) = x
        if rev:
            x, scaling = self._permute(x, rev=True)
        elif self.reverse_pre_permute:
            x = self._pre_permute(x)
        first, second = x.split(self.splits, 1)
        second, j = self._affine(second, self.subnet(first), rev)
        x = torch.cat([first, second], 1)
        if not rev:
            x, scaling = self._permute(x)
        elif self.reverse_pre_permute:
            x = self._pre_permute(x, rev=True)
        return (x,), j + (-1) ** rev * x[0, :1].numel() * scaling


def take(x, order):
    return x[:, order]


class SequenceINN(nn.Module):
    """FrEIA's Sequential: ``append(Module, **options)`` passes dims_in."""

    def __init__(self, *dims):
        super().__init__()
        self.shapes, self.module_list = [tuple(dims)], nn.ModuleList()

    def append(self, module_class, **options):
        self.module_list.append(module_class([self.shapes[-1]], **options))
        self.shapes.append(self.shapes[-1])

    def forward(self, x, rev=False, jac=True):
        total, x = 0, (x,)
        for module in reversed(self.module_list) if rev else self.module_list:
            x, j = module(x, rev=rev, jac=jac)
            total = total + j
        return x[0], total


def kernel(n):
    return parts.orthogonal(n) * torch.linspace(0.7, 1.4, n)[:, None]


def fixed():
    inn = SequenceINN(4, 3, 3)
    for _ in range(2):
        inn.append(ActNorm)
        inn.append(Fixed1x1Conv, M=kernel(4))
        inn.append(GLOWCouplingBlock)
    return inn


def linear():
    inn = SequenceINN(6)
    inn.append(FixedLinearTransform, M=kernel(6), b=torch.randn(6))
    inn.append(GLOWCouplingBlock)
    inn.append(PermuteRandom, seed=1)
    inn.append(FixedLinearTransform, M=kernel(6))
    inn.append(GLOWCouplingBlock)
    return inn


def orthogonal():
    inn = SequenceINN(6)
    for _ in range(2):
        inn.append(OrthogonalTransform)
        inn.append(GLOWCouplingBlock)
    return inn


def blocks(*dims, **options):
    inn = SequenceINN(*dims)
    for _ in range(2):
        inn.append(AllInOneBlock, **options)
    return inn


def soft():
    return blocks(4, 3, 3, permute_soft=True)


def soft_twice():
    return blocks(4, 3, 3, permute_soft=True, reverse_permutation=True)


def soft_gin():
    return blocks(4, 3, 3, permute_soft=True, gin_block=True)


def soft_rows():
    return blocks(6, permute_soft=True)


def reflected():
    return blocks(4, 3, 3, learned_householder_permutation=3)


def reflected_twice():
    return blocks(4, 3, 3, learned_householder_permutation=3, reverse_permutation=True)


def hard():
    return blocks(4, 3, 3)


def hard_indices():
    return blocks(4, 3, 3, indices=True)


def images():
    return torch.randn(2, 4, 3, 3)


def rows():
    return torch.randn(5, 6)


CALLS = {
    "forward": lambda layer, x: layer((x,)),
    "forward, list": lambda layer, x: layer([x], rev=False, jac=True),
    "rev": lambda layer, x: layer((x,), rev=True),
    "rev, no jac": lambda layer, x: layer((x,), rev=True, jac=False),
}
BY_POSITION = {"rev, by position": lambda layer, x: layer((x,), True, False)}


def permuted(layer, x, rev):
    """``_permute`` alone, after a call has made the reflections' matrix."""
    layer((x,), rev=rev)
    return layer._permute(x, rev=rev)


BLOCK = CALLS | {
    "_permute": lambda layer, x: permuted(layer, x, False),
    "_permute, rev": lambda layer, x: permuted(layer, x, True),
}


def case(name, like, build, layers, x=images, calls=CALLS | BY_POSITION, **options):
    return Case(
        name=name,
        like=like,
        build=build,
        layers=layers,
        x=x,
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model(z, rev=True)[0],
        layer_x=x,
        layer_calls=calls,
        **options,
    )


TWO = ("module_list.0", "module_list.1")

CASES = [
    case("(x,), rev, jac, fixed", "FrEIA", fixed, ("module_list.1", "module_list.4")),
    case(
        "(x,), rev, jac, fixed with a bias, vectors",
        "FrEIA",
        linear,
        ("module_list.0", "module_list.3"),
        rows,
        left={"module_list.2": "permutation"},
    ),
    case(
        "(x,), rev, jac, orthogonal with scaling and bias",
        "FrEIA",
        orthogonal,
        ("module_list.0", "module_list.2"),
        rows,
        drifts=(".weights",),
    ),
    case("(x,), rev, jac, matrix in a block", "FrEIA, anomalib", soft, TWO, calls=BLOCK),
    case(
        "(x,), rev, jac, matrix in a block, twice",
        "FrEIA, anomalib",
        soft_twice,
        TWO,
        calls=BLOCK
        | {
            "_pre_permute": lambda layer, x: layer._pre_permute(x),
            "_pre_permute, rev": lambda layer, x: layer._pre_permute(x, rev=True),
        },
    ),
    case("(x,), rev, jac, matrix in a GIN block", "FrEIA, anomalib", soft_gin, TWO, calls=BLOCK),
    case(
        "(x,), rev, jac, matrix in a block, vectors",
        "FrEIA, anomalib",
        soft_rows,
        TWO,
        rows,
        calls=BLOCK,
    ),
    case(
        "(x,), rev, jac, reflections in a block",
        "FrEIA, anomalib",
        reflected,
        TWO,
        calls=BLOCK,
        copies=False,
    ),
    case(
        "(x,), rev, jac, reflections in a block, twice",
        "FrEIA, anomalib",
        reflected_twice,
        TWO,
        calls=BLOCK,
        copies=False,
    ),
    case(
        "(x,), rev, jac, a permutation as a matrix",
        "FrEIA 0.2, anomalib",
        hard,
        (),
        left={"module_list.0": "permutation", "module_list.1": "permutation"},
    ),
    case(
        "(x,), rev, jac, a permutation as indices",
        "FrEIA main",
        hard_indices,
        (),
        left={"module_list.0": "permutation", "module_list.1": "permutation"},
    ),
]
