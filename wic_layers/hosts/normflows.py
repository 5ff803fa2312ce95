"""WIC as a normflows flow: for NormalizingFlow, ConditionalNormalizingFlow and MultiscaleFlow.

Directions are normflows': ``forward`` runs from the latent to the data, ``inverse`` from the data
to the latent; both return the log-determinant of the direction just run.
"""

from __future__ import annotations

from numbers import Integral
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError, WICDependencyError
from wic_layers.layer import conv
from wic_layers.layer.kernel import LogDetName

try:
    from normflows.flows import Flow
except ImportError as error:
    raise WICDependencyError(
        "wic_layers.normflows needs normflows. Run: pip install 'wic-layers[normflows]'"
    ) from error

__all__ = ["WIC"]


class WIC(Flow):
    r"""WIC as a normflows flow; the latent may have another number of channels than the data.

    ``inverse(x)``, from data to latent, is the convolution :math:`Kx`; ``forward(z)`` runs it
    backwards. Both return ``(tensor, log_det)`` with ``log_det`` of shape (B,).

    - Square: ``log_prob`` is that of ``normflows.flows.Invertible1x1Conv`` with the same matrix.
    - Latent narrower than the data: an injective flow. Samples lie on the subspace that
      :math:`W^{+}` spans, and ``log_prob`` is the density **on that subspace** (with respect to
      its own volume) of the point of it that has the same latent, :math:`W^{+}Wx`: for x off the
      subspace it does not tell how far off. This needs the minimum-norm inverse, ``rows="m"``,
      which is the default here. It is exact if the WIC comes first on the data's side, or if only
      isometric layers stand between; else take :func:`wic_layers.injective.decoder_log_volume` of
      the whole model. It is no training objective by itself: maximum likelihood alone turns to
      the directions in which the data vary least, so that log_prob rises and less comes back. Add
      the error of what comes back (:func:`wic_layers.injective.joint_loss`).
    - Latent wider than the data: the latent's distribution gives the data no density. Refused
      unless ``log_det="volume"``.

    Args:
        in_channels: Channels of the data.
        out_channels: Channels of the latent.
        log_det: ``"exact"`` (default) refuses to be built where the log-volume is no
            log-determinant; ``"volume"`` returns it there: half of :math:`\log\det K^\top K` (or
            :math:`W W^\top`) times the pixels, a number and no density.
        **arguments: ``completion``, ``rows``, ``layout``, ``parametrization`` and ``dtype`` of
            :class:`wic_layers.WIC`.

    Attributes:
        conv: The :class:`wic_layers.WIC` inside.

    Raises:
        WICArgumentError: For arguments that give no density without ``log_det="volume"``, or are
            out of range.
        WICShapeError: If a tensor has another number of channels.

    References:
        | Glow: Generative Flow with Invertible 1x1 Convolutions (Kingma & Dhariwal, 2018), Section
        | 3.2
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (5)-(14)

    Example:
        >>> import normflows as nf, torch
        >>> flow = nf.NormalizingFlow(
        ...     nf.distributions.DiagGaussian((3, 4, 4)), [WIC(in_channels=12, out_channels=3)]
        ... )
        >>> flow.log_prob(torch.randn(2, 12, 4, 4)).shape
        torch.Size([2])
        >>> flow.sample(2)[0].shape
        torch.Size([2, 12, 4, 4])
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        log_det: LogDetName = "exact",
        **arguments: Any,
    ) -> None:
        super().__init__()
        if log_det not in get_args(LogDetName):
            raise WICArgumentError(f'Expected log_det "exact" or "volume"; got {log_det!r}.')
        if all(isinstance(channels, Integral) for channels in (in_channels, out_channels)):
            arguments = self._with_rows(in_channels, out_channels, log_det == "exact", arguments)
        self.log_det: LogDetName = log_det
        self.conv = conv.WIC(in_channels, out_channels, **arguments)

    @staticmethod
    def _with_rows(n: int, m: int, is_exact: bool, arguments: dict[str, Any]) -> dict[str, Any]:  # noqa: FBT001
        """The arguments with the rows that a density needs; refuses where there is none."""
        if m > n and is_exact:
            raise WICArgumentError(
                f"Expected a latent at most as wide as the data; got {n} -> {m} channels, for "
                "which the data have no density, as most latents belong to no data. With "
                'log_det="volume" it is allowed, and log_prob is then no density.'
            )
        asked = {name: arguments[name] for name in ("layout", "rows") if name in arguments}
        if m < n and not asked and (is_exact or "completion" not in arguments):
            return {**arguments, "rows": "m"}
        if m < n and is_exact and asked != {"rows": "m"}:
            listed = ", ".join(f"{name}={value!r}" for name, value in asked.items())
            raise WICArgumentError(
                f'Expected rows="m" for a latent narrower than the data ({n} -> {m} channels), as '
                f"only the minimum-norm inverse gives a density; got {listed}. With "
                'log_det="volume" it is allowed, and log_prob is then no density.'
            )
        return arguments

    @classmethod
    def around(cls, layer: conv.WIC) -> WIC:
        """Builds a flow around a square layer that exists, which stays the same object.

        Raises:
            WICArgumentError: If the layer is not square.
        """
        if not layer.bijective:
            raise WICArgumentError(
                f"Expected a square layer; got {layer.in_channels} -> {layer.out_channels} "
                "channels."
            )
        with torch.random.fork_rng(devices=[]):
            flow = cls(in_channels=1, out_channels=1)
        flow.conv = layer
        return flow

    if TYPE_CHECKING:

        def __call__(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def forward(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps the latent to the data; ``context`` is not used.

        Returns:
            Data ``(B, in_channels, *spatial)`` and log_det (B,).
        """
        return self.conv.with_log_det(z, rev=True, log_det=self.log_det)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps the data to the latent; ``context`` is not used.

        Returns:
            Latent ``(B, out_channels, *spatial)`` and log_det (B,).
        """
        return self.conv.with_log_det(z, log_det=self.log_det)

    def extra_repr(self) -> str:
        return f'log_det="{self.log_det}"'
