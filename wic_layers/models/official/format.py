"""Format, what is known of the checkpoints that one code base writes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.models.base import Network, has_wic
from wic_layers.models.colours import Colours

__all__ = ["Format", "behind_net", "haar_kernel"]

_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


class Format(ABC):
    """The names that a code base gives to the tensors of its networks.

    Attributes:
        networks: Our networks that its networks are.
        mark: A pattern in a name of each of its state dicts, and of nobody else's.
        colours: The order in which its data sets give colours to its networks.
        wic: The beginning of the names of the WIC that its networks are closed by, where the lines
            of ``integrations/`` put one into its code; empty where there are none.
    """

    networks: ClassVar[tuple[type[Network], ...]]
    mark: ClassVar[str]
    colours: ClassVar[Colours] = "RGB"
    wic: ClassVar[str] = ""

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this code."""
        return any(re.search(self.mark, key) for key in state)

    def is_closed(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of a network that was closed by a WIC in its own code."""
        return bool(self.wic) and any(key.startswith(self.wic) for key in state)

    def canonical(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict under those of its possible names that :meth:`names` gives."""
        return state

    @abstractmethod
    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network as published that the names and shapes of a state dict are for."""

    @abstractmethod
    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs; what they do not store has none."""

    def check(self, model: Network) -> None:
        """Raises if the authors' code, with or without our lines, has no such network."""
        if has_wic(model) and not self.wic:
            argument, _ = model.closed_by or ("", None)
            raise WICArgumentError(
                f"Expected a network as published, which is all that the code of "
                f"{type(model).__name__} has; got one with a WIC ({argument}="
                f"{model.config[argument]!r})."
            )

    def checkpoint(self, model: Network, state: dict[str, Tensor]) -> object:
        """What their code would write for a state dict under their names."""
        return state

    def is_kernel(self, model: Network, key: str) -> bool:
        """Whether a tensor of ours is a kernel that they store as that of a convolution."""
        return False

    def constants(self, model: Network) -> dict[str, Tensor]:
        """Tensors of theirs that ours has no counterpart of."""
        return {}

    def _refuse(self, **arguments: object) -> None:
        """Raises if there are arguments for what the shapes of a state dict say."""
        if any(value is not None for value in arguments.values()):
            raise WICArgumentError(
                f"Expected no {' and '.join(arguments)} for {self.networks[0].__name__}, whose "
                "shapes say."
            )


def behind_net(state: Mapping[str, Tensor], wic: str) -> dict[str, Tensor]:
    """A state dict as :class:`~wic_layers.WellPosed` has it: the network behind ``net.``."""
    return {key if key.startswith(wic) else f"net.{key}": value for key, value in state.items()}


def haar_kernel(channels: int) -> Tensor:
    """The Haar transform of so many channels, as the kernel of a convolution."""
    one = torch.tensor(_SIGNS, dtype=torch.float32).view(4, 1, 2, 2)
    return one.repeat(channels, 1, 1, 1)
