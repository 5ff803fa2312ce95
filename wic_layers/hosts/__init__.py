"""Other people's models: :func:`swap_1x1`, :func:`plan_resize` and :class:`WellPosed`.

``freia`` and ``normflows`` hold the shells for those frameworks; :func:`load_optimizer_state`
reads what an optimizer knew before a network was closed.
"""

from typing import TYPE_CHECKING

from wic_layers.hosts.checkpoints import load_optimizer_state
from wic_layers.hosts.swap import (
    Left,
    Swap,
    SwapReport,
    register_1x1,
    swap_1x1,
    unswap_1x1,
)
from wic_layers.hosts.well_posed import WellPosed

if TYPE_CHECKING:
    from wic_layers.hosts.resizing import Part, ResizePlan, plan_resize

__all__ = [
    "Left",
    "Part",
    "ResizePlan",
    "Swap",
    "SwapReport",
    "WellPosed",
    "load_optimizer_state",
    "plan_resize",
    "register_1x1",
    "swap_1x1",
    "unswap_1x1",
]


def __getattr__(name: str) -> object:
    if name not in ("Part", "ResizePlan", "plan_resize"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from wic_layers.hosts import resizing  # which takes long to import, and is needed seldom

    return getattr(resizing, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
