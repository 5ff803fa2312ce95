"""Random crops from a folder of photographs."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from wic_layers.errors import WICArgumentError, WICFileError

__all__ = ["Photographs"]


def _decode(path: Path, factors: list[int]) -> list[Tensor]:
    """Reads an image once and returns it reduced by each of the factors."""
    import numpy as np

    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise WICFileError(f"{path} cannot be read as an image: {error}.") from error
    found = []
    for factor in factors:
        size = (rgb.width // factor, rgb.height // factor)
        if not min(size):
            found.append(torch.empty(3, 0, 0, dtype=torch.uint8))
            continue
        small = rgb.resize(size, Image.Resampling.BICUBIC) if factor > 1 else rgb
        found.append(torch.from_numpy(np.array(small)).permute(2, 0, 1).contiguous())
    return found


class Photographs:
    """Images in memory as 8-bit pixels, and batches of their random crops.

    Batch k depends on the seed and k alone, so that a resumed run sees what an uninterrupted one
    would.

    Args:
        paths: The image files.
        reduce: Every image is first made that many times smaller (antialiased). 2 is right for
            photographs stored as JPEG: their halved chroma would otherwise teach the network a
            shortcut.
        levels: How many sizes of every image are used, each half the one before, with equal
            chances. Large photographs are soft at their full size; a network that sees nothing
            sharper fails on small, sharp pictures.
        smallest: Least side, in pixels, that an image must have after that; smaller ones are left
            out.

    Raises:
        WICArgumentError: If ``reduce`` or ``levels`` is less than 1.
        WICFileError: If an image cannot be read, or none is large enough.
    """

    def __init__(
        self, paths: list[Path], *, reduce: int = 2, levels: int = 1, smallest: int = 64
    ) -> None:
        for name, value in (("reduce", reduce), ("levels", levels)):
            if value < 1:
                raise WICArgumentError(f"Expected {name} of at least 1; got {value!r}.")
        factors = [reduce * 2**level for level in range(levels)]
        self.images: list[Tensor] = []
        chances: list[float] = []
        sizes = zip(*(_decode(path, factors) for path in paths), strict=True)
        for level in sizes:
            kept = [image for image in level if min(image.shape[1:]) >= smallest]
            area = sum(image[0].numel() for image in kept)
            chances += [image[0].numel() / area for image in kept]
            self.images += kept
        if not self.images:
            raise WICFileError(
                f"Expected images of at least {smallest} pixels a side after reducing by "
                f"{reduce}; none of {len(paths)} is. Choose a smaller crop."
            )
        self._chance = torch.tensor(chances)

    def __len__(self) -> int:
        return len(self.images)

    def batch(
        self,
        index: int,
        *,
        size: int,
        crop: int,
        seed: int,
        saturate: float = 0.0,
        candidates: int = 1,
    ) -> Tensor:
        """Returns batch ``index``, flipped and turned: (size, 3, crop, crop) in [0, 1].

        Args:
            index: Number of the batch.
            size: Crops in it.
            crop: Their side in pixels.
            seed: Of all batches.
            saturate: Chance of a crop to have its contrast and brightness changed at random, so
                that some of its pixels become black or white. Networks that see few of those fail
                on them: where the forward picture is clipped, what comes back is far off.
            candidates: Of so many random crops the one with the most details is taken: much of a
                photograph is sky or out of focus, and teaches little.
        """
        generator = torch.Generator().manual_seed((seed * 1_000_003 + index) % 2**63)
        chosen = torch.multinomial(
            self._chance, size * candidates, replacement=True, generator=generator
        )
        found = []
        for which in chosen.tolist():
            image = self.images[which]
            top, left, turn, flip = (
                int(torch.randint(limit, (), generator=generator))
                for limit in (image.shape[1] - crop + 1, image.shape[2] - crop + 1, 4, 2)
            )
            found.append((image[:, top : top + crop, left : left + crop], turn, flip))
        crops = []
        for start in range(0, len(found), candidates):
            group = found[start : start + candidates]
            best = max(group, key=lambda one: _details(one[0])) if candidates > 1 else group[0]
            piece = best[0].rot90(best[1], (1, 2))
            crops.append(piece.flip(2) if best[2] else piece)
        pixels = torch.stack(crops).float() / 255
        if not saturate:
            return pixels
        chance, contrast, brightness = torch.rand(3, size, 1, 1, 1, generator=generator)
        changed = (pixels - 0.5) * (0.6 + 1.2 * contrast) + 0.2 + 0.6 * brightness
        return torch.where(chance < saturate, changed.clamp(0, 1), pixels)


def _details(image: Tensor) -> float:
    """The mean difference between neighbours, down and across together."""
    pixels = image.short()
    down, across = (pixels.diff(dim=dim).abs().float().mean() for dim in (1, 2))
    return float(down + across)
