"""The blocks for one direction: constants, convolutions and reshapes, nothing that is inverted.

Plain enough for ``torch.jit.script``. Constants are computed in float64, joined where they stand
side by side, and rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wic_layers.blocks import AffineCoupling
from wic_layers.blocks.dense_block import DenseBlock, has_hooks
from wic_layers.errors import WICArgumentError, WICShapeError
from wic_layers.layer.completion import Completion, Shift, mirrored
from wic_layers.layer.pointwise import convolve

__all__ = [
    "Bands",
    "Completed",
    "Couple",
    "Dense",
    "Lower",
    "Matrix",
    "Mean",
    "Memory",
    "Pixels",
    "Related",
    "Repeated",
    "Shifted",
    "Uncouple",
    "WithLatent",
    "WithoutLatent",
    "joined",
    "lowered",
]


class Matrix(nn.Module):
    """A constant 1x1 convolution.

    Args:
        matrix: Shape (M, n), in the dtype of the algebra.
        dtype: What it is rounded to by :func:`joined`.
    """

    if TYPE_CHECKING:  # torch.jit.script cannot read it
        kernel: Tensor

    def __init__(self, matrix: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("kernel", matrix.detach().clone()[..., None, None])
        self.stored = dtype

    @property
    def matrix(self) -> Tensor:
        """The constant, shape (M, n)."""
        return self.kernel.flatten(1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, n, *spatial) to (B, M, *spatial)."""
        if not torch.jit.is_scripting():  # type: ignore[attr-defined]
            return convolve(x, self.kernel if x.ndim == 4 else self.matrix)
        kernel = self.kernel.to(x.dtype)
        if x.dim() == 4:
            return F.conv2d(x, kernel)
        flat = kernel.flatten(1)
        if x.dim() == 2:
            return F.linear(x, flat)
        shape = list(x.shape)
        shape[1] = flat.shape[0]
        return torch.matmul(flat, x.flatten(2)).reshape(shape)

    def extra_repr(self) -> str:
        return f"{self.kernel.shape[1]}, {self.kernel.shape[0]}"


class Shifted(nn.Module):
    """A matrix on y and its shifted copies: one convolution of y, whose border is reflected.

    Args:
        matrix: Shape (n, M), on the channels of [y; shift(y)].
        shift: The completion.
        dtype: See :class:`Matrix`.
    """

    if TYPE_CHECKING:
        kernel0: Tensor
        kernel1: Tensor
        kernel2: Tensor
        kernel3: Tensor

    def __init__(self, matrix: Tensor, shift: Shift, dtype: torch.dtype) -> None:
        super().__init__()
        self.stored = dtype
        self.reaches = []
        for rank, offsets in enumerate(shift._offsets):
            if shift.order == "published" and rank != 2:
                self.reaches.append(-1)
                self.register_buffer(f"kernel{rank}", matrix.new_zeros(0))
                continue
            reach = max((abs(step) for offset in offsets for step in offset), default=0)
            kernel = matrix.new_zeros(
                len(matrix), shift.in_channels, *(2 * reach + 1 for _ in range(rank))
            )
            # y itself, then as many channels of each group as there are
            for index, offset in enumerate([(0,) * rank, *offsets]):
                columns = matrix.detach()[:, index * shift.in_channels :][:, : shift.in_channels]
                place: Any = (..., *(reach - step for step in offset))
                kernel[:, : columns.shape[1]][place] += columns
            self.reaches.append(reach)
            self.register_buffer(f"kernel{rank}", kernel)

    def forward(self, y: Tensor) -> Tensor:
        """Maps (B, m, *spatial) to (B, n, *spatial)."""
        rank = y.dim() - 2
        reach = self.reaches[rank]
        if reach < 0:
            raise WICShapeError("Expected images (B, C, H, W), as the published order of shifts.")
        for axis in range(rank):
            size = y.shape[axis + 2]
            index = torch.arange(size + 2 * reach, device=y.device) - reach
            y = y.index_select(axis + 2, mirrored(index, size))
        if rank == 2:
            return F.conv2d(y, self.kernel2.to(y.dtype))
        if rank == 0:
            return F.linear(y, self.kernel0.to(y.dtype))
        if rank == 1:
            return F.conv1d(y, self.kernel1.to(y.dtype))
        return F.conv3d(y, self.kernel3.to(y.dtype))

    def extra_repr(self) -> str:
        return f"{self.kernel2.shape[1]}, {self.kernel2.shape[0]}, reach={self.reaches[2]}"


class Completed(nn.Module):
    """A matrix on y and what a completion makes of it.

    Args:
        matrix: Shape (n, M), on the channels of [y; c(y)].
        completion: c.
        dtype: See :class:`Matrix`.
    """

    def __init__(self, matrix: Tensor, completion: Completion, dtype: torch.dtype) -> None:
        super().__init__()
        self.completion = completion
        self.matrix = Matrix(matrix, dtype)

    def forward(self, y: Tensor) -> Tensor:
        """Maps (B, m, *spatial) to (B, n, *spatial)."""
        extra = self.completion(y).to(y.dtype)
        return self.matrix(torch.cat((y, extra), dim=1))


class Mean(nn.Module):
    """The mean of groups of channels."""

    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, groups C, *spatial) to (B, C, *spatial)."""
        return torch.stack(x.chunk(self.groups, dim=1)).mean(dim=0)

    def extra_repr(self) -> str:
        return f"{self.groups}"


class Repeated(Mean):
    """The channels once for every group."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, *spatial) to (B, groups C, *spatial)."""
        return torch.cat([x] * self.groups, dim=1)


class WithLatent(nn.Module):
    """Zeros behind the channels of every image, where a latent stands in training.

    Args:
        channels: Channels of the latent, of all images together.
        groups: How many images stand in the channels of the input.
    """

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.channels = channels
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C + channels, H, W)."""
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        images = x.reshape(batch, self.groups, x.shape[1] // self.groups, height, width)
        latent = images.new_zeros(
            [batch, self.groups, self.channels // self.groups, height, width]
        )
        return torch.cat([images, latent], dim=2).reshape(batch, -1, height, width)


class WithoutLatent(WithLatent):
    """The channels of the images, without those of the latent."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C + channels, H, W) to (B, C, H, W)."""
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        images = x.reshape(batch, self.groups, x.shape[1] // self.groups, height, width)
        kept = images.shape[2] - self.channels // self.groups
        return images[:, :, :kept].reshape(batch, -1, height, width)


class Bands(nn.Module):
    """Squares of pixels into sub-bands by one matrix, all channels of a sub-band together.

    Args:
        matrix: Shape (f², f²), from the pixels of a square, row by row, to its sub-bands.
        factor: Side f of the square.
        groups: How many images stand in the channels, whose sub-bands stay together.
        dtype: See :class:`Matrix`.
    """

    def __init__(self, matrix: Tensor, factor: int, groups: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.matrix = Matrix(matrix, dtype)
        self.factor = factor
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, H, W) to (B, C f², H/f, W/f)."""
        batch, channels, bands = x.shape[0], x.shape[1], self.factor * self.factor
        squares = F.pixel_unshuffle(x, self.factor)
        height, width = squares.shape[2], squares.shape[3]
        found = self.matrix(squares.reshape(batch * channels, bands, height, width))
        grouped = (batch, self.groups, channels // self.groups, bands, height, width)
        return found.reshape(grouped).transpose(2, 3).reshape(batch, -1, height, width)

    def extra_repr(self) -> str:
        return f"{self.factor}, groups={self.groups}"


class Pixels(Bands):
    """Sub-bands into squares of pixels by one matrix, from the sub-bands of a square to them."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C f², h, w) to (B, C, f h, f w)."""
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        bands = self.factor * self.factor
        channels = x.shape[1] // bands
        grouped = (batch, self.groups, bands, channels // self.groups, height, width)
        found = x.reshape(grouped).transpose(2, 3).reshape(-1, bands, height, width)
        squares = self.matrix(found).reshape(batch, channels * bands, height, width)
        return F.pixel_shuffle(squares, self.factor)


class Dense(nn.Module):
    """A dense block.

    Args:
        block: The block, whose convolutions are taken as they are.
    """

    def __init__(self, block: DenseBlock) -> None:
        super().__init__()
        self.slope = block.slope
        self.convolutions = nn.ModuleList(block.convolutions())
        self.convolutions.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H, W)."""
        features, out = x, x
        for index, conv in enumerate(self.convolutions):
            out = conv(features)
            if index + 1 < len(self.convolutions):
                features = torch.cat((features, F.leaky_relu(out, self.slope)), dim=1)
        return out

    def extra_repr(self) -> str:
        return f"slope={self.slope}"


class Couple(nn.Module):
    """An affine coupling on the way forward.

    Args:
        coupling: The coupling, whose networks are taken, not copied.
    """

    def __init__(self, coupling: AffineCoupling) -> None:
        super().__init__()
        self.first = coupling.sizes[0]
        self.clamp = coupling.clamp
        self.F, self.G, self.H = map(_plain, (coupling.F, coupling.G, coupling.H))

    def scale(self, y: Tensor) -> Tensor:
        """The s of the coupling."""
        return self.clamp * (2 * torch.sigmoid(self.H(y).to(y.dtype)) - 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, *spatial) to the same."""
        x1, x2 = x[:, : self.first], x[:, self.first :]
        y1 = x1 + self.F(x2).to(x.dtype)
        y2 = x2 * self.scale(y1).exp() + self.G(y1).to(x.dtype)
        return torch.cat((y1, y2), dim=1)

    def extra_repr(self) -> str:
        return f"split={self.first}, clamp={self.clamp}"


def _plain(net: nn.Module) -> nn.Module:
    return Dense(net) if type(net) is DenseBlock and not has_hooks(net) else net


class Uncouple(Couple):
    """An affine coupling on the way back."""

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, *spatial) to the same."""
        y1, y2 = x[:, : self.first], x[:, self.first :]
        x2 = (y2 - self.G(y1).to(x.dtype)) * (-self.scale(y1)).exp()
        x1 = y1 - self.F(x2).to(x.dtype)
        return torch.cat((x1, x2), dim=1)


class Related(nn.Module):
    """A relation module in one direction.

    Args:
        network: What is added to its input.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, 3 images, H, W) to the same."""
        return x + 0.2 * self.network(x).to(x.dtype)


class Memory(nn.Module):
    """The first channels past ``inner``, the others through it."""

    def __init__(self, channels: int, inner: nn.Module) -> None:
        super().__init__()
        self.channels = channels
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C, *spatial) to what ``inner`` makes of its last channels, behind the first."""
        return torch.cat((x[:, : self.channels], self.inner(x[:, self.channels :])), dim=1)

    def extra_repr(self) -> str:
        return f"{self.channels}"


def joined(parts: Iterable[nn.Module]) -> nn.Sequential:
    """Returns the parts in a row; constants side by side become one where that costs no more."""
    done: list[nn.Module] = []
    for part in parts:
        after = part
        while done and (both := _both(done[-1], after)) is not None:
            done.pop()
            after = both
        done.append(after)
    for part in done:
        for module in part.modules():
            if isinstance(module, (Matrix, Shifted)):
                module.to(module.stored)
    return nn.Sequential(*done)


def _both(first: nn.Module, then: nn.Module) -> nn.Module | None:
    """One constant in place of two, or None."""
    if isinstance(first, Matrix) and isinstance(then, Matrix):
        product = then.matrix @ first.matrix
        if product.numel() > first.matrix.numel() + then.matrix.numel():
            return None
        return Matrix(product, torch.promote_types(first.stored, then.stored))
    if isinstance(first, Matrix) and type(then) is Mean:
        return Matrix(first.matrix.unflatten(0, (then.groups, -1)).mean(0), first.stored)
    if type(first) is Repeated and isinstance(then, Matrix):
        return Matrix(then.matrix.unflatten(1, (first.groups, -1)).sum(1), then.stored)
    if type(first) is Repeated and isinstance(then, Shifted):
        for rank in range(4):
            kernel = getattr(then, f"kernel{rank}")
            if then.reaches[rank] < 0:
                continue
            setattr(then, f"kernel{rank}", kernel.unflatten(1, (first.groups, -1)).sum(1))
        return then
    return None


class Lower(nn.Module):
    """A network that runs in another dtype than what it is given and returns."""

    def __init__(self, net: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        for name, weight in net.named_parameters():
            if weight.isfinite().all() and not weight.to(dtype).isfinite().all():
                raise WICArgumentError(
                    f"Expected weights of at most {torch.finfo(dtype).max:.0f} to run in {dtype}; "
                    f"{name} has {weight.abs().max():.3g}. Stay in float32."
                )
        self.net = net.to(dtype)
        self.dtype = dtype

    def forward(self, x: Tensor) -> Tensor:
        """Maps x as ``net`` does."""
        found: Tensor = self.net(x.to(self.dtype)).to(x.dtype)
        return found


def lowered(fused: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Runs the networks inside couplings and completions in another dtype, in place.

    What is inverted, the halves of couplings and the constants, stays as it is.

    Raises:
        WICArgumentError: If there is no such network.
    """
    found = False
    for module in list(fused.modules()):
        found = found or isinstance(module, (Couple, Related))
        if isinstance(module, Related):
            module.network = Lower(module.network, dtype)
        if isinstance(module, Couple):
            module.F, module.G, module.H = (
                Lower(net, dtype) for net in (module.F, module.G, module.H)
            )
        if isinstance(module, Completed) and isinstance(module.completion, nn.Module):
            found, inner = True, module.completion
            module.completion = Lower(inner.net if type(inner) is Lower else inner, dtype)
    if not found:
        raise WICArgumentError(
            f"Expected a network of affine couplings to run in {dtype}; this one keeps code of "
            "its own, and stays in float32."
        )
    return fused
