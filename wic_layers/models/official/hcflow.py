"""HCFlowFormat, HCFlow for rescaling as its authors' code names it: one list of all layers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from torch import Tensor

from wic_layers.errors import WICArgumentError
from wic_layers.models.base import Network
from wic_layers.models.hcflow import HCFlow
from wic_layers.models.official.format import Format, haar_kernel

__all__ = ["HCFlowFormat"]

_LAYERS = "flow.layers."
_LEVELS = 2
_TRUNK = re.compile(r"(flow\.level\d_condFlow)\.RRDB_trunk([01])\.(\d+)\.(.*)")
# of a conditional flow: our parts with theirs, and the parts of each of its steps
_PARTS = {"features.first": "conv_first", "features.last": "trunk_conv1", "prior": "f"}
_STEP = {
    "norm": "actnorm",
    "wic": "permute",
    **{f"coupling.f.conv{n}": f"affine.f.conv{n}" for n in (1, 2, 3)},
    **{f"coupling.f.norm{n}": f"affine.f.conv{n}.actnorm" for n in (1, 2)},
}


class HCFlowFormat(Format):
    """The code of HCFlow, its networks for rescaling.

    Its validation and its tests read with OpenCV and turn what they read: there its networks see
    red first, and so they do here, as its published figures have it (``data/GTLQx_dataset.py``).
    A training on ``.npy`` files, which are RGB and turned all the same
    (``data/GTLQnpy_dataset.py``, ``scripts/png2npy.py``), saw blue first: ``colours="BGR"`` is the
    order of such a training. Residual dense blocks stand in two trunks, one behind the other; all
    but the last are written into the first, which are the two and one of its settings.
    """

    networks = (HCFlow,)
    mark = r"^flow\.layers\."

    def canonical(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """All blocks but the last in the first trunk."""
        depths: dict[str, list[int]] = {}
        for key in state:
            if place := _TRUNK.fullmatch(key):
                depth = depths.setdefault(place[1], [0, 0])
                depth[int(place[2])] = max(depth[int(place[2])], int(place[3]) + 1)
        moved = {}
        for key, value in state.items():
            if place := _TRUNK.fullmatch(key):
                first, second = depths[place[1]]
                index = int(place[3]) + (first if place[2] == "1" else 0)
                key = f"{place[1]}.{_trunk(index, first + second)}.{place[4]}"
            moved[key] = value
        return moved

    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network that the names and shapes of a state dict are for."""
        self._refuse(out_channels=out_channels, copies=copies)
        squeezes = sorted(int(k.split(".")[2]) for k in state if k.endswith(".haar_weights"))
        width = len(state["flow.level0_condFlow.conv_first.bias"])
        if state["flow.level0_condFlow.f.weight"].shape[1] != width:
            raise WICArgumentError("it is one for super-resolution; those for rescaling are known")
        if len(squeezes) != _LEVELS:
            raise WICArgumentError(
                f"it has {len(squeezes)} Haar transforms (squeeze: haar); known are {_LEVELS}, "
                "which rescale by 4"
            )
        if any(key.startswith(_LAYERS) and ".permute." in key for key in state):
            raise WICArgumentError(
                "its steps mix channels (flow_permutation: invconv); known is none"
            )
        last = max(int(key.split(".")[2]) for key in state if key.startswith(_LAYERS))
        steps = [squeezes[1] - squeezes[0] - 2, last - squeezes[1]]
        flows = [_count(state, level, "additional_flow_steps") for level in range(_LEVELS)]
        depths = [_count(state, level, "RRDB_trunk[01]") for level in range(_LEVELS)]
        for what, counts in (("steps", steps), ("conditional steps", flows), ("RRDB", depths)):
            if len(set(counts)) > 1:
                raise WICArgumentError(f"its levels have {counts} {what}, not as many each")
        return HCFlow(
            state[f"{_LAYERS}{squeezes[0]}.haar_weights"].shape[0] // 4,
            steps=steps[0],
            growth=len(state[f"{_LAYERS}{squeezes[0] + 1}.affine.f.conv1.bias"]),
            conditional_steps=flows[0],
            width=width,
            depth=depths[0],
            z="drawn",
        )

    def check(self, model: Network) -> None:
        """Raises if the authors' code has no such network."""
        super().check(model)
        shape = tuple(model.config[key] for key in ("in_channels", "out_channels", "scale"))
        if shape != (3, 3, 2**_LEVELS):
            raise WICArgumentError(
                f"Expected an HCFlow for RGB and a scale of {2**_LEVELS}, which is all that the "
                f"authors' code has; got {shape[0]} to {shape[1]} channels, scale {shape[2]}."
            )

    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs; they have no WIC that drops z."""
        places = dict(_places(model))
        prefixes = sorted(places, key=len, reverse=True)
        names = {}
        for key in model.state_dict():
            prefix = next((p for p in prefixes if key.startswith(f"{p}.")), None)
            if prefix is not None:
                names[key] = f"{places[prefix]}{key[len(prefix) :]}"
        return names

    def constants(self, model: Network) -> dict[str, Tensor]:
        """The kernels of their Haar transforms."""
        channels, steps = model.config["in_channels"], model.config["steps"]
        second = f"{_LAYERS}{steps + 2}.haar_weights"
        return {
            f"{_LAYERS}0.haar_weights": haar_kernel(channels),
            second: haar_kernel(2 * channels),
        }


def _trunk(index: int, depth: int) -> str:
    """Where a residual dense block stands: the last one in the second trunk, by itself."""
    return "RRDB_trunk1.0" if index == depth - 1 else f"RRDB_trunk0.{index}"


def _count(state: Mapping[str, Tensor], level: int, part: str) -> int:
    """How many parts of a name a conditional flow has."""
    pattern = re.compile(rf"flow\.level{level}_condFlow\.({part}\.\d+)\.")
    return len({place[1] for place in map(pattern.match, state) if place})


def _places(model: Network) -> Iterator[tuple[str, str]]:
    """Where each part of ours is in theirs; a level of ours stands inside the one above."""
    config = model.config
    ours, theirs = "", 0
    for level in range(_LEVELS):
        for step in range(config["steps"]):
            layer = f"{_LAYERS}{theirs + 1 + step}"
            yield f"{ours}{1 + 2 * step}", f"{layer}.actnorm"
            yield f"{ours}{2 + 2 * step}.f", f"{layer}.affine.f"
        split, flow = f"{ours}{1 + 2 * config['steps']}", f"flow.level{level}_condFlow"
        for part, name in _PARTS.items():
            yield f"{split}.flow.{part}", f"{flow}.{name}"
        for index in range(config["depth"]):
            for block in (1, 2, 3):
                place = f"{flow}.{_trunk(index, config['depth'])}.RDB{block}"
                yield f"{split}.flow.features.trunk.{index}.block{block}", place
        for step in range(config["conditional_steps"]):
            for part, name in _STEP.items():
                place = f"{flow}.additional_flow_steps.{step}.{name}"
                yield f"{split}.flow.steps.{step}.{part}", place
        ours, theirs = f"{split}.inner.", theirs + config["steps"] + 2
