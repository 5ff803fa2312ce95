"""WINFormat, WIN and WIN-Naive as their authors' code names them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from wic_layers.blocks import LongTermMemory
from wic_layers.errors import WICArgumentError
from wic_layers.layer.conv import WIC
from wic_layers.models.base import Network
from wic_layers.models.official.format import Format
from wic_layers.models.win import WIN, WINNaive

__all__ = ["WINFormat"]


class WINFormat(Format):
    """The code of WIN.

    It reads with imageio: its networks see red first (``train.py``).
    """

    networks = (WIN, WINNaive)
    mark = r"\.iConv2d\."

    def check(self, model: Network) -> None:
        """Raises if the network is of another layout or completion than theirs."""
        config = model.config
        if config["layout"] != "published" or config["completion"] not in (None, "shift"):
            raise WICArgumentError(
                'Expected a network with layout="published" and the shift completion, which is '
                f"all that the authors' code has; got layout={config['layout']!r}, "
                f"completion={config['completion']!r}."
            )

    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network:
        """The network that the names and shapes of a state dict are for."""
        last = max(int(key.split(".")[1]) for key in state)
        rows, columns = state[f"operations.{last}.iConv2d.weight"].shape[:2]
        stages = len({key.split(".")[1] for key in state if ".transform." in key})
        shared: dict[str, Any]
        if stages:
            # [squeeze, WIC, modules] for every halving, (unsqueeze), WIC
            in_channels = state["operations.1.iConv2d.weight"].shape[1] // 4
            scale = 1 if last == 3 * stages + 1 else 2**stages
            short = state["operations.1.iConv2d.weight"].shape[0]
            width = state["operations.2.transform.0.iConv2d.weight"].shape[0]
            split = short / width
            if int(width * split) != short:
                split = (short + 0.5) / width
            shared = {
                "width": width,
                "split": split,
                "modules": _count(state, "operations.2.transform.{}.iConv2d.weight"),
                "couplings": _count(state, "operations.2.feature.0_{}.F.conv1.weight"),
                "growth": state["operations.2.feature.0_0.F.conv1.weight"].shape[0],
            }
        else:
            # [squeeze] as often as the image is halved, couplings, (unsqueeze), WIC
            squeezes = min(int(key.split(".")[1]) for key in state)
            couplings = _count(state, "operations.{}.F.conv1.weight", start=squeezes)
            first = f"operations.{squeezes}.F"
            growth, second = state[f"{first}.conv1.weight"].shape[:2]
            in_channels = (second + state[f"{first}.conv5.weight"].shape[0]) // 4**squeezes
            scale = 2**squeezes if last == squeezes + couplings else 1
            shared = {"couplings": couplings, "growth": growth}
        results = out_channels or (1 if scale == 1 and in_channels == 3 else 3)
        fitting = [m for m in range(1, columns) if -(-columns // m) * m == rows]
        if copies is None:
            copies = 4 if scale == 4 and 4 * results in fitting else 1
        if results * copies not in fitting:
            raise WICArgumentError(
                f"Expected out_channels times copies of {' or '.join(map(str, fitting))} for a "
                f"last kernel of shape ({rows}, {columns}); got {results} times {copies}."
            )
        network = WIN if stages else WINNaive
        return network(
            in_channels, results, scale=scale, copies=copies, layout="published", **shared
        )

    def is_kernel(self, model: Network, key: str) -> bool:
        """Whether a tensor of ours is a kernel that they store as that of a convolution."""
        return isinstance(model.get_submodule(key.rpartition(".")[0]), WIC)

    def names(self, model: Network) -> dict[str, str]:
        """Our names of a state dict with theirs."""
        places = dict(_places(model))
        # the deepest place first: modules stand inside one another
        prefixes = sorted(places, key=len, reverse=True)
        names = {}
        for key in model.state_dict():
            prefix = next(prefix for prefix in prefixes if key.startswith(f"{prefix}."))
            rest = key[len(prefix) + 1 :]
            if self.is_kernel(model, key):
                rest = f"iConv2d.{rest}"
            names[key] = f"operations.{places[prefix]}.{rest}"
        return names


def _count(state: Mapping[str, Tensor], pattern: str, start: int = 0) -> int:
    index = start
    while pattern.format(index) in state:
        index += 1
    return index - start


def _places(model: Network) -> Iterator[tuple[str, str]]:
    """Where each part of ours is in theirs.

    Theirs is [squeeze, WIC, modules] once or twice, (unsqueeze), WIC; the modules hold
    ``transform.i`` (the WIC of module i), ``feature.i_j`` (its coupling j) and ``tail.0``. In ours
    module i + 1 stands inside the memory of module i, behind its couplings, and the tail for
    itself: [squeeze, WIC, WIC, memory, tail]. Of WIN-Naive the order is the same.
    """
    last = max(index for index, block in enumerate(model) if isinstance(block, WIC))
    if isinstance(model, WINNaive):
        yield from ((str(index), str(index)) for index in range(last + 1))
        return
    couplings, modules = model.config["couplings"], model.config["modules"]
    stages = sum(isinstance(block, LongTermMemory) for block in model)
    for stage in range(stages):
        ours, theirs = 5 * stage, 3 * stage
        yield f"{ours + 1}", f"{theirs + 1}"
        yield f"{ours + 2}", f"{theirs + 2}.transform.0"
        inside = f"{ours + 3}.inner"
        for module in range(modules):
            for coupling in range(couplings):
                yield f"{inside}.{coupling}", f"{theirs + 2}.feature.{module}_{coupling}"
            if module + 1 < modules:
                yield f"{inside}.{couplings}", f"{theirs + 2}.transform.{module + 1}"
            inside += f".{couplings + 1}.inner"
        yield f"{ours + 4}", f"{theirs + 2}.tail.0"
    yield str(last), str(last - 2 * stages)
