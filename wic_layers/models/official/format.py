"""Format, what is known of the checkpoints that one code base writes."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.models.base import Network

__all__ = ["Format", "haar_kernel"]

_SIGNS = ((1, 1, 1, 1), (1, -1, 1, -1), (1, 1, -1, -1), (1, -1, -1, 1))


class Format(ABC):
    """The names that a code base gives to the tensors of its networks.

    Attributes:
        networks: Our networks that its networks are.
        mark: A pattern in a name of each of its state dicts, and of nobody else's.
        published: The argument of ours that makes a network as published.
        advice: What to do with another one.
    """

    networks: ClassVar[tuple[type[Network], ...]]
    mark: ClassVar[str]
    published: ClassVar[str]
    advice: ClassVar[str] = "Put their network into wic_layers.WellPosed to use one in their code."

    def recognises(self, state: Mapping[str, Tensor]) -> bool:
        """Whether a state dict is of this code."""
        return any(re.search(self.mark, key) for key in state)

    @abstractmethod
    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network that the names and shapes of a state dict are for."""

    @abstractmethod
    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs; what they do not store has none."""

    def check(self, model: Network) -> None:
        """Raises if the authors' code has no such network."""
        if not model.config[self.published]:
            kind = self.networks[0].__name__
            article = "a" if kind[0] == "H" else "an"
            raise WICArgumentError(
                f"Expected {article} {kind} with {self.published}=True, which is all that the "
                f"authors' code has; got one with a WIC. {self.advice}"
            )

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


def haar_kernel(channels: int) -> Tensor:
    """The Haar transform of so many channels, as the kernel of a convolution."""
    one = torch.tensor(_SIGNS, dtype=torch.float32).view(4, 1, 2, 2)
    return one.repeat(channels, 1, 1, 1)
