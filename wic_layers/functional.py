"""The algebra of one kernel under its short name: see :mod:`wic_layers.layer.functional`."""

from wic_layers.layer.functional import (
    condition_number,
    constrained_inverse,
    gram_logdet,
    left_inverse,
    log_volume,
    right_inverse,
    square_inverse,
)

__all__ = [
    "condition_number",
    "constrained_inverse",
    "gram_logdet",
    "left_inverse",
    "log_volume",
    "right_inverse",
    "square_inverse",
]
