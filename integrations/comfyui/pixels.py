"""Images and masks as ComfyUI has them, and as pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.errors import WICShapeError

__all__ = [
    "all_seen",
    "enlarged",
    "image_of",
    "mask_of",
    "opacities_of",
    "opaque",
    "pictures",
    "pixels_of",
]


def pictures(image: Tensor, mask: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Colours (3, H, W) and, where there is one, opacity (1, H, W) of each image, as uint8."""
    if image.ndim != 4 or image.shape[3] not in (3, 4):
        raise WICShapeError(
            f"Expected images (B, H, W, 3), or 4 with opacity; got {tuple(image.shape)}."
        )
    pixels = pixels_of(image).movedim(3, 1)
    colours, own = pixels[:, :3], pixels[:, 3:]
    opacities = list(own) if own.shape[1] else [None] * len(pixels)
    if mask is not None:
        opacities = opacities_of(mask, len(pixels))
        size = (image.shape[2], image.shape[1])
        opacities = [enlarged(each, size) for each in opacities]
    is_seen = [each is None or bool((each == 255).all()) for each in opacities]
    return [
        (each, None if seen else opacity)
        for each, opacity, seen in zip(colours, opacities, is_seen, strict=True)
    ]


def opacities_of(mask: Tensor, number: int) -> list[Tensor]:
    """A mask is 1 where nothing is seen; one for all images, or one for each."""
    each = list(255 - pixels_of(mask.reshape(-1, 1, *mask.shape[-2:])))
    return each if len(each) == number else [each[0]] * number


def opaque(image: Tensor, title: str) -> list[Tensor]:
    """Colours (3, H, W), uint8, of images that are seen everywhere."""
    those = pictures(image, None)
    if any(opacity is not None for _, opacity in those):
        raise WICShapeError(
            f"Expected {title} to be opaque, as a stego image has no room for more."
        )
    return [colours for colours, _ in those]


def enlarged(opacity: Tensor | None, size: tuple[int, int], scale: int = 1) -> Tensor:
    """Opacity of a picture that becomes larger; as it is where it has that size already."""
    width, height = size
    if opacity is None or bool((opacity == 255).all()):  # Load Image's is 64x64 then
        return all_seen(size)
    if opacity.shape[1:] == (height, width):
        return opacity
    # the small picture of odd sides was made of one that is a pixel longer
    sides = [scale * side for side in opacity.shape[1:]] if scale > 1 else [height, width]
    x = F.interpolate(opacity[None].float(), size=sides, mode="bilinear")[0]
    if x.shape[1] < height or x.shape[2] < width:
        raise WICShapeError(
            f"Expected a mask of the small picture or of {width}x{height}; got one of "
            f"{opacity.shape[2]}x{opacity.shape[1]}."
        )
    return x[:, :height, :width].round().to(torch.uint8)


def all_seen(size: tuple[int, int]) -> Tensor:
    """Opacity where all is seen."""
    return torch.full((1, size[1], size[0]), 255, dtype=torch.uint8)


def pixels_of(x: Tensor) -> Tensor:
    """Numbers in [0, 1] as uint8, on the CPU."""
    return (255 * x.detach().float().cpu()).round().clamp(0, 255).to(torch.uint8)


def image_of(
    results: list[Tensor], opacities: list[Tensor] | None = None, like: Tensor | None = None
) -> Tensor:
    """An IMAGE of results, with opacity where the input had a channel of it."""
    x = torch.stack(results)
    if opacities is not None and like is not None and like.shape[3] == 4:
        x = torch.cat((x, torch.stack(opacities)), dim=1)
    return x.movedim(1, 3).float() / 255


def mask_of(opacities: list[Tensor]) -> Tensor:
    """A MASK of opacities."""
    return 1 - torch.cat(opacities).float() / 255
