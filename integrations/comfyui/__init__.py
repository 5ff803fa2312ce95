"""Nodes for ComfyUI: hide, reveal, down and up, and their files. Copied to custom_nodes."""

from contextlib import suppress

from wic_layers.deploy.spandrel import install
from wic_layers.errors import WICDependencyError

from .files import BringBack, Save
from .nodes import Down, Hide, Reveal, Up

with suppress(WICDependencyError):  # ComfyUI has spandrel, for the node that loads upscale models
    install()

NODE_CLASS_MAPPINGS = {
    "WICDown": Down,
    "WICUp": Up,
    "WICHide": Hide,
    "WICReveal": Reveal,
    "WICSave": Save,
    "WICBringBack": BringBack,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "WICDown": "Down (reversible)",
    "WICUp": "Up (reversible)",
    "WICHide": "Hide images in an image",
    "WICReveal": "Reveal hidden images",
    "WICSave": "Save (reversible)",
    "WICBringBack": "Bring back from a file (reversible)",
}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
