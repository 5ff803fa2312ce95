"""Pages of the site that are made from the code, and links between the repository and the site.

``generate`` writes parts of pages into ``docs/_generated``: the commands of ``wic``, the settings
of ``wic train``, the table of weights, what survives JPEG. Pages include them.

A page of the site that consists of one link to a Markdown file of the repository shows that file;
links to the file from any page then lead to the page.
"""

from __future__ import annotations

import argparse
import base64
import dataclasses
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent
GENERATED = DOCS / "_generated"
EXTRA = ROOT / "build" / "extra"
"""What lies in the site as it is."""
LIVE = EXTRA / "live" / "app"

_LIVE_PRESETS = (
    "hiding-1-naive-small",
    "rescaling-x2-naive-small",
    "decolorization-naive-small",
)
_LIVE_PICTURES = ("astronaut", "chelsea", "coffee")

_STUB = re.compile(r"\s*\[[^\]]*\]\((?P<target>[^)\s#]+\.md)\)\s*")
_LINK = re.compile(r"(?P<text>!?\[[^\]]*\])\((?P<path>[^)\s#]*)(?P<anchor>#[^)\s]*)?\)")
_WHERE = re.compile(r" \(RGB, through 8-bit PNG files\)")
# what the site shows in place of a file or folder of the repository
_PLACES = {"examples/web": "live/index.md", "README.md": "index.md"}


def pages() -> list[Path]:
    """All pages of the site."""
    return sorted(
        path
        for path in DOCS.rglob("*.md")
        if not {"_generated", "_build"} & set(path.relative_to(DOCS).parts)
    )


@cache
def places() -> dict[str, str]:
    """Pages of the site by the file of the repository that they show, or stand for."""
    shown = dict(_PLACES)
    for page in pages():
        file = shown_file(page)
        if file is not None:
            shown[file.relative_to(ROOT).as_posix()] = page.relative_to(DOCS).as_posix()
    return shown


def shown_file(page: Path) -> Path | None:
    """The file of the repository that a page shows, or None of one with a text of its own."""
    stub = _STUB.fullmatch(page.read_text(encoding="utf-8"))
    return (page.parent / stub["target"]).resolve() if stub else None


def on_source_read(app: object, name: str, source: list[str]) -> None:
    """Gives Sphinx the text of a page, its links as the site has them."""
    page = DOCS / f"{name}.md"
    if not page.exists():
        return
    file = shown_file(page)
    if file is not None:
        source[0] = file.read_text(encoding="utf-8")
    source[0] = localised(source[0], (file or page).parent, page)


def localised(text: str, folder: Path, page: Path) -> str:
    """Returns Markdown with its links as a page of the site has them.

    Args:
        text: The Markdown.
        folder: Where its links start from.
        page: The page that shows it.
    """

    def link(match: re.Match[str]) -> str:
        path, anchor = match["path"], match["anchor"] or ""
        if not path or re.match(r"[a-z]+:", path):
            return match[0]
        target = Path(os.path.normpath(folder / path))
        if not target.exists():
            return match[0]
        if target.is_relative_to(ROOT):
            known = places().get(target.relative_to(ROOT).as_posix())
            target = DOCS / known if known else target
        return f"{match['text']}({os.path.relpath(target, page.parent)}{anchor})"

    parts = re.split(r"(^```.*?^```)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def generate() -> None:
    """Writes all that is generated; a file that stays the same is left as it is."""
    GENERATED.mkdir(exist_ok=True)
    live()
    parts = {"commands": commands(), "settings": settings(), "weights": weights()}
    for name, text in (parts | {"carriers": carriers()}).items():
        path = GENERATED / f"{name}.md"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")


def live() -> None:
    """Puts the page for the browser into the site, with networks in half precision and pictures.

    The runtime is a copy of the site's own where ``examples/web/vendor`` has one.
    """
    from PIL import Image
    from skimage import data

    from wic_layers.deploy import export_onnx
    from wic_layers.models import PRESETS, packaged_weights

    shutil.copytree(ROOT / "examples" / "web", LIVE, dirs_exist_ok=True)
    for folder in ("networks", "pictures"):
        (LIVE / folder).mkdir(exist_ok=True)
    for name in _LIVE_PICTURES:
        image = Image.fromarray(getattr(data, name)())
        image.thumbnail((512, 512))
        image.save(LIVE / "pictures" / f"{name}.jpg", quality=92)
    index = {}
    for preset in _LIVE_PRESETS:
        digest = json.loads((packaged_weights()[preset] / "config.json").read_bytes())["sha256"]
        for direction in ("forward", "reverse"):
            path = LIVE / "networks" / f"{preset}-{direction}-{digest[:8]}.onnx"
            if not path.exists():
                export_onnx(preset, path, direction, precision="float16")  # type: ignore[arg-type]
            content = hashlib.sha256(path.read_bytes()).digest()
            index[f"{PRESETS[preset].task} {direction}"] = {
                "file": path.name,
                "integrity": f"sha256-{base64.b64encode(content).decode()}",
            }
    (LIVE / "networks" / "index.json").write_text(json.dumps(index, indent=1))


def commands() -> str:
    """Every command of ``wic`` with all that it takes, from its own parser."""
    from wic_layers.cli.command import Parser
    from wic_layers.cli.program import COMMANDS

    parts = []
    for command in COMMANDS:
        parser = Parser(prog=f"wic {command.name}", allow_abbrev=False)
        command.add_arguments(parser)
        usage = " ".join(parser.format_usage().removeprefix("usage: ").split())
        parts += [f"## wic {command.name}", f"{command.summary}. {command.more}".strip()]
        parts += [f"```text\n{usage}\n```", *_arguments(parser)]
    return "\n\n".join(parts) + "\n"


def _arguments(parser: argparse.ArgumentParser) -> Iterator[str]:
    formatter = parser._get_formatter()
    for action in parser._actions:
        if action.help in (None, argparse.SUPPRESS) or "--help" in action.option_strings:
            continue
        words = formatter._format_action_invocation(action)
        text = formatter._expand_help(action).replace("\n", " ")
        yield f"`{words}`\n: {_plain(text)}"


def _plain(text: str) -> str:
    """A text of the command line as Markdown, which would read signs in it."""
    escaped = re.sub(r"([*_<>\[\]|])", r"\\\1", text)
    return re.sub(r"(?<![\w-])(--[a-z][a-z-]*)", r"`\1`", escaped)


def carriers() -> str:
    """What survives JPEG, as its benchmark wrote it, one heading lower."""
    path = ROOT / "benchmarks" / "results" / "carriers.md"
    if not path.exists():
        return "Networks that were trained equally are not measured yet: the commands are below.\n"
    return re.sub(r"^## ", "### ", path.read_text(encoding="utf-8"), flags=re.MULTILINE)


def settings() -> str:
    """Every setting of ``wic train``, from the class that holds them."""
    from wic_layers.training import Settings
    from wic_layers.training.terms import OPTIONAL

    lines = ["| setting | flag | default | |", "|---|---|---|---|"]
    fields = dataclasses.fields(Settings)
    losses = {term.name for term in OPTIONAL}  # weights of losses that few networks have come last
    for field in sorted(fields, key=lambda field: field.name in losses):
        own = field.metadata
        flag = own["flag"] or f"--{field.name.replace('_', '-')}"
        shown = field.default if own["shown"] is None else own["shown"]
        words = " ".join(map(str, shown)) if isinstance(shown, tuple) else str(shown)
        default = "" if shown in (None, "", ()) else f"`{words}`"
        argument = own["argument"]
        choices = argument.get("choices")
        text = _plain(argument["help"])
        if choices:
            text += f": {', '.join(f'`{choice}`' for choice in choices)}"
        is_word = field.name == "preset"
        lines.append(
            f"| `{field.name}` | {'first word' if is_word else f'`{flag}`'} | {default} | {text} |"
        )
    return "\n".join(lines) + "\n"


def weights() -> str:
    """The one table of trained networks, from their files and cards."""
    from wic_layers.models import PRESETS, from_pretrained, inspect, packaged_weights
    from wic_layers.tasks import TASKS

    head = ["network", "task", "judged on", "picture, dB", "comes back, dB"]
    head += ["parameters", "operations", "MB", "licence"]
    lines = [f"| {' | '.join(head)} |", "|---|---|---|---|---|--:|--:|--:|---|"]
    order = list(TASKS)
    there = packaged_weights()
    for name in sorted(there, key=lambda name: order.index(PRESETS[name].task)):
        folder, task = there[name], TASKS[PRESETS[name].task]
        facts = inspect(from_pretrained(name))
        config: dict[str, Any] = json.loads((folder / "config.json").read_bytes())
        card = config["card"]
        size = (folder / "model.safetensors").stat().st_size / 1e6
        first = [f"`{name}`", f"`{task.commands[0]}`: {task.name}"]
        last = [f"{facts.parameters:,}", f"{sum(facts.flops) / 2e3:,.0f}", f"{size:.1f}"]
        last.append(card.get("licence", ""))
        for row, figures in enumerate(judged(card.get("PSNR", ""))):
            if row:  # the next set of the same network
                first, last = [""] * len(first), [""] * len(last)
            lines.append(f"| {' | '.join([*first, *figures, *last])} |")
    return "\n".join(lines) + "\n"


def judged(text: str) -> list[tuple[str, str, str]]:
    """What a card says of PSNR: the set, the forward picture and what comes back, each in dB.

    Example:
        >>> judged("small picture 41.66, 38.98 dB, restored 38.25, 35.24 dB: Set5, Set14")
        [('Set5', '41.66', '38.25'), ('Set14', '38.98', '35.24')]
        >>> judged("stego 39.58 dB, secrets 35.74, 35.90 dB: BSD100 reduced by 2, 50 pairs")
        [('BSD100 reduced by 2, 50 pairs', '39.58', '35.74, 35.90')]
    """
    figures, _, places = _WHERE.sub("", text).partition(": ")
    groups: list[list[str]] = []
    for word in re.split(r"(?: dB)?, | dB$", figures):
        named = re.fullmatch(r"(?:(\D.*) )?([\d.]+)", word)
        if named is None:
            continue
        if named[1]:
            groups.append([])
        if groups:
            groups[-1].append(named[2])
    if not groups:
        return [("", text, "")]
    sets = places.split(", ")
    if len(sets) > 1 and all(len(group) == len(sets) for group in groups):
        return [
            (place, groups[0][at], ", ".join(group[at] for group in groups[1:]))
            for at, place in enumerate(sets)
        ]
    back = [figure for group in groups[1:] for figure in group]
    return [(places, ", ".join(groups[0]), ", ".join(back))]
