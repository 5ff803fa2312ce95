"""torch.distributions: ``_call``, ``_inverse``, ``log_abs_det_jacobian``."""

import torch
from torch import nn
from torch.distributions import Transform, constraints
from torch.nn import functional as F

from . import parts
from .case import Case


class TransformModule(Transform, nn.Module):
    """Pyro: both at once. ``__call__`` is Transform's (one pair cached), so hooks never run."""

    domain = codomain = constraints.real
    bijective = True
    event_dim = 3

    def __hash__(self):
        return super(nn.Module, self).__hash__()  # as Pyro writes it; Dynamo does not follow it


class GeneralizedChannelPermute(TransformModule):
    """Pyro: L and U in one Parameter, the permutation a buffer."""

    def __init__(self, channels=3):
        super().__init__(cache_size=1)
        self.channels = channels
        p, lower, upper = parts.lu(channels)
        self.register_buffer("permutation", p)
        self.LU = nn.Parameter(lower.tril(-1) + upper)

    def triangles(self):
        return self.LU.tril(-1) + torch.eye(self.channels), self.LU.triu()

    def _call(self, x):
        lower, upper = self.triangles()
        return F.conv2d(x, (self.permutation @ lower @ upper)[..., None, None])

    def _inverse(self, y):
        lower, upper = self.triangles()
        flat = self.permutation.T @ y.flatten(start_dim=-2)
        flat = torch.linalg.solve_triangular(lower, flat, upper=False, unitriangular=True)
        return torch.linalg.solve_triangular(upper, flat, upper=True).view_as(y)

    def log_abs_det_jacobian(self, x, y):
        h, w = x.shape[-2:]
        return h * w * self.LU.diag().abs().log().sum() * x.new_ones(x.shape[:-3])


class AffineOfChannels(TransformModule):
    """A diagonal with the same methods."""

    def __init__(self, channels):
        super().__init__(cache_size=1)
        self.loc = nn.Parameter(torch.zeros(channels, 1, 1))
        self.log_scale = nn.Parameter(torch.zeros(channels, 1, 1))

    def _call(self, x):
        return x * self.log_scale.exp() + self.loc

    def _inverse(self, y):
        return (y - self.loc) * (-self.log_scale).exp()

    def log_abs_det_jacobian(self, x, y):
        return self.log_scale.sum() * x[0, 0].numel() * x.new_ones(len(x))


class AffineCoupling(TransformModule):
    def __init__(self, channels):
        super().__init__(cache_size=1)
        self.affine = parts.Affine(channels)

    def _call(self, x):
        return self.affine.uncouple(x)

    def _inverse(self, y):
        return self.affine.couple(y)[0]

    def log_abs_det_jacobian(self, x, y):
        return -self.affine.couple(y)[1]


class Permute(Transform):
    """Pyro's permutation is no module: it stands in the list of transforms only."""

    domain = codomain = constraints.real
    bijective = True
    event_dim = 3

    def __init__(self, permutation):
        super().__init__(cache_size=1)
        self.permutation = permutation

    def _call(self, x):
        return x[:, self.permutation]

    def _inverse(self, y):
        return y[:, self.permutation.argsort()]

    def log_abs_det_jacobian(self, x, y):
        return x.new_zeros(len(x))


class PyroFlow(nn.Module):
    """The owner keeps a list for the distribution, and the modules in a ModuleList."""

    def __init__(self, channels=4):
        super().__init__()
        self.transforms = []
        for _ in range(2):
            self.transforms += [
                AffineOfChannels(channels),
                GeneralizedChannelPermute(channels),
                AffineCoupling(channels),
                Permute(torch.randperm(channels)),
            ]
        self.params = nn.ModuleList(t for t in self.transforms if isinstance(t, nn.Module))

    def forward(self, y):
        """What ``TransformedDistribution.log_prob`` does."""
        total = 0.0
        for transform in reversed(self.transforms):
            x = transform.inv(y)
            total = total - transform.log_abs_det_jacobian(x, y)
            y = x
        return y, total

    def sample(self, x):
        for transform in self.transforms:
            x = transform(x)
        return x


class RotationTransform(Transform):
    """zuko: exp(A - A^T), made when the transform is."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, A, **kwargs):
        super().__init__(**kwargs)
        self.R = torch.linalg.matrix_exp(A - A.mT)

    def _call(self, x):
        return (self.R @ x[..., None]).squeeze(-1)

    def _inverse(self, y):
        return (self.R.mT @ y[..., None]).squeeze(-1)

    def log_abs_det_jacobian(self, x, y):
        return torch.zeros_like(x[..., 0])


class LULinearTransform(Transform):
    """zuko: L keeps the diagonal, U's is one."""

    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, LU, **kwargs):
        super().__init__(**kwargs)
        self.L, self.U = LU.tril(), LU.triu(1) + torch.eye(LU.shape[-1])

    def _call(self, x):
        return (self.L @ self.U @ x[..., None]).squeeze(-1)

    def _inverse(self, y):
        y = torch.linalg.solve_triangular(self.L, y[..., None], upper=False)
        return torch.linalg.solve_triangular(self.U, y, upper=True, unitriangular=True).squeeze(-1)

    def log_abs_det_jacobian(self, x, y):
        return self.L.diagonal(dim1=-1, dim2=-2).abs().log().sum(-1).expand_as(x[..., 0])


class PermutationTransform(Transform):
    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, order, **kwargs):
        super().__init__(**kwargs)
        self.order = order

    def _call(self, x):
        return x[..., self.order]

    def _inverse(self, y):
        return y[..., self.order.argsort()]

    def log_abs_det_jacobian(self, x, y):
        return torch.zeros_like(x[..., 0])


class CouplingTransform(Transform):
    domain = codomain = constraints.real_vector
    bijective = True

    def __init__(self, affine, **kwargs):
        super().__init__(**kwargs)
        self.affine = affine

    def _call(self, x):
        return self.affine.couple(x)[0]

    def _inverse(self, y):
        return self.affine.uncouple(y)

    def log_abs_det_jacobian(self, x, y):
        return self.affine.couple(x)[1]


class UnconditionalTransform(nn.Module):
    """zuko: a constructor ``f`` and its arguments as ``_0`` or under their names."""

    def __init__(self, f, /, *args, buffer=False, **kwargs):
        super().__init__()
        self.f, self._nargs, self._keys = f, len(args), list(kwargs)
        for key, value in [(f"_{i}", arg) for i, arg in enumerate(args)] + list(kwargs.items()):
            if not torch.is_tensor(value):
                setattr(self, key, value)
            elif buffer:
                self.register_buffer(key, value)
            else:
                self.register_parameter(key, nn.Parameter(value))

    def forward(self, c=None):
        args = [getattr(self, f"_{i}") for i in range(self._nargs)]
        return self.f(*args, **{key: getattr(self, key) for key in self._keys})


class CouplingLazy(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.affine = parts.Affine(features, last=True)

    def forward(self, c=None):
        return CouplingTransform(self.affine)


class LazyComposedTransform(nn.Module):
    """zuko: forward(c) makes all transforms; data -> latent."""

    def __init__(self, *transforms):
        super().__init__()
        self.transforms = nn.ModuleList(transforms)

    def forward(self, c=None):
        return [transform(c) for transform in self.transforms]


def of_zuko(model, x):
    total = 0.0
    for transform in model():
        z = transform(x)
        total = total + transform.log_abs_det_jacobian(x, z)
        x = z
    return x, total


def back_through_zuko(model, z):
    for transform in reversed(model()):
        z = transform.inv(z)
    return z


def zuko(layer):
    n = 6
    return LazyComposedTransform(
        layer(n),
        CouplingLazy(n),
        UnconditionalTransform(PermutationTransform, torch.randperm(n), buffer=True),
        layer(n),
        CouplingLazy(n),
    )


def rotation(n):
    return UnconditionalTransform(RotationTransform, torch.randn(n, n))


def lower_upper(n):
    return UnconditionalTransform(LULinearTransform, LU=torch.eye(n) + 0.2 * torch.randn(n, n))


def zuko_rotations():
    return zuko(rotation)


def zuko_factors():
    return zuko(lower_upper)


def of_lazy(name, build):
    return Case(
        name=f"forward(c=None) returns a Transform, {name}",
        like="zuko",
        build=build,
        layers=("transforms.0", "transforms.3"),
        left={"transforms.2": "permutation"},
        x=lambda: torch.randn(5, 6),
        forward=of_zuko,
        inverse=back_through_zuko,
        layer_x=lambda: torch.randn(5, 6),
        layer_calls={
            "call": lambda layer, x: layer()(x),
            "call, context": lambda layer, x: layer(torch.ones(2))(x),
            "inv": lambda layer, x: layer().inv(x),
            "log_abs_det_jacobian": lambda layer, x: layer().log_abs_det_jacobian(x, x),
            "batches": lambda layer, x: layer(None)(x[:, None]),
        },
    )


CASES = [
    Case(
        name="_call, _inverse, log_abs_det_jacobian, LU in one Parameter",
        like="pyro-ppl/pyro",
        build=PyroFlow,
        layers=("params.1", "params.4"),
        x=lambda: torch.randn(2, 4, 3, 3),
        forward=lambda model, x: model(x),
        inverse=lambda model, z: model.sample(z),
        layer_x=lambda: torch.randn(2, 4, 3, 3),
        layer_calls={
            "call": lambda layer, x: layer(x),
            "inv": lambda layer, x: layer.inv(x),
            "_call": lambda layer, x: layer._call(x),
            "_inverse": lambda layer, x: layer._inverse(x),
            "log_abs_det_jacobian": lambda layer, x: layer.log_abs_det_jacobian(x, layer(x)),
            "inv's log_abs_det_jacobian": lambda layer, x: layer.inv.log_abs_det_jacobian(
                layer(x), x
            ),
        },
        copies=False,
        notes="the layer's own forward goes from the latent to the data",
    ),
    of_lazy("rotation", zuko_rotations),
    of_lazy("LU", zuko_factors),
]
