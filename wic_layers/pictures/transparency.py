"""``fill_hidden``, colours where nothing is seen; ``reduce_opacity``, for a smaller picture."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.pictures.pixels import pad_to

__all__ = ["fill_hidden", "reduce_opacity"]


def fill_hidden(colours: Tensor, opacity: Tensor) -> Tensor:
    """Returns an image whose fully transparent pixels continue those around them.

    What programs store there, mostly black, would cost a network as much as a hard edge, and shine
    through at the border of what is seen.

    Args:
        colours: Pixels (3, H, W), uint8.
        opacity: (1, H, W), uint8. Where it is not 0 the colours stay what they are.

    Returns:
        Pixels (3, H, W), uint8; as they are if all of them are transparent.
    """
    shown = opacity > 0
    if bool(shown.all()) or not bool(shown.any()):
        return colours
    # halved, as means of what is known, until all is known; then back, coarse to fine
    known, weight = colours.float() * shown, shown.float()
    levels = [(known, weight)]
    while not bool((weight > 0).all()):
        known, weight = (
            F.avg_pool2d(each[None], 2, ceil_mode=True, count_include_pad=False)[0]
            for each in (known, weight)
        )
        levels.append((known, weight))
    filled = known / weight
    for known, weight in reversed(levels[:-1]):
        size = known.shape[1:]
        coarse = F.interpolate(filled[None], size=size, mode="bilinear", align_corners=False)[0]
        filled = torch.where(weight > 0, known / weight.clamp(min=1e-12), coarse)
    return torch.where(shown, colours, filled.round().clamp(0, 255).to(torch.uint8))


def reduce_opacity(opacity: Tensor, size: tuple[int, int], scale: int) -> Tensor:
    """Returns the opacity of a picture that was made smaller, for those who look at it.

    Args:
        opacity: (1, H, W), uint8, of the photograph.
        size: The picture's (width, height): the photograph's over the scale, padded.
        scale: How many times smaller it is.
    """
    width, height = size
    padded = pad_to(opacity, (width * scale, height * scale))
    if scale == 1:
        return padded
    x = F.interpolate(padded[None].float(), size=(height, width), mode="bicubic", antialias=True)
    return x[0].round().clamp(0, 255).to(torch.uint8)
