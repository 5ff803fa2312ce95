"""Network, the base of all networks: blocks in a row with presets, weights and arguments."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, overload

import torch
from torch import Tensor, nn

from wic_layers.blocks import AffineCoupling, Chain
from wic_layers.blocks.coupling_net import CouplingNet
from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.blocks.squeezed_block import SqueezedBlock
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.models.colours import turned
from wic_layers.models.inspection import flow, flow_table
from wic_layers.models.presets import PRESETS, find_preset
from wic_layers.models.weights import Stored, read

if TYPE_CHECKING:
    from typing_extensions import Self

    from wic_layers.models.names import WINNaiveWeights, WINWeights
    from wic_layers.models.win import WIN, WINNaive

__all__ = [
    "NETWORKS",
    "Network",
    "affine_couplings",
    "closing",
    "from_pretrained",
    "has_wic",
    "with_wic",
]

NETWORKS: dict[str, type[Network]] = {}
"""The networks by the name that presets and files give them; a subclass enters itself.

One that is named like a network of this package does not take its place.
"""


class Network(Stored, Chain):
    """A chain of blocks that a preset names and a folder of weights holds.

    A subclass is built from arguments that JSON can hold; among them are ``in_channels``,
    ``out_channels``, ``completion`` and, if it is not always 1, ``scale``. Files name it by its
    class; one that is named like a network of this package is read by its own
    :meth:`from_pretrained` alone.

    Args:
        *blocks: See :class:`~wic_layers.blocks.Chain`.

    Attributes:
        config: All arguments that the subclass was built from, those by default too: of the class
            that passes its blocks to this one. It is written down by itself.
        preset: Name of the preset that it was built from, or None.
        task: Name of the task that it was trained for, or None.
        weights_id: The first 16 hex digits of the SHA-256 of the file it was loaded from, or None.
        card: What that file says about its weights.
        through: What its forward picture went through in training, such as ``"jpeg:75-95"``, so
            that such files bring back what they hold; empty where only pixels as they are do.
        colours: The order in which its blocks see colours: ``"RGB"``, or ``"BGR"`` where its
            training saw blue first. Both ends take and give RGB all the same: a network of
            ``"BGR"`` exchanges red and blue of the pictures that come in and go out, and leaves
            other channels (grey, opacity, depth).
        closed_by: The argument, with its value, that puts a WIC at the end of a subclass that was
            published with something else there; None where there is none.
    """

    closed_by: ClassVar[tuple[str, object] | None] = None

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        entered = NETWORKS.get(cls.__name__)
        if entered is None or not entered.__module__.startswith(f"{__package__}."):
            NETWORKS[cls.__name__] = cls
        if "__init__" in vars(cls):
            cls.__init__ = _with_config(cls.__init__)  # type: ignore[method-assign]

    def __repr__(self) -> str:
        steps = flow(self, self.config["in_channels"])
        parameters = sum(parameter.numel() for parameter in self.parameters())
        title = f"{type(self).__name__}({self.preset or ''})"
        return f"{title}, {parameters:,} parameters\n{flow_table(steps)}"

    def optimize(self, dtype: torch.dtype | None = torch.bfloat16) -> Self:
        """Sets the precision of the networks inside couplings, for inference.

        Pixels, halves and WIC stay as they are: in bfloat16, on processors and GPUs that have it,
        results are within 65 dB of those in float32, and about twice as soon there.

        Args:
            dtype: Of the networks inside couplings; None for that of the input again.

        Returns:
            The network itself, in ``eval()``. It counts with gradients off only; training goes on
            as it did.
        """
        for module in self.modules():
            if isinstance(module, CouplingNet):
                module.optimize(dtype)
        return self.eval()

    @property
    def image_channels(self) -> int:
        """Channels of each image that goes in; several colour pictures count as one image."""
        channels: int = self.config["in_channels"]
        return channels

    def turn_images(self, x: Tensor) -> Tensor:
        """Returns the images that go in with their colours as the blocks see them, and back."""
        return x if self.colours == "RGB" else turned(x, self.image_channels)

    def turn_picture(self, y: Tensor) -> Tensor:
        """Returns the forward picture with its colours as the blocks see them, and back."""
        return y if self.colours == "RGB" else turned(y, self.config["out_channels"])

    def _forward(self, x: Tensor) -> Tensor:
        return self.turn_picture(super()._forward(self.turn_images(x)))

    def _inverse(self, y: Tensor) -> Tensor:
        return self.turn_images(super()._inverse(self.turn_picture(y)))

    def can_undo(self, *, rev: bool) -> bool:
        """Whether all blocks can be undone; a network that turns colours is not, by blocks."""
        return self.colours == "RGB" and super().can_undo(rev=rev)

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Self:
        """Builds the network of that name with random weights.

        Args:
            name: A key of :data:`wic_layers.models.PRESETS`, such as ``"rescaling-x2-small"``.
            **changes: Arguments of the network to change.

        Raises:
            WICArgumentError: If there is no preset of that name, or it is of another network.
        """
        preset = find_preset(name)
        if preset.network != cls.__name__:
            raise WICArgumentError(
                f"Expected a preset of {cls.__name__}; '{name}' is one of {preset.network}."
            )
        model = cls(**{**preset.arguments, **changes})
        model.task = preset.task
        if not changes:
            model.preset = name
        return model


def _with_config(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that also writes down its arguments, unless one that it called did."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def build(network: Network, *args: object, **arguments: object) -> None:
        init(network, *args, **arguments)
        if "config" not in vars(network):
            bound = signature.bind(network, *args, **arguments)
            bound.apply_defaults()
            network.config = dict(list(bound.arguments.items())[1:])  # without self

    return build


def closing(
    channels: int,
    out_channels: int,
    *,
    random_z: bool,
    completion: CompletionName | Completion | None,
) -> WIC:
    """The end of a network that was published with a random z: that, or a WIC there."""
    if not random_z:
        last = WIC(channels, out_channels, completion=completion)
        with torch.no_grad():  # these networks have their picture in the first channels
            last.weight.copy_(torch.eye(channels))
        return last
    if completion is not None:
        raise WICArgumentError(
            f"Expected no completion with random_z=True, which draws z; got {completion!r}."
        )
    return WIC(channels, out_channels, completion="gaussian", parametrization="fixed")


def affine_couplings(
    number: int,
    channels: int,
    growth: int,
    *,
    split: int | None = None,
    clamp: float = 1.0,
    slope: float = 0.2,
    squeezed: int | None = None,
) -> list[nn.Module]:
    """Couplings in a row, with dense blocks inside; IRN's clamp and slope by default.

    With ``squeezed`` there are squeezed blocks of that width inside, whatever ``growth`` is.
    """
    subnet: Callable[[int, int], nn.Module] = functools.partial(
        DenseBlock, growth=growth, slope=slope
    )
    if squeezed is not None:
        subnet = functools.partial(SqueezedBlock, width=squeezed, slope=slope)
    return [
        AffineCoupling(channels, split=split, clamp=clamp, subnet=subnet) for _ in range(number)
    ]


def has_wic(model: Network) -> bool:
    """Whether a network has a WIC where it was published with something else."""
    return model.closed_by is not None and model.closed_by in model.config.items()


def with_wic(model: nn.Module, completion: CompletionName | None = None) -> Network:
    """Returns a published network with a WIC at its end, and all of its weights.

    The forward picture stays as it is. Where the network drew its z, the WIC starts as the
    identity, which keeps what was kept, and the completion stands where z was; where it took means
    of channels, it starts as those, and with zeros, a predictor or repetition completed, the way
    back stays too.

    Args:
        model: A network as published (of IRN and HiNet ``random_z=True``, of IICNet
            ``channel_squeeze=True``, of others a ``z``), such as
            :func:`~wic_layers.models.load_official` gives.
        completion: Of the WIC, see :class:`~wic_layers.WIC`; zero when None.

    Raises:
        WICArgumentError: If it is another network.
    """
    closed_by = model.closed_by if isinstance(model, Network) else None
    if not isinstance(model, Network) or not closed_by or has_wic(model):
        raise WICArgumentError(
            "Expected a network with a z, with channel_squeeze=True or random_z=True; got "
            f"{type(model).__name__} without."
        )
    completion = None if completion == "zero" else completion  # what None means
    changes = {**dict([closed_by]), "completion": completion}
    closed = type(model)(**{**model.config, **changes})
    closed.load_state_dict({**closed.state_dict(), **model.state_dict()})
    closed.task, closed.colours = model.task, model.colours
    closed.preset = _preset_of(closed)
    return closed.train(model.training)


def _preset_of(model: Network) -> str | None:
    """The preset that a network has the arguments and the task of, if there is one."""
    signature = inspect.signature(type(model)).parameters.values()
    usual = {p.name: p.default for p in signature}
    for name in PRESETS.names():
        preset = PRESETS[name]
        if (
            preset.network == type(model).__name__
            and model.task in (None, preset.task)
            and {**usual, **preset.arguments} == model.config
        ):
            return name
    return None


@overload
def from_pretrained(name: WINWeights, *, revision: str | None = None) -> WIN: ...
@overload
def from_pretrained(name: WINNaiveWeights, *, revision: str | None = None) -> WINNaive: ...
@overload
def from_pretrained(name: str | Path, *, revision: str | None = None) -> Network: ...
def from_pretrained(name: str | Path, *, revision: str | None = None) -> Network:
    """Returns a network with trained weights, in ``eval()`` mode, on the CPU, in float32.

    Args:
        name: A preset with weights: those that come with the package (see
            :func:`~wic_layers.models.packaged_weights`), or large ones that a wheel leaves out,
            which are downloaded and have to be those that the wheel describes. Or a folder that
            ``save_pretrained`` wrote, or its ``model.safetensors``, or ``"hub:owner/name"`` on the
            Hugging Face hub, which is asked without the user's token first.
        revision: Branch, tag or commit on the hub.

    Returns:
        The network. Its ``preset`` is the preset's name or None; its ``weights_id`` the first 16
        hex digits of the file's SHA-256; its ``card`` what ``save_pretrained`` was told about the
        weights.

    Raises:
        WICArgumentError: If it is neither, or a preset without weights here.
        WICFileError: If a file is missing or damaged, or the hub does not give it. Never random
            weights.
        WICDependencyError: If safetensors, or for the hub huggingface_hub, is not installed.
    """
    return read(name, NETWORKS, revision)
