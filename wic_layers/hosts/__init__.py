"""Other people's models: :func:`swap_1x1`, :func:`plan_resize` and :class:`WellPosed`.

``freia`` and ``normflows`` hold the shells for those frameworks; :func:`load_optimizer_state`
reads what an optimizer knew before a network was closed.
"""

from wic_layers.hosts.checkpoints import load_optimizer_state
from wic_layers.hosts.resizing import Part, ResizePlan, plan_resize
from wic_layers.hosts.swap import (
    Left,
    Swap,
    SwapReport,
    register_1x1,
    swap_1x1,
    unswap_1x1,
)
from wic_layers.hosts.well_posed import WellPosed

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
