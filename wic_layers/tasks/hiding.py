"""One to four images hidden in another."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.tasks.base import Task, details

__all__ = ["MOST_SECRETS", "Hiding"]

MOST_SECRETS = 4

# correlations of details. Right secrets have at most 0.06 with the picture, 0.14 with a smooth
# one, and 0.04 with each other, if they are not alike; ghosts from 0.2, or less and each other's,
# or a single one less and in the same places: those correlate by 0.44 and more, of the picture and
# a right secret by at most 0.32
_GHOST, _FAINT, _TWINS, _PLACES = 0.15, 0.06, 0.1, 0.4
_SMALLEST = 16  # side of an image in which anything can be told


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
        """Whether what came back is a ghost of the picture itself, or of one secret in another."""
        seen = [image for image in images if min(image.shape[1:]) >= _SMALLEST]
        found = [_likeness(picture, image) for image in seen]
        ghost, place = max(found, default=(0.0, 0.0))
        pairs = combinations(seen, 2)
        # of several, right ones may have traces of each other where the picture has details
        same_places = place > _PLACES and len(seen) == 1
        if ghost > _GHOST or (
            ghost > _FAINT and (same_places or any(_likeness(*pair)[0] > _TWINS for pair in pairs))
        ):
            return (
                "What came back looks like the picture itself, as it does where nothing was "
                "hidden, or not so many secrets, or where JPEG or an edit destroyed them."
            )
        return None


def _likeness(one: Tensor, other: Tensor) -> tuple[float, float]:
    """Absolute correlations of two images' details, and of where they have them; 0 without any."""
    height, width = (min(sides) for sides in zip(one.shape[1:], other.shape[1:], strict=True))
    # the middle is enough
    rows, columns = (
        slice(start, start + 512)
        for start in (max(height - 512, 0) // 2, max(width - 512, 0) // 2)
    )
    pair = torch.stack(
        [details(x[:, :height, :width][:, rows, columns].float()) for x in (one, other)]
    )
    places = F.avg_pool2d(pair.abs(), 4)
    of_details, of_places = (
        abs(float(torch.corrcoef(x.flatten(1))[0, 1].nan_to_num(0))) for x in (pair, places)
    )
    return of_details, of_places
