"""The networks of the WIN paper, put together from the blocks."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import nn

from wic_layers.blocks import AffineCoupling, Chain, LongTermMemory, Squeeze, Unsqueeze
from wic_layers.completion import Completion, CompletionName
from wic_layers.conv import WIC
from wic_layers.errors import WICArgumentError
from wic_layers.models.presets import find_preset
from wic_layers.subnets import DenseBlock

__all__ = ["NETWORKS", "WIN", "WINNaive"]


class _Network(Chain):
    """What the two networks share: presets, and what they were built from."""

    def __init__(self, *blocks: nn.Module, config: dict[str, Any]) -> None:
        super().__init__(*blocks)
        self.config = config
        self.preset: str | None = None
        self.weights_id: str | None = None
        self.card: dict[str, str] = {}

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Any:
        """Builds the network of that name with random weights.

        Args:
            name: A key of :data:`wic_layers.models.PRESETS`, such as ``"rescaling-x2-small"``.
            **changes: Arguments of the network to change.

        Raises:
            WICArgumentError: If there is no preset of that name, or it is of the other network.
        """
        preset = find_preset(name)
        if preset.network != cls.__name__:
            raise WICArgumentError(
                f"Expected a preset of {cls.__name__}; '{name}' is one of {preset.network}."
            )
        model = cls(**{**preset.arguments, **changes})
        if not changes:
            model.preset = name
        return model


def _check(in_channels: int, out_channels: int, scale: int) -> None:
    if scale not in (1, 2):
        raise WICArgumentError(
            f"Expected scale 1 (same size) or 2 (half the size); got {scale!r}."
        )
    if not 0 < out_channels < in_channels * scale**2:
        raise WICArgumentError(
            f"Expected fewer output channels than {in_channels * scale**2}, which come in at "
            f"scale {scale}; got {out_channels}."
        )


class WINNaive(_Network):
    """WIN-Naive: couplings, then one narrowing WIC where others draw random numbers.

    ``squeeze -> couplings -> [unsqueeze] -> WIC``; inputs and outputs are pixels in [0, 1].

    Args:
        in_channels: Channels of the input images together: 6 for a cover and one secret, 3 for
            rescaling.
        out_channels: Channels of the result.
        scale: 1 keeps the size, 2 halves it.
        couplings: Number of affine couplings.
        growth: Width of the dense blocks inside them.
        completion: See :class:`~wic_layers.WIC`.
        layout: See :class:`~wic_layers.WIC`; ``"published"`` agrees with the authors' checkpoints.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W even.

    Raises:
        WICArgumentError: If ``scale`` is neither 1 nor 2, or no channels are dropped.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (17) and Fig. 6 (b). The text puts square WIC layers between the
        | couplings, its published code does not; neither does this.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        scale: int = 1,
        couplings: int = 8,
        growth: int = 32,
        completion: CompletionName | Completion | None = None,
        layout: Any = "compact",
    ) -> None:
        _check(in_channels, out_channels, scale)
        config = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        subnet = partial(DenseBlock, growth=growth)
        blocks: list[nn.Module] = [Squeeze(2)]
        blocks += [AffineCoupling(4 * in_channels, subnet=subnet) for _ in range(couplings)]
        if scale == 1:
            blocks.append(Unsqueeze(2))
        last = 4 * in_channels if scale == 2 else in_channels
        blocks.append(WIC(last, out_channels, completion=completion, layout=layout))
        super().__init__(*blocks, config=config)


class WIN(_Network):
    """WIN: modules that widen, set memory aside and couple the rest; joined and narrowed.

    ``squeeze -> WIC -> [WIC wider -> memory | couplings] x modules -> coupling -> [unsqueeze] ->
    WIC``; inputs and outputs are pixels in [0, 1]. The first WIC may widen, so that the network is
    not idempotent: a second round trip changes the picture again, if little.

    Args:
        in_channels: Channels of the input images together: 6 for a cover and one secret, 3 for
            rescaling.
        out_channels: Channels of the result.
        scale: 1 keeps the size, 2 halves it.
        width: Channels n of each module after its widening WIC.
        split: Fraction of ``width`` that goes through the couplings; the rest is memory.
        modules: Number of modules N.
        couplings: Affine couplings in each module.
        growth: Width of the dense blocks inside them.
        completion: Of the last, narrowing WIC; see :class:`~wic_layers.WIC`.
        layout: Of the last WIC; ``"published"`` agrees with the authors' checkpoints.

    Shape:
        (B, in_channels, H, W) to (B, out_channels, H/scale, W/scale); H and W even.

    Raises:
        WICArgumentError: If ``scale`` is neither 1 nor 2, no channels are dropped, or ``width``
            and ``split`` leave less than 4 * in_channels for the couplings or nothing for the
            memory.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (19)-(20) and Fig. 6 (c)
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        scale: int = 1,
        width: int = 32,
        split: float = 0.75,
        modules: int = 2,
        couplings: int = 4,
        growth: int = 32,
        completion: CompletionName | Completion | None = None,
        layout: Any = "compact",
    ) -> None:
        _check(in_channels, out_channels, scale)
        config = {
            key: value for key, value in locals().items() if key not in ("self", "__class__")
        }
        short = int(width * split)
        memory = width - short
        if short < 4 * in_channels or memory < 1:
            raise WICArgumentError(
                f"Expected width * split of at least {4 * in_channels} (4 * in_channels) and some "
                f"channels left for the memory; got width={width}, split={split}."
            )
        subnet = partial(DenseBlock, growth=growth)
        joined = modules * memory + short
        if scale == 1 and joined % 4:
            raise WICArgumentError(
                "Expected a number of joined channels divisible by 4 (to unsqueeze); "
                f"width={width}, split={split} and modules={modules} give {joined}."
            )
        inner: list[nn.Module] = []
        for _ in range(modules):
            # the next module stands inside this one's memory, behind its couplings
            body = [AffineCoupling(short, subnet=subnet) for _ in range(couplings)]
            inner = [WIC(short, width), LongTermMemory(memory, Chain(*body, *inner))]
        tail = AffineCoupling(joined, subnet=subnet)
        blocks: list[nn.Module] = [Squeeze(2), WIC(4 * in_channels, short), *inner, tail]
        if scale == 1:
            blocks.append(Unsqueeze(2))
            joined //= 4
        blocks.append(WIC(joined, out_channels, completion=completion, layout=layout))
        super().__init__(*blocks, config=config)


NETWORKS: dict[str, type[WIN] | type[WINNaive]] = {"WIN": WIN, "WINNaive": WINNaive}
"""The networks by the name that presets and files give them."""
