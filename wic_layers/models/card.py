"""card_of: the model card beside stored weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from wic_layers._text import printable
from wic_layers.models.packaged import TENSORS

__all__ = ["card_of"]

_LICENCE = re.compile(r"[a-z0-9.+-]+")


def card_of(config: Mapping[str, Any], parameters: int, stored: str) -> str:
    """The model card, as the hub shows it.

    Args:
        config: What ``config.json`` says.
        parameters: Their number.
        stored: How the tensors are held.
    """
    name = config["preset"] or config["network"]
    rows = {
        "task": config["task"] or "not said",
        "network": f"{config['network']}, {parameters:,} parameters",
        "file": f"{TENSORS}, {stored}",
        "SHA-256": config["sha256"],
        **({"trained through": ", ".join(config["through"])} if "through" in config else {}),
        **config["card"],
    }
    licence = str(config["card"].get("licence", "other")).lower()
    if not _LICENCE.fullmatch(licence):  # or it could end the head, and begin another
        licence = json.dumps(licence)
    table = "\n".join(f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items())
    return (
        f"---\nlibrary_name: wic-layers\nlicense: {licence}\n---\n\n# {name}\n\n"
        f"Weights for [wic-layers](https://pypi.org/project/wic-layers/) {config['version']}.\n\n"
        f"| | |\n|---|---|\n{table}\n"
    )


def _cell(value: object) -> str:
    """A value in a table of Markdown, of one line."""
    return printable(str(value)).replace("|", "\\|")
