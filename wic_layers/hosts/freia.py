"""WIC and IRN's coupling as FrEIA modules: for SequenceINN, GraphINN and ReversibleGraphNet.

Directions are FrEIA's: ``rev=False`` is ``forward``, ``rev=True`` is ``inverse``, and the second
value returned belongs to the direction just run. FrEIA 0.2 and its current main branch both work;
nothing here depends on where they differ.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from numbers import Integral
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from wic_layers.blocks import AffineCoupling
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.errors import WICArgumentError, WICDependencyError, WICError, WICShapeError
from wic_layers.layer import conv
from wic_layers.layer.kernel import LogDetName

try:
    from FrEIA.modules import InvertibleModule
except ImportError as error:
    raise WICDependencyError(
        "wic_layers.freia needs FrEIA. Run: pip install 'wic-layers[freia]'"
    ) from error

__all__ = ["WIC", "Coupling"]

Dims = Sequence[tuple[int, ...]]


class _Shell(InvertibleModule):
    """What the two modules share: one tensor in, one out, and errors that name their dims."""

    if TYPE_CHECKING:

        def __call__(
            self,
            x_or_z: Iterable[Tensor],
            c: Iterable[Tensor] | None = None,
            rev: bool = False,  # noqa: FBT001, FBT002
            jac: bool = True,  # noqa: FBT001, FBT002
        ) -> tuple[tuple[Tensor], Tensor]: ...

    def __init__(self, dims_in: Dims, dims_c: Dims | None, fewest: int) -> None:
        super().__init__(dims_in, dims_c)
        if len(self.dims_in) != 1:
            raise WICArgumentError(
                f"{self._name}: expected one input; got {len(self.dims_in)}: {self.dims_in}. Join "
                "them with FrEIA's Concat first."
            )
        dims = tuple(int(size) for size in self.dims_in[0])  # FrEIA 0.2 keeps numpy's
        if not 1 <= len(dims) <= 4 or dims[0] < fewest:
            raise WICArgumentError(
                f"{self._name}: expected dims_in [(channels, *spatial)] with at least {fewest} "
                f"channels and 0 to 3 spatial dimensions; got {self.dims_in}."
            )
        self._channels = dims[0]
        self._spatial = dims[1:]

    @property
    def _name(self) -> str:
        return f"wic_layers.freia.{type(self).__name__}"

    def _one(self, x_or_z: Iterable[Tensor], channels: int) -> Tensor:
        """The only tensor, of the right number of channels and dimensions."""
        if isinstance(x_or_z, Tensor):
            raise WICArgumentError(
                f"{self._name}: expected a tuple or list of one tensor, as FrEIA's modules take; "
                f"got a tensor of shape {tuple(x_or_z.shape)}. Write module((x,))."
            )
        found = tuple(x_or_z)
        if len(found) != 1:
            raise WICArgumentError(f"{self._name}: expected one tensor; got {len(found)}.")
        x = found[0]
        if x.ndim != 2 + len(self._spatial) or x.shape[1] != channels:
            sizes = ", ".join(("B", str(channels), *("*" for _ in self._spatial)))
            raise WICShapeError(
                f"{self._name} built for {tuple(self.dims_in[0])}: expected a tensor of shape "
                f"({sizes}); got {tuple(x.shape)}."
            )
        return x

    def _output_dims(self, input_dims: Dims, channels: int) -> list[tuple[int, ...]]:
        dims = [tuple(entry) for entry in input_dims]
        fits = len(dims) == 1 and len(dims[0]) == 1 + len(self._spatial)
        if not fits or dims[0][0] != self._channels:
            raise WICArgumentError(
                f"{self._name}: expected input_dims like those it was built for, {self.dims_in}; "
                f"got {dims}."
            )
        return [(channels, *dims[0][1:])]


class WIC(_Shell):
    r"""WIC as a FrEIA module: the number of channels may change inside a graph.

    ``log_det``, the second value, has shape (B,): :math:`\text{pixels} \cdot \tfrac12 \log\det
    K^\top K` when widening, :math:`\text{pixels} \cdot \tfrac12 \log\det W W^\top` when narrowing,
    and exactly its negative with ``rev=True``. For square kernels it is the log-determinant of
    the Jacobian, and with ``rows="m"`` that of the density on a subspace; for others it is the
    log-volume of the linear map, which is no density of the data. FrEIA's graphs add it up whether
    it is wanted or not, so it comes there too; but differentiating it, as maximum likelihood does,
    raises unless ``log_det="volume"`` says that it is meant. (Under ``torch.compile`` and vmap,
    where no error can depend on numbers, the gradient is NaN; forward-mode differentiation is not
    looked at.)

    Like other convolutions it runs on images of other sizes than it was built for; channels and
    the number of spatial dimensions must be those.

    Args:
        dims_in: ``[(channels, *spatial)]``, given by FrEIA; 0 to 3 spatial dimensions.
        dims_c: Given by FrEIA; must be empty, as the layer takes no conditions.
        out_channels: Channels of the result.
        log_det: ``"exact"`` (default) lets nobody differentiate a log-volume that is no density;
            ``"volume"`` does.
        **arguments: ``completion``, ``rows``, ``layout``, ``parametrization`` and ``dtype`` of
            :class:`wic_layers.WIC`.

    Attributes:
        conv: The :class:`wic_layers.WIC` inside.

    Raises:
        WICArgumentError: For dims or arguments that it cannot be built from.
        WICShapeError: If a tensor has another number of channels or dimensions. Inside a GraphINN
            it is the cause of the RuntimeError that names the node.
        WICError: In ``backward``, if a log-volume that is no density has a gradient other than 0.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (5)-(14)

    Example:
        >>> from FrEIA.framework import SequenceINN
        >>> inn = SequenceINN(12, 8, 8)
        >>> inn.append(WIC, out_channels=48)
        >>> x = torch.randn(2, 12, 8, 8)
        >>> y, log_det = inn(x)
        >>> y.shape, log_det.shape
        (torch.Size([2, 48, 8, 8]), torch.Size([2]))
        >>> torch.allclose(inn(y, rev=True)[0], x, atol=1e-5)
        True
    """

    def __init__(
        self,
        dims_in: Dims,
        dims_c: Dims | None = None,
        *,
        out_channels: int,
        log_det: LogDetName = "exact",
        **arguments: Any,
    ) -> None:
        super().__init__(dims_in, dims_c, fewest=1)
        if log_det not in get_args(LogDetName):
            raise WICArgumentError(
                f'{self._name}: expected log_det "exact" or "volume"; got {log_det!r}.'
            )
        if self.dims_c:
            raise WICArgumentError(
                f"{self._name}: expected no conditions; got {self.dims_c}. A convolution with a "
                "fixed kernel cannot use them."
            )
        self.log_det: LogDetName = log_det
        self.conv = conv.WIC(self._channels, out_channels, **arguments)

    @classmethod
    def around(cls, layer: conv.WIC, dims_in: Dims, *, log_det: LogDetName = "exact") -> WIC:
        """Builds a module around a layer that exists, which stays the same object.

        Args:
            layer: The layer.
            dims_in: ``[(layer.in_channels, *spatial)]``.
            log_det: As for the class.

        Raises:
            WICArgumentError: If the dims have another number of channels than the layer takes.
        """
        with torch.random.fork_rng(devices=[]):
            module = cls(dims_in, out_channels=1, log_det=log_det)
        if layer.in_channels != module._channels:
            raise WICArgumentError(
                f"{module._name}: expected dims_in with the layer's {layer.in_channels} channels; "
                f"got {list(dims_in)}."
            )
        module.conv = layer
        return module

    def forward(
        self,
        x_or_z: Iterable[Tensor],
        c: Iterable[Tensor] | None = None,
        rev: bool = False,  # noqa: FBT001, FBT002 - FrEIA's signature
        jac: bool = True,  # noqa: FBT001, FBT002
    ) -> tuple[tuple[Tensor], Tensor]:
        """Maps ``(x,)`` to ``((y,), log_det)``, whatever ``jac`` says.

        FrEIA's own modules do the same, and its distributions add up what comes back with
        ``jac=False``.
        """
        conditions = () if c is None else tuple(c)
        if conditions:
            raise WICArgumentError(
                f"{self._name}: expected no conditions; got {len(conditions)}. A convolution with "
                "a fixed kernel cannot use them."
            )
        layer = self.conv
        x = self._one(x_or_z, layer.out_channels if rev else layer.in_channels)
        y, log_det = layer.with_log_det(x, rev=rev, log_det="volume")
        if self.log_det == "exact" and log_det.requires_grad and not layer.log_det_is_exact:
            log_det = _guarded(log_det, layer._title())
        return (y,), log_det

    def output_dims(self, input_dims: Dims) -> list[tuple[int, ...]]:
        """Returns ``[(out_channels, *spatial)]``."""
        return self._output_dims(input_dims, self.conv.out_channels)


def _guarded(volume: Tensor, title: str) -> Tensor:
    """The same numbers, which let no gradient through but zeros."""
    if torch.compiler.is_compiling():
        guarded: Tensor = _NaNInBackward.apply(volume)
        return guarded
    volume.register_hook(partial(_refuse, title))
    return volume


def _refuse(title: str, gradient: Tensor) -> Tensor | None:
    try:
        is_wanted = bool(gradient.any())
    except RuntimeError:  # under vmap and while traced, where no number can be read
        return _nan_but_zeros(gradient)
    if is_wanted:  # reentrant checkpointing sends zeros into outputs that nobody used
        raise WICError(
            f"wic_layers.freia.{title}: expected a loss without log_det, which here is no "
            "log-determinant of a density, so that maximum likelihood has no meaning; got a "
            'gradient for it. Take it out of the loss, build the layer with rows="m" where it '
            'narrows, or with log_det="volume" if the number itself is meant.'
        )
    return None


def _nan_but_zeros(gradient: Tensor) -> Tensor:
    return torch.where(gradient == 0, gradient, torch.nan)


class _NaNInBackward(torch.autograd.Function):
    """The identity, whose gradient is NaN where it is not 0."""

    @staticmethod
    def forward(ctx: Any, volume: Tensor) -> Tensor:
        return volume.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return _nan_but_zeros(gradient)


class Coupling(_Shell):
    r"""IRN's coupling as a FrEIA module, so that IRN can be drawn as a graph.

    .. math:: y_1 = x_1 + F(x_2),\quad s = c\,(2\sigma(H(y_1)) - 1),\quad y_2 = x_2 e^{s} + G(y_1)

    Both halves are shifted and only the second is scaled. Conditions are put behind the input of
    F, G and H along the channels. ``log_det`` is exact, of shape (B,), in float32 for smaller
    dtypes.

    Args:
        dims_in: ``[(channels, *spatial)]``, given by FrEIA.
        dims_c: Of the conditions, with the spatial dims of the input; given by FrEIA.
        subnet_constructor: Builds F, G, H from (in_channels, out_channels); IRN's dense block,
            which takes images, when None.
        clamp: Largest :math:`|s|`: 1 in IRN, 2 in HiNet.
        split_len: Channels of :math:`x_1`, or their fraction as a float.

    Attributes:
        coupling: The :class:`wic_layers.blocks.AffineCoupling` inside.

    Raises:
        WICArgumentError: For dims or arguments that it cannot be built from.
        WICShapeError: If a tensor has another number of channels or dimensions.

    References:
        | Invertible Image Rescaling (Xiao et al., 2020), Eq. (3)-(4)
    """

    def __init__(
        self,
        dims_in: Dims,
        dims_c: Dims | None = None,
        *,
        subnet_constructor: Callable[[int, int], nn.Module] | None = None,
        clamp: float = 1.0,
        split_len: float | int = 0.5,
    ) -> None:
        super().__init__(dims_in, dims_c, fewest=2)
        if subnet_constructor is None and len(self._spatial) != 2:
            raise WICArgumentError(
                f"{self._name}: expected dims_in (channels, height, width), which the dense block "
                f"takes; got {self.dims_in}. Give a subnet_constructor."
            )
        for dims in self.dims_c:
            if tuple(dims[1:]) != self._spatial:
                raise WICArgumentError(
                    f"{self._name}: expected conditions with the input's spatial dims "
                    f"{self._spatial}; got {self.dims_c}."
                )
        is_count = isinstance(split_len, Integral)
        self.coupling = AffineCoupling(
            self._channels,
            split=int(split_len) if is_count else round(self._channels * split_len),
            clamp=clamp,
            condition=sum(dims[0] for dims in self.dims_c),
            subnet=DenseBlock if subnet_constructor is None else subnet_constructor,
        )

    def forward(
        self,
        x_or_z: Iterable[Tensor],
        c: Iterable[Tensor] | None = None,
        rev: bool = False,  # noqa: FBT001, FBT002 - FrEIA's signature
        jac: bool = True,  # noqa: FBT001, FBT002
    ) -> tuple[tuple[Tensor], Tensor]:
        """Maps ``(x,)`` to ``((y,), log_det)``, whatever ``jac`` says."""
        x = self._one(x_or_z, self._channels)
        if isinstance(c, Tensor):
            raise WICArgumentError(
                f"{self._name}: expected c as a tuple or list of conditions; got a tensor of "
                f"shape {tuple(c.shape)}. Write c=[condition]."
            )
        conditions = [] if c is None else list(c)
        if len(conditions) != len(self.dims_c):
            raise WICArgumentError(
                f"{self._name}: expected {len(self.dims_c)} conditions; got {len(conditions)}."
            )
        for condition, dims in zip(conditions, self.dims_c, strict=True):
            expected = (x.shape[0], dims[0], *x.shape[2:])
            if tuple(condition.shape) != expected:
                raise WICShapeError(
                    f"{self._name}: expected a condition of shape {expected} for input "
                    f"{tuple(x.shape)}; got {tuple(condition.shape)}."
                )
        seen = torch.cat(conditions, dim=1) if conditions else None
        y, scale = (self.coupling.uncouple if rev else self.coupling.couple)(x, seen)
        # smaller dtypes cannot hold the sum over an image
        wide = torch.promote_types(scale.dtype, torch.float32)
        log_det = scale.flatten(1).sum(1, dtype=wide)
        return (y,), -log_det if rev else log_det

    def output_dims(self, input_dims: Dims) -> list[tuple[int, ...]]:
        """Returns ``input_dims``."""
        return self._output_dims(input_dims, self._channels)
