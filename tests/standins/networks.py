"""Small invertible networks of our own, called as public code bases call theirs: ``NETWORKS``.

Names and order of arguments, and what is returned, are those of the code bases; the code is ours.
Each is a squeeze and two couplings, so that what goes in comes back from all that comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Coupling(nn.Module):
    """A shift of the first channels, and a shift and a scale of the others."""

    def __init__(self, channels: int, first: int) -> None:
        super().__init__()
        self.first = first
        self.f = nn.Conv2d(channels - first, first, 3, padding=1)
        self.g = nn.Conv2d(first, channels - first, 1)
        self.h = nn.Conv2d(first, channels - first, 1)

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:
        a, b = x[:, : self.first], x[:, self.first :]
        if not rev:
            a = a + self.f(b)
            return torch.cat((a, b * self.h(a).tanh().exp() + self.g(a)), 1)
        b = (b - self.g(a)) / self.h(a).tanh().exp()
        return torch.cat((a - self.f(b), b), 1)


class Base(nn.Module):
    """``there`` and ``back``, under no name that anybody looks for."""

    def __init__(self, channels: int = 12, first: int = 3, squeeze: int = 2) -> None:
        super().__init__()
        self.operations = nn.ModuleList([Coupling(channels, first) for _ in range(2)])
        self.first, self.squeeze = first, squeeze

    def _there(self, x: Tensor) -> Tensor:
        x = F.pixel_unshuffle(x, self.squeeze)
        for operation in self.operations:
            x = operation(x)
        return x

    def _back(self, y: Tensor) -> Tensor:
        for operation in reversed(self.operations):
            y = operation(y, rev=True)
        return F.pixel_shuffle(y, self.squeeze)


class ReverseFlag(Base):
    def forward(self, x, reverse=False):
        return self._back(x) if reverse else self._there(x)


class RequiredFlag(Base):
    def forward(self, x, inverse):
        return self._back(x) if inverse else self._there(x)


class OddFlag(Base):
    def forward(self, x, undo=False):
        return self._back(x) if undo else self._there(x)


class Jacobian(Base):
    """IRN's argument that makes the result a pair."""

    def forward(self, x, rev=False, cal_jacobian=False):
        y = self._back(x) if rev else self._there(x)
        return (y, y.square().sum()) if cal_jacobian else y


class Enhancing(Jacobian):
    """PRIS: networks before and behind that its owner calls by name."""

    def __init__(self):
        super().__init__()
        self.pre_enhance = nn.Conv2d(3, 3, 3, padding=1)
        self.scale = 2


class Methods(Base):
    def forward(self, x):
        return self._there(x)

    def inverse(self, z):
        return self._back(z)


class ReverseMethod(Base):
    def forward(self, x):
        return self._there(x)

    def reverse(self, z, clip=False):
        return self._back(z).clamp(0, 1) if clip else self._back(z)


class OddMethods(Base):
    def encode(self, image):
        return self._there(image)

    def decode(self, latent):
        return self._back(latent)


class HighAndLow(Base):
    """HCFlow's names, for a network that keeps its z in one tensor."""

    def forward(self, hr=None, lr=None, z=None, u=None, reverse=False, training=True):
        if reverse:
            return self._back(torch.cat((lr, z), 1))
        y = self._there(hr)
        return y[:, :3], y[:, 3:]


class WithPicture(Base):
    """SAIN: the tensor, and another picture behind it, in both directions."""

    def forward(self, x, rev=False, cal_jacobian=False):
        out = self._back(x) if rev else self._there(x)
        low = (x if rev else out)[:, : self.first] * 0.9
        return (out, low, out.sum()) if cal_jacobian else (out, low)


class PictureApart(Base):
    """T-InvBlocks: the picture is the second tensor; in the first its channels stand apart."""

    def forward(self, x, rev=False, cal_jacobian=False):
        if rev:
            back = self._back(x)
            return back, back[:, :3]
        out = self._there(x)
        return torch.cat((out[:, 1:], out[:, :1]), 1), out[:, :3]


class CoarseAndDetails(Base):
    """andreasfloros/IRN: two tensors out, the same two in."""

    def forward(self, inpt):
        y = self._there(inpt)
        return y[:, : self.first], y[:, self.first :]

    def inverse(self, coarse, details):
        return self._back(torch.cat([coarse, details], 1))


class OptionalRest(Base):
    def forward(self, x, z=None, rev=False):
        if rev:
            return self._back(torch.cat((x, z), 1))
        y = self._there(x)
        return y[:, :3], y[:, 3:]


class ListOfTwo(Base):
    """FIN's interface, with images of one size."""

    def __init__(self):
        super().__init__(6, 3, 1)

    def forward(self, x, rev=False):
        x1, x2 = x
        y = (self._back if rev else self._there)(torch.cat((x1, x2), 1))
        return [y[:, :3], y[:, 3:]]


class CoverAndSecret(ListOfTwo):
    """CRMark's interface, with images of one size."""

    def forward(self, x1, x2, hard_round, reverse=False):
        x = torch.cat((x1, x2), 1)
        y = self._back(x) if reverse else self._there(x)
        y = y + (y.round() - y).detach() if hard_round else y
        return y[:, :3], y[:, 3:]


class CoverAndSecrets(Base):
    """LF-VSN's inner network: a cover and a list of secrets."""

    def __init__(self):
        super().__init__(9, 3, 1)

    def forward(self, x, x_h, rev=False, cal_jacobian=False):
        y = (self._back if rev else self._there)(torch.cat((x, *x_h), 1))
        x, x_h = y[:, :3], list(y[:, 3:].split(3, 1))
        return (x, x_h, y.sum()) if cal_jacobian else (x, x_h)


class Predicting(nn.Module):
    """MIMO-VRN: takes a pair on the way back, and predicts the second itself."""

    def __init__(self):
        super().__init__()
        self.irn = Jacobian()
        self.pm = nn.Conv2d(3, 9, 1)

    def forward(self, x, rev=False, hs=(), direction="f"):
        if not rev:
            return self.irn(x, rev)
        y, _ = x
        z = self.pm(y)
        return self.irn(torch.cat((y, z), 1), rev), z


class InADict(Base):
    def forward(self, x, rev=False):
        y = self._back(x) if rev else self._there(x)
        return {"other": y, "out": y}


class Bits(Base):
    """FIN as it is: an image and bits."""

    def forward(self, x, rev=False):
        image, bits = x
        return [image, bits]


class TwoSizes(Base):
    """HCFlow: a picture, and a z for each scale."""

    def forward(self, hr=None, lr=None, z=None, reverse=False):
        y = self._there(hr)
        return y[:, :3], hr[:, :1], y[:, 4:]


class OneWay(nn.Module):
    """AIDN: an encoder and a decoder that run one behind the other."""

    def __init__(self):
        super().__init__()
        self.down_net = nn.Conv2d(3, 12, 2, 2)

    def forward(self, x, scale, precalculated_lr=None):
        return self.down_net(x), x

    def benchmark(self, x):
        return x


@dataclass(frozen=True)
class Network:
    """A kind of interface, with what its owner does on it."""

    name: str
    like: str
    build: Callable[[], nn.Module]
    there: Callable[[Any, Any], Tensor]  # the owner's whole output
    back: Callable[[Any, Tensor], Any]  # and what the owner gets back from it
    said: dict[str, Any] = field(default_factory=dict)  # what WellPosed is told
    options: dict[str, Any] = field(default_factory=dict)  # of every call
    flag: str = "rev"  # how the owner calls the closed network's way back
    inputs: Callable[[], tuple[Any, ...]] = lambda: (torch.rand(2, 3, 8, 8),)
    channels: tuple[int, int] = (12, 3)

    def __str__(self) -> str:
        return self.name


def _two() -> tuple[Tensor, Tensor]:
    return torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)


def _picture_first(net: Any, x: Tensor) -> Tensor:
    out, picture = net(x)
    return torch.cat((picture, out[:, 2:-1]), 1)


def _predicted(net: Any, y: Tensor) -> Tensor:
    return net(y.split((3, 9), 1), rev=True)[0]


NETWORKS = (
    Network(
        "reverse", "Glow-like flows", ReverseFlag,
        lambda net, x: net(x), lambda net, y: net(y, reverse=True), flag="reverse",
    ),
    Network(
        "a flag without a default", "HiNet's blocks", RequiredFlag,
        lambda net, x: net(x, False), lambda net, y: net(y, True), flag="inverse",
    ),
    Network(
        "a flag of another name", "", OddFlag, lambda net, x: net(x),
        lambda net, y: net(y, undo=True), said={"rev": "undo"}, flag="undo",
    ),
    Network(
        "cal_jacobian", "IRN, InvDN, Fast-IRN", Jacobian, lambda net, x: net(x),
        lambda net, y: net(y, True), options={"cal_jacobian": True},
    ),
    Network(
        "networks around it", "PRIS", Enhancing, lambda net, x: net(x),
        lambda net, y: net(y, rev=True),
    ),
    Network(
        "forward and inverse", "normflows", Methods, lambda net, x: net(x),
        lambda net, y: net.inverse(y),
    ),
    Network(
        "forward and reverse", "glow-pytorch", ReverseMethod, lambda net, x: net(x),
        lambda net, y: net.reverse(y),
    ),
    Network(
        "encode and decode", "", OddMethods, lambda net, x: net.encode(x),
        lambda net, y: net.decode(y), said={"forward": "encode", "inverse": "decode"},
    ),
    Network(
        "hr and lr", "HCFlow", HighAndLow, lambda net, x: torch.cat(net(hr=x), 1),
        lambda net, y: net(lr=y[:, :3], z=y[:, 3:], reverse=True), flag="reverse",
        options={"u": None},
    ),
    Network(
        "a picture behind the tensor", "SAIN", WithPicture, lambda net, x: net(x)[0],
        lambda net, y: net(y, rev=True)[0], options={"cal_jacobian": True},
    ),
    Network(
        "a picture apart", "T-InvBlocks", PictureApart, _picture_first,
        lambda net, y: net(y, rev=True)[0],
        said={"forward": _picture_first, "inverse": lambda net, y: net(y, rev=True)[0]},
    ),
    Network(
        "coarse and details", "andreasfloros/IRN", CoarseAndDetails,
        lambda net, x: torch.cat(net(x), 1), lambda net, y: net.inverse(y[:, :3], y[:, 3:]),
    ),
    Network(
        "z, if wanted", "", OptionalRest, lambda net, x: torch.cat(net(x), 1),
        lambda net, y: net(y[:, :3], y[:, 3:], rev=True),
    ),
    Network(
        "a list of two", "FIN", ListOfTwo, lambda net, x: torch.cat(net(x), 1),
        lambda net, y: net([y[:, :3], y[:, 3:]], rev=True), said={"split": (3, 3)},
        inputs=lambda: (list(_two()),), channels=(6, 3),
    ),
    Network(
        "a cover and a secret", "CRMark", CoverAndSecret,
        lambda net, x, y: torch.cat(net(x, y, False), 1),
        lambda net, y: net(y[:, :3], y[:, 3:], False, True), flag="reverse",
        options={"hard_round": False}, inputs=_two, channels=(6, 3),
    ),
    Network(
        "a cover and a list of secrets", "LF-VSN", CoverAndSecrets,
        lambda net, x, xs: torch.cat((net(x, xs)[0], *net(x, xs)[1]), 1),
        lambda net, y: net(y[:, :3], y[:, 3:].split(3, 1), True), said={"split": (3, (3, 3))},
        inputs=lambda: (torch.rand(2, 3, 4, 4), list(_two())), channels=(9, 3),
    ),
    Network(
        "a network that predicts", "MIMO-VRN", Predicting, lambda net, x: net(x), _predicted,
        said={"forward": lambda net, x: net(x), "inverse": _predicted},
    ),
    Network(
        "a dict", "", InADict, lambda net, x: net(x)["out"],
        lambda net, y: net(y, rev=True)["out"], said={"pick": "out"},
    ),
)  # fmt: skip
