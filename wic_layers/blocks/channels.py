"""ChannelMean and Latent: channels that become one, and channels that are added."""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

from wic_layers.blocks.block import InvertibleBlock, check_channels, title_of
from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.layer.completion import Completion, CompletionName, Repeat, Shift
from wic_layers.layer.conv import WIC

__all__ = [
    "ChannelMean",
    "Latent",
]


class ChannelMean(InvertibleBlock):
    """The mean of groups of channels: (B, groups C, ...) to (B, C, ...); repeated on the way back.

    ``forward(inverse(y)) == y``: a layer before it may use all its channels, if it learns to make
    the groups alike.

    Args:
        groups: How many groups of C channels come in, one behind the other.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Section
        | 3.4 (channel squeeze)

    Raises:
        WICShapeError: If the channels are not divisible by ``groups``.
    """

    def __init__(self, groups: int) -> None:
        super().__init__()
        if groups < 1:
            raise WICArgumentError(f"Expected groups of at least 1; got {groups!r}.")
        self.groups = groups

    def _forward(self, x: Tensor) -> Tensor:
        if x.ndim < 2 or x.shape[1] % self.groups:
            raise WICShapeError(
                f"{self}: expected channels divisible by {self.groups}; got {tuple(x.shape)}."
            )
        return x.unflatten(1, (self.groups, -1)).mean(1)

    def _inverse(self, y: Tensor) -> Tensor:
        return torch.cat([y] * self.groups, dim=1)

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`InvertibleBlock.shape_after`."""
        return channels // self.groups, side

    def as_wic(
        self, out_channels: int, completion: CompletionName | Completion | None = None
    ) -> WIC:
        r"""Returns a layer to stand here, that starts as this block in both directions.

        Its first rows are the mean; the others compare the G groups by vectors :math:`q` that are
        orthonormal and sum to zero, which is what the completion is for:

        .. math:: y = \frac{1}{G} \sum_g x_g, \quad
            e_k = \sum_g q_{kg} x_g, \quad x_g = y + \sum_k q_{kg} c_k(y)

        Groups that are alike have :math:`e = 0`, what ``"zero"`` and an untrained ``"learned"``
        say. Completions that say :math:`y` itself, or it from a pixel away (``"repeat"``,
        ``"shift"``), are for :math:`e_k + y`.

        Args:
            out_channels: Channels C of a group.
            completion: See :class:`~wic_layers.WIC`.

        Raises:
            WICArgumentError: If there is one group only, and so nothing to complete.
        """
        groups = self.groups
        if groups < 2:
            raise WICArgumentError("Expected at least 2 groups, of which a WIC drops; got 1.")
        # Helmert's contrasts: each group against those before it
        rows = torch.ones(groups, groups, dtype=torch.float64).tril(-1)
        rows -= torch.arange(groups, dtype=torch.float64).diag()
        rows[0] = 1
        rows[1:] /= rows[1:].norm(dim=1, keepdim=True)
        rows[0] /= groups
        if isinstance(completion, (Repeat, Shift)) or completion in ("repeat", "shift"):
            rows[1:] += rows[0]
        kernel = torch.kron(rows, torch.eye(out_channels, dtype=torch.float64))
        return WIC.from_kernel(
            kernel.to(torch.get_default_dtype()), out_channels, completion=completion
        )

    def extra_repr(self) -> str:
        return f"{self.groups}"


class Latent(InvertibleBlock):
    """Room for a latent: zeros behind the channels of every image, which go on the way back.

    ``inverse(forward(x)) == x``, and ``inverse(join(x, w)) == x`` for every w.

    Args:
        channels: Channels of the latent, of all images together.
        groups: How many images stand in the channels of the input, one behind the other.

    Shape:
        (B, C, H, W) to (B, C + channels, H, W).

    Raises:
        WICArgumentError: If there are no channels, or the images cannot share them.
        WICShapeError: If the channels of the input cannot be grouped, or w has another shape.

    References:
        | Enhancing Image Rescaling using Dual Latent Variables in Invertible Neural Network (Zhang
        | et al., 2022), Section 3.3
    """

    def __init__(self, channels: int, groups: int = 1) -> None:
        super().__init__()
        if groups < 1 or channels < 1 or channels % groups:
            raise WICArgumentError(
                f"Expected channels of a latent that {groups} images can share; got {channels}."
            )
        self.channels = channels
        self.groups = groups

    def _forward(self, x: Tensor) -> Tensor:
        return self.join(x, x.new_zeros((x.shape[0], self.channels, *x.shape[2:])))

    def join(self, x: Tensor, w: Tensor) -> Tensor:
        """Puts a latent ``w``, (B, channels, H, W), where ``forward`` puts zeros."""
        check_channels(x, self.groups, self)
        if w.shape != (x.shape[0], self.channels, *x.shape[2:]):
            raise WICShapeError(
                f"{self}: expected w of shape {(x.shape[0], self.channels, *x.shape[2:])}; got "
                f"{tuple(w.shape)}."
            )
        parts = [z.unflatten(1, (self.groups, -1)) for z in (x, w)]
        return torch.cat(parts, dim=2).flatten(1, 2)

    def _inverse(self, y: Tensor) -> Tensor:
        check_channels(y, self.groups, self)
        if y.shape[1] <= self.channels:
            raise WICShapeError(
                f"{title_of(self)}: expected more than {self.channels} channels; got shape "
                f"{tuple(y.shape)}."
            )
        images = y.unflatten(1, (self.groups, -1))
        return images[:, :, : -(self.channels // self.groups)].flatten(1, 2)

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`InvertibleBlock.shape_after`."""
        return channels + self.channels, side

    def extra_repr(self) -> str:
        return f"{self.channels}" + (f", {self.groups}" if self.groups > 1 else "")
