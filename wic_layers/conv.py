"""WIC, the layer: a 1x1 convolution between any numbers of channels that runs backwards."""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wic_layers import auxiliary
from wic_layers._pointwise import (
    as_kernel,
    convolve,
    is_transformed,
    is_unchanged,
    outside_autocast,
    snapshot,
)
from wic_layers.completion import Completion, CompletionName, Repeat, Shift, Zero, resolve
from wic_layers.errors import IllConditionedError, WICArgumentError, WICShapeError
from wic_layers.functional import (
    _algebra_dtype,
    condition_bound,
    condition_number,
    constrained_inverse,
    gram_logdet,
    left_inverse,
    log_volume,
    right_inverse,
)
from wic_layers.parametrization import ParametrizationName, parametrize_kernel

__all__ = ["WIC"]

_KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class WIC(nn.Module):
    r"""Well-posed invertible 1x1 convolution, from ``in_channels`` to ``out_channels`` and back.

    The kernel :math:`K` has shape :math:`(M, n)` with :math:`n` = ``in_channels``; :math:`m` =
    ``out_channels``.

    - Widening or square, :math:`m \ge n`: :math:`M = m`, ``forward(x)`` is :math:`Kx` and
      ``inverse(y)`` is :math:`K^{+} y`, the Moore-Penrose left inverse:
      ``inverse(forward(x)) == x``.
    - Narrowing, :math:`m < n`: ``forward(x)`` is :math:`Wx`, with :math:`W` the first m rows. On
      the way back a *completion* c, computed from y alone, stands in for the channels of the other
      rows, and ``forward(inverse(y)) == y`` for every y. ``inverse(forward(x)) == x`` for those x
      whose other rows are what the completion says.

    Both hold to :math:`c \cdot \epsilon \cdot \kappa(K)` relative to the largest absolute value of
    :math:`[y; c(y)]` or x, with the precision :math:`\epsilon` of the input's dtype.

    The algebra runs in float64 (float32 by QR where the device has none) and the convolution in
    the input's dtype, both outside autocast. The inverse is cached in ``eval()`` with gradients
    off, and dropped by ``train()``, ``eval()``, ``.to()`` and loading; it is never in the state
    dict. On a CPU the cache compares the kernel with a copy, so that any edit is seen; on other
    devices an edit that bypasses autograd's version counter while in ``eval()`` (``.data``, fused
    optimizers) needs :meth:`clear_cache`.

    Args:
        in_channels: Channels n of the input of ``forward``.
        out_channels: Channels m of its output.
        completion: What stands in for dropped channels: ``"zero"``, ``"repeat"``, ``"shift"``,
            ``"learned"``, ``"gaussian"`` (random, the baseline), or any callable
            :math:`(B, m, *s) \to (B, M - m, *s)`. The default is the paper's shift; where nothing
            is dropped it is not used.
        rows: Only when narrowing. ``"n"`` (default): :math:`M = n`, the inverse of a square
            kernel. ``"m"``: :math:`M = m`, the minimum-norm inverse
            :math:`W^\top (W W^\top)^{-1}`; takes only the zero completion. A number :math:`M > n`:
            x solves :math:`\min \lVert K_{inc} x - c(y) \rVert` subject to :math:`Wx = y`.
        layout: ``"published"`` builds what the authors' code builds when narrowing:
            :math:`M = \lceil n/m \rceil m` rows, their order of shifts and the Moore-Penrose
            inverse of all rows. ``forward(inverse(y)) == y`` does **not** hold there where m does
            not divide n.
        parametrization: ``"free"``, ``"orthogonal"`` (torch's own) or ``"lu"`` (Glow's).
        device: Device of the kernel.
        dtype: Dtype of the kernel: float16, bfloat16, float32 or float64.

    Attributes:
        weight: The kernel, shape :math:`(M, n)`; starts as a random matrix with orthonormal rows
            or columns.
        bijective: Whether the map is one-to-one, which is true for square kernels only.

    Raises:
        WICArgumentError: For an argument that is out of range or does not go with the others.

    Shape:
        - ``forward``: (B, n, \*spatial) to (B, m, \*spatial), with 0 to 3 spatial dimensions.
        - ``inverse``: (B, m, \*spatial) to (B, n, \*spatial).

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (5)-(14)

    Example:
        >>> layer = WIC(3, 12)
        >>> x = torch.randn(2, 3, 8, 8)
        >>> torch.allclose(layer.inverse(layer(x)), x, atol=1e-5)
        True
        >>> narrow = WIC(12, 3, completion="zero")
        >>> torch.allclose(narrow(narrow.inverse(x)), x, atol=1e-5)
        True
    """

    completion: Any

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        completion: CompletionName | Completion | None = None,
        rows: Literal["n", "m"] | int | None = None,
        layout: Literal["compact", "published"] = "compact",
        parametrization: ParametrizationName = "free",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("out_channels", out_channels)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise WICArgumentError(f"Expected {name} as an int of at least 1; got {value!r}.")
        if layout not in ("compact", "published"):
            raise WICArgumentError(f'Expected layout "compact" or "published"; got {layout!r}.')
        if parametrization not in ("free", "orthogonal", "lu"):
            raise WICArgumentError(
                f'Expected parametrization "free", "orthogonal" or "lu"; got {parametrization!r}.'
            )
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in _KERNEL_DTYPES:
            raise WICArgumentError(
                f"Expected a kernel of dtype float16, bfloat16, float32 or float64; got {dtype}."
            )
        if parametrization == "orthogonal" and dtype not in (torch.float32, torch.float64):
            raise WICArgumentError(
                f"Expected an orthogonal kernel of dtype float32 or float64; got {dtype}."
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.layout = layout
        self.parametrization = parametrization
        self.rows = self._resolve_rows(rows, completion)
        self.bijective = in_channels == out_channels

        self.completion = self._resolve_completion(completion)

        self.weight = nn.Parameter(torch.empty(self.rows, in_channels, device=device, dtype=dtype))
        self._cache: tuple[Any, ...] | None = None
        self.reset_parameters()
        if parametrization != "free":
            parametrize_kernel(self, parametrization)

    def _resolve_rows(self, rows: Any, completion: Any) -> int:
        n, m = self.in_channels, self.out_channels
        if m >= n:
            if rows is not None:
                raise WICArgumentError(
                    f"Expected rows only where channels are dropped; got rows={rows!r} with {n} "
                    f"-> {m} channels. Leave it out."
                )
            if isinstance(completion, str):  # not used here, but a wrong name is an error
                resolve(completion, m, 0)  # type: ignore[arg-type]
            return m
        if self.layout == "published":
            if rows is not None:
                raise WICArgumentError(
                    'Expected no rows with layout="published", which fixes them at ceil(n/m)*m; '
                    f"got {rows!r}."
                )
            return -(-n // m) * m
        if rows is None or rows == "n":
            return n
        if rows == "m":
            if completion not in (None, "zero"):
                raise WICArgumentError(
                    'Expected completion "zero" with rows="m", whose inverse has no other rows to '
                    f"complete; got {completion!r}."
                )
            return m
        if isinstance(rows, bool) or not isinstance(rows, int) or rows < n:
            raise WICArgumentError(
                f'Expected rows "n", "m" or an int of at least in_channels = {n}; got {rows!r}.'
            )
        return rows

    def _resolve_completion(
        self, completion: CompletionName | Completion | None
    ) -> Completion | None:
        kept, missing = self.out_channels, self.rows - self.out_channels
        if not missing:
            return None
        if completion is None or completion == "shift":
            order: Literal["nearest", "published"] = (
                "published" if self.layout == "published" else "nearest"
            )
            return Shift(kept, missing, order=order)
        return resolve(completion, kept, missing)

    def reset_parameters(self) -> None:
        """Draws a kernel with orthonormal columns, or rows where it is wide."""
        self.clear_cache()
        start = torch.empty(self.rows, self.in_channels, dtype=torch.float64)
        nn.init.orthogonal_(start)
        with torch.no_grad():
            if parametrize.is_parametrized(self, "weight"):
                self.weight = start.to(self.weight)  # type: ignore[assignment]
            elif not self.weight.is_meta:
                self.weight.copy_(start)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}"]
        if self.out_channels < self.in_channels:
            parts.append(f"rows={self.rows}")
        if self.layout != "compact":
            parts.append(f'layout="{self.layout}"')
        if self.parametrization != "free":
            parts.append(f'parametrization="{self.parametrization}"')
        return ", ".join(parts)

    def forward(self, x: Tensor, *, rev: bool = False) -> Tensor:
        r"""Maps (B, n, \*spatial) to (B, m, \*spatial); with ``rev=True`` it is :meth:`inverse`.

        Raises:
            WICShapeError: If the number of channels or of dimensions is another.
            WICArgumentError: If the input is not of a real floating-point dtype.
        """
        if rev:
            return self.inverse(x)
        self._check(x, self.in_channels, "input")
        weight = self._kernel()
        if self.out_channels == self.rows:
            y = convolve(x, weight)
            if auxiliary.is_recording() and self.out_channels < self.in_channels:
                auxiliary.append_record(self, y, y[:, :0])
            return y
        y = convolve(x, weight[: self.out_channels])
        if auxiliary.is_recording():
            auxiliary.append_record(self, y, self._other_rows(x, weight))
        return y

    def inverse(self, y: Tensor) -> Tensor:
        r"""Maps (B, m, \*spatial) back to (B, n, \*spatial).

        Raises:
            WICShapeError: If the number of channels or of dimensions is another.
            WICArgumentError: If the input is not of a real floating-point dtype.
            IllConditionedError: If the kernel's condition number is past 1/eps of its dtype,
                eagerly on a CPU and wherever an inverse enters the cache; elsewhere the result is
                NaN.
        """
        self._check(y, self.out_channels, "input")
        kernel = self._inverse_kernel(y)
        if kernel.shape[1] == self.out_channels:
            return convolve(y, kernel)
        return convolve(torch.cat((y, self.complete(y)), dim=1), kernel)

    def complete(self, y: Tensor) -> Tensor:
        r"""Returns the completion of the dropped channels: (B, M - m, \*spatial)."""
        missing = self.rows - self.out_channels
        if self.completion is None:
            return y[:, :0]
        extra = self.completion(y)
        expected = (y.shape[0], missing, *y.shape[2:])
        if not isinstance(extra, Tensor) or tuple(extra.shape) != expected:
            got = tuple(extra.shape) if isinstance(extra, Tensor) else type(extra).__name__
            raise WICShapeError(
                f"{self._title()}: expected the completion to return shape {expected} for input "
                f"{tuple(y.shape)}; got {got}."
            )
        return extra.to(y.dtype)

    def log_volume(self) -> Tensor:
        r"""Returns the log-volume of ``forward``, in nats per pixel; a scalar.

        :math:`\tfrac12\log\det K^\top K` when widening, :math:`\tfrac12\log\det W W^\top` when
        narrowing. It is a Jacobian's log-determinant for square kernels only.
        """
        return outside_autocast(log_volume, self._kernel()[: self.out_channels])

    def gram_logdet(self) -> Tensor:
        r"""Returns :math:`\log\det K^\top K` of all rows, :math:`K K^\top` for ``rows="m"``."""
        return outside_autocast(gram_logdet, self._kernel())

    def condition_number(self) -> Tensor:
        """Returns the condition number of the stored kernel in the spectral norm; a scalar."""
        with torch.no_grad():
            return outside_autocast(condition_number, self._kernel())

    def clear_cache(self) -> None:
        """Forgets the cached inverse.

        Needed after an edit of a CUDA kernel that autograd does not count.
        """
        self._cache = None

    def _kernel(self) -> Tensor:
        """The kernel; autocast stays out of the products of a parametrization too."""
        weight = self._parameters.get("weight")  # several times as fast as self.weight
        if weight is not None:
            return weight
        device = self._sources()[0].device.type
        if not torch.is_autocast_enabled(device):
            return self.weight
        with torch.autocast(device, enabled=False):
            return self.weight

    @property
    def _is_constrained(self) -> bool:
        """Whether the first rows hold exactly and the others, too many to, by least squares."""
        return self.rows > self.in_channels > self.out_channels and self.layout == "compact"

    def _inverse_matrix(self, weight: Tensor) -> Tensor:
        """The matrix that turns [y; c(y)] into x, in the algebra's dtype."""
        high = weight.to(_algebra_dtype(weight))
        if self.rows < self.in_channels:
            return right_inverse(high)
        if self._is_constrained:
            return constrained_inverse(high, self.out_channels)
        return left_inverse(high)

    def _inverse_kernel(self, y: Tensor) -> Tensor:
        """The inverse in the dtype of ``y`` for its convolution: from the cache where allowed.

        It acts on [y; c(y)], or on y alone where the completion is a matrix and folded into it.
        """
        if not self._may_cache():
            return self._folded(self._checked_inverse(y, entering_cache=False)).to(y.dtype)
        sources = self._sources()
        cache = self._cache
        # a parametrization that is registered later changes the class and the sources
        key = (y.dtype, y.ndim, type(self.completion), type(self), len(sources))
        if cache is not None and cache[0] == key and all(map(is_unchanged, cache[1], sources)):
            return cache[2]
        with torch.inference_mode(mode=False), torch.no_grad():
            matrix = self._folded(self._checked_inverse(y, entering_cache=True)).to(y.dtype)
            kernel = as_kernel(matrix, y.ndim).contiguous()
            if y.device != kernel.device or any(source.is_inference() for source in sources):
                return kernel
            self._cache = (key, snapshot(sources), kernel)
        return kernel

    def _folded(self, matrix: Tensor) -> Tensor:
        """``matrix`` on y alone where c(y) is a matrix times y: [A, B][y; Cy] = (A + BC)y."""
        kind, m = type(self.completion), self.out_channels
        if kind is Zero:
            return matrix[:, :m]
        if kind is Repeat:  # channel j of [y; c(y)] is channel j modulo m of y
            return F.pad(matrix, (0, -self.rows % m)).unflatten(1, (-1, m)).sum(1)
        return matrix

    def _checked_inverse(self, y: Tensor, *, entering_cache: bool) -> Tensor:
        weight = self._kernel()
        if torch.is_autocast_enabled(weight.device.type):
            with torch.autocast(weight.device.type, enabled=False):
                return self._checked_inverse(y, entering_cache=entering_cache)
        matrix = self._inverse_matrix(weight)
        limit = 1 / torch.finfo(weight.dtype).eps
        with torch.no_grad():
            high = weight.detach().to(_algebra_dtype(weight))
            eager = not is_transformed() and not torch.compiler.is_compiling()
            may_raise = eager and (weight.device.type == "cpu" or entering_cache)
            if may_raise:
                # no left inverse is smaller than K's, nor than that of the rows that hold exactly
                bound = torch.linalg.matrix_norm(high) * torch.linalg.matrix_norm(matrix)
            else:
                # where the exact number cannot follow a loose bound, a good kernel of a small
                # dtype would count as singular for its channels alone: 1/eps of bfloat16 is 128
                bound = condition_bound(high, squarings=5)
                if self._is_constrained:
                    # the rows that hold exactly are inverted by themselves too
                    exact_rows = high[: self.out_channels]
                    bound = torch.maximum(bound, condition_bound(exact_rows, squarings=5))
            well_posed = bound <= limit
            if may_raise and not bool(well_posed):
                well_posed = torch.ones_like(well_posed)
                self._raise_if_ill_conditioned(high, limit)
        return torch.where(well_posed, matrix, torch.nan)

    def _raise_if_ill_conditioned(self, high: Tensor, limit: float) -> None:
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
        if not number <= limit:
            dtype = str(self.weight.dtype).removeprefix("torch.")
            raise IllConditionedError(
                f"{self._title()}: the kernel's condition number {number:.3g} is past "
                f"{limit:.3g}, the limit of {dtype}, so its inverse has no correct digit. Start "
                "from other weights, add det_loss, or "
                'use parametrization="orthogonal".'
            )

    def _title(self) -> str:
        return f"WIC({self.extra_repr()})"

    def _sources(self) -> tuple[Tensor, ...]:
        """The parameters and buffers that the kernel is computed from."""
        weight = self._parameters.get("weight")
        if weight is not None:
            return (weight,)
        if not parametrize.is_parametrized(self, "weight"):
            return (self.weight,)
        held: Any = self.parametrizations["weight"]  # type: ignore[index]
        return (*held.parameters(), *held.buffers())

    def _may_cache(self) -> bool:
        return not (
            self.training
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()  # type: ignore[attr-defined]
            or is_transformed()
        )

    def train(self, mode: bool = True) -> WIC:  # noqa: FBT001, FBT002 - torch's own signature
        """Switches between training and evaluation, and forgets the cached inverse."""
        self.clear_cache()
        super().train(mode)
        return self

    def _apply(self, fn: Any, recurse: bool = True) -> WIC:  # noqa: FBT001, FBT002 - torch's own signature
        self.clear_cache()
        super()._apply(fn, recurse)
        return self

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self.clear_cache()
        super()._load_from_state_dict(*args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        state["_cache"] = None
        return state

    def _check(self, x: Tensor, channels: int, what: str) -> None:
        if not 2 <= x.ndim <= 5 or x.shape[1] != channels:
            raise WICShapeError(
                f"{self._title()}: expected {what} of shape (B, {channels}, *spatial) with 0 to 3 "
                f"spatial dimensions; got {tuple(x.shape)}."
            )
        if not x.is_floating_point():
            raise WICArgumentError(
                f"{self._title()}: expected {what} of a real floating-point dtype; got {x.dtype}. "
                "Convert 8-bit pixels with x.float() / 255."
            )

    def _other_rows(self, x: Tensor, weight: Tensor) -> Tensor:
        rest = weight[self.out_channels :]
        if torch.compiler.is_compiling() or not torch.is_grad_enabled():
            return convolve(x, rest)
        # Non-reentrant checkpointing recomputes this forward without the recorder and counts saved
        # tensors: those of the recorded part must not be among them.
        with torch.autograd.graph.saved_tensors_hooks(_keep, _keep):
            return convolve(x, rest)


def _keep(tensor: Tensor) -> Tensor:
    return tensor
