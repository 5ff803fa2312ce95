"""One to four images hidden in another."""

from __future__ import annotations

from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.tasks.base import Task

__all__ = ["MOST_SECRETS", "Hiding"]

MOST_SECRETS = 4


class Hiding(Task):
    """Secrets inside a cover: the stego image looks like the cover and gives the secrets back.

    Args:
        secrets: How many, from 1 to 4.

    Raises:
        WICArgumentError: If ``secrets`` is another number.
    """

    forward_criterion = "l1"
    commands = ("wic hide", "wic reveal")

    def __init__(self, secrets: int = 1) -> None:
        if not 1 <= secrets <= MOST_SECRETS:
            raise WICArgumentError(f"Expected 1 to {MOST_SECRETS} secrets; got {secrets}.")
        self.name = f"hiding-{secrets}"
        self.images = 1 + secrets
        self.preset = f"{self.name}-naive-{'small' if secrets == 1 else 'tiny'}"

    def wanted(self, x: Tensor) -> tuple[Tensor, ...]:
        """The secrets."""
        return self.unpack(x)[1:]

    def reference(self, x: Tensor) -> Tensor:
        """The cover."""
        return x[:, :3]
