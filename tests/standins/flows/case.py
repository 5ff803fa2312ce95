"""``Case``: a small flow in the style of a public code base, and how its owner calls it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

Call = Callable[[nn.Module, Tensor], Any]


@dataclass(frozen=True)
class Case:
    """A way in which a 1x1 layer is called, with a model that calls it so.

    ``forward`` goes from the data to the latent, whatever the layers call that direction.
    """

    name: str
    like: str  # the code bases that call it so
    build: Callable[[], nn.Module]  # seeded by the caller; in train mode, no batch seen yet
    layers: tuple[str, ...]  # names of the modules that become WICs
    x: Callable[[], Tensor]  # a batch for ``forward``; the Jacobian of it is small
    forward: Callable[[nn.Module, Tensor], tuple[Tensor, Tensor | None]]  # None: no log-det kept
    inverse: Callable[[nn.Module, Tensor], Tensor]
    layer_x: Callable[[], Tensor]  # a batch for the first of ``layers``, in either direction
    layer_calls: Mapping[str, Call]  # "direction or use": one call, its raw result
    left: Mapping[str, str] = field(default_factory=dict)  # module: word of the reason
    units: str = "sample"  # whose log-det: "sample" (a scalar, (B,), (B, 1)) or "batch"
    drifts: tuple[str, ...] = ()  # ends of parameters' names whose training makes the host wrong
    pickles: bool = True  # torch.save(model) works for the owner
    copies: bool = True  # deepcopy works after a forward pass with gradients
    nan_below_zero: bool = False  # the host's log-det is NaN where det W < 0
    lines: int = 1  # what the owner writes; 1 is ``swap_1x1`` alone
    notes: str = ""

    def __str__(self) -> str:
        return self.name
