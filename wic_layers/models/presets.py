"""Preset, a network for a task by its name, and PRESETS, the table of them."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from wic_layers.errors import WICArgumentError

__all__ = ["PRESETS", "Preset", "find_preset"]

Arguments: TypeAlias = Mapping[str, Any]
"""Arguments of a constructor or a command, as JSON holds them."""


@dataclass(frozen=True)
class Preset:
    """A network for a task.

    Attributes:
        task: Name of the task in :mod:`wic_layers.tasks`.
        network: Class name of the network.
        arguments: Arguments of its constructor.
        recipe: Settings of ``wic train`` other than its defaults, as the network's paper has them.
        purpose: What it is for, in a few words.
        has_weights: Whether there are trained weights: in the package, or, of large ones that the
            wheel leaves out, on the hub.
    """

    task: str
    network: str
    arguments: Arguments
    recipe: Arguments = field(default_factory=dict)
    purpose: str = ""
    has_weights: bool = False


# task: channels of its images together, channels of the result, and how many times smaller that is
_SHAPES: Mapping[str, tuple[int, int, int]] = {
    **{f"hiding-{secrets}": (3 + 3 * secrets, 3, 1) for secrets in range(1, 5)},
    **{f"rescaling-x{scale}": (3, 3, scale) for scale in (2, 3, 4)},
    "decolorization": (3, 1, 1),
    **dict.fromkeys(("stereo", "zoom-x2", "zoom-x4", "zoom-x8"), (6, 3, 1)),
    "layers": (9, 3, 1),
    **{f"clip-{frames}": (3 * frames, 3, 1) for frames in (3, 5, 7, 9)},
    **{f"clip-{frames}-x2": (3 * frames, 3, 2) for frames in (3, 5)},
}


def _row(
    network: str,
    task: str,
    purpose: str,
    *,
    weights: bool = False,
    recipe: Arguments | None = None,
    **changes: object,
) -> Preset:
    """A network of its paper's size, with what it has other than the constructor's defaults."""
    shape = dict(zip(("in_channels", "out_channels", "scale"), _SHAPES[task], strict=True))
    if network in ("HiNet", "DLVHiNet"):
        del shape["scale"]  # theirs is always 1
    # by name, as it is in the files of weights
    usual = {"completion": "zero"} if network in ("WIN", "WINNaive") else {}
    return Preset(task, network, {**shape, **usual, **changes}, recipe or {}, purpose, weights)


def _default(network: str, task: str) -> Preset:
    """What a task takes by itself: smaller than another row by a rule, with trained weights."""
    return _row(network, task, "the task's own", weights=True)


# qualities of what cameras, messengers and pages write, and those that a secret survives; of the
# latter also with all pixels of the colours, as some programs write
_THROUGH = ("jpeg:30-95",)
_HIDDEN_THROUGH = ("jpeg:70-95", "jpeg444:70-95")


def _through_jpeg(task: str, *, weights: bool = False) -> Preset:
    """WIN-Naive whose pictures may be JPEG files."""
    recipe = {"through": _HIDDEN_THROUGH if task.startswith("hiding") else _THROUGH}
    return _row("WINNaive", task, "its files may be JPEG", weights=weights, recipe=recipe)


_TABLE: Mapping[str, Preset] = {
    # WIN, at the paper's sizes
    "hiding-1": _row("WIN", "hiding-1", "the paper's size", width=32),
    "hiding-2": _row("WIN", "hiding-2", "the paper's size", width=48),
    "hiding-3": _row("WIN", "hiding-3", "the paper's size", width=80),
    "hiding-4": _row("WIN", "hiding-4", "the paper's size", width=96),
    "rescaling-x2": _row("WIN", "rescaling-x2", "the paper's size", weights=True, width=32),
    "rescaling-x4": _row("WIN", "rescaling-x4", "the paper's size", width=16, copies=4),
    "rescaling-x4-plain": _row("WIN", "rescaling-x4", "gives the result once", width=16),
    "decolorization": _row("WIN", "decolorization", "the paper's size", width=32),
    # WIN-Naive: the paper's, and ones for several images that all come back
    "hiding-1-naive": _row("WINNaive", "hiding-1", "the paper's size"),
    "hiding-1-naive-small": _default("WINNaive", "hiding-1"),
    "hiding-2-naive": _row("WINNaive", "hiding-2", "the paper's size"),
    "hiding-2-naive-small": _default("WINNaive", "hiding-2"),
    "hiding-3-naive": _row("WINNaive", "hiding-3", "the paper's size"),
    "hiding-3-naive-small": _default("WINNaive", "hiding-3"),
    "hiding-4-naive": _row("WINNaive", "hiding-4", "the paper's size"),
    "hiding-4-naive-small": _default("WINNaive", "hiding-4"),
    "rescaling-x2-naive": _row("WINNaive", "rescaling-x2", "the paper's size"),
    "rescaling-x2-naive-small": _default("WINNaive", "rescaling-x2"),
    "rescaling-x4-naive": _row("WINNaive", "rescaling-x4", "the paper's size", copies=4),
    "rescaling-x4-plain-naive": _row("WINNaive", "rescaling-x4", "gives the result once"),
    "rescaling-x4-plain-naive-small": _default("WINNaive", "rescaling-x4"),
    "decolorization-naive": _row("WINNaive", "decolorization", "the paper's size"),
    "decolorization-naive-small": _default("WINNaive", "decolorization"),
    # the same for pictures that go through JPEG, which cost more of the picture
    "hiding-1-jpeg-naive": _through_jpeg("hiding-1"),
    "hiding-1-jpeg-naive-small": _through_jpeg("hiding-1", weights=True),
    "rescaling-x2-jpeg-naive": _through_jpeg("rescaling-x2"),
    "rescaling-x2-jpeg-naive-small": _through_jpeg("rescaling-x2", weights=True),
    "decolorization-jpeg-naive": _through_jpeg("decolorization"),
    "decolorization-jpeg-naive-small": _through_jpeg("decolorization", weights=True),
    "stereo-naive": _row("WINNaive", "stereo", "as large as the paper's"),
    "stereo-naive-small": _default("WINNaive", "stereo"),
    "zoom-x2-naive": _row("WINNaive", "zoom-x2", "as large as the paper's"),
    "zoom-x2-naive-small": _default("WINNaive", "zoom-x2"),
    "zoom-x4-naive": _row("WINNaive", "zoom-x4", "as large as the paper's"),
    "zoom-x4-naive-small": _default("WINNaive", "zoom-x4"),
    "zoom-x8-naive": _row("WINNaive", "zoom-x8", "as large as the paper's"),
    "zoom-x8-naive-small": _default("WINNaive", "zoom-x8"),
    "layers-naive": _row("WINNaive", "layers", "as large as the paper's"),
    "layers-naive-small": _default("WINNaive", "layers"),
    "clip-3-naive": _row("WINNaive", "clip-3", "as large as the paper's"),
    "clip-3-naive-tiny": _default("WINNaive", "clip-3"),
    "clip-5-naive": _row("WINNaive", "clip-5", "as large as the paper's"),
    "clip-5-naive-tiny": _default("WINNaive", "clip-5"),
    "clip-7-naive": _row("WINNaive", "clip-7", "as large as the paper's"),
    "clip-7-naive-tiny": _default("WINNaive", "clip-7"),
    "clip-9-naive": _row("WINNaive", "clip-9", "as large as the paper's"),
    "clip-9-naive-tiny": _default("WINNaive", "clip-9"),
    "clip-3-x2-naive": _row("WINNaive", "clip-3-x2", "as large as the paper's"),
    "clip-3-x2-naive-tiny": _default("WINNaive", "clip-3-x2"),
    "clip-5-x2-naive": _row("WINNaive", "clip-5-x2", "as large as the paper's"),
    "clip-5-x2-naive-tiny": _default("WINNaive", "clip-5-x2"),
    # networks of other papers with a WIC in place of their z; "-z" as published
    "irn-x2": _row("IRN", "rescaling-x2", "with a WIC for its z"),
    "irn-x3": _row("IRN", "rescaling-x3", "with a WIC for its z", couplings=12),
    "irn-x3-small": _row("IRN", "rescaling-x3", "the task's own"),
    "irn-x4": _row("IRN", "rescaling-x4", "with a WIC for its z"),
    "irn-decolorization": _row("IRN", "decolorization", "with a WIC for its z"),
    "hinet": _row("HiNet", "hiding-1", "with a WIC for its z"),
    "dlv-irn-x2": _row("DLVIRN", "rescaling-x2", "with a WIC for its z"),
    "dlv-irn-x4": _row("DLVIRN", "rescaling-x4", "with a WIC for its z"),
    "dlv-hinet": _row("DLVHiNet", "hiding-1", "with a WIC for its z"),
    "hcflow": _row("HCFlow", "rescaling-x4", "with a WIC for its z"),
    "dlv-hcflow": _row("DLVHCFlow", "rescaling-x4", "with a WIC for its z"),
    # IICNet with a WIC in place of its channel squeeze; "-squeeze" as published
    # halved clips squeeze as the authors' do, one in each of the two ways
    "iicnet-hiding-1": _row("IICNet", "hiding-1", "with a WIC for its squeeze"),
    "iicnet-hiding-2": _row("IICNet", "hiding-2", "with a WIC for its squeeze"),
    "iicnet-hiding-3": _row("IICNet", "hiding-3", "with a WIC for its squeeze"),
    "iicnet-hiding-4": _row("IICNet", "hiding-4", "with a WIC for its squeeze"),
    "iicnet-stereo": _row("IICNet", "stereo", "with a WIC for its squeeze", couplings=16),
    "iicnet-zoom-x2": _row("IICNet", "zoom-x2", "with a WIC for its squeeze"),
    "iicnet-zoom-x4": _row("IICNet", "zoom-x4", "with a WIC for its squeeze"),
    "iicnet-zoom-x8": _row("IICNet", "zoom-x8", "with a WIC for its squeeze"),
    "iicnet-layers": _row("IICNet", "layers", "with a WIC for its squeeze"),
    "iicnet-clip-3": _row("IICNet", "clip-3", "with a WIC for its squeeze"),
    "iicnet-clip-5": _row("IICNet", "clip-5", "with a WIC for its squeeze"),
    "iicnet-clip-7": _row("IICNet", "clip-7", "with a WIC for its squeeze"),
    "iicnet-clip-9": _row("IICNet", "clip-9", "with a WIC for its squeeze"),
    "iicnet-clip-3-x2": _row("IICNet", "clip-3-x2", "with a WIC for its squeeze"),
    "iicnet-clip-5-x2": _row(
        "IICNet", "clip-5-x2", "with a WIC for its squeeze", haar=False, order="images"
    ),
    "iicnet-x2": _row(
        "IICNet", "rescaling-x2", "with a WIC for its squeeze", haar=False, couplings=16
    ),
    "iicnet-decolorization": _row(
        "IICNet", "decolorization", "with a WIC for its squeeze", couplings=16
    ),
}

# what the endings of a name change: in networks of others, to be as they were published
_PUBLISHED: Mapping[str, Mapping[str, Arguments]] = {
    "IRN": {"-z": {"random_z": True}},
    "HiNet": {"-z": {"random_z": True}},
    "DLVIRN": {"-z": {"z": "zero"}},
    "DLVHiNet": {"-z": {"z": "zero"}},
    "HCFlow": {"-z": {"z": "drawn"}},
    "DLVHCFlow": {"-z": {"z": "zero"}},
    "IICNet": {"-squeeze": {"channel_squeeze": True}},
}

# and to be trained on a CPU: fewer couplings, narrower inside; WIN-Naive squeezes by Haar
_SMALL_FLOW = {"steps": 4, "conditional_steps": 2, "width": 16, "depth": 1, "growth": 16}
_SMALLER: Mapping[str, Mapping[str, Arguments]] = {
    "WIN": {
        "-small": {"modules": 2, "couplings": 1, "growth": 16},
        "-tiny": {"modules": 1, "couplings": 1, "growth": 16},
    },
    "WINNaive": {
        "-small": {"couplings": 4, "haar": True, "growth": 16},
        "-tiny": {"couplings": 2, "haar": True, "growth": 16},
    },
    "IRN": {"-small": {"couplings": 4, "growth": 16}},
    "HiNet": {"-small": {"couplings": 4, "growth": 16}},
    "DLVIRN": {"-small": {"couplings": 4, "growth": 16}},
    "DLVHiNet": {"-small": {"couplings": 4, "growth": 16}},
    "HCFlow": {"-small": _SMALL_FLOW},
    "DLVHCFlow": {"-small": _SMALL_FLOW},
    "IICNet": {"-small": {"couplings": 3, "features": 8, "growth": 16}},
}
# small ones that are built otherwise: squeezed inside their couplings, with four to six times the
# parameters and 1.0 to 1.5 times the operations; or with couplings in each of two stages
_SQUEEZED = {"couplings": 5, "haar": True, "squeezed": 64}
_SMALL_OTHERWISE: Mapping[str, Arguments] = {
    "rescaling-x2-naive": _SQUEEZED,
    "rescaling-x2-jpeg-naive": _SQUEEZED,
    "hiding-1-jpeg-naive": _SQUEEZED,
    "decolorization-jpeg-naive": _SQUEEZED,
    "irn-x4": {"couplings": 2, "growth": 16},
    "dlv-irn-x4": {"couplings": 2, "growth": 16},
}


def _presets() -> Iterator[tuple[str, Preset]]:
    """All presets, those that the table names by their ending with the row that it gives."""
    for name, row in _TABLE.items():
        if name.endswith(("-small", "-tiny")):
            continue  # comes with the row of its paper's size
        for version, as_published in [("", {}), *_PUBLISHED.get(row.network, {}).items()]:
            for size, smaller in [("", {}), *_SMALLER[row.network].items()]:
                changes = _SMALL_OTHERWISE.get(name, smaller) if size == "-small" else smaller
                arguments = {**row.arguments, **changes, **as_published}
                full_name = f"{name}{version}{size}"
                recipe = {**_recipe(row.network, row.task, arguments), **row.recipe}
                preset = _TABLE.get(full_name) or replace(row, has_weights=False)
                yield full_name, replace(preset, arguments=arguments, recipe=recipe)


def _recipe(network: str, task: str, arguments: Arguments) -> Arguments:
    """The losses of a network's authors; L_det and L_shift where it has a WIC."""
    if network in ("WIN", "WINNaive"):
        return {}
    random_z = arguments.get("random_z", False)
    if network in ("HiNet", "DLVHiNet"):  # which let z be what it likes
        has_wic = not (random_z or arguments.get("z"))
        return {
            "weights": (1.0, 5.0, 0.1, 1.0) if has_wic else (1.0, 5.0, 0.0, 0.0),
            "forward": "l2",
            "reverse": "l2",
            "returned": "wanted",
            "low": 1.0,
        }
    if network == "IICNet":  # which averages over what comes back
        weight = (0.4 if task.startswith("clip") and arguments["scale"] == 2 else 3.0) * 3
        kernel = (0.0, 0.0) if arguments.get("channel_squeeze") else (0.1, 1.0)
        # the frequencies count 0.001 times the pixels of a crop: of 64, or the authors' 144
        is_small = arguments.get("growth", 32) < 32
        return {
            "weights": (1.0, weight / arguments["in_channels"], *kernel),
            "forward": "l2",
            "rounding": "noise",
            "colours": "BGR",
            "frequency": 4.1 if is_small else 20.7,
            **({} if is_small else {"crop": 144, "learning_rate": 2e-4}),
        }
    # half the square of z is its L_shift, and the authors count the whole square
    scale = arguments["scale"]
    if network == "DLVIRN":  # of a z that is zero L_shift is the whole square
        det = 0.0 if arguments.get("z") else 0.1
        return {"weights": (float(scale**2), 1.0, det, 1.0), "invariance": scale**2 / 4}
    if network in ("HCFlow", "DLVHCFlow"):
        # means in its code, here sums: the small picture has a 16th of the pixels; half the square
        # of z that is drawn is its L_shift
        z = arguments.get("z")
        return {"weights": (0.8, 1.0, 0.0 if z else 0.1, 2e-5 if z == "drawn" else 1e-5)}
    fit = 3.0 if scale == 1 else float(scale**2)
    recipe: Arguments = {"weights": (fit, 1.0, *((0.0, 2.0) if random_z else (0.1, 1.0)))}
    return {**recipe, "crop": 66} if scale == 3 else recipe


class _Presets(Mapping[str, Preset]):
    """Presets by name; those that only a rule makes are there, but not in a list of them."""

    def __init__(self) -> None:
        self._all = dict(_presets())

    def __getitem__(self, name: str) -> Preset:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_TABLE)

    def __len__(self) -> int:
        return len(_TABLE)

    def names(self) -> list[str]:
        """Every name that there is, those by rule too."""
        return list(self._all)


PRESETS = _Presets()
"""Networks by their names: a table to search, and what the endings of names make of its rows.

A list of it, ``for name in PRESETS``, has the paper's sizes, networks of other papers, and those
whose weights come with the package. Others are there by rule, ``PRESETS["hiding-2-tiny"]``: the
name of a row with ``-z`` or ``-squeeze`` (as published) and ``-small`` or ``-tiny`` (to train on a
CPU). ``PRESETS.names()`` has all; what no name stands for is ``from_preset(name, **changes)``.

``rescaling-x4`` gives four copies of the small picture, whose mean is the result, as the authors'
does; ``-plain`` gives it once. ``-naive`` is WIN-Naive. Without a size it is the paper's: of WIN,
the parameter counts (2.3, 2.8, 3.8 million for hiding 1 to 3, 2.3 for x2 and decolorization, 7.3
for x4) follow from the widths here. Two are not settled by the paper: its 4.2 million for hiding 4
lie between widths 80 (3.8) and 96 (4.3, taken here; one module of 8 couplings would make 4.2), and
it gives none for WIN-Naive on x2, x4 and decolorization. All have the zero completion.

``irn-...``, ``hinet`` and ``hcflow`` are those networks with a WIC, and the zero completion, in
place of their random z. ``dlv-...`` have the latent w too, and published they have zeros for z.
``iicnet-...`` has a WIC in place of its channel squeeze.
"""


def _close(name: str) -> list[str]:
    """Names that somebody may have meant: those that it is a part of, or else spelt alike."""
    plain = name.strip().lower().replace("_", "-")
    names = PRESETS.names()
    parts = [each for each in names if plain and plain in each]
    parts.sort(key=lambda each: not PRESETS[each].has_weights)
    usual = ["rescaling-x2", "hiding-1-naive-small", "decolorization"]
    return parts[:3] or difflib.get_close_matches(plain, names, n=3) or usual


def find_preset(name: str) -> Preset:
    """Returns the preset of that name.

    Raises:
        WICArgumentError: If there is none; the message names the closest ones.
    """
    if name not in PRESETS:
        raise WICArgumentError(
            f"Expected the name of a preset, such as {', '.join(_close(name))}; got {name!r} (see "
            f"`wic presets`)."
        )
    return PRESETS[name]
