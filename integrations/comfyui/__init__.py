"""Nodes for ComfyUI: hide, reveal, down and up on its images. Copy this folder to custom_nodes."""

from contextlib import suppress

from wic_layers.deploy.spandrel import install
from wic_layers.errors import WICDependencyError

from .nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

with suppress(WICDependencyError):  # ComfyUI has spandrel, for the node that loads upscale models
    install()

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
