"""Networks of a file's arguments, which take memory only once they are those of its tensors."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import IO, Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook
from torch.overrides import TorchFunctionMode

from wic_layers.errors import WICArgumentError, WICFileError, named, quoted

__all__ = ["Shapes", "differences", "outlined", "read_header"]

_Module = TypeVar("_Module", bound=nn.Module)

Shapes = Mapping[str, tuple[int, ...]]
"""The shape of every tensor by its name."""

_MOST_HEADER = 10_000_000  # bytes; a network of a thousand tensors has a hundredth of it
_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
_TWICE = 2  # a layer may be built with one kernel and given another


def outlined(
    build: Callable[[], _Module], shapes: Shapes, device: str = "meta", *, times: int = 1
) -> _Module:
    """Returns a network without its numbers, as long as it may be that of some tensors.

    It has shapes, and takes no memory for them; the time is that of as many tensors.

    Args:
        build: Builds the network.
        shapes: Of the tensors that are there for it.
        device: Where it is built; another than ``"meta"`` for modules that need numbers.
        times: How often such a network is built, as where one is made from another.

    Raises:
        WICArgumentError: Once it asks for more tensors or numbers than are there.
    """
    numbers = sum(map(math.prod, shapes.values()))
    undrawn = _Undrawn() if device == "meta" else nullcontext()
    with _limited(len(shapes), numbers, _TWICE * times), torch.device(device), undrawn:
        return build()


class _Undrawn(TorchFunctionMode):
    """Leaves tensors without memory as they are.

    To draw numbers for them, to count or to make an identity, torch would load its compiler, for
    seconds.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Calls a function of torch."""
        kwargs = kwargs or {}
        if func is torch.eye and args:
            return torch.empty(args[0], args[-1], **kwargs)
        if func is torch.arange and len(args) == 1:
            return torch.empty(args[0], **kwargs)
        is_drawing = func in (Tensor.normal_, Tensor.uniform_)
        if is_drawing or getattr(func, "__module__", "") == nn.init.__name__:
            tensor = args[0] if args else kwargs["tensor"]
            if tensor.is_meta:
                return tensor
        return func(*args, **kwargs)


@contextmanager
def _limited(tensors: int, numbers: int, times: int) -> Iterator[None]:
    """Lets this thread build modules of so many times these parameters only."""
    thread, built, size = threading.get_ident(), 0, 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal built, size
        if parameter is None or threading.get_ident() != thread:
            return
        built, size = built + 1, size + parameter.numel()
        if built > times * tensors or size > times * numbers:
            raise WICArgumentError(
                f"its network asks for more than the {tensors} tensors with {numbers:,} numbers "
                "that are there"
            )

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


def differences(expected: Shapes, shapes: Shapes) -> str:
    """Says which tensors are missing, not known, or of another shape; empty where none is."""
    missing, unknown = expected.keys() - shapes.keys(), shapes.keys() - expected.keys()
    others = [
        f"{name} has the shape {tuple(shapes[name])}, not {tuple(size)}"
        for name, size in expected.items()
        if name in shapes and tuple(shapes[name]) != tuple(size)
    ]
    parts = []
    if missing:
        parts.append(f"{len(missing)} names are missing ({named(sorted(missing))})")
    if unknown:
        parts.append(f"{len(unknown)} are unknown ({named(sorted(unknown))})")
    if others:
        parts.append("; ".join(others[:3]) + (", ..." if len(others) > 3 else ""))
    return ", ".join(parts)


def read_header(file: IO[bytes], source: object) -> Shapes:
    """Returns the shapes of the tensors of a safetensors file, from its beginning alone.

    Args:
        file: The file, which can be sought in.
        source: Its name, for errors.

    Raises:
        WICFileError: If it is damaged, or holds tensors of another dtype than weights have.
    """
    end = file.seek(0, 2)
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if not 0 < length <= min(end - 8, _MOST_HEADER):
        raise WICFileError(f"{source} is damaged: it is no safetensors file.")
    try:
        header = json.loads(file.read(length))
        header.pop("__metadata__", None)
        dtypes = {name: each["dtype"] for name, each in header.items()}
        others = sorted({quoted(dtype) for dtype in dtypes.values() if dtype not in _BYTES})
        if others:
            raise WICFileError(
                f"Expected weights in 16, 32 or 64 bits ({', '.join(_BYTES)}); {source} holds "
                f"tensors of {named(others)}."
            )
        shapes = {name: _shape(each["shape"]) for name, each in header.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise WICFileError(f"{source} is damaged: its header is none of safetensors.") from error
    size = sum(_BYTES[dtypes[name]] * math.prod(shape) for name, shape in shapes.items())
    if size != end - 8 - length:
        raise WICFileError(
            f"{source} is damaged: its header names tensors of {quoted(size)} bytes; there are "
            f"{end - 8 - length}."
        )
    return shapes


def _shape(sizes: Any) -> tuple[int, ...]:
    # numbers of any length would take any time to multiply
    if len(sizes) > 8 or not all(isinstance(n, int) and 0 <= n < 2**48 for n in sizes):
        raise ValueError
    return tuple(sizes)
