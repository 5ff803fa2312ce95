"""Attribute, Method, Measured, UserKernel: how the kernel of a host's layer is read.

:func:`reader_of` finds the cheapest that gives what the layer does, on copies of it with other
parameters.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from wic_layers.hosts.calls import Entry
from wic_layers.hosts.engine import Layout, Spec, tensors_of
from wic_layers.hosts.trial import read_off, unit_vectors
from wic_layers.hosts.twins import Mismatch
from wic_layers.layer.functional import to_algebra

__all__ = [
    "Attribute",
    "Measured",
    "Method",
    "UserKernel",
    "Volume",
    "is_square",
    "reader_of",
    "registered_reader",
    "volume_of",
]

_READERS = re.compile(r"weight|matrix|kernel|assemble|calc|^_?(get_)?w$", re.IGNORECASE)
_VOLUMES = re.compile(r"log_?(abs_?)?det", re.IGNORECASE)
_NOT_READERS = re.compile(r"inv|det|init|reset|load|set_|save|register|remove", re.IGNORECASE)


@dataclass(frozen=True)
class _Named:
    """Something of the layer is its kernel, by name; and a tensor of it the bias."""

    name: str
    transposed: bool
    bias: str = ""

    def __call__(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The kernel and bias."""
        matrix = _as_matrix(self.of(layer))
        bias = _attribute(layer, self.bias).reshape(-1) if self.bias else None
        return (matrix.mT if self.transposed else matrix), bias

    def of(self, layer: nn.Module) -> Tensor:
        """What has the name."""
        return _attribute(layer, self.name)


class Attribute(_Named):
    """A tensor of the layer is its kernel."""


class Method(_Named):
    """A method of the layer returns its kernel."""

    def of(self, layer: nn.Module) -> Tensor:
        """What the method returns."""
        matrix: Tensor = getattr(layer, self.name)()
        return matrix


@dataclass(frozen=True)
class UserKernel:
    """A function that the user registered returns the kernel."""

    function: Callable[[nn.Module], Tensor]

    def __call__(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The kernel, without a bias."""
        return _as_matrix(self.function(layer)), None


@dataclass(frozen=True)
class Measured:
    """The layer's own forward, run on the unit vectors, is its kernel."""

    owner: type[nn.Module]
    entry: Entry
    layout: Layout
    rank: int
    has_bias: bool

    def __call__(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The kernel and bias, with gradients to all that they are made of."""
        like = next(t for t in _parts_of(layer) if t.is_floating_point())
        groups = 2 if self.layout.kind == "groups" else 1
        x = unit_vectors(self.layout.size, self.layout, self.rank, groups, like.device, like.dtype)
        y = self.entry.run(layer, self.layout.unfold(x), rev=False, owner=self.owner)
        while not isinstance(y, Tensor):
            y = y[0]  # type: ignore[index]
        matrix, bias = read_off(self.layout.fold(y), self.rank)
        return matrix, bias if self.has_bias else None


def _parts_of(layer: nn.Module) -> Iterator[Tensor]:
    """The tensors of a layer, its own before a look at its children.

    That look needs a hash, which Dynamo does not follow in Pyro's modules.
    """
    for values in (layer._parameters, layer._buffers):
        yield from (value for value in values.values() if value is not None)
    yield from tensors_of(layer).values()


@dataclass(frozen=True)
class Volume:
    """The layer's log|det K|, from a factor of its kernel or a method of its own.

    Attributes:
        name: Of the tensor or method.
        how: ``"sum"`` of logarithms that it holds, ``"log"`` of its entries, ``"diagonal"`` of a
            matrix, or ``"method"``.
        sign: -1 where it is that of the way back.
    """

    name: str
    how: str
    sign: int

    def __call__(self, layer: nn.Module) -> Tensor:
        """The volume in float64, a scalar."""
        if self.how == "method":
            volume = to_algebra(getattr(layer, self.name)())
        else:
            factor = to_algebra(_attribute(layer, self.name))
            factor = factor.diagonal() if self.how == "diagonal" else factor
            volume = factor.sum() if self.how == "sum" else factor.abs().log().sum()
        return self.sign * volume


def volume_of(spec: Spec, samples: list[tuple[nn.Module, Tensor, Tensor]]) -> Spec:
    """The spec with a volume that needs no algebra, where copies show one."""
    twin, first, _ = samples[0]
    n = len(first)
    names = [
        (name, how)
        for name, t in tensors_of(twin).items()
        if t.is_floating_point()
        for how in (("sum", "log") if t.shape == (n,) else ("diagonal",) if is_square(t) else ())
    ]
    for name, function in inspect.getmembers(type(twin), inspect.isfunction):
        if _VOLUMES.search(name) and len(inspect.signature(function).parameters) == 1:
            names.append((name, "method"))
    for name, how in names:
        for sign in (1, -1):
            volume = Volume(name, how, sign)
            try:
                fits = all(_is_volume(volume(one), matrix) for one, matrix, _ in samples)
            except Exception:
                break
            if fits:
                return replace(spec, volume=volume)
    return spec


def _is_volume(volume: Tensor, matrix: Tensor) -> bool:
    true = float(torch.linalg.slogdet(matrix.double())[1])
    eps = torch.finfo(matrix.dtype).eps
    return volume.ndim == 0 and abs(float(volume) - true) <= 1e4 * eps * max(1.0, abs(true))


def _as_matrix(kernel: Tensor) -> Tensor:
    """The kernel without the ones around it."""
    return kernel.reshape([size for size in kernel.shape if size != 1])


def _attribute(layer: nn.Module, name: str) -> Tensor:
    value: object = layer
    for part in name.split("."):
        value = getattr(value, part)
    return value  # type: ignore[return-value]


def is_square(tensor: Tensor) -> bool:
    """Whether a tensor is an n x n matrix, perhaps with ones around it."""
    sizes = [size for size in tensor.shape if size != 1]
    return tensor.is_floating_point() and len(sizes) == 2 and sizes[0] == sizes[1]


def registered_reader(
    kernel: Callable[[nn.Module], Tensor], samples: list[tuple[nn.Module, Tensor, Tensor]]
) -> UserKernel:
    """A registered kernel, if it is what the layer's forward applies on all copies.

    Raises:
        Mismatch: If it is not; a transposed one is named.
    """
    read = UserKernel(kernel)
    for twin, matrix, _ in samples:
        own = read(twin)[0].to(matrix)
        if own.shape != matrix.shape or not _agree(own, matrix):
            what = "is the transpose of" if _agree(own.mT, matrix) else "is not"
            off = float((own - matrix).abs().max()) if own.shape == matrix.shape else float("nan")
            raise Mismatch(
                f"the registered kernel {what} the matrix that its forward applies (off by "
                f"{off:.3g})"
            )
    return read


def reader_of(
    spec: Spec, samples: list[tuple[nn.Module, Tensor, Tensor]], measured: Measured
) -> Spec:
    """The spec with the cheapest function that gives the matrix on all copies."""
    twin, matrix, _ = samples[0]
    n = len(matrix)
    vector = ""
    if measured.has_bias:
        vector = next(
            (
                name
                for name, t in tensors_of(twin).items()
                if t.numel() == n
                and all(_agree(_attribute(one, name).reshape(-1), b) for one, _, b in samples)
            ),
            "",
        )
        if not vector:
            return replace(spec, read=measured)
    for reader in _readers(twin, n, vector):
        for turned in (False, True):
            if turned and vector:
                continue
            try:
                fit = all(
                    _agree(reader(one)[0], torch.linalg.inv(m) if turned else m)
                    for one, m, _ in samples
                )
            except Exception:
                break
            if fit:
                is_plain = isinstance(reader, Attribute) and reader.name in tensors_of(twin)
                sources = (reader.name, vector) if vector else (reader.name,)
                # a method may read anything, and a weight may be computed by a hook
                names = sources if is_plain and _is_parameter(twin, reader.name) else ()
                return replace(spec, read=reader, turned=turned, sources=names)
    return replace(spec, read=measured)


def _is_parameter(layer: nn.Module, name: str) -> bool:
    return any(name == own for own, _ in layer.named_parameters(remove_duplicate=False))


def _readers(layer: nn.Module, n: int, bias: str) -> Iterator[Attribute | Method]:
    names = [
        name
        for name, tensor in tensors_of(layer).items()
        if is_square(tensor) and n in tensor.shape and "parametrizations." not in name
    ]
    for path, module in layer.named_modules():  # torch's parametrized tensors are properties
        lists = module._modules.get("parametrizations")
        names += [f"{path}.{name}".strip(".") for name in (lists or {})]
    for name in names:
        for transposed in (False, True):
            yield Attribute(name, transposed, bias)
    for name, function in inspect.getmembers(type(layer), inspect.isfunction):
        if not _READERS.search(name) or _NOT_READERS.search(name):
            continue
        parameters = list(inspect.signature(function).parameters.values())[1:]
        if all(parameter.default is not parameter.empty for parameter in parameters):
            for transposed in (False, True):
                yield Method(name, transposed, bias)


def _agree(a: object, b: Tensor) -> bool:
    if not isinstance(a, Tensor) or a.numel() != b.numel() or not a.is_floating_point():
        return False
    a = a.to(b)
    a = a.reshape(b.shape)
    return float((a - b).abs().max()) <= 1e4 * torch.finfo(b.dtype).eps * float(b.abs().max())
