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
from wic_layers.hosts.trial import Mismatch, read_off, unit_vectors

__all__ = [
    "Attribute",
    "Measured",
    "Method",
    "UserKernel",
    "is_square",
    "reader_of",
    "registered_reader",
]

_READERS = re.compile(r"weight|matrix|kernel|assemble|calc|^_?(get_)?w$", re.IGNORECASE)
_NOT_READERS = re.compile(r"inv|det|init|reset|load|set_|save|register|remove", re.IGNORECASE)


@dataclass(frozen=True)
class Attribute:
    """A tensor of the layer is its kernel."""

    name: str
    transposed: bool
    bias: str = ""

    def __call__(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The kernel and bias."""
        matrix = _attribute(layer, self.name)
        matrix = matrix.view(matrix.shape[:2])
        bias = _attribute(layer, self.bias).reshape(-1) if self.bias else None
        return (matrix.mT if self.transposed else matrix), bias


@dataclass(frozen=True)
class Method:
    """A method of the layer returns its kernel."""

    name: str
    transposed: bool
    bias: str = ""

    def __call__(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The kernel and bias."""
        matrix = getattr(layer, self.name)()
        matrix = matrix.view(matrix.shape[:2])
        bias = _attribute(layer, self.bias).reshape(-1) if self.bias else None
        return (matrix.mT if self.transposed else matrix), bias


@dataclass(frozen=True)
class UserKernel:
    """A function that the user registered returns the kernel."""

    function: Callable[[nn.Module], Tensor]

    def __call__(self, layer: nn.Module) -> tuple[Tensor, Tensor | None]:
        """The kernel, without a bias."""
        matrix = self.function(layer)
        return matrix.reshape(matrix.shape[:2]), None


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
        like = next(t for t in tensors_of(layer).values() if t.is_floating_point())
        groups = 2 if self.layout.kind == "groups" else 1
        x = unit_vectors(self.layout.size, self.layout, self.rank, groups, like.device, like.dtype)
        y = self.entry.run(layer, self.layout.unfold(x), rev=False, owner=self.owner)
        while not isinstance(y, Tensor):
            y = y[0]  # type: ignore[index]
        matrix, bias = read_off(self.layout.fold(y), self.rank)
        return matrix, bias if self.has_bias else None


def _attribute(layer: nn.Module, name: str) -> Tensor:
    value: object = layer
    for part in name.split("."):
        value = getattr(value, part)
    return value  # type: ignore[return-value]


def is_square(tensor: Tensor) -> bool:
    """Whether a tensor is an n x n matrix, perhaps with the trailing ones of a convolution."""
    shape = tensor.shape
    return (
        tensor.is_floating_point()
        and len(shape) >= 2
        and shape[0] == shape[1] > 1
        and all(size == 1 for size in shape[2:])
    )


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
                names = sources if is_plain and _is_parameter(twin, reader.name) else None
                return replace(spec, read=reader, turned=turned, sources=names)
    return replace(spec, read=measured)


def _is_parameter(layer: nn.Module, name: str) -> bool:
    return any(name == own for own, _ in layer.named_parameters(remove_duplicate=False))


def _readers(layer: nn.Module, n: int, bias: str) -> Iterator[Attribute | Method]:
    names = [
        name
        for name, tensor in tensors_of(layer).items()
        if is_square(tensor) and tensor.shape[0] == n and "parametrizations." not in name
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
