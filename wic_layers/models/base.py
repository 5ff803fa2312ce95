"""What all networks share: presets, weights in and out, and what they were built from."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from wic_layers.blocks import Chain
from wic_layers.blocks.subnets import DenseBlock
from wic_layers.errors import WICArgumentError
from wic_layers.layer.completion import Completion, CompletionName
from wic_layers.layer.conv import WIC
from wic_layers.models import weights
from wic_layers.models.inspection import flow, flow_table
from wic_layers.models.presets import PRESETS, find_preset

__all__ = ["NETWORKS", "Network", "closing", "from_pretrained", "with_wic"]

NETWORKS: dict[str, type[Network]] = {}
"""The networks by the name that presets and files give them; a subclass enters itself.

One that is named like a network of this package does not take its place.
"""


class Network(Chain):
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
        weights_id: The first 16 hex digits of the SHA-256 of the file it was loaded from, or None.
        card: What that file says about its weights.
        task: Name of the task that it was trained for, or None.
        closed_by: The arguments that put a WIC at the end of a subclass that was published with
            something else there; empty where there are none.
    """

    closed_by: ClassVar[Mapping[str, Any]] = {}
    config: dict[str, Any]

    def __init_subclass__(cls) -> None:
        entered = NETWORKS.get(cls.__name__)
        if entered is None or not entered.__module__.startswith(f"{__package__}."):
            NETWORKS[cls.__name__] = cls
        if "__init__" in vars(cls):
            cls.__init__ = _with_config(cls.__init__)  # type: ignore[method-assign]

    def __init__(self, *blocks: nn.Module) -> None:
        super().__init__(*blocks)
        self.preset: str | None = None
        self.task: str | None = None
        self.weights_id: str | None = None
        self.card: dict[str, str] = {}

    def __repr__(self) -> str:
        steps = flow(self, self.config["in_channels"])
        parameters = sum(parameter.numel() for parameter in self.parameters())
        title = f"{type(self).__name__}({self.preset or ''})"
        return f"{title}, {parameters:,} parameters\n{flow_table(steps)}"

    def optimize(self, dtype: torch.dtype | None = torch.bfloat16) -> Network:
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
            if isinstance(module, DenseBlock):
                module.optimize(dtype)
        return self.eval()

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Any:
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

    @classmethod
    def from_pretrained(cls, name: str | Path, *, revision: str | None = None) -> Any:
        """Returns a network of this class with trained weights.

        See :func:`wic_layers.models.from_pretrained`, which takes weights of any network.

        Raises:
            WICFileError: Also if the weights are of another network.
        """
        return weights.read(name, {cls.__name__: cls}, revision)

    def save_pretrained(self, folder: str | Path, card: Mapping[str, str] | None = None) -> Path:
        """Writes ``model.safetensors``, ``config.json`` and a model card into a folder.

        WIC kernels keep their dtype; everything else (the networks inside the couplings) is stored
        as float16, which halves the file. Figures should be measured with the stored file.

        Args:
            folder: Made if there is none; files of these three names are replaced, each at once.
            card: More to say about the weights: data, steps, PSNR with its protocol, licence.

        Returns:
            The folder.

        Raises:
            WICArgumentError: If the network holds a completion that is not a name, and so cannot
                be written down, or finite weights that would be infinite as float16.
            WICFileError: If the files cannot be written.
            WICDependencyError: If safetensors is not installed.
        """
        return weights.write(self, folder, self.card if card is None else card)

    def push_to_hub(
        self,
        name: str,
        card: Mapping[str, str] | None = None,
        *,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Writes what :meth:`save_pretrained` does into a repository of the Hugging Face hub.

        Args:
            name: ``"owner/name"``; made if there is none.
            card: See :meth:`save_pretrained`.
            private: Whether a new repository can be seen by its owner only.
            token: The hub's access token; the one that was saved by default.

        Returns:
            The address of the commit.

        Raises:
            WICDependencyError: If huggingface_hub is not installed.
            WICFileError: If the hub refuses.
        """
        chosen = self.card if card is None else card
        return weights.push(self, name, chosen, private=private, token=token)


def _with_config(init: Callable[..., None]) -> Callable[..., None]:
    """A constructor that also writes down its arguments, unless one that it called did."""
    signature = inspect.signature(init)

    @functools.wraps(init)
    def build(network: Network, *args: Any, **arguments: Any) -> None:
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
    """The layer at the end of a network that was published with a random z, or with a WIC there.

    Raises:
        WICArgumentError: If ``random_z`` comes with a completion.
    """
    if not random_z:
        made = WIC(channels, out_channels, completion=completion)
        with torch.no_grad():  # these networks have their picture in the first channels
            made.weight.copy_(torch.eye(channels))
        return made
    if completion is not None:
        raise WICArgumentError(
            f"Expected no completion with random_z=True, which draws z; got {completion!r}."
        )
    return WIC(channels, out_channels, completion="gaussian", parametrization="fixed")


def with_wic(model: Any, completion: CompletionName | None = None) -> Any:
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
    changes = dict(model.closed_by) if isinstance(model, Network) else {}
    if not changes or all(model.config[name] == value for name, value in changes.items()):
        raise WICArgumentError(
            "Expected a network with a z, with channel_squeeze=True or random_z=True; got "
            f"{type(model).__name__} without."
        )
    changes["completion"] = None if completion == "zero" else completion  # what None means
    network: Any = type(model)
    made = network(**{**model.config, **changes})
    made.load_state_dict({**made.state_dict(), **model.state_dict()})
    made.task = model.task
    made.preset = _preset_of(made)
    return made.train(model.training)


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


def from_pretrained(name: str | Path, *, revision: str | None = None) -> Any:
    """Returns a network with trained weights, in ``eval()`` mode, on the CPU, in float32.

    Args:
        name: A preset whose weights come with the package (see
            :func:`~wic_layers.models.packaged_weights`), a folder that ``save_pretrained`` wrote
            or its ``model.safetensors``, or ``"owner/name"`` on the Hugging Face hub.
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
    return weights.read(name, NETWORKS, revision)
