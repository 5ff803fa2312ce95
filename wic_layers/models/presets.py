"""Networks by name: what they are for, and every size in which they come."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from wic_layers.errors import WICArgumentError

__all__ = ["PRESETS", "Preset", "find_preset"]


@dataclass(frozen=True)
class Preset:
    """A network for a task.

    Attributes:
        task: Name of the task in :mod:`wic_layers.tasks`.
        network: Class name of the network.
        arguments: Arguments of its constructor.
        recipe: Settings of ``wic train`` other than its defaults, as the network's paper has them.
    """

    task: str
    network: str
    arguments: Mapping[str, Any]
    recipe: Mapping[str, Any] = field(default_factory=dict)


def _hiding(secrets: int) -> dict[str, Any]:
    return {"in_channels": 3 * (1 + secrets), "out_channels": 3, "scale": 1}


_X2: dict[str, Any] = {"in_channels": 3, "out_channels": 3, "scale": 2}
_X4: dict[str, Any] = {"in_channels": 3, "out_channels": 3, "scale": 4}


def _packing(images: int, scale: int = 1) -> dict[str, Any]:
    return {"in_channels": 3 * images, "out_channels": 3, "scale": scale}


# variant, task, what both networks share, width of WIN; the paper has no WIN for several images
# that all come back
_VARIANTS: tuple[tuple[str, str, dict[str, Any], int | None], ...] = (
    ("hiding-1", "hiding-1", _hiding(1), 32),
    ("hiding-2", "hiding-2", _hiding(2), 48),
    ("hiding-3", "hiding-3", _hiding(3), 80),
    ("hiding-4", "hiding-4", _hiding(4), 96),
    ("rescaling-x2", "rescaling-x2", _X2, 32),
    ("rescaling-x4", "rescaling-x4", {**_X4, "copies": 4}, 16),
    ("rescaling-x4-plain", "rescaling-x4", _X4, 16),
    ("decolorization", "decolorization", {"in_channels": 3, "out_channels": 1, "scale": 1}, 32),
    *((task, task, _packing(2), None) for task in ("stereo", "zoom-x2", "zoom-x4", "zoom-x8")),
    ("layers", "layers", _packing(3), None),
    *((f"clip-{frames}", f"clip-{frames}", _packing(frames), None) for frames in (3, 5, 7, 9)),
    *((f"clip-{n}-x2", f"clip-{n}-x2", _packing(n, scale=2), None) for n in (3, 5)),
)

# by size: of WIN-Naive, then of WIN; the paper's size is what the constructors do by default
_SIZES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "": ({}, {}),
    "-small": (
        {"couplings": 4, "growth": 16, "haar": True},
        {"modules": 2, "couplings": 1, "growth": 16},
    ),
    "-tiny": (
        {"couplings": 2, "growth": 16, "haar": True},
        {"modules": 1, "couplings": 1, "growth": 16},
    ),
}

# where a measurement, not the rule, decided
_CHANGES: Mapping[str, dict[str, Any]] = {
    "rescaling-x2-naive-small": {"couplings": 6},
}


_SMALL_FLOW: dict[str, Any] = {"steps": 4, "conditional_steps": 2, "width": 16, "depth": 1}

# networks of other papers: name, task, class, its arguments, and a depth for a CPU
_Other = tuple[str, str, str, dict[str, Any], dict[str, Any]]
_OTHERS: tuple[_Other, ...] = (
    ("irn-x2", "rescaling-x2", "IRN", _X2, {"couplings": 4}),
    ("irn-x3", "rescaling-x3", "IRN", {**_X2, "scale": 3, "couplings": 12}, {"couplings": 4}),
    ("irn-x4", "rescaling-x4", "IRN", _X4, {"couplings": 2}),
    (
        "irn-decolorization",
        "decolorization",
        "IRN",
        {"in_channels": 3, "out_channels": 1, "scale": 1},
        {"couplings": 4},
    ),
    ("hinet", "hiding-1", "HiNet", {"in_channels": 6, "out_channels": 3}, {"couplings": 4}),
    ("dlv-irn-x2", "rescaling-x2", "DLVIRN", _X2, {"couplings": 4}),
    ("dlv-irn-x4", "rescaling-x4", "DLVIRN", _X4, {"couplings": 2}),
    ("dlv-hinet", "hiding-1", "DLVHiNet", {"in_channels": 6, "out_channels": 3}, {"couplings": 4}),
    ("hcflow", "rescaling-x4", "HCFlow", _X4, _SMALL_FLOW),
    ("dlv-hcflow", "rescaling-x4", "DLVHCFlow", _X4, _SMALL_FLOW),
)

# what the networks of other papers are as published
_AS_PUBLISHED: Mapping[str, dict[str, Any]] = {
    "DLVIRN": {"z": "zero"},
    "DLVHiNet": {"z": "zero"},
    "HCFlow": {"z": "drawn"},
    "DLVHCFlow": {"z": "zero"},
    "IICNet": {"channel_squeeze": True},
}


def _iicnet(task: str, images: int, name: str = "", **changes: Any) -> _Other:
    shared = {"in_channels": 3 * images, "out_channels": 3, "scale": 1, **changes}
    return (f"iicnet-{name or task}", task, "IICNet", shared, {"couplings": 3, "features": 8})


# halved clips squeeze as the authors' do, one in each of the two ways
_IICNETS: tuple[_Other, ...] = (
    *(_iicnet(f"hiding-{secrets}", 1 + secrets) for secrets in range(1, 5)),
    _iicnet("stereo", 2, couplings=16),
    *(_iicnet(f"zoom-x{factor}", 2) for factor in (2, 4, 8)),
    _iicnet("layers", 3),
    *(_iicnet(f"clip-{frames}", frames) for frames in (3, 5, 7, 9)),
    _iicnet("clip-3-x2", 3, scale=2),
    _iicnet("clip-5-x2", 5, scale=2, haar=False, order="images"),
    _iicnet("rescaling-x2", 1, "x2", scale=2, haar=False, couplings=16),
    _iicnet("decolorization", 1, out_channels=1, couplings=16),
)


def _presets() -> Iterator[tuple[str, Preset]]:
    for variant, task, shared, width in _VARIANTS:
        shared = {**shared, "completion": "zero"}  # by name, as it is in the files of weights
        for size, (naive, win) in _SIZES.items():
            if width is not None:
                wide = {**shared, "width": width, **win}
                yield f"{variant}{size}", Preset(task, "WIN", wide)
            name = f"{variant}-naive{size}"
            yield name, Preset(task, "WINNaive", {**shared, **naive, **_CHANGES.get(name, {})})
    for name, task, network, shared, small in (*_OTHERS, *_IICNETS):
        published = _AS_PUBLISHED.get(network, {"random_z": True})
        ending = "-squeeze" if network == "IICNet" else "-z"
        for variant, changes in (("", {}), (ending, published)):
            for size, given in (("", {}), ("-small", {"growth": 16, **small})):
                arguments = {**shared, **given, **changes}
                recipe = _recipe(network, task, arguments)
                yield f"{name}{variant}{size}", Preset(task, network, arguments, recipe)


def _recipe(network: str, task: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The losses of a network's authors; L_det and L_shift where it has a WIC."""
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
    recipe: dict[str, Any] = {"weights": (fit, 1.0, *((0.0, 2.0) if random_z else (0.1, 1.0)))}
    return {**recipe, "crop": 66} if scale == 3 else recipe


PRESETS: Mapping[str, Preset] = MappingProxyType(dict(_presets()))
"""Every network by its name, ``TASK[-plain][-naive][-small | -tiny]``.

``rescaling-x4`` gives four copies of the small picture, whose mean is the result, as the authors'
does; ``-plain`` gives it once. ``-naive`` is WIN-Naive. Without a size it is the paper's: of WIN,
the parameter counts (2.3, 2.8, 3.8 million for hiding 1 to 3, 2.3 for x2 and decolorization, 7.3
for x4) follow from the widths here. Two are not settled by the paper: its 4.2 million for hiding 4
lie between widths 80 (3.8) and 96 (4.3, taken here; one module of 8 couplings would make 4.2), and
it gives none for WIN-Naive on x2, x4 and decolorization. All have the zero completion.
Small and tiny ones can be trained on a CPU; those of WIN-Naive squeeze by the Haar transform.

``irn-...``, ``hinet`` and ``hcflow`` are those networks with a WIC, and the zero completion, in
place of their random z; ``-z`` as they were published. ``dlv-...`` have the latent w too, and
published they have zeros for z. ``iicnet-...`` has a WIC in place of its channel squeeze;
``-squeeze`` as it was published. Small ones are shallower and narrower inside.
"""


def find_preset(name: str) -> Preset:
    """Returns the preset of that name.

    Raises:
        WICArgumentError: If there is none; the message names the closest ones.
    """
    if name not in PRESETS:
        usual = ["rescaling-x2", "hiding-1-naive-small", "decolorization"]
        close = difflib.get_close_matches(name, PRESETS, n=3) or usual
        raise WICArgumentError(
            f"Expected the name of a preset, such as {', '.join(close)}; got {name!r}."
        )
    return PRESETS[name]
