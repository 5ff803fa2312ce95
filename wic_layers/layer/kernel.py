"""RectangularKernel: how WIC's kernel is held, its inverse computed and cached, its volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wic_layers.errors import IllConditionedError, WICArgumentError
from wic_layers.layer.cache import Entries, KernelCache, computed
from wic_layers.layer.completion import Repeat, Zero
from wic_layers.layer.functional import (
    condition_number,
    constrained_inverse,
    from_algebra,
    left_inverse,
    log_volume,
    right_inverse,
    square_inverse,
    to_algebra,
)
from wic_layers.layer.parametrization import LU
from wic_layers.layer.pointwise import (
    as_kernel,
    autocast_is_on,
    has_values,
    outside_autocast,
)
from wic_layers.layer.two_way import TwoWay

__all__ = [
    "CONDITION_LIMIT",
    "LogDetName",
    "RectangularKernel",
    "check_log_det",
    "kernels_of",
    "not_finite",
    "wide_dtype",
]

LogDetName = Literal["exact", "volume"]

_Self = TypeVar("_Self", bound="RectangularKernel")

# past it an inverse that is computed in float64 has no correct digit
CONDITION_LIMIT = 1 / torch.finfo(torch.float64).eps


class RectangularKernel(TwoWay):
    """What WIC does with its kernel to run backwards and to measure it; not for use by itself.

    What is computed from the kernel is cached with gradients off, in ``train()`` on a CPU only,
    outside of compile, tracing and functorch, and forgotten by ``train()``, ``eval()``, ``.to()``
    and loading.
    """

    in_channels: int
    out_channels: int
    rows: int
    layout: str
    completion: Any  # a Completion, which may be a module; None where nothing is dropped
    weight: Tensor

    def __init__(self) -> None:
        super().__init__()
        self._cache = KernelCache()

    def clear_cache(self) -> None:
        """Forgets the cached inverse.

        Needed after an edit of a CUDA kernel that autograd does not count, and of anything but
        parameters and buffers that a parametrization of one's own computes the kernel from.
        """
        self._cache.clear()

    def _entries(self) -> Entries | None:
        """What was computed from the kernel as it is now; None where nothing may be cached."""
        if not self._may_cache():
            return None
        sources = self._sources()
        return self._cache.entries(self._maps(), sources) if has_values(sources[0]) else None

    def _kernel(self, entries: Entries | None = None) -> Tensor:
        """The kernel; autocast stays out of the products of a parametrization too."""
        weight = self._parameters.get("weight")  # several times as fast as self.weight
        if weight is not None:
            return weight
        fixed = self._buffers.get("weight")
        if fixed is not None:
            return fixed
        return computed(entries, "kernel", self._assembled)

    def _assembled(self) -> Tensor:
        """The kernel of a parametrization."""
        lu = self._lu_factors()
        if lu is not None:  # spares torch's way through the parametrization
            return outside_autocast(lu[0].forward, *lu[1:])
        return outside_autocast(lambda: self.weight, device=self._sources()[0].device)

    def _lu_factors(self) -> tuple[LU, Tensor, Tensor, Tensor] | None:
        """The LU parametrization and its three factors; None where the kernel is held otherwise.

        Read from the dictionaries of modules, as attributes take longer than the arithmetic.
        """
        lists: Any = self._modules.get("parametrizations")
        kernel = None if lists is None else lists._modules.get("weight")
        if kernel is None or len(kernel._modules) != 1 or type(kernel._modules["0"]) is not LU:
            return None
        # replicas of nn.DataParallel have them as plain attributes
        factors = kernel._parameters or kernel.__dict__
        return (kernel._modules["0"], *(factors[f"original{index}"] for index in range(3)))

    @property
    def _is_constrained(self) -> bool:
        """Whether the first rows hold exactly and the others, too many to, by least squares."""
        return self.rows > self.in_channels > self.out_channels and self.layout == "compact"

    def _inverse_matrix(self, high: Tensor, stored: torch.dtype) -> Tensor:
        """The matrix that turns [y; c(y)] into x; ``stored`` is what the kernel was rounded to."""
        if self.rows < self.in_channels:
            return right_inverse(high)
        if self._is_constrained:
            return constrained_inverse(high, self.out_channels)
        is_square, runs_after = self.rows == self.in_channels, self.out_channels < self.rows
        if is_square and (runs_after or stored != torch.float64):
            return square_inverse(high)
        return left_inverse(high)

    def _inverse_kernel(self, y: Tensor, entries: Entries | None) -> Tensor:
        """The inverse in the dtype of ``y`` for its convolution.

        It acts on [y; c(y)], or on y alone where the completion is a matrix and folded into it.
        """
        if entries is None:
            return from_algebra(self._folded(self._checked_inverse(None)), y)

        def compute() -> Tensor:
            matrix = from_algebra(self._folded(self._checked_inverse(entries)), y)
            return as_kernel(matrix, y.ndim).contiguous()

        return computed(entries, (y.dtype, y.ndim, type(self.completion)), compute)

    def _folded(self, matrix: Tensor) -> Tensor:
        """``matrix`` on y alone where c(y) is a matrix times y: [A, B][y; Cy] = (A + BC)y."""
        kind, m = type(self.completion), self.out_channels
        if kind is Zero:
            return matrix[:, :m]
        if kind is Repeat:  # channel j of [y; c(y)] is channel j modulo m of y
            return F.pad(matrix, (0, -self.rows % m)).unflatten(1, (-1, m)).sum(1)
        return matrix

    def _checked_inverse(self, entries: Entries | None, kernel: Tensor | None = None) -> Tensor:
        """The inverse of the kernel, in float64 and on the device of the algebra."""
        weight = self._kernel(entries) if kernel is None else kernel
        kind = weight.device.type
        if autocast_is_on(kind):
            with torch.autocast(kind, enabled=False):
                return self._checked_inverse(entries, kernel)
        high = to_algebra(weight)
        matrix = self._inverse_matrix(high, weight.dtype)
        with torch.no_grad():
            # no left inverse is smaller than K's, nor than that of the rows that hold exactly
            bound = torch.linalg.matrix_norm(high) * torch.linalg.matrix_norm(matrix)
            if (high.is_cpu or entries is not None) and has_values(bound):
                if not float(bound) <= CONDITION_LIMIT:
                    self._raise_if_ill_conditioned(high)
                return matrix
        return torch.where(bound <= CONDITION_LIMIT, matrix, torch.nan)

    def _raise_if_ill_conditioned(self, high: Tensor) -> None:
        if not bool(torch.isfinite(high).all()):
            count = int((~torch.isfinite(high)).sum())
            raise IllConditionedError(
                f"{self._title()}: {count} of the kernel's {high.numel()} numbers are not finite, "
                "so it has no inverse. Go back to the last good weights; a lower learning rate or "
                "gradient clipping helps."
            )
        number = float(condition_number(high))
        if self._is_constrained:
            number = max(number, float(condition_number(high[: self.out_channels])))
        if not number <= CONDITION_LIMIT:
            raise IllConditionedError(
                f"{self._title()}: the kernel's condition number {number:.3g} is past "
                f"{CONDITION_LIMIT:.3g}: its inverse has no correct digit even in float64. "
                'Start from other weights, add det_loss, or use parametrization="orthogonal".'
            )

    def log_volume(self) -> Tensor:
        r"""Returns the log-volume of ``forward``, in nats per pixel; a scalar, float32 at least.

        :math:`\tfrac12\log\det K^\top K` when widening, :math:`\tfrac12\log\det W W^\top` when
        narrowing. It is a Jacobian's log-determinant for square kernels only.
        """
        volume, dtype = self._volume_of_rows(self.out_channels)
        return from_algebra(volume, self._sources()[0], wide_dtype(dtype, dtype))

    @property
    def log_det_is_exact(self) -> bool:
        """Whether the log-volume is that of a density: of square kernels and ``rows="m"``."""
        return self.out_channels == self.rows <= self.in_channels

    def gram_logdet(self) -> Tensor:
        r"""Returns :math:`\log\det K^\top K` of all rows, :math:`K K^\top` for ``rows="m"``."""
        volume, dtype = self._volume_of_rows(self.rows)
        return from_algebra(2 * volume, self._sources()[0], wide_dtype(dtype, dtype))

    def _volume_of_rows(self, rows: int) -> tuple[Tensor, torch.dtype]:
        """The log-volume of the first rows in float64, and the kernel's dtype."""
        square = rows == self.in_channels
        free = self._parameters.get("weight")
        factors = self._lu_factors() if square and free is None else None
        if factors is not None:
            diagonal = factors[3]  # its logarithms
            return to_algebra(diagonal).sum(), diagonal.dtype
        kernel: Tensor = self._assembled() if free is None else free
        high = to_algebra(kernel)
        if square and rows == self.rows:  # as functional.log_volume does, by a shorter way
            return torch.linalg.slogdet(high)[1], kernel.dtype
        return outside_autocast(log_volume, high[:rows]), kernel.dtype

    def condition_number(self) -> Tensor:
        """Returns the condition number of the stored kernel in the spectral norm; a scalar."""
        with torch.no_grad():
            return outside_autocast(condition_number, self._kernel())

    def _title(self) -> str:
        return f"WIC({self.extra_repr()})"

    def _sources(self) -> tuple[Tensor, ...]:
        """The parameters and buffers that the kernel is computed from."""
        weight = self._parameters.get("weight")
        if weight is not None:
            return (weight,)
        lu = self._lu_factors()
        if lu is not None:
            return (*lu[1:], *lu[0]._buffers.values())  # type: ignore[arg-type]
        if not parametrize.is_parametrized(self, "weight"):
            return (self.weight,)
        kernel: Any = self.parametrizations["weight"]  # type: ignore[index]
        return tuple(
            value
            for part in kernel.modules()
            # replicas of nn.DataParallel keep their parameters elsewhere
            for own in (part._parameters, part._buffers, part.__dict__.get("_former_parameters"))
            for value in (own or {}).values()
            if value is not None
        )

    def _maps(self) -> tuple[object, ...]:
        """The layer's class, and the parametrizations that the kernel goes through."""
        lists: Any = self._modules.get("parametrizations")
        kernel = None if lists is None else lists._modules.get("weight")
        return (type(self), *(() if kernel is None else kernel._modules.values()))

    def _may_cache(self) -> bool:
        return not (
            torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.autograd.forward_ad._current_level >= 0  # a dual kernel equals its primal
            or "_is_replica" in self.__dict__  # nn.DataParallel's, which live for one call
            # a fused optimizer's step is seen by value only
            or (self._is_training() and not all(source.is_cpu for source in self._sources()))
        )

    def _is_training(self) -> bool:
        return self.training

    def train(self: _Self, mode: bool = True) -> _Self:  # noqa: FBT001, FBT002 - torch's own signature
        """Switches between training and evaluation, and forgets what was computed."""
        self.clear_cache()
        super().train(mode)
        return self

    def _apply(self: _Self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> _Self:  # noqa: FBT001, FBT002 - torch's own signature
        self.clear_cache()
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.clear_cache()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, object]:
        state = self.__dict__.copy()
        state["_cache"] = KernelCache()
        return state

    def __reduce_ex__(self, protocol: Any) -> Any:
        # torch gives a parametrized module a class made on the fly, which pickle cannot find
        if not parametrize.is_parametrized(self):
            return super().__reduce_ex__(protocol)
        kind = parametrize.type_before_parametrizations(self)
        names = tuple(self.parametrizations)  # type: ignore[arg-type]
        return _parametrized, (kind, names), RectangularKernel.__getstate__(self)


def _parametrized(kind: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    """An empty module of the class that torch makes for one with these tensors parametrized."""
    module = kind.__new__(kind)
    nn.Module.__init__(module)
    for name in names:
        module.register_parameter(name, nn.Parameter(torch.empty(1)))
        parametrize.register_parametrization(module, name, nn.Identity())
    return module


def check_log_det(layer: Any, log_det: str) -> None:
    """Raises unless a layer's log-volume may be handed out under this name.

    Args:
        layer: A WIC, or what stands for one.
        log_det: ``"exact"`` or ``"volume"``.

    Raises:
        WICArgumentError: For another name; for ``"exact"`` where it is no density.
    """
    if log_det not in get_args(LogDetName):
        raise WICArgumentError(f'Expected log_det "exact" or "volume"; got {log_det!r}.')
    if log_det == "volume" or layer.log_det_is_exact:
        return
    n, m = layer.in_channels, layer.out_channels
    if m > n:
        why = "most outputs belong to no input. "
    else:
        why = 'only the minimum-norm inverse gives one: write rows="m" when building it. '
    raise WICArgumentError(
        f"{layer._title()}: expected a layer whose log-volume is that of a density; this one has "
        f"none ({n} -> {m} channels), as {why}"
        'For the number alone write log_det="volume".'
    )


def kernels_of(model: nn.Module) -> Iterator[tuple[str, Any]]:
    """The layers of a model that have a kernel, each once, with their names in it.

    They have ``gram_logdet()``, ``condition_number()`` and ``weight``: a :class:`~wic_layers.WIC`,
    or what answers for a layer that :func:`~wic_layers.swap_1x1` changed.
    """
    for name, module in model.named_modules():
        if getattr(type(module), "_wic", None) is not None:
            yield name, module._wic
        elif callable(getattr(module, "gram_logdet", None)):
            yield name, module


def wide_dtype(first: torch.dtype, second: torch.dtype) -> torch.dtype:
    """The larger of two dtypes, and float32 at least."""
    return torch.promote_types(torch.promote_types(first, second), torch.float32)


def not_finite(state: Mapping[str, object]) -> list[str]:
    """Says which tensors hold numbers that are not finite; empty where none does."""
    wrong = []
    for key, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not value.is_meta:
            count = value.numel() - int(torch.isfinite(value).sum())
            if count:
                wrong.append(
                    f"expected finite weights; {count} of {value.numel()} numbers of {key} are "
                    "NaN or infinite. Take an earlier checkpoint."
                )
    return wrong
