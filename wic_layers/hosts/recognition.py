"""recognise: whether a module is an invertible 1x1 convolution, and how its kernel is read.

By its signature and by trying copies of it, never by its name. Only a module is tried that holds a
square matrix, or factors of one, and nothing that could be more than that.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from wic_layers.errors import IllConditionedError, WICError
from wic_layers.hosts.answering import class_for
from wic_layers.hosts.calls import Call, Entry, calls_of
from wic_layers.hosts.engine import Layout, Spec, tensors_of
from wic_layers.hosts.readers import (
    Attribute,
    Measured,
    is_square,
    reader_of,
    registered_reader,
    volume_of,
)
from wic_layers.hosts.trial import Bench
from wic_layers.hosts.twins import Mismatch, WrongLogDet, perturb, run_pre_hooks, twin_of
from wic_layers.layer.functional import condition_number
from wic_layers.layer.kernel import CONDITION_LIMIT

__all__ = ["PERMUTATION", "fixed_spec", "is_candidate", "recognise", "refuse_stack"]

_CLOSE = 1e-5
_NOT_RUN = "its way back did not run"
PERMUTATION = "a fixed permutation, for which an index is faster than a kernel"


def _root(count: int) -> int:
    """N of a triangle with so many entries, without or with its diagonal; 0 for others."""
    n = round((2 * count) ** 0.5)
    return max((size for size in (n, n + 1) if size * (size - 1) // 2 == count), default=0)


def _is_torchs(layer: nn.Module) -> bool:
    return type_before_parametrizations(layer).__module__.startswith("torch.")


def _is_ours(layer: nn.Module) -> bool:
    return type_before_parametrizations(layer).__module__.startswith("wic_layers.")


def sizes_of(layer: nn.Module) -> list[int]:
    """Numbers of channels that a layer may mix, by the tensors that it holds; likely first."""
    if _is_torchs(layer) or _is_ours(layer) or getattr(type(layer), "_wic", None):
        return []
    tensors = tensors_of(layer)
    squares = [max(tensor.shape) for tensor in tensors.values() if is_square(tensor)]
    vectors = {t.numel() for t in tensors.values() if max(t.shape, default=0) == t.numel()}
    packed = [
        n
        for t in tensors.values()
        if t.ndim == 1 and t.is_floating_point() and (n := _root(len(t))) in vectors and n > 1
    ]
    reflections = [
        t.shape[1]
        for t in layer.parameters()
        if t.ndim == 2 and t.is_floating_point() and 1 < t.shape[0] <= t.shape[1]
    ]
    return list(dict.fromkeys(squares + packed + reflections))


def fits(layer: nn.Module, n: int) -> bool:
    """Whether all that a layer trains can be factors of one n x n matrix, or its bias."""
    counts = {1, n, n * (n - 1) // 2, n * (n + 1) // 2, n * n}
    for parameter in layer.parameters():
        sizes = [size for size in parameter.shape if size != 1]
        is_stack = len(sizes) == 2 and sizes[1] == n and sizes[0] <= n
        if not (is_stack or (len(sizes) <= 2 and parameter.numel() in counts)):
            return False
    return True


def is_candidate(layer: nn.Module) -> bool:
    """Whether a module may be a 1x1 convolution: it mixes channels, and is no container."""
    if _is_torchs(layer) or _is_ours(layer):
        return False
    calls = calls_of(type(layer))
    if any(call.is_inner for call in calls):
        return True
    if not calls or not any(fits(layer, n) for n in sizes_of(layer)):
        return False
    own = [t for t in vars(layer).values() if isinstance(t, Tensor)]
    own += [t for t in (*layer._parameters.values(), *layer._buffers.values()) if t is not None]
    has_own = any(t.is_floating_point() for t in own)
    inner = [child for child in layer.modules() if child is not layer and _is_flow(child)]
    return has_own or not inner


def _is_flow(module: nn.Module) -> bool:
    """Whether a module of somebody's own runs both ways."""
    return not _is_torchs(module) and bool(calls_of(type(module)))


def recognise(
    layer: nn.Module,
    kernel: Callable[[nn.Module], Tensor] | None = None,
    call: Call | None = None,
) -> tuple[Spec, str]:
    """Returns what is known of a layer after it was tried, and what is wrong with it itself.

    Args:
        layer: The layer, which is not run.
        kernel: Its kernel as a registered function has it.
        call: How it is called, if that was registered.

    Returns:
        The spec, and a sentence on the host's own errors, or "".

    Raises:
        Mismatch: If it is no 1x1 convolution that runs both ways; says why.
        IllConditionedError: If its kernel has no inverse.
    """
    reason = ""
    calls = [call] if call is not None else calls_of(type(layer))
    for way in calls:
        if kernel is not None:
            sizes = [_size_of(kernel(layer))]
        else:
            sizes = [*sizes_of(layer), *(_index_sizes(layer) if way.is_inner else ())]
        entries = way.entries(type(layer))
        missing = next((entry.unknown for entry in entries if entry.unknown), "")
        if missing:
            reason = (
                f"its {entries[0].method} takes {missing}, so it may have another kernel for "
                "every sample"
            )
            continue
        for n in sizes:
            if kernel is None and not (way.is_inner or fits(layer, n)):
                continue
            for layout, rank in _layouts(layer, n):
                for dtype in (torch.float64, torch.float32):
                    try:
                        bench, ending = Bench(layer, layout, rank, dtype), ""
                        try:
                            spec = _tried(layer, entries, bench, kernel)
                        except WrongLogDet:  # some take one side twice
                            bench = Bench(layer, layout, rank, dtype, is_square=True)
                            spec = _tried(layer, entries, bench, kernel)
                            ending = " where the sides differ"
                        return spec, compared(layer, spec, rank) + ending
                    except Mismatch as mismatch:
                        if not reason or reason.startswith(_NOT_RUN):
                            reason = str(mismatch) or reason
    raise Mismatch(reason)


def _size_of(kernel: object) -> int:
    """N of a registered kernel."""
    if isinstance(kernel, Tensor) and is_square(kernel):
        return max(kernel.shape)
    got = tuple(kernel.shape) if isinstance(kernel, Tensor) else type(kernel).__name__
    raise Mismatch(f"the registered kernel is {got}, where a matrix (n, n) was expected")


def refuse_stack(layer: nn.Module) -> None:
    """Raises Mismatch for a layer that holds several kernels, for samples or conditions."""
    if _is_torchs(layer) or _is_ours(layer) or not calls_of(type(layer)):
        return
    for name, parameter in layer._parameters.items():
        shape = () if parameter is None else parameter.shape
        if len(shape) == 3 and shape[0] > 1 and shape[1] == shape[2] > 1:
            raise Mismatch(
                f"its {name} holds {shape[0]} kernels, so every sample or condition may have one"
            )


def _layouts(layer: nn.Module, n: int) -> Iterator[tuple[Layout, int]]:
    """Where the channels may stand, the likely places first."""
    ranks = [2, 1, 0, 3]
    depth = max((t.ndim for t in tensors_of(layer).values() if is_square(t)), default=2)
    if depth == 3:
        ranks = [1, 2, 0, 3]
    if n % 2 == 0:
        yield Layout("groups", n), 2
    for rank in ranks:
        if rank == 0:  # vectors, and perhaps sequences of them
            yield Layout("last", n), 1
        yield Layout("first", n), rank


def _tried(
    layer: nn.Module,
    entries: tuple[Entry, ...],
    bench: Bench,
    kernel: Callable[[nn.Module], Tensor] | None,
) -> Spec:
    plain = twin_of(layer, bench.dtype)
    entries = _wrapped(bench, plain, entries)
    along = _way(entries, rev=False)
    back = _way(entries, rev=True)
    matrix, bias = bench.matrix(plain, along, rev=False)
    condition = float(condition_number(matrix.double()))
    if not condition <= CONDITION_LIMIT:
        raise IllConditionedError(
            f"Expected a kernel with an inverse; {type(layer).__name__} has one of condition "
            f"number {condition:.3g}. Load other weights."
        )
    try:
        inverse, _ = bench.matrix(plain, back, rev=True)
    except Mismatch as mismatch:
        raise Mismatch(f"{_NOT_RUN}: {mismatch.__cause__ or mismatch}") from mismatch
    product = inverse @ matrix - torch.eye(len(matrix)).to(matrix)
    off = float(product.abs().max())
    if not off <= max(0.05, 32 * condition * torch.finfo(bench.dtype).eps):
        raise Mismatch(f"its way back is no inverse of its forward: off by {off:.3g}")
    moved: list[tuple[nn.Module, Tensor, Tensor]] = []
    for seed, flip in ((0, False), (1, True)):
        twin = twin_of(layer, bench.dtype)
        perturb(twin, layer, seed, flip=flip)
        # what a forward leaves on the layer is no kernel to read: the owner's code runs no more
        moved.append((twin, *bench.matrix(copy.deepcopy(twin), along, rev=False)))
        run_pre_hooks(twin)
    _refuse_unmixed([m for _, m, _ in moved], is_trained=bench.is_trained)
    kernels = [(twin, each) for twin, each, _ in moved] + [(plain, matrix)]
    resolved = tuple(bench.resolved(entry, kernels) for entry in entries)
    spec = Spec(type(layer), resolved, bench.layout, Attribute("", transposed=False))
    samples = [*moved, (run_pre_hooks(twin_of(layer, bench.dtype)), matrix, bias)]
    if kernel is not None:
        return replace(spec, read=registered_reader(kernel, samples))
    has_bias = any(bool(each.abs().max() > 0) for _, _, each in samples)
    way = _way(resolved, rev=False)
    measured = Measured(type(layer), way, bench.layout, bench.rank, has_bias)
    spec = reader_of(spec, samples, measured)
    return volume_of(spec, samples) if bench.is_trained else spec


def _refuse_unmixed(matrices: list[Tensor], *, is_trained: bool) -> None:
    """Raises Mismatch for kernels that mix no channels, whatever is trained."""
    if is_trained and all(bool((m == m.diagonal().diag()).all()) for m in matrices):
        raise Mismatch("")
    are_permuted = all(bool(((m != 0).sum(0) == 1).all()) for m in matrices)
    if are_permuted and (is_trained or bool((matrices[0].amax(0) == 1).all())):
        raise Mismatch(PERMUTATION)


def _wrapped(bench: Bench, twin: nn.Module, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The methods as they take their tensor: as it is, or in a tuple."""
    for wrapped in (False, True):
        tried = tuple(replace(entry, wrapped=wrapped) for entry in entries)
        try:
            bench.matrix(twin_of(twin), _way(tried, rev=False), rev=False)
        except Mismatch as mismatch:
            if str(mismatch):
                raise
            continue
        return tried
    raise Mismatch("")


def _way(entries: tuple[Entry, ...], *, rev: bool) -> Entry:
    return next(
        entry for entry in entries if rev in entry.directions and not entry.results[0].is_log_det
    )


def compared(layer: nn.Module, spec: Spec, rank: int) -> str:
    """Compares a layer with itself before it counts, both against float64.

    Returns:
        A sentence on what the host's own methods are off by, where that is far more; or "".

    Raises:
        Mismatch: If the WIC differs; says by how much.
    """
    own, changed = twin_of(layer), twin_of(layer)
    changed.__class__ = class_for(spec)
    try:
        kernel, bias = spec.read(run_pre_hooks(twin_of(layer, torch.float64)))
    except Exception:
        kernel, bias = spec.read(run_pre_hooks(twin_of(layer)))
    kernel = kernel.double()
    if spec.turned:
        kernel = torch.linalg.inv(kernel)
    dtype = next(t.dtype for t in tensors_of(layer).values() if t.is_floating_point())
    bench = Bench(layer, spec.layout, rank, dtype)
    limit = max(_CLOSE, 32 * torch.finfo(dtype).eps * float(condition_number(kernel)))
    notes = []
    for entry in spec.entries:
        for rev in entry.directions:
            x = bench.input(0)
            running = x.new_zeros(len(x)) if entry.running is not None else None
            y, log_det, _ = bench.call(changed, entry, x, rev=rev, running=running)
            true = _applied(kernel, bias, x.double(), rev=rev)
            volume = float(torch.linalg.slogdet(kernel)[1])
            try:
                theirs, their_log_det, _ = bench.call(own, entry, x, rev=rev, running=running)
            except Mismatch:
                theirs, their_log_det = None, None
            what = "way back" if rev else "forward"
            if not entry.results[rev].is_log_det:
                mine, other = _off(y, true), _off(theirs, true)
                if not mine <= limit:
                    raise Mismatch(f"its {what} as a WIC is off by {mine:.3g} of the largest")
                if not other <= max(100 * mine, 1e-3):
                    notes.append(f"its own {what} is off by {other:.3g} (WIC: {mine:.2g})")
            if isinstance(log_det, Tensor) and isinstance(their_log_det, Tensor):
                scale = max(abs(volume), 1.0) * x[0, 0].numel() * len(x)
                difference = float((log_det.double() - their_log_det.double()).abs().max())
                if not difference <= 1e-3 * scale:
                    size = "not finite" if difference != difference else f"off by {difference:.3g}"
                    notes.append(f"its own log-determinant ({what}) is {size}")
    return "; ".join(notes)


def _applied(kernel: Tensor, bias: Tensor | None, x: Tensor, *, rev: bool) -> Tensor:
    shift = torch.zeros(len(kernel)) if bias is None else bias
    shift = shift.to(x).view(-1, *(1,) * (x.ndim - 2))
    if rev:
        return torch.einsum("ij,bj...->bi...", torch.linalg.inv(kernel), x - shift)
    return torch.einsum("ij,bj...->bi...", kernel, x) + shift


def _off(y: Tensor | None, true: Tensor) -> float:
    if y is None:
        return float("inf")
    error = float((y.double() - true).abs().max())
    return error / max(float(true.abs().max()), 1e-30)


def fixed_spec(layer: nn.Module) -> tuple[Spec, Tensor]:
    """A fixed permutation's spec as it would be with a kernel to train, and that kernel.

    Raises:
        Mismatch: If it is none, or returns no log-determinant.
    """
    n = 0 if layer._modules else next(iter(_index_sizes(layer)), 0)
    for call in calls_of(type(layer)):
        entries = call.entries(type(layer))
        if not n or any(entry.unknown for entry in entries):
            continue
        layouts = [(Layout("first", n), rank) for rank in (2, 1, 0)]
        for layout, rank in [*layouts, (Layout("last", n), 1)]:
            bench = Bench(layer, layout, rank, torch.float32)
            try:
                twin = twin_of(layer)
                ways = _wrapped(bench, twin, entries)
                matrix, bias = bench.matrix(twin, _way(ways, rev=False), rev=False)
                bench.matrix(twin, _way(ways, rev=True), rev=True)
                resolved = tuple(bench.resolved(entry, [(twin, matrix)]) for entry in ways)
            except (Mismatch, WICError):
                continue
            if not bool(((matrix == 0) | (matrix == 1)).all()) or bool(bias.any()):
                raise Mismatch("")
            spec = Spec(
                type(layer),
                resolved,
                layout,
                Attribute("kernel_1x1", transposed=False),
                sources=("kernel_1x1",),
            )
            return spec, matrix
    raise Mismatch("")


def _index_sizes(layer: nn.Module) -> Iterator[int]:
    """Lengths of the indices (of torch or numpy) that a module without children holds."""
    if _is_torchs(layer):
        return
    values = [*vars(layer).values(), *layer._buffers.values(), *layer._parameters.values()]
    for value in values:
        kind = str(getattr(value, "dtype", ""))
        if "int" in kind and getattr(value, "ndim", 0) == 1 and len(value) > 1:
            yield len(value)
