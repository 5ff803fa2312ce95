"""Invertible blocks around WIC: chain, squeeze, Haar, coupling, long-term memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from wic_layers.completion import Completion, CompletionName, Repeat, Shift
from wic_layers.conv import WIC
from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.subnets import CrossImage, DenseBlock

__all__ = [
    "AffineCoupling",
    "Chain",
    "ChannelMean",
    "Haar",
    "InverseHaar",
    "InvertibleBlock",
    "Latent",
    "LearnedSqueeze",
    "LongTermMemory",
    "Relation",
    "Squeeze",
    "Unsqueeze",
]


class InvertibleBlock(nn.Module):
    """Base of the blocks: ``forward(x)``, ``inverse(y)`` and ``forward(y, rev=True)``.

    Attributes:
        is_exact: Whether both directions give back what went into the other.
    """

    is_exact = False

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - as IRN calls it
        """Maps ``x`` forward, or back with ``rev=True``."""
        return self.inverse(x) if rev else self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def inverse(self, y: Tensor) -> Tensor:
        """Maps ``y`` back."""
        raise NotImplementedError


class Chain(InvertibleBlock):
    """Blocks in a row: one list, walked forwards or backwards.

    Args:
        *blocks: Modules with ``forward`` and ``inverse``.

    Raises:
        WICArgumentError: If a block has no ``inverse``.

    Example:
        >>> from wic_layers import WIC
        >>> chain = Chain(Squeeze(2), WIC(12, 16))
        >>> x = torch.rand(1, 3, 8, 8)
        >>> torch.allclose(chain.inverse(chain(x)), x, atol=1e-5)
        True
    """

    runner: Any = None  # what wic_layers.reversible.save_memory puts there

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__()
        for index, block in enumerate(blocks):
            if not callable(getattr(block, "inverse", None)):
                raise WICArgumentError(
                    f"Expected blocks with an inverse method; block {index} is "
                    f"{type(block).__name__}."
                )
            self.add_module(str(index), block)

    def _forward(self, x: Tensor) -> Tensor:
        return self._through(self._blocks(), x)

    def inverse(self, y: Tensor) -> Tensor:
        """Runs the blocks' inverses, last block first."""
        return self._through(self._blocks()[::-1], y, rev=True)

    def _through(self, blocks: list[tuple[str, Any]], x: Tensor, *, rev: bool = False) -> Tensor:
        """Runs blocks with their names, in this order."""
        if self.runner is not None and self.runner.is_wanted():
            return self.runner(blocks, x, rev=rev)
        for name, block in blocks:
            x = _run(name, block.inverse if rev else block, x)
        return x

    def _blocks(self) -> list[tuple[str, Any]]:
        # not named_children(), which leaves out the second use of a block
        return list(self._modules.items())

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, index: int) -> nn.Module:
        return list(self)[index]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([block for _, block in self._blocks()])


def _run(name: str, function: Callable[[Tensor], Any], x: Tensor) -> Any:
    """Calls a part of a module; its errors say its name."""
    if torch.compiler.is_compiling():
        return function(x)
    try:
        return function(x)
    except WICError as error:
        raise error.inside(name) from None


def _title(block: nn.Module) -> str:
    return f"{type(block).__name__}({block.extra_repr()})"


def _check_divisible(x: Tensor, factor: int, block: nn.Module) -> None:
    if x.ndim != 4 or x.shape[-2] % factor or x.shape[-1] % factor:
        raise WICShapeError(
            f"{_title(block)}: expected images (B, C, H, W) with H and W divisible by {factor}; "
            f"got {tuple(x.shape)}. Pad them first."
        )


def _check_channels(y: Tensor, groups: int, block: nn.Module) -> None:
    if y.ndim != 4 or y.shape[1] % groups:
        raise WICShapeError(
            f"{_title(block)}: expected images (B, C, H, W) with C divisible by {groups}; got "
            f"{tuple(y.shape)}."
        )


class Squeeze(InvertibleBlock):
    """Pixels into channels: (B, C, H, W) to (B, C f², H/f, W/f), as pixel_unshuffle.

    Args:
        factor: Side f of the square of pixels that becomes one.
        groups: How many images stand in the channels, one behind the other; the f² pixels of each
            stay together, first those of all its channels at the first place of the square, as
            :class:`Haar` has its sub-bands. By default as many as there are channels.

    Raises:
        WICArgumentError: If ``factor`` or ``groups`` is less than 1.
        WICShapeError: If H or W is not divisible by f, or the channels cannot be grouped.
    """

    is_exact = True

    def __init__(self, factor: int = 2, groups: int | None = None) -> None:
        super().__init__()
        for name, value in (("factor", factor), ("groups", groups)):
            if value is not None and value < 1:
                raise WICArgumentError(f"Expected {name} of at least 1; got {value!r}.")
        self.factor = factor
        self.groups = groups

    def _forward(self, x: Tensor) -> Tensor:
        _check_divisible(x, self.factor, self)
        if self.groups is None:
            return F.pixel_unshuffle(x, self.factor)
        _check_channels(x, self.groups, self)
        f = self.factor
        return rearrange(
            x, "n (g c) (h i) (w j) -> n (g i j c) h w", g=self.groups, i=f, j=f
        ).contiguous()

    def inverse(self, y: Tensor) -> Tensor:
        """Channels back into pixels."""
        _check_channels(y, self.factor**2 * (self.groups or 1), self)
        if self.groups is None:
            return F.pixel_shuffle(y, self.factor)
        f = self.factor
        return rearrange(
            y, "n (g i j c) h w -> n (g c) (h i) (w j)", g=self.groups, i=f, j=f
        ).contiguous()

    def extra_repr(self) -> str:
        return f"{self.factor}" if self.groups is None else f"{self.factor}, {self.groups}"


class Unsqueeze(Squeeze):
    """Channels into pixels: :class:`Squeeze` with its two directions exchanged."""

    def _forward(self, x: Tensor) -> Tensor:
        return super().inverse(x)

    def inverse(self, y: Tensor) -> Tensor:
        """Pixels back into channels."""
        return super()._forward(y)


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

    def inverse(self, y: Tensor) -> Tensor:
        """The same channels once for every group."""
        return torch.cat([y] * self.groups, dim=1)

    def as_wic(self, out_channels: int, completion: CompletionName | Completion = "zero") -> WIC:
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
        rows = torch.ones(groups, groups, dtype=torch.float64)
        for k in range(1, groups):
            rows[k, k], rows[k, k + 1 :] = -k, 0
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


class Relation(InvertibleBlock):
    """What images have to say about each other, added to each: IICNet's relation module.

    ``x + 0.2 there(x)`` forward and ``y + 0.2 back(y)`` on the way back, with two networks of the
    same kind. The second is trained to undo the first and does not do so by its construction: this
    is the one block whose inverse is learned. At the start both directions are the identity.

    Args:
        images: How many RGB images stand in the channels.
        features: Channels in which each is described to the others.
        growth: Width of the dense blocks inside.

    References:
        | IICNet: A Generic Framework for Reversible Image Conversion (Cheng et al., 2021), Eq.
        | (1), with the factor 0.2 and the layers of its code

    Raises:
        WICArgumentError: If an argument is less than 1.
        WICShapeError: If another number of channels comes in.
    """

    def __init__(self, images: int, features: int = 64, growth: int = 32) -> None:
        super().__init__()
        for name, value in (("images", images), ("features", features), ("growth", growth)):
            if value < 1:
                raise WICArgumentError(f"Expected {name} of at least 1; got {value!r}.")
        self.images = images
        self.features = features
        self.there = CrossImage(images, features, growth)
        self.back = CrossImage(images, features, growth)

    def _forward(self, x: Tensor) -> Tensor:
        return self._with(x, self.there)

    def inverse(self, y: Tensor) -> Tensor:
        """What was learned to undo the forward direction."""
        return self._with(y, self.back)

    def _with(self, x: Tensor, network: nn.Module) -> Tensor:
        if x.ndim != 4 or x.shape[1] != 3 * self.images:
            raise WICShapeError(
                f"{_title(self)}: expected {3 * self.images} channels; got {tuple(x.shape)}."
            )
        return x + 0.2 * network(x).to(x.dtype)

    def extra_repr(self) -> str:
        return f"{self.images}, {self.features}"


class Haar(InvertibleBlock):
    """The Haar transform: (B, C, H, W) to (B, 4C, H/2, W/2), sub-bands LL, HL, LH, HH.

    Each sub-band holds all C channels. LL is twice the mean of a square of four pixels; HL holds
    horizontal, LH vertical and HH diagonal differences. It is orthonormal: it keeps lengths, and
    its inverse is its transpose. With ``mean`` it is IRN's: LL is the mean itself, which is a
    small picture, the others are half as large too, and HL and LH have the other sign.

    Args:
        groups: How many images stand in the channels, one behind the other; the four sub-bands of
            each stay together. With as many as there are channels the order is that of
            :class:`Squeeze`.
        mean: IRN's form in place of the orthonormal one.

    References:
        | HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), Section 3.1
        | Invertible Image Rescaling (Xiao et al., 2020), Section 3.2, as its code scales it

    Raises:
        WICArgumentError: If ``groups`` is less than 1.
        WICShapeError: If H or W is odd, or the channels cannot be grouped.
    """

    is_exact = True

    def __init__(self, groups: int = 1, *, mean: bool = False) -> None:
        super().__init__()
        if groups < 1:
            raise WICArgumentError(f"Expected groups of at least 1; got {groups!r}.")
        self.groups = groups
        self.mean = mean

    def _forward(self, x: Tensor) -> Tensor:
        _check_divisible(x, 2, self)
        _check_channels(x, self.groups, self)
        pixels = rearrange(x, "n (g c) (h i) (w j) -> (i j) n g c h w", i=2, j=2, g=self.groups)
        a, b, c, d = pixels.unbind(0)
        if self.mean:
            bands = (a + b + c + d, a + c - b - d, a + b - c - d, a + d - b - c)
            return (torch.cat(bands, dim=2) / 4).flatten(1, 2)
        bands = (a + b + c + d, b + d - a - c, c + d - a - b, a + d - b - c)
        return (torch.cat(bands, dim=2) / 2).flatten(1, 2)

    def inverse(self, y: Tensor) -> Tensor:
        """The pixels from their sub-bands."""
        _check_channels(y, 4 * self.groups, self)
        bands = (y if self.mean else y / 2).unflatten(1, (self.groups, -1))
        low, horizontal, vertical, diagonal = bands.chunk(4, dim=2)
        if self.mean:
            horizontal, vertical = -horizontal, -vertical
        a = low - horizontal - vertical + diagonal
        b = low + horizontal - vertical - diagonal
        c = low - horizontal + vertical - diagonal
        d = low + horizontal + vertical + diagonal
        return rearrange([a, b, c, d], "(i j) n g c h w -> n (g c) (h i) (w j)", i=2, j=2)

    def extra_repr(self) -> str:
        parts = [f"{self.groups}"] if self.groups > 1 else []
        return ", ".join(parts + ["mean=True"] * self.mean)


class InverseHaar(Haar):
    """Pixels from sub-bands: :class:`Haar` with its two directions exchanged."""

    def _forward(self, x: Tensor) -> Tensor:
        return super().inverse(x)

    def inverse(self, y: Tensor) -> Tensor:
        """The sub-bands from their pixels."""
        return super()._forward(y)


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
        _check_channels(x, self.groups, self)
        if w.shape != (x.shape[0], self.channels, *x.shape[2:]):
            raise WICShapeError(
                f"{self}: expected w of shape {(x.shape[0], self.channels, *x.shape[2:])}; got "
                f"{tuple(w.shape)}."
            )
        parts = [z.unflatten(1, (self.groups, -1)) for z in (x, w)]
        return torch.cat(parts, dim=2).flatten(1, 2)

    def inverse(self, y: Tensor) -> Tensor:
        """The images, without the latent."""
        _check_channels(y, self.groups, self)
        images = y.unflatten(1, (self.groups, -1))
        return images[:, :, : -(self.channels // self.groups)].flatten(1, 2)

    def extra_repr(self) -> str:
        return f"{self.channels}" + (f", {self.groups}" if self.groups > 1 else "")


class LearnedSqueeze(InvertibleBlock):
    """Pixels into sub-bands that are learned: (B, C, H, W) to (B, C f², H/f, W/f).

    Every channel's square of f x f pixels goes through one kernel, a square
    :class:`~wic_layers.WIC` that all channels share. Each sub-band holds all C channels; the first
    starts as the mean of the square, which is a small picture, the others as single pixels.

    Args:
        factor: Side f of the square of pixels that becomes one.

    References:
        | The code of Invertible Image Rescaling (Xiao et al., 2020), which rescales by 3 with it

    Raises:
        WICArgumentError: If ``factor`` is less than 2.
        WICShapeError: If H or W is not divisible by f.
    """

    is_exact = True

    def __init__(self, factor: int) -> None:
        super().__init__()
        if factor < 2:
            raise WICArgumentError(f"Expected factor of at least 2; got {factor!r}.")
        self.factor = factor
        self.wic = WIC(factor**2, factor**2)
        with torch.no_grad():
            self.wic.weight.copy_(torch.eye(factor**2))
            self.wic.weight[0] = 1 / factor**2

    def _forward(self, x: Tensor) -> Tensor:
        _check_divisible(x, self.factor, self)
        squares = F.pixel_unshuffle(x, self.factor).unflatten(1, (x.shape[1], -1))
        bands: Tensor = _run("wic", self.wic, squares.flatten(0, 1))
        return bands.unflatten(0, squares.shape[:2]).transpose(1, 2).flatten(1, 2)

    def inverse(self, y: Tensor) -> Tensor:
        """The pixels from their sub-bands."""
        _check_channels(y, self.factor**2, self)
        bands = y.unflatten(1, (self.factor**2, -1)).transpose(1, 2)
        squares: Tensor = _run("wic", self.wic.inverse, bands.flatten(0, 1))
        return F.pixel_shuffle(squares.unflatten(0, bands.shape[:2]).flatten(1, 2), self.factor)

    def extra_repr(self) -> str:
        return f"{self.factor}"


class AffineCoupling(InvertibleBlock):
    r"""IRN's coupling of two halves of the channels.

    .. math:: y_1 = x_1 + F(x_2),\quad s = c\,(2\sigma(H(y_1)) - 1),\quad y_2 = x_2 e^{s} + G(y_1)

    Under autocast only F, G and H run in the lower precision; the halves stay in the input's
    dtype.

    Args:
        channels: Channels of the input.
        split: Channels of :math:`x_1`; half of them (rounded down) when None.
        clamp: Largest :math:`|s|`: 1 in IRN and WIN, 2 in HiNet.
        condition: Channels of a condition that F, G and H see behind their input; see
            :meth:`couple`.
        subnet: Builds F, G, H from (in_channels, out_channels).

    Raises:
        WICArgumentError: If there are fewer than 2 channels or the split leaves a half empty.

    References:
        | Invertible Image Rescaling (Xiao et al., 2020), Eq. (3)-(4)
    """

    is_exact = True

    def __init__(
        self,
        channels: int,
        *,
        split: int | None = None,
        clamp: float = 1.0,
        condition: int = 0,
        subnet: Callable[[int, int], nn.Module] = DenseBlock,
    ) -> None:
        super().__init__()
        first = channels // 2 if split is None else split
        if not 0 < first < channels:
            raise WICArgumentError(
                f"Expected a split that leaves channels on both sides of {channels}; got {first}."
            )
        self.channels = channels
        self.sizes = (first, channels - first)
        self.clamp = clamp
        self.condition = condition
        self.F = subnet(channels - first + condition, first)
        self.G = subnet(first + condition, channels - first)
        self.H = subnet(first + condition, channels - first)

    def _halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim < 2 or x.shape[1] != self.channels:
            raise WICShapeError(
                f"AffineCoupling({self.extra_repr()}): expected {self.channels} channels; got "
                f"shape {tuple(x.shape)}."
            )
        first, second = x.split(self.sizes, dim=1)
        return first, second

    def scale_and_shift(self, seen: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Returns s and G of what H and G see, in ``dtype``."""
        scale = self.clamp * (2 * torch.sigmoid(self.H(seen).to(dtype)) - 1)
        return scale, self.G(seen).to(dtype)

    def _forward(self, x: Tensor) -> Tensor:
        return self.couple(x)[0]

    def inverse(self, y: Tensor) -> Tensor:
        """Undoes the second half, then the first."""
        return self.uncouple(y)[0]

    def couple(self, x: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        r"""Maps ``x`` forward and returns s with it, whose sum per sample is :math:`\log|\det J|`.

        Args:
            x: Shape (B, channels, \*spatial).
            condition: Shape (B, condition, \*spatial); None where the coupling takes none.
        """
        x1, x2 = self._halves(x)
        y1 = x1 + self.F(_seen(x2, condition)).to(x.dtype)
        scale, shift = self.scale_and_shift(_seen(y1, condition), x.dtype)
        y2 = x2 * scale.exp() + shift
        return torch.cat((y1, y2), dim=1), scale

    def uncouple(self, y: Tensor, condition: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Maps ``y`` back and returns the s of :meth:`couple` with it."""
        y1, y2 = self._halves(y)
        scale, shift = self.scale_and_shift(_seen(y1, condition), y.dtype)
        x2 = (y2 - shift) * (-scale).exp()
        x1 = y1 - self.F(_seen(x2, condition)).to(y.dtype)
        return torch.cat((x1, x2), dim=1), scale

    def extra_repr(self) -> str:
        return f"{self.channels}, split={self.sizes[0]}, clamp={self.clamp}"


def _seen(half: Tensor, condition: Tensor | None) -> Tensor:
    """What a network inside a coupling is given."""
    return half if condition is None else torch.cat((half, condition), dim=1)


class LongTermMemory(InvertibleBlock):
    """Sets the first channels aside and sends the rest through ``inner``.

    Nested, it is WIN's long-term memory: ``[memory; rest] -> [memory; inner(rest)]``, where
    ``inner`` may hold another one. What was set aside reaches the end of the network untouched.

    Args:
        channels: How many channels are set aside.
        inner: The block (or chain) for the others.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (19)-(20)
    """

    def __init__(self, channels: int, inner: nn.Module) -> None:
        super().__init__()
        self.channels = channels
        self.inner = inner

    def _forward(self, x: Tensor) -> Tensor:
        return self._around(x, self.inner)

    def inverse(self, y: Tensor) -> Tensor:
        """Sends the channels behind the memory back through ``inner``."""
        return self._around(y, self.inner.inverse)  # type: ignore[arg-type]

    def _around(self, x: Tensor, function: Callable[[Tensor], Any]) -> Tensor:
        if x.shape[1] <= self.channels:
            raise WICShapeError(
                f"LongTermMemory: expected more than {self.channels} channels; got shape "
                f"{tuple(x.shape)}."
            )
        rest = _run("inner", function, x[:, self.channels :])
        return torch.cat((x[:, : self.channels], rest), dim=1)

    def extra_repr(self) -> str:
        return f"{self.channels}"
