"""WIC: a 1x1 convolution between any numbers of channels that runs backwards."""

from __future__ import annotations

import math
import operator
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.layer.cache import Entries, computed
from wic_layers.layer.completion import Completion, CompletionName, Shift, check_name, resolve
from wic_layers.layer.functional import from_algebra
from wic_layers.layer.kernel import LogDetName, RectangularKernel, check_log_det, wide_dtype
from wic_layers.layer.losses import append_record, is_recording
from wic_layers.layer.parametrization import ParametrizationName, parametrize_kernel
from wic_layers.layer.pointwise import convolve, has_values

__all__ = ["WIC"]

_KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class WIC(RectangularKernel):
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
    :math:`[y; c(y)]` or x, with the precision :math:`\epsilon` of the input's dtype
    (:func:`wic_layers.testing.round_trip_limit` has c); with ``rows`` above n
    :math:`\kappa(K) \, \lVert K \rVert \, \lVert W^{+} \rVert` stands for :math:`\kappa(K)`.

    The algebra runs in float64, on the CPU where the device has none, and the convolution in
    the input's dtype, both outside autocast. With gradients off the inverse is cached, and
    dropped by ``train()``, ``eval()``, ``.to()`` and loading; it is never in the state dict. On a
    CPU the cache compares the kernel with a copy, so that any edit is seen; on other devices
    there is one in ``eval()`` only, and an edit that bypasses autograd's version counter there
    (``.data``, fused optimizers) needs :meth:`clear_cache`.

    Args:
        in_channels: Channels n of the input of ``forward``.
        out_channels: Channels m of its output.
        completion: What stands in for dropped channels: ``"zero"``, ``"repeat"``, ``"shift"``,
            ``"learned"``, ``"gaussian"`` (random, the baseline), or any callable
            :math:`(B, m, *s) \to (B, M - m, *s)`. By default zeros, which no other choice beat
            (``benchmarks/completions.py``), and the paper's shift with ``layout="published"``;
            where nothing is dropped it is not used.
        rows: Only when narrowing. ``"n"`` (default): :math:`M = n`, the inverse of a square
            kernel. ``"m"``: :math:`M = m`, the minimum-norm inverse
            :math:`W^\top (W W^\top)^{-1}`; takes only the zero completion. A number :math:`M > n`:
            x solves :math:`\min \lVert K_{inc} x - c(y) \rVert` subject to :math:`Wx = y`.
        layout: ``"published"`` builds what the authors' code builds when narrowing:
            :math:`M = \lceil n/m \rceil m` rows, their order of shifts and the Moore-Penrose
            inverse of all rows. ``forward(inverse(y)) == y`` does **not** hold there where m does
            not divide n.
        parametrization: ``"free"``, ``"orthogonal"``, ``"lu"`` (Glow's), or
            ``"fixed"``: a buffer that is not trained, with which a layer does what networks
            without WIC do: it keeps the first channels and completes the others.
        device: Device of the kernel.
        dtype: Dtype of the kernel: float16, bfloat16, float32 or float64.

    Attributes:
        weight: The kernel, shape :math:`(M, n)`; starts as a random matrix with orthonormal rows
            or columns, a fixed one as the identity.
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
        >>> narrow = WIC(12, 3)
        >>> torch.allclose(narrow(narrow.inverse(x)), x, atol=1e-5)
        True
    """

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
        in_channels = _whole(in_channels, 1, "in_channels as an int of at least 1")
        out_channels = _whole(out_channels, 1, "out_channels as an int of at least 1")
        if layout not in ("compact", "published"):
            raise WICArgumentError(f'Expected layout "compact" or "published"; got {layout!r}.')
        if parametrization not in get_args(ParametrizationName):
            names = " or ".join(f'"{name}"' for name in get_args(ParametrizationName))
            raise WICArgumentError(f"Expected parametrization {names}; got {parametrization!r}.")
        dtype = torch.get_default_dtype() if dtype is None else dtype
        if dtype not in _KERNEL_DTYPES:
            raise WICArgumentError(
                f"Expected a kernel of dtype float16, bfloat16, float32 or float64; got {dtype}."
            )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.layout = layout
        self.parametrization = parametrization
        self.rows = self._resolve_rows(rows, completion)
        self.bijective = in_channels == out_channels
        self.weight = nn.Parameter(torch.empty(self.rows, in_channels, device=device, dtype=dtype))
        self.completion = self._resolve_completion(completion)
        is_default = device is None and dtype == torch.get_default_dtype()
        if isinstance(completion, str) and self.completion is not None and not is_default:
            self.completion.to(device=device, dtype=dtype)
        self.reset_parameters()
        if parametrization != "free":
            parametrize_kernel(self, parametrization)

    @classmethod
    def from_kernel(cls, kernel: Tensor, out_channels: int | None = None, **arguments: Any) -> WIC:
        """Builds a layer that has this kernel.

        Args:
            kernel: :math:`K`, shape (M, n). An ``nn.Parameter`` becomes the weight itself, so that
                an optimizer that holds it goes on; another tensor is copied. (With a
                ``parametrization`` both are factorised into new parameters.)
            out_channels: m; M when None. Rows after the m-th are those of the dropped channels.
            **arguments: ``completion``, ``layout`` and ``parametrization`` as for the class.

        Raises:
            WICShapeError: If the kernel is not a matrix, or has another number of rows than the
                arguments ask for.
            WICArgumentError: For an argument that is out of range.

        Example:
            >>> layer = WIC.from_kernel(2 * torch.eye(3))
            >>> layer.inverse(layer(torch.ones(1, 3))).detach()
            tensor([[1., 1., 1.]])
        """
        if kernel.ndim != 2:
            raise WICShapeError(
                f"Expected a kernel of shape (M, n); got {tuple(kernel.shape)}. "
                "Flatten the trailing ones of a convolution's first."
            )
        count, n = kernel.shape
        m = count if out_channels is None else out_channels
        if m < n and arguments.get("layout", "compact") == "compact":
            arguments["rows"] = "m" if count == m else count
        # a kernel that is not kept takes no random numbers from the caller
        draws = arguments.get("completion") == "learned"
        with torch.random.fork_rng(devices=[], enabled=not draws):
            layer = cls(n, m, **arguments, device=kernel.device, dtype=kernel.dtype)
        if layer.rows != count:
            raise WICShapeError(
                f"{layer._title()}: expected a kernel of shape ({layer.rows}, {n}); got "
                f"{tuple(kernel.shape)}."
            )
        if layer.parametrization == "free":
            own = isinstance(kernel, nn.Parameter)
            layer.weight = kernel if own else nn.Parameter(_copied(kernel))
        elif layer.parametrization == "fixed":
            layer.weight.copy_(kernel.detach())
        else:
            layer.weight = _copied(kernel)
            off, largest = (
                (layer.weight - kernel).detach().abs().max(),
                kernel.detach().abs().max(),
            )
            # the dtype's own rounding is no sign that it cannot be held
            slack = max(1e-3, 8 * torch.finfo(kernel.dtype).eps)
            if has_values(off) and not float(off) <= slack * float(largest):
                raise WICArgumentError(
                    f"{layer._title()}: expected a kernel that this parametrization can hold; "
                    f'got one that comes out {float(off):.3g} off. Leave parametrization="free".'
                )
        return layer

    def _resolve_rows(self, rows: object, completion: object) -> int:
        n, m = self.in_channels, self.out_channels
        if m >= n:
            if rows is not None:
                raise WICArgumentError(
                    f"Expected rows only where channels are dropped; got rows={rows!r} with {n} "
                    f"-> {m} channels. Leave it out."
                )
            if isinstance(completion, str):  # not used here, but a wrong name is an error
                check_name(completion)
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
        return _whole(rows, n, f'rows "n", "m" or an int of at least in_channels = {n}')

    def _resolve_completion(
        self, completion: CompletionName | Completion | None
    ) -> Completion | None:
        kept, missing = self.out_channels, self.rows - self.out_channels
        if not missing:
            return None
        if completion is None:
            completion = "shift" if self.layout == "published" else "zero"
        if completion == "shift":
            order: Literal["nearest", "published"] = (
                "published" if self.layout == "published" else "nearest"
            )
            return Shift(kept, missing, order=order)
        return resolve(completion, kept, missing)

    def reset_parameters(self) -> None:
        """Draws a kernel with orthonormal columns, or rows where it is wide; a fixed one is I."""
        self.clear_cache()
        if all(source.is_meta for source in self._sources()):
            return  # there is no memory to draw it into
        start = torch.eye(self.rows, self.in_channels, dtype=torch.float64)
        if self.parametrization != "fixed":
            nn.init.orthogonal_(start)
        with torch.no_grad():
            if parametrize.is_parametrized(self, "weight"):
                self.weight = start.to(self._sources()[0])
            else:
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

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - as IRN calls it
        r"""Maps (B, n, \*spatial) to (B, m, \*spatial); with ``rev=True`` it is :meth:`inverse`.

        Raises:
            WICShapeError: If the number of channels or of dimensions is another.
            WICArgumentError: If the input is not of a real floating-point dtype.
        """
        if rev:
            return self._inverse(x)
        free = self._parameters.get("weight") is not None
        return self._there(x, None if free else self._entries())

    def inverse(self, y: Tensor) -> Tensor:
        r"""Maps (B, m, \*spatial) back to (B, n, \*spatial).

        Raises:
            WICShapeError: If the number of channels or of dimensions is another.
            WICArgumentError: If the input is not of a real floating-point dtype.
            IllConditionedError: If the kernel's condition number is past 4.5e15, 1/eps of the
                float64 that the inverse is computed in, eagerly on a CPU and wherever an inverse
                enters the cache; elsewhere the result is NaN.
        """
        return super().inverse(y)

    def with_log_det(
        self, x: Tensor, *, rev: bool = False, log_det: LogDetName = "exact"
    ) -> tuple[Tensor, Tensor]:
        r"""Runs ``forward`` (with ``rev`` :meth:`inverse`) and returns the log-volume with it.

        For hosts that add up log-determinants. The second value is :meth:`log_volume` times the
        number of pixels, for every sample, and its exact negative with ``rev``: for square
        kernels the Jacobian's log-determinant, for ``rows="m"`` that of the density on the
        subspace. Elsewhere it is no density and must be asked for by name, ``log_det="volume"``.

        Returns:
            The result, and the log-volume in nats, shape (B,), in memory of its own; in float32
            for smaller dtypes, which cannot hold that of an image.

        Raises:
            WICArgumentError: If it is no density and ``log_det`` is ``"exact"``.
        """
        check_log_det(self, log_det)
        y: Tensor = self(x, rev=rev)
        entries = self._entries()
        shape: tuple[int, ...] = x.shape
        pixels = math.prod(shape[2:]) * (-1 if rev else 1)
        if entries is None:
            volume, dtype = self._volume_of_rows(self.out_channels)
            total = from_algebra(volume * pixels, x, wide_dtype(dtype, x.dtype))
            return y, total.expand(shape[0]).clone()

        def compute() -> tuple[float, torch.dtype]:
            volume, dtype = self._volume_of_rows(self.out_channels)
            return float(volume), wide_dtype(dtype, x.dtype)

        value, dtype = computed(entries, ("log_volume", x.dtype), compute)
        return y, torch.full((shape[0],), value * pixels, dtype=dtype, device=x.device)

    def _there(self, x: Tensor, entries: Entries | None) -> Tensor:
        self._check(x, self.in_channels, "input")
        weight = self._kernel(entries)
        if self.out_channels == self.rows:
            y = convolve(x, weight)
            if self.out_channels < self.in_channels and is_recording():
                append_record(self, y, y[:, :0])
            return y
        y = convolve(x, weight[: self.out_channels])
        if is_recording():
            append_record(self, y, self._other_rows(x, weight))
        return y

    def _inverse(self, y: Tensor) -> Tensor:
        self._check(y, self.out_channels, "input")
        kernel = self._inverse_kernel(y, self._entries())
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


def _whole(value: object, least: int, expected: str) -> int:
    """An int of any library (numpy's too), but no bool; raises with what was expected."""
    if not isinstance(value, bool) and hasattr(value, "__index__"):
        number = operator.index(value)
        if number >= least:
            return number
    # FrEIA's graphs give a module lists of sizes
    hint = " In FrEIA write wic_layers.freia.WIC." if isinstance(value, (list, tuple)) else ""
    raise WICArgumentError(f"Expected {expected}; got {value!r}.{hint}")


def _copied(kernel: Tensor) -> Tensor:
    """A copy in rows, which is how files hold it, whatever the kernel is a view of."""
    return kernel.detach().clone(memory_format=torch.contiguous_format)


def _keep(tensor: Tensor) -> Tensor:
    return tensor
