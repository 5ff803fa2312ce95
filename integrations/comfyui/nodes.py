"""Hide, Reveal, Down and Up as nodes of ComfyUI.

An ``IMAGE`` there is a float tensor (B, H, W, 3), or 4 with opacity, in [0, 1]; a ``MASK`` is
(B, H, W), 1 where nothing is seen. Results are rounded to 8 bits, so that a PNG of them holds what
comes back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from wic_layers.codec import Codec
from wic_layers.errors import WICShapeError
from wic_layers.models import PRESETS
from wic_layers.models.packaged import described_weights
from wic_layers.pictures import fill_hidden, reduce_opacity
from wic_layers.tasks import HIDING, RESCALING
from wic_layers.tasks.base import Task

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

_CATEGORY = "image/reversible"
_SECRETS = 4
_LARGEST = 16384
_OWN = ("STRING", {"default": "", "tooltip": "a folder of weights of your own, in place of those"})


class Down:
    """Makes a photograph smaller, so that Up brings it back from the small one alone."""

    CATEGORY = _CATEGORY
    FUNCTION = "down"
    RETURN_TYPES = ("IMAGE", "MASK")
    RETURN_NAMES = ("small", "mask")
    DESCRIPTION = "Makes a photograph smaller; Up brings it back from the small one alone."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE",),
                "weights": (_weights(RESCALING),),
                "refine": ("INT", {"default": 0, "min": 0, "max": 200, "tooltip": _REFINE}),
            },
            "optional": {"mask": ("MASK",), "folder": _OWN},
        }

    def down(
        self,
        image: Tensor,
        weights: str,
        refine: int = 0,
        mask: Tensor | None = None,
        folder: str = "",
    ) -> tuple[Tensor, Tensor]:
        """Returns the small pictures and their masks."""
        with torch.inference_mode(mode=False):
            codec = _codec(weights, folder, RESCALING)
            results, opacities = [], []
            for colours, opacity in _pictures(image, mask):
                seen = colours if opacity is None else fill_hidden(colours, opacity)
                small = codec.encode(seen, refine=refine)
                results.append(small)
                size = (small.shape[2], small.shape[1])
                opacities.append(
                    _seen(size)
                    if opacity is None
                    else reduce_opacity(opacity, size, codec.task.scale)
                )
            return _image(results, opacities, image), _mask(opacities, image)


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
                "weights": (_weights(RESCALING),),
                "width": ("INT", side),
                "height": ("INT", side),
            },
            "optional": {"mask": ("MASK",), "folder": _OWN},
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
            codec = _codec(weights, folder, RESCALING)
            scale = codec.task.scale
            size = (width or image.shape[2] * scale, height or image.shape[1] * scale)
            results, opacities = [], []
            for colours, opacity in _pictures(image, None):
                (photo,) = codec.decode(colours, [size])
                results.append(photo)
                opacities.append(_enlarged(opacity, size, scale))
            if mask is not None:
                opacities = [
                    _enlarged(each, size, scale) for each in _opacities(mask, len(results))
                ]
            return _image(results, opacities, image), _mask(opacities, image)


class Hide:
    """Hides one to four images in another, which looks as before."""

    CATEGORY = _CATEGORY
    FUNCTION = "hide"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("stego",)
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
            "optional": {**others, "folder": _OWN},
        }

    def hide(
        self,
        cover: Tensor,
        secret: Tensor,
        fit: bool = True,  # noqa: FBT001, FBT002 - as ComfyUI calls it
        refine: int = 0,
        folder: str = "",
        **others: Tensor | None,
    ) -> tuple[Tensor]:
        """Returns the covers with the secrets in them; their opacity stays as it is."""
        named = (others.get(f"secret_{number}") for number in range(2, _SECRETS + 1))
        secrets = [secret, *(each for each in named if each is not None)]
        task = HIDING[len(secrets) - 1]
        with torch.inference_mode(mode=False):
            codec = _codec(task.preset, folder, [task])
            hidden = [_opaque(each, f"secret {index + 1}") for index, each in enumerate(secrets)]
            results, opacities = [], []
            for index, (colours, opacity) in enumerate(_pictures(cover, None)):
                those = [each[index if len(each) > index else -1] for each in hidden]
                stego = codec.encode(colours, *those, fit=fit, refine=refine)
                results.append(stego)
                size = (stego.shape[2], stego.shape[1])
                opacity = _seen(size) if opacity is None else reduce_opacity(opacity, size, 1)
                opacities.append(opacity)
            return (_image(results, opacities, cover),)


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
            "optional": {"folder": _OWN},
        }

    def reveal(
        self, stego: Tensor, secrets: int = 1, width: int = 0, height: int = 0, folder: str = ""
    ) -> tuple[list[Tensor]]:
        """Returns a batch for each secret."""
        task = HIDING[secrets - 1]
        size = (width or stego.shape[2], height or stego.shape[1])
        with torch.inference_mode(mode=False):
            codec = _codec(task.preset, folder, [task])
            revealed = [
                codec.decode(colours, [size] * secrets) for colours, _ in _pictures(stego, None)
            ]
            return ([_image(list(each), None, stego) for each in zip(*revealed, strict=True)],)


_REFINE = "steps that improve the result for this image, such as 20: more comes back"


def _weights(tasks: Sequence[Task]) -> list[str]:
    """The presets with weights for tasks, those that are taken by default first."""
    names = [task.name for task in tasks]
    usual = [task.preset for task in tasks if task.preset in described_weights()]
    others = [name for name in described_weights() if PRESETS[name].task in names]
    return list(dict.fromkeys([*usual, *others]))


def _codec(weights: str, folder: str, tasks: Sequence[Task]) -> Codec:
    if folder:
        codec = _loaded(folder, tuple(task.name for task in tasks), _device())
    else:
        codec = _loaded(weights, (PRESETS[weights].task,), _device())
    codec.progress = _progress()
    return codec


@lru_cache(maxsize=4)
def _loaded(model: str, tasks: tuple[str, ...], device: str) -> Codec:
    return Codec(tasks, model, device=device)


def _device() -> str:
    """Where ComfyUI runs networks."""
    try:
        from comfy import model_management
    except ImportError:
        return "cpu"
    return str(model_management.get_torch_device())


def _progress() -> Callable[[int, int], None] | None:
    """Its bar, and its button that ends a run."""
    try:
        from comfy import model_management, utils
    except ImportError:
        return None

    def show(done: int, total: int) -> None:
        model_management.throw_exception_if_processing_interrupted()
        utils.ProgressBar(total).update_absolute(done, total)

    return show


def _pictures(image: Tensor, mask: Tensor | None) -> list[tuple[Tensor, Tensor | None]]:
    """Colours (3, H, W) and, where there is one, opacity (1, H, W) of each image, as uint8."""
    if image.ndim != 4 or image.shape[3] not in (3, 4):
        raise WICShapeError(
            f"Expected images (B, H, W, 3), or 4 with opacity; got {tuple(image.shape)}."
        )
    pixels = _bytes(image).movedim(3, 1)
    colours, own = pixels[:, :3], pixels[:, 3:]
    opacities = list(own) if own.shape[1] else [None] * len(pixels)
    if mask is not None:
        opacities = _opacities(mask, len(pixels))
        size = (image.shape[2], image.shape[1])
        opacities = [_enlarged(each, size) for each in opacities]
    is_seen = [each is None or bool((each == 255).all()) for each in opacities]
    return [
        (each, None if seen else opacity)
        for each, opacity, seen in zip(colours, opacities, is_seen, strict=True)
    ]


def _opacities(mask: Tensor, number: int) -> list[Tensor]:
    """A mask is 1 where nothing is seen; one for all images, or one for each."""
    each = list(255 - _bytes(mask.reshape(-1, 1, *mask.shape[-2:])))
    return each if len(each) == number else [each[0]] * number


def _opaque(image: Tensor, title: str) -> list[Tensor]:
    pictures = _pictures(image, None)
    if any(opacity is not None for _, opacity in pictures):
        raise WICShapeError(
            f"Expected {title} to be opaque, as a stego image has no room for more."
        )
    return [colours for colours, _ in pictures]


def _enlarged(opacity: Tensor | None, size: tuple[int, int], scale: int = 1) -> Tensor:
    """Opacity of a picture that becomes larger; as it is where it has that size already."""
    width, height = size
    if opacity is None:
        return _seen(size)
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


def _seen(size: tuple[int, int]) -> Tensor:
    """Opacity where all is seen."""
    return torch.full((1, size[1], size[0]), 255, dtype=torch.uint8)


def _bytes(x: Tensor) -> Tensor:
    return (255 * x.detach().float().cpu()).round().clamp(0, 255).to(torch.uint8)


def _image(results: list[Tensor], opacities: list[Tensor] | None, like: Tensor) -> Tensor:
    """A batch of results, with opacity where the input had a channel of it."""
    pixels = torch.stack(results)
    if opacities is not None and like.shape[3] == 4:
        pixels = torch.cat((pixels, torch.stack(opacities)), dim=1)
    return pixels.movedim(1, 3).float() / 255


def _mask(opacities: list[Tensor], like: Tensor) -> Tensor:
    return 1 - torch.cat(opacities).float() / 255


NODE_CLASS_MAPPINGS = {
    "WICDown": Down,
    "WICUp": Up,
    "WICHide": Hide,
    "WICReveal": Reveal,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "WICDown": "Down (reversible)",
    "WICUp": "Up (reversible)",
    "WICHide": "Hide images in an image",
    "WICReveal": "Reveal hidden images",
}
