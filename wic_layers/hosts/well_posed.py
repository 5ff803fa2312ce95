"""WellPosed: a network that runs both ways, closed by a WIC where its author drew z."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.blocks import InvertibleBlock
from wic_layers.blocks.block import as_block, run_named
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC

__all__ = ["WellPosed"]


class WellPosed(InvertibleBlock):
    """Closes a network that runs both ways with a WIC, where its author drew random numbers.

    ``forward(x)`` is the picture alone: the network's output through the WIC. ``forward(y,
    rev=True)`` needs the picture alone. At the start the WIC keeps the first ``out_channels``
    channels as they are, so that the picture is what it was, and puts zeros for the others on the
    way back; both then train like the rest.

    Args:
        net: Any module with ``forward(x, rev=False)`` that returns one tensor and keeps the number
            of channels, such as IRN's, HiNet's or a :class:`~wic_layers.blocks.Chain`. The
            picture must be in the first channels of its output.
        in_channels: Channels of the network's output, picture and z together.
        out_channels: Channels of the picture.
        completion: See :class:`~wic_layers.WIC`. Zero is the right one to start from: with the
            paper's shift a training that starts at the identity stays behind.

    Attributes:
        net: The network; its keys in the state dict are its own behind ``net.``. A state dict of
            the network alone can be loaded as well, such as one from before it was closed; the
            WIC then stays as it is.
        wic: The :class:`~wic_layers.WIC`.

    Raises:
        WICArgumentError: If the network's ``forward`` takes no ``rev``, no channels are dropped,
            or the network returns something else than a tensor.
        WICShapeError: If the network's output has another number of channels.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Section 3.3

    Example:
        >>> from wic_layers.blocks import AffineCoupling, Chain, Squeeze
        >>> net = WellPosed(Chain(Squeeze(2), AffineCoupling(12)), 12, 3)
        >>> y = net(torch.rand(1, 3, 8, 8))
        >>> y.shape
        torch.Size([1, 3, 4, 4])
        >>> torch.equal(net(y, rev=True), net(y, rev=True))
        True
    """

    def __init__(
        self,
        net: nn.Module,
        in_channels: int,
        out_channels: int,
        *,
        completion: CompletionName | Completion = "zero",
    ) -> None:
        super().__init__()
        if not isinstance(net, nn.Module) or not _takes_rev(net):
            raise WICArgumentError(
                "Expected a network whose forward takes rev, as in forward(x, rev=False); got "
                f"{type(net).__name__}. Wrap it in a module that has it."
            )
        where: dict[str, Any] = {}
        for parameter in net.parameters():
            where.setdefault("device", parameter.device)
            if parameter.dtype in (torch.float32, torch.float64):
                where["dtype"] = parameter.dtype
                break
        self.net = net
        self.wic = WIC(in_channels, out_channels, completion=completion, **where)
        if out_channels >= in_channels:
            raise WICArgumentError(
                "Expected fewer out_channels (the picture's) than in_channels (the picture's and "
                f"those of z); got {in_channels} and {out_channels}."
            )
        with torch.no_grad():
            self.wic.weight.copy_(torch.eye(in_channels))

    def _forward(self, x: Tensor) -> Tensor:
        return run_named("wic", self.wic, self._tensor(self.net(x)))

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        own = self.net.state_dict(prefix=prefix)
        inside = {key: f"{prefix}net.{key[len(prefix) :]}" for key in own}
        alone = own.keys() <= state_dict.keys() and state_dict.keys().isdisjoint(inside.values())
        if own and alone:
            for key, new in inside.items():
                state_dict[new] = state_dict.pop(key)
            state_dict.update(self.wic.state_dict(prefix=f"{prefix}wic."))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _inverse(self, y: Tensor) -> Tensor:
        return self._tensor(self.net(run_named("wic", self.wic.inverse, y), rev=True))

    def shape_after(self, channels: int, side: Fraction) -> tuple[int, Fraction]:
        """See :meth:`~wic_layers.blocks.InvertibleBlock.shape_after`."""
        return self.wic.out_channels, as_block(self.net).shape_after(channels, side)[1]

    @property
    def reach(self) -> int:
        """None of its own."""
        return 0

    def parts(
        self, channels: int, side: Fraction
    ) -> Iterator[tuple[str, nn.Module, int, Fraction]]:
        """See :meth:`~wic_layers.blocks.InvertibleBlock.parts`."""
        yield "net", self.net, channels, side
        yield "wic", self.wic, *as_block(self.net).shape_after(channels, side)

    def keep_one_way(self, *, rev: bool) -> None:
        """Drops what only the other direction needs, from the network."""
        as_block(self.net).keep_one_way(rev=rev)

    def _tensor(self, result: object) -> Tensor:
        if not isinstance(result, Tensor):
            raise WICArgumentError(
                f"Expected {type(self.net).__name__} to return one tensor; got "
                f"{type(result).__name__}. In a FrEIA graph put wic_layers.freia.WIC instead; "
                "wrap another network in a module that returns the tensor alone."
            )
        return result


def _takes_rev(net: nn.Module) -> bool:
    try:
        parameters = inspect.signature(net.forward).parameters.values()
    except (TypeError, ValueError):
        return True
    return any(p.name == "rev" or p.kind is p.VAR_KEYWORD for p in parameters)
