"""Bench: runs copies of a layer to learn its matrix and what its methods return.

A layer is never run itself: an ActNorm would initialise itself from what it sees. Every run has a
copy of its own, in evaluation mode, without the hooks of others.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.errors import IllConditionedError, WICError
from wic_layers.hosts.calls import Entry
from wic_layers.hosts.engine import Layout
from wic_layers.hosts.results import LogDet, Result
from wic_layers.hosts.twins import Mismatch, WrongLogDet, run_pre_hooks, twin_of

__all__ = ["Bench", "Observation", "read_off", "unit_vectors"]

_SIZES = ((2, (3, 5, 2)), (3, (4, 2, 3)))  # of two batches: samples, and as many sides as needed
_SQUARES = ((2, (3, 3, 3)), (3, (4, 4, 4)))
_FACTORS = ("pixels", "all", "one", "batch")


NOT_LINEAR = (
    "it is no linear map with one kernel: that may differ from sample to sample, or position"
)


@dataclass(frozen=True)
class Observation:
    """A log-determinant that a method returned, beside what it may be made of."""

    value: Tensor
    volume: float
    batch: int
    positions: int
    spatial: tuple[int, ...]


class Bench:
    """Tries one layer in one way.

    Args:
        layer: The layer, which is not run.
        layout: Where its channels stand.
        rank: Spatial dimensions that it is tried with.
        dtype: Of the trial.
        is_square: Whether all sides of its tensors are equal.
    """

    def __init__(
        self,
        layer: nn.Module,
        layout: Layout,
        rank: int,
        dtype: torch.dtype,
        *,
        is_square: bool = False,
    ) -> None:
        self.layer, self.layout, self.rank, self.dtype = layer, layout, rank, dtype
        self.sizes = _SQUARES if is_square else _SIZES
        tensor = next((t for t in layer.parameters()), next(layer.buffers(), None))
        self.device = torch.device("cpu") if tensor is None else tensor.device
        self.is_trained = any(p.requires_grad for p in layer.parameters())
        self.groups = 2 if layout.kind == "groups" else 1

    def call(
        self, twin: nn.Module, entry: Entry, x: Tensor, *, rev: bool, **extra: Any
    ) -> tuple[Tensor, Any, Result]:
        """Runs a method on a tensor with the channels first; its result without a log-det's form.

        Raises:
            Mismatch: If it does not run, or returns something else.
            IllConditionedError: If it inverts a matrix that has no inverse.
        """
        run_pre_hooks(twin)
        try:
            with torch.no_grad():  # some change their input in place
                out = entry.run(twin, self.layout.unfold(x).clone(), rev=rev, **extra)
        except torch.linalg.LinAlgError as error:  # type: ignore[attr-defined]
            raise IllConditionedError(
                f"Expected a kernel with an inverse; that of {type(twin).__name__} has none "
                f"({error}). Load other weights."
            ) from error
        except Exception as error:
            if entry.running is not None and "running" not in extra:  # some take no None
                return self.call(twin, entry, x, rev=rev, running=x.new_zeros(len(x)), **extra)
            raise Mismatch("") from error
        y, log_det, result = _parsed(out, entry.results[0].is_log_det)
        if result.is_log_det:
            return x, log_det, result
        if y.shape != self.layout.unfold(x).shape:
            raise Mismatch("")
        return self.layout.fold(y), log_det, result

    def input(self, which: int) -> Tensor:
        """Random numbers of one of two sizes, with the channels first."""
        batch, sides = self.sizes[which]
        sizes = sides[: self.rank]
        if self.layout.kind == "groups":
            sizes = (self.groups, *sides[: self.rank - 1])
        generator = torch.Generator().manual_seed(which)
        shape = (batch, self.layout.size, *sizes)
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(
            self.device, self.dtype
        )

    def identity(self) -> Tensor:
        """The unit vectors and zero at as many positions."""
        size = self.layout.size
        return unit_vectors(size, self.layout, self.rank, self.groups, self.device, self.dtype)

    def matrix(self, twin: nn.Module, entry: Entry, *, rev: bool) -> tuple[Tensor, Tensor]:
        """The matrix and bias that one direction of a copy applies.

        Raises:
            Mismatch: If it is no affine map of the channels, the same at every position.
        """
        y, _, _ = self.call(copy.deepcopy(twin), entry, self.identity(), rev=rev)
        matrix, bias = read_off(y, self.rank)
        x = self.input(0)
        y, _, _ = self.call(copy.deepcopy(twin), entry, x, rev=rev)
        expected = torch.einsum("ij,bj...->bi...", matrix, x) + bias.view(-1, *(1,) * (x.ndim - 2))
        scale = float(expected.abs().max())
        off = float((y - expected).abs().max())
        if not off <= 1e4 * torch.finfo(self.dtype).eps * max(scale, float(matrix.abs().max())):
            raise Mismatch(NOT_LINEAR)
        return matrix, bias

    def resolved(self, entry: Entry, kernels: list[tuple[nn.Module, Tensor]]) -> Entry:
        """The method with what it returns in each of its directions.

        Args:
            entry: The method.
            kernels: Copies with the matrix of their forward direction, moved ones first.

        Raises:
            Mismatch: If a log-determinant is none of the matrix.
        """
        results = list(entry.results)
        for rev in entry.directions:
            observations: list[list[Observation]] = []
            for twin, matrix in kernels:
                volume = float(torch.linalg.slogdet(matrix.double())[1])
                observations.append([])
                for which in range(2):
                    x = self.input(which)
                    running = x.new_tensor(3.0) if entry.running is not None else None
                    _, value, result = self.call(
                        copy.deepcopy(twin), entry, x, rev=rev, running=running
                    )
                    results[rev] = result
                    if value is None:
                        continue
                    value = torch.as_tensor(value, dtype=self.dtype)
                    value = value if running is None else value - 3.0
                    positions = x[0, 0].numel()
                    observations[-1].append(
                        Observation(value, volume, len(x), positions, tuple(x.shape[2:]))
                    )
            rows = [row for row in observations if row]
            if rows:
                log_det = _log_det(rows, rev=rev, is_trained=self.is_trained)
                results[rev] = replace(results[rev], log_det=log_det)
            if not results[rev].is_log_det:
                results[rev] = self._lowered(results[rev], entry, rev=rev)
        first, second = results
        if entry.rev is not None:
            first = second = results[entry.rev]
        entry = replace(entry, results=(first, second))
        return entry if entry.mask is None else self._with_mask(entry, kernels[0][0])

    def _lowered(self, result: Result, entry: Entry, *, rev: bool) -> Result:
        """What is in autocast's dtype under autocast; hosts differ by direction."""
        kind = self.device.type
        if not torch.amp.is_autocast_available(kind):
            return result
        dtype = torch.bfloat16
        bench = Bench(self.layer, self.layout, self.rank, torch.float32)
        try:
            twin = twin_of(self.layer, torch.float32)
            with torch.autocast(kind, dtype):
                y, log_det, _ = bench.call(twin, entry, bench.input(0), rev=rev)
        except (Mismatch, WICError):
            return result
        if result.log_det is not None and isinstance(log_det, Tensor):
            low = log_det.dtype == dtype
            result = replace(result, log_det=replace(result.log_det, lowers=low))
        return replace(result, lowers=y.dtype == dtype)

    def _with_mask(self, entry: Entry, twin: nn.Module) -> Entry:
        """What a mask does to the result and to the log-determinant."""
        rev = entry.directions[0]
        x = self.input(0)
        length = x.shape[-1]
        mask = x.new_ones(len(x), 1, *self.layout.unfold(x).shape[2:])
        mask[0, ..., length - 1 :] = 0
        try:
            y, masked, _ = self.call(copy.deepcopy(twin), entry, x, rev=rev, mask=mask)
        except Mismatch:
            return replace(entry, mask=None)
        _, plain, _ = self.call(copy.deepcopy(twin), entry, x, rev=rev)
        results = entry.results
        if isinstance(masked, Tensor) and masked.ndim and not torch.allclose(masked, plain):
            first, second = (
                result
                if result.log_det is None
                else replace(result, log_det=replace(result.log_det, is_masked=True))
                for result in results
            )
            results = (first, second)
        is_masking = not bool(y[0, ..., length - 1 :].any())
        return replace(entry, is_masking=is_masking, results=results)


def unit_vectors(
    size: int, layout: Layout, rank: int, groups: int, device: torch.device, dtype: torch.dtype
) -> Tensor:
    """The unit vectors and zero at size + 1 positions, with the channels first."""
    columns = torch.eye(size, size + 1, device=device, dtype=dtype)
    if rank == 0:
        return columns.mT
    if layout.kind == "groups":
        return columns.view(1, size, 1, size + 1).expand(1, size, groups, size + 1)
    return columns.view(1, size, size + 1, *(1,) * (rank - 1))


def read_off(y: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The matrix and bias from what became of the unit vectors and zero."""
    while y.ndim > 3 and rank > 0:  # groups come first, further sides last
        y = y.select(2, 0) if y.shape[2] < y.shape[-1] else y.select(-1, 0)
    columns = y.mT if rank == 0 else y[0]
    return columns[:, :-1] - columns[:, -1:], columns[:, -1]


def _parsed(out: Any, is_log_det: bool) -> tuple[Tensor, Any, Result]:  # noqa: FBT001
    if isinstance(out, Tensor):
        return out, (out if is_log_det else None), Result(is_log_det=is_log_det)
    if type(out) in (tuple, list) and len(out) == 2:
        first, second = out
        inner = type(first) if type(first) in (tuple, list) and len(first) == 1 else None
        y = first if inner is None else first[0]
        if isinstance(y, Tensor) and (second is None or isinstance(second, (Tensor, int, float))):
            return y, second, Result(type(out), inner)
    raise Mismatch("")


def _log_det(rows: list[list[Observation]], *, rev: bool, is_trained: bool) -> LogDet:
    """How observed log-determinants come from log-volumes; rows of one copy each."""
    shapes = {_shape(seen) for row in rows for seen in row}
    if len(shapes) != 1 or None in shapes:
        raise Mismatch("the shape of its log-determinant is not understood")
    (shape,) = shapes
    if is_trained and not any(bool(seen.value.any()) for row in rows for seen in row):
        if all(abs(seen.volume) < 1e-3 for row in rows for seen in row):  # orthogonal
            return LogDet(0, shape or (), "one")
    factors = ("one", *_FACTORS) if "pixels" in (shape or ()) else _FACTORS
    nearest: tuple[float, LogDet] | None = None
    for row in rows:
        for factor in factors:
            # some hosts hand a running log-determinant on as it is, on the way back
            for sign in (-1, 1, 0) if rev else (1, -1):
                error = max(_error(seen, factor, sign) for seen in row)
                if nearest is None or error < nearest[0]:
                    nearest = error, LogDet(sign, shape or (), factor)
        if nearest is not None and nearest[0] <= 1e-3:
            return nearest[1]
    if nearest is None or not nearest[0] <= 1e-3:
        size = "not finite" if nearest is None else f"{nearest[0]:.3g} of it"
        raise WrongLogDet(
            f"its log-determinant is not log|det K| times the positions: off by {size}"
        )
    return nearest[1]


def _shape(seen: Observation) -> tuple[str | int, ...] | None:
    sizes = list(seen.value.shape)
    if not sizes:
        return ()
    pattern: list[str | int] = []
    while sizes:
        if not pattern and sizes[0] == seen.batch:
            pattern.append("batch")
        elif tuple(sizes) == seen.spatial:
            return (*pattern, "pixels")
        elif sizes[0] == 1:
            pattern.append(1)
        else:
            return None
        sizes.pop(0)
    return tuple(pattern)


def _error(seen: Observation, factor: str, sign: int) -> float:
    times = {
        "one": 1,
        "pixels": seen.positions,
        "batch": seen.batch,
        "all": seen.batch * seen.positions,
    }[factor]
    expected = sign * seen.volume * times
    off = float((seen.value - expected).abs().max())
    scale = max(abs(expected), 1e-4 if seen.value.dtype == torch.float64 else 1.0)
    return off / scale if off == off else float("inf")
