"""Save and Bring back: nodes for PNG files that say what they were made of.

ComfyUI's own Save Image writes pixels and no mark, and its Load Image reads no mark. These write
and read the files of ``wic``: whoever has such a file needs to know neither weights nor sizes.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
import zlib
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from wic_layers.errors import WICFileError
from wic_layers.pictures import encode_png, read_carrier, read_carrier_head, read_layer

from .pixels import all_seen, image_of, mask_of
from .running import OWN, REVERSIBLE, Marked, reader_of

__all__ = ["BringBack", "Save"]

_CATEGORY = "image/reversible"
_HEAD = 33  # bytes of a PNG's signature and header
_WORKFLOW = "store the workflow in the file too; it names what was hidden"


class Save:
    """Writes what Down or Hide made as PNG, with the mark that brings it back."""

    CATEGORY = _CATEGORY
    FUNCTION = "save"
    OUTPUT_NODE = True
    RETURN_TYPES = ()
    DESCRIPTION = "Writes what Down or Hide made as PNG files, which say what brings them back."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "file": (REVERSIBLE,),
                "filename_prefix": ("STRING", {"default": "reversible"}),
                "workflow": ("BOOLEAN", {"default": False, "tooltip": _WORKFLOW}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    def save(
        self,
        file: tuple[Marked, ...],
        filename_prefix: str = "reversible",
        workflow: bool = False,  # noqa: FBT001, FBT002 - as ComfyUI calls it
        prompt: Any = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Writes a file for each image, and returns their names for the page to show."""
        import folder_paths

        height, width = file[0].pixels.shape[1:]
        folder, name, number, subfolder, _ = folder_paths.get_save_image_path(
            filename_prefix, folder_paths.get_output_directory(), width, height
        )
        texts = {"prompt": prompt, **(extra_pnginfo or {})} if workflow else {}
        saved = []
        for index, each in enumerate(file):
            title = f"{name.replace('%batch_num%', str(index))}_{number + index:05}_.png"
            content = encode_png(each.pixels, chunk=each.chunk)
            Path(folder, title).write_bytes(_with_texts(content, texts))
            saved.append({"filename": title, "subfolder": subfolder, "type": "output"})
        return {"ui": {"images": saved}}


class BringBack:
    """Reads a file that Save or ``wic`` wrote, and brings back what it was made of."""

    CATEGORY = _CATEGORY
    FUNCTION = "bring_back"
    RETURN_TYPES = ("IMAGE", "MASK", "IMAGE")
    RETURN_NAMES = ("images", "masks", "picture")
    OUTPUT_IS_LIST = (True, True, False)
    DESCRIPTION = "Brings back the images that a file of Save, or of `wic`, was made of."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        import folder_paths

        names = []
        for folder, where in (
            (folder_paths.get_input_directory(), ""),
            (folder_paths.get_output_directory(), " [output]"),
        ):
            with os.scandir(folder) as entries:
                files = [entry.name for entry in entries if entry.is_file()]
            images = folder_paths.filter_files_content_types(files, ["image"])
            names += [f"{name}{where}" for name in sorted(images)]
        return {
            "required": {"image": (names, {"image_upload": True})},
            "optional": {"folder": OWN},
        }

    @classmethod
    def IS_CHANGED(cls, image: str, folder: str = "") -> str:
        import folder_paths

        content = Path(folder_paths.get_annotated_filepath(image)).read_bytes()
        return hashlib.sha256(content).hexdigest()

    @classmethod
    def VALIDATE_INPUTS(cls, image: str) -> bool | str:
        import folder_paths

        is_there = folder_paths.exists_annotated_filepath(image)
        return True if is_there else f"Expected an image file; there is no {image}."

    def bring_back(
        self, image: str, folder: str = ""
    ) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Returns a batch of one for each image that comes back, their masks, and the picture."""
        import folder_paths

        path = folder_paths.get_annotated_filepath(image)
        if read_carrier_head(path, lossy=True).chunk is None:
            raise WICFileError(
                f"{image} does not say what brings it back: expected a file of Save (reversible) "
                "or of `wic`. Other programs leave the mark out; with all of its pixels as they "
                "were made, Load Image and Up or Reveal can still bring it back."
            )
        images, masks = [], []
        with torch.inference_mode(mode=False), TemporaryDirectory() as place:
            for written in reader_of(folder).decode_file(path, Path(place) / "back.png"):
                pixels = read_layer(written.path)
                colours, opacity = pixels[:3], pixels[3:]
                size = (pixels.shape[2], pixels.shape[1])
                images.append(image_of([colours]))
                masks.append(mask_of([opacity if len(opacity) else all_seen(size)]))
            picture = read_carrier(path, lossy=True)[0]
            return images, masks, image_of([picture.expand(3, -1, -1)])


def _with_texts(content: bytes, texts: dict[str, Any]) -> bytes:
    """A PNG with texts after its header, where ComfyUI's page and programs look for them."""
    chunks = [
        _chunk(b"tEXt", f"{name}\0{json.dumps(value)}".encode("latin-1", "replace"))
        for name, value in texts.items()
        if value is not None
    ]
    return content[:_HEAD] + b"".join(chunks) + content[_HEAD:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    checksum = zlib.crc32(kind + body)
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", checksum)
