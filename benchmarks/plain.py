"""What comparisons set beside networks with a WIC: ``EncoderDecoder``, and ``with_zero_z``.

``EncoderDecoder`` is a plain network forward and another back; ``sized`` builds one with the
parameters and operations of another network, ``costs`` counts both. The ``Decoder`` alone, without
an encoder that it was trained with, is a plain upscaler: ``Upscaler``.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from wic_layers.blocks import Chain
from wic_layers.layer.conv import WIC
from wic_layers.models import NETWORKS, PRESETS
from wic_layers.tasks import TASKS

SLOPE = 0.2
WIDTHS = range(8, 129, 4)
INSIDE = (1, 2)
NEAR = 0.05  # of parameters and operations


class Costs(NamedTuple):
    """What a network costs, in both directions together.

    Attributes:
        parameters: Number of parameters.
        operations: Multiplications with an addition, for each pixel of the images that go in.
    """

    parameters: int
    operations: float


def costs(model: Any, in_channels: int) -> Costs:
    """Counts what one way forward and one way back take, without inverting kernels."""
    side = 24
    x = torch.rand(1, in_channels, side, side)
    model = model.eval()
    with torch.no_grad():
        model.inverse(model(x))  # after which kernels are inverted
        with FlopCounterMode(display=False) as counter:
            model.inverse(model(x))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Costs(parameters, counter.get_total_flops() / 2 / side**2)


def with_zero_z(model: Chain) -> Chain:
    """A network's blocks, with zeros for z where they drew it: a WIC that is not trained."""
    return Chain(
        *(
            WIC(block.in_channels, block.out_channels, completion="zero", parametrization="fixed")
            if isinstance(block, WIC) and block.in_channels > block.out_channels
            else block
            for block in model
        )
    )


class Residual(nn.Module):
    """Two 3x3 convolutions, added to what comes in; nearly the identity at the start."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.leaky_relu(self.conv1(x), SLOPE))


class Stage(nn.Sequential):
    """Residual blocks, which all run ``passes`` times, one after the other."""

    def __init__(self, width: int, blocks: int, passes: int) -> None:
        super().__init__(*(Residual(width) for _ in range(blocks)))
        self.passes = passes

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(self.passes):
            x = super().forward(x)
        return x


class Body(nn.Module):
    """Residual blocks at the size of the images, and at a part of it with twice the channels.

    .. code-block:: none

        fine in --> 3x3 --> fine blocks --> fewer pixels --> coarse blocks --> 3x3 --> coarse out
        coarse in --> 3x3 --> coarse blocks --> more pixels --> fine blocks --> 3x3 --> fine out

    and, where both ends are fine, all three sizes in a row and what was fine added again.

    Args:
        in_channels: Channels that come in.
        out_channels: Channels that go out.
        fine_in: Whether what comes in has the size of the images.
        fine_out: Whether what goes out has.
        scale: How many times smaller the end is that has not.
        inside: How many times smaller than that end (than half the images, where both are fine)
            the coarse blocks are. Their kernels do so much less with as many parameters.
        width: Channels at the fine size; there are twice as many at the coarse one.
        fine: Residual blocks at the fine size.
        coarse: Residual blocks at the coarse size.
        passes: How often each runs.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        fine_in: bool,
        fine_out: bool,
        scale: int,
        inside: int = 1,
        width: int,
        fine: int,
        coarse: int,
        passes: int,
    ) -> None:
        super().__init__()
        first, last = (width if is_fine else 2 * width for is_fine in (fine_in, fine_out))
        cells = [1 if is_fine else inside for is_fine in (fine_in, fine_out)]
        factor = max(scale, 2) * inside
        self.side = factor if fine_in else inside  # of the squares of what comes in
        self.enlarged = (1 if fine_in else scale, 1 if fine_out else scale)
        self.open = nn.PixelUnshuffle(cells[0])
        self.head = nn.Conv2d(in_channels * cells[0] ** 2, first, 3, padding=1)
        before = fine if not fine_out else fine // 2 if fine_in else 0
        self.before = Stage(width, before, passes)
        self.down: nn.Module = nn.Identity()
        if fine_in:
            reduce = nn.Conv2d(width * factor**2, 2 * width, 1)
            self.down = nn.Sequential(nn.PixelUnshuffle(factor), reduce)
        self.coarse = Stage(2 * width, coarse, passes)
        self.up: nn.Module = nn.Identity()
        if fine_out:
            widen = nn.Conv2d(2 * width, width * factor**2, 1)
            self.up = nn.Sequential(widen, nn.PixelShuffle(factor))
        self.after = Stage(width, fine - before, passes)
        self.tail = nn.Conv2d(last, out_channels * cells[1] ** 2, 3, padding=1)
        self.close = nn.PixelShuffle(cells[1])
        nn.init.zeros_(self.tail.weight)
        nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]
        self.has_both = fine_in and fine_out

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        before, after = self.enlarged
        filled = F.pad(x, (0, -width % self.side, 0, -height % self.side), mode="replicate")
        filled = self.open(filled.contiguous(memory_format=torch.channels_last))
        features = self.before(self.head(filled))
        coarse = self.up(self.coarse(self.down(features)))
        out: Tensor = self.tail(self.after(coarse + features if self.has_both else coarse))
        out = self.close(out)[..., : height * before // after, : width * before // after]
        return out.to(x.dtype)


class Encoder(nn.Module):
    """Images to a picture: at the start the first image, bicubic where the picture is smaller.

    Args:
        in_channels: Channels of the images together.
        out_channels: Channels of the picture: 3, or 1, which starts as the mean of the colours.
        scale: How many times smaller the picture is.
        **size: ``inside``, ``width``, ``fine``, ``coarse`` and ``passes``, see :class:`Body`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, scale: int, **size: int) -> None:
        super().__init__()
        self.out_channels, self.scale = out_channels, scale
        self.body = Body(
            in_channels, out_channels, fine_in=True, fine_out=scale == 1, scale=scale, **size
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale)."""
        first = x[:, :3] if self.out_channels > 1 else x[:, :3].mean(1, keepdim=True)
        return resized(first, 1 / self.scale) + self.body(x)


class Decoder(nn.Module):
    """A picture to the images: at the start ``copies`` of it, bicubic where they are larger.

    Args:
        in_channels: Channels of the picture.
        out_channels: Channels of the images together.
        scale: How many times larger they are.
        copies: How many images, from the first on, are like the picture; the others start at
            random, so that an encoder learns from the beginning what is wanted of it.
        **size: ``inside``, ``width``, ``fine``, ``coarse`` and ``passes``, see :class:`Body`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, scale: int, copies: int = 1, **size: int
    ) -> None:
        super().__init__()
        self.scale, self.copies = scale, copies
        self.rest = out_channels - 3 * copies
        self.body = Body(
            in_channels, out_channels, fine_in=scale == 1, fine_out=True, scale=scale, **size
        )
        if self.rest:
            nn.init.kaiming_uniform_(self.body.tail.weight.detach()[-self.rest :], a=5**0.5)

    def forward(self, y: Tensor) -> Tensor:
        """Maps (B, in_channels, h, w) to (B, out_channels, scale h, scale w)."""
        picture = resized(y.expand(-1, 3, -1, -1), self.scale).repeat(1, self.copies, 1, 1)
        return F.pad(picture, (0, 0, 0, 0, 0, self.rest)) + self.body(y)


class EncoderDecoder(nn.Module):
    """Two plain networks of one size, called as invertible ones are.

    Args:
        in_channels: Channels of the images together.
        out_channels: Channels of the picture.
        scale: How many times smaller it is.
        copies: Of :class:`Decoder`.
        **size: ``inside``, ``width``, ``fine``, ``coarse`` and ``passes``, see :class:`Body`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        scale: int = 1,
        copies: int = 1,
        **size: int,
    ) -> None:
        super().__init__()
        self.size = size
        self.encoder = Encoder(in_channels, out_channels, scale=scale, **size)
        self.decoder = Decoder(out_channels, in_channels, scale=scale, copies=copies, **size)

    def forward(self, x: Tensor, rev: bool = False) -> Tensor:  # noqa: FBT001, FBT002 - as invertible ones
        """The picture of images, or with ``rev`` what comes back of a picture."""
        out: Tensor = self.decoder(x) if rev else self.encoder(x)
        return out

    def inverse(self, y: Tensor) -> Tensor:
        """What comes back of a picture; nothing makes it an inverse but training."""
        return self(y, rev=True)


def resized(x: Tensor, factor: float) -> Tensor:
    """Bicubic, antialiased, as references are made."""
    if factor == 1:
        return x
    size = [round(side * factor) for side in x.shape[2:]]
    return F.interpolate(x, size=size, mode="bicubic", antialias=True)


def sized(wanted: Costs, in_channels: int, out_channels: int, **network: int) -> EncoderDecoder:
    """Builds the plain network whose parameters and operations are nearest to those of another.

    Of those within 5 % the one that squeezes least inside, then the one whose blocks run least
    often, then the widest.

    Args:
        wanted: What the other one costs.
        in_channels: Channels of the images together.
        out_channels: Channels of the picture.
        **network: ``scale`` and ``copies``, see :class:`EncoderDecoder`.

    Raises:
        ValueError: If none is within a tenth: a network that is much cheaper, dearer, deeper or
            thinner is no comparison.
    """
    sizes = []
    prices = {
        inside: _costs_of_blocks(in_channels, out_channels, inside=inside, **network)
        for inside in INSIDE
    }
    for inside, width in itertools.product(INSIDE, WIDTHS):
        empty, fine, coarse = prices[inside](width)
        if empty.parameters > wanted.parameters:
            continue
        for passes, blocks in itertools.product((1, 2, 3), range(1, 33)):
            left = wanted.parameters - empty.parameters - blocks * fine.parameters
            others = max(round(left / coarse.parameters), 1)
            added = [blocks * a + others * b for a, b in zip(fine, coarse, strict=True)]
            reached = empty.parameters + added[0], empty.operations + passes * added[1]
            off = max(abs(math.log(a / b)) for a, b in zip(reached, wanted, strict=True))
            size = {
                "inside": inside, "width": width, "fine": blocks, "coarse": others,
                "passes": passes,
            }  # fmt: skip
            sizes.append(((max(off, NEAR), inside, passes, -width, off), size))
    (off, *_), size = min(sizes, key=lambda rank_and_size: rank_and_size[0], default=((1.0,), {}))
    if off > 2 * NEAR:
        raise ValueError(f"Expected costs that a plain network can have; got {wanted}.")
    return EncoderDecoder(in_channels, out_channels, **network, **size)


def _costs_of_blocks(
    in_channels: int, out_channels: int, **network: int
) -> Callable[[int], list[Costs]]:
    """Without blocks, and what a fine and a coarse one add in both directions: for any width.

    All are polynomials of the second degree of the width, so that three widths tell the others.
    """
    known = WIDTHS[:3]
    found = []
    for width in known:
        of_width = []
        for fine, coarse in ((0, 0), (1, 0), (0, 1)):
            with torch.device("meta"):  # counts alone
                model = EncoderDecoder(
                    in_channels, out_channels, **network, width=width, fine=fine, coarse=coarse,
                    passes=1,
                )  # fmt: skip
                of_width.append(costs(model, in_channels))
        empty, *others = of_width
        more = [Costs(*(a - b for a, b in zip(each, empty, strict=True))) for each in others]
        found.append((empty, *more))

    def of(width: int) -> list[Costs]:
        shares = [
            math.prod((width - other) / (one - other) for other in known if other != one)
            for one in known
        ]
        weighted = [
            [sum(map(operator.mul, shares, numbers)) for numbers in zip(*each, strict=True)]
            for each in zip(*found, strict=True)
        ]
        return [Costs(round(parameters), operations) for parameters, operations in weighted]

    return of


class Upscaler(nn.Module):
    """Bicubic's small picture, and the decoding half of the plain network back.

    Args:
        like: The preset of a network with as many parameters in all.
    """

    def __init__(self, like: str) -> None:
        super().__init__()
        preset = PRESETS[like]
        task = TASKS[preset.task]
        self.scale = task.scale
        other = NETWORKS[preset.network].from_preset(like)
        found = costs(other, task.channels[0])
        # the half of a network that has twice as much in both directions
        twice = Costs(2 * found.parameters, 2 * found.operations)
        self.decoder = sized(twice, *task.channels[:2], scale=task.scale).decoder

    def forward(self, x: Tensor) -> Tensor:
        return resized(x, 1 / self.scale).clamp(0, 1)

    def inverse(self, y: Tensor) -> Tensor:
        return self.decoder(y)
