"""One to four images hidden in another."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.tasks.base import Task, details

__all__ = ["MOST_SECRETS", "Hiding"]

MOST_SECRETS = 4
_GHOST = 0.15  # correlation of details: secrets have at most 0.06, a photograph's ghosts from 0.2


class Hiding(Task):
    """Secrets inside a cover: the stego image looks like the cover and gives the secrets back.

    Args:
        secrets: How many, from 1 to 4.

    Raises:
        WICArgumentError: If ``secrets`` is another number.
    """

    forward_criterion = "l1"
    commands = ("wic hide", "wic reveal")
    picture_name = "stego"
    titles = ("stego", "secret")
    looks_like = "the cover"

    def __init__(self, secrets: int = 1) -> None:
        if not 1 <= secrets <= MOST_SECRETS:
            raise WICArgumentError(f"Expected 1 to {MOST_SECRETS} secrets; got {secrets}.")
        self.name = f"hiding-{secrets}"
        self.images = 1 + secrets
        self.preset = f"{self.name}-naive-small"

    @property
    def image_names(self) -> tuple[str, ...]:
        """The cover, and the secrets with a number each where there are several."""
        secrets = range(1, self.images)
        return ("cover", *(f"secret_{n}" if self.images > 2 else "secret" for n in secrets))

    def reference(self, x: Tensor) -> Tensor:
        """The cover."""
        return x[:, :3]

    def doubt(self, picture: Tensor, images: Sequence[Tensor]) -> str | None:
        """Whether what came back is a ghost of the picture itself."""
        for image in images:
            height, width = image.shape[1:]
            if min(height, width) < 16:
                continue
            # the middle is enough
            rows, columns = (
                slice(start, start + 512)
                for start in (max(height - 512, 0) // 2, max(width - 512, 0) // 2)
            )
            pair = torch.stack(
                [
                    details(x[:, rows, columns].float()).flatten()
                    for x in (picture[:, :height, :width], image)
                ]
            )
            if float(torch.corrcoef(pair)[0, 1].nan_to_num(0)) > _GHOST:
                return (
                    "What came back looks like the picture itself, as it does where nothing was "
                    "hidden, or not so many secrets, or where JPEG or an edit destroyed them."
                )
        return None
