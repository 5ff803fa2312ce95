"""Hide, Reveal, Down and Up as nodes of ComfyUI.

An ``IMAGE`` there is a float tensor (B, H, W, 3), or 4 with opacity, in [0, 1]; a ``MASK`` is
(B, H, W), 1 where nothing is seen. Results are rounded to 8 bits, so that a PNG of them holds what
comes back; what ``file`` hands to Save has the mark that says how.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from wic_layers.pictures import reduce_opacity
from wic_layers.tasks import HIDING, RESCALING

from .pixels import all_seen, enlarged, image_of, mask_of, opacities_of, opaque, pictures
from .running import OWN, REVERSIBLE, Marked, codec_of, encoded, weights_for

__all__ = ["Down", "Hide", "Reveal", "Up"]

_CATEGORY = "image/reversible"
_SECRETS = 4
_LARGEST = 16384


class Down:
    """Makes a photograph smaller, so that Up brings it back from the small one alone."""

    CATEGORY = _CATEGORY
    FUNCTION = "down"
    RETURN_TYPES = ("IMAGE", "MASK", REVERSIBLE)
    RETURN_NAMES = ("small", "mask", "file")
    DESCRIPTION = "Makes a photograph smaller; Up brings it back from the small one alone."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "weights": (weights_for(RESCALING),),
                "refine": ("INT", {"default": 0, "min": 0, "max": 200, "tooltip": _REFINE}),
            },
            "optional": {"mask": ("MASK",), "folder": OWN},
        }

    def down(
        self,
        image: Tensor,
        weights: str,
        refine: int = 0,
        mask: Tensor | None = None,
        folder: str = "",
    ) -> tuple[Tensor, Tensor, tuple[Marked, ...]]:
        """Returns the small pictures, their masks, and what their files hold."""
        with torch.inference_mode(mode=False):
            codec = codec_of(weights, folder, RESCALING)
            scale = codec.task.scale
            results, opacities, files = [], [], []
            for colours, opacity in pictures(image, mask):
                photo = colours if opacity is None else torch.cat((colours, opacity))
                small, chunk = encoded(codec, [photo], refine=refine)
                results.append(small)
                opacities.append(_shown(opacity, small, scale))
                files.append(_file(small, opacity, scale, chunk))
            return image_of(results, opacities, image), mask_of(opacities), tuple(files)


class Up:
    """Brings back what Down made smaller; of another picture it makes nothing sharper."""

    CATEGORY = _CATEGORY
    FUNCTION = "up"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("photo", "mask")
    DESCRIPTION = (
        "Brings back what Down made smaller. It is no super-resolution of other pictures."
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {"default": 0, "min": 0, "max": _LARGEST, "tooltip": "of the photo; 0: all pixels"}
        return {
            "required": {
                "image": ("IMAGE",),
                "weights": (weights_for(RESCALING),),
                "width": ("INT", side),
                "height": ("INT", side),
            },
            "optional": {"mask": ("MASK",), "folder": OWN},
        }

    def up(
        self,
        image: Tensor,
        weights: str,
        width: int = 0,
        height: int = 0,
        mask: Tensor | None = None,
        folder: str = "",
    ) -> tuple[Tensor, Tensor]:
        """Returns the photographs and their masks; one of their own size stays as it is."""
        with torch.inference_mode(mode=False):
            codec = codec_of(weights, folder, RESCALING)
            scale = codec.task.scale
            size = (width or image.shape[2] * scale, height or image.shape[1] * scale)
            results, opacities = [], []
            for colours, opacity in pictures(image, None):
                (photo,) = codec.decode(colours, [size])
                results.append(photo)
                opacities.append(enlarged(opacity, size, scale))
            if mask is not None:
                opacities = [
                    enlarged(each, size, scale) for each in opacities_of(mask, len(results))
                ]
            return image_of(results, opacities, image), mask_of(opacities)


class Hide:
    """Hides one to four images in another, which looks as before."""

    CATEGORY = _CATEGORY
    FUNCTION = "hide"
    RETURN_TYPES = ("IMAGE", REVERSIBLE)
    RETURN_NAMES = ("stego", "file")
    DESCRIPTION = "Hides one to four images in another. Save it as PNG: every pixel is needed."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        others = {f"secret_{number}": ("IMAGE",) for number in range(2, _SECRETS + 1)}
        return {
            "required": {
                "cover": ("IMAGE",),
                "secret": ("IMAGE",),
                "fit": ("BOOLEAN", {"default": True, "tooltip": "reduce larger secrets"}),
                "refine": ("INT", {"default": 0, "min": 0, "max": 200, "tooltip": _REFINE}),
            },
            "optional": {**others, "folder": OWN},
        }

    def hide(
        self,
        cover: Tensor,
        secret: Tensor,
        fit: bool = True,  # noqa: FBT001, FBT002 - as ComfyUI calls it
        refine: int = 0,
        folder: str = "",
        **others: Tensor | None,
    ) -> tuple[Tensor, tuple[Marked, ...]]:
        """Returns the covers with the secrets in them, and what their files hold.

        The covers' opacity stays as it is.
        """
        named = (others.get(f"secret_{number}") for number in range(2, _SECRETS + 1))
        secrets = [secret, *(each for each in named if each is not None)]
        task = HIDING[len(secrets) - 1]
        with torch.inference_mode(mode=False):
            codec = codec_of(task.preset, folder, [task])
            hidden = [opaque(each, f"secret {index + 1}") for index, each in enumerate(secrets)]
            results, opacities, files = [], [], []
            for index, (colours, opacity) in enumerate(pictures(cover, None)):
                those = [each[index if len(each) > index else -1] for each in hidden]
                stego, chunk = encoded(codec, [colours, *those], fit=fit, refine=refine)
                files.append(_file(stego, opacity, 1, chunk))
                results.append(stego)
                opacities.append(_shown(opacity, stego, 1))
            return image_of(results, opacities, cover), tuple(files)


class Reveal:
    """Brings back the images that Hide hid, as many as it hid."""

    CATEGORY = _CATEGORY
    FUNCTION = "reveal"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("secrets",)
    OUTPUT_IS_LIST = (True,)
    DESCRIPTION = "Brings back what Hide hid: a list, of as many secrets as it hid."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = {
            "default": 0,
            "min": 0,
            "max": _LARGEST,
            "tooltip": "of the secret; 0: the cover's",
        }
        return {
            "required": {
                "stego": ("IMAGE",),
                "secrets": ("INT", {"default": 1, "min": 1, "max": _SECRETS}),
                "width": ("INT", side),
                "height": ("INT", side),
            },
            "optional": {"folder": OWN},
        }

    def reveal(
        self, stego: Tensor, secrets: int = 1, width: int = 0, height: int = 0, folder: str = ""
    ) -> tuple[list[Tensor]]:
        """Returns a batch for each secret."""
        task = HIDING[secrets - 1]
        size = (width or stego.shape[2], height or stego.shape[1])
        with torch.inference_mode(mode=False):
            codec = codec_of(task.preset, folder, [task])
            revealed = [
                codec.decode(colours, [size] * secrets) for colours, _ in pictures(stego, None)
            ]
            return ([image_of(list(each)) for each in zip(*revealed, strict=True)],)


_REFINE = "steps that improve the result for this image, such as 20: more comes back"


def _shown(opacity: Tensor | None, picture: Tensor, scale: int) -> Tensor:
    """The opacity of a picture that is some times smaller than its photograph."""
    size = (picture.shape[2], picture.shape[1])
    return all_seen(size) if opacity is None else reduce_opacity(opacity, size, scale)


def _file(picture: Tensor, opacity: Tensor | None, scale: int, chunk: bytes) -> Marked:
    """What the file of a picture holds: opacity only where there is some."""
    if opacity is None:
        return Marked(picture, chunk)
    return Marked(torch.cat((picture, _shown(opacity, picture, scale))), chunk)
