"""selftest: every contract of the layer on a matrix of layers, for ``wic selftest``."""

from __future__ import annotations

import sys
import time
from functools import partial

import torch
from torch import nn

from wic_layers import WIC, WICError
from wic_layers.blocks import AffineCoupling, Chain, LongTermMemory, Squeeze
from wic_layers.testing import check

__all__ = ["selftest"]

_MATRIX = {
    "one channel": partial(WIC, 1, 1),
    "square 12": partial(WIC, 12, 12),
    "square 12, orthogonal": partial(WIC, 12, 12, parametrization="orthogonal"),
    "square 12, lu": partial(WIC, 12, 12, parametrization="lu"),
    "widening 3 to 12": partial(WIC, 3, 12),
    "widening 48 to 64": partial(WIC, 48, 64),
    "narrowing 12 to 3, shift": partial(WIC, 12, 3, completion="shift"),
    "narrowing 12 to 3, zero": partial(WIC, 12, 3),
    "narrowing 12 to 3, repeat": partial(WIC, 12, 3, completion="repeat"),
    "narrowing 12 to 3, learned": partial(WIC, 12, 3, completion="learned"),
    "narrowing 12 to 3, gaussian": partial(WIC, 12, 3, completion="gaussian"),
    "narrowing 12 to 3, published": partial(WIC, 12, 3, layout="published"),
    "narrowing 64 to 61": partial(WIC, 64, 61),
    "narrowing 7 to 3, rows m": partial(WIC, 7, 3, rows="m"),
    "narrowing 7 to 3, rows 9": partial(WIC, 7, 3, rows=9),
}


def selftest() -> int:
    """Runs every contract on a matrix of layers, prints the errors; returns 0 if all hold, else 1.

    The kernels have singular values spread over two decades, except the parametrized ones.
    """
    began = time.perf_counter()
    failures = 0
    heads = ("condition", "error", "limit", "digits")
    print(f"{'layer':<30}{'dtype':<10}" + "".join(f"{head:>10}" for head in heads))
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for label, model in _candidates():
            dtype = next(model.parameters()).dtype
            line = f"{label:<30}{str(dtype).removeprefix('torch.'):<10}"
            x = torch.rand(2, 3, 8, 10, dtype=dtype) if isinstance(model, Chain) else None
            try:
                worst = max(check(model, x).values(), key=lambda trip: trip.error / trip.limit)
            except WICError as error:
                failures += 1
                print(f"{line} FAILED  {error}")
            else:
                numbers = f"{worst.condition:>10.3g}{worst.error:>10.2g}{worst.limit:>10.2g}"
                print(f"{line}{numbers}{worst.digits:>10.1f}")
    verdict = f"{failures} failed" if failures else "all contracts hold"
    version = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    print(f"{verdict}; {version}, {time.perf_counter() - began:.1f} s")
    return 1 if failures else 0


def _candidates() -> list[tuple[str, nn.Module]]:
    """Layers of every kind and a small network, in float32 and float64, for the self-test.

    Free kernels have singular values spread over two decades.
    """
    models: list[tuple[str, nn.Module]] = []
    for dtype in (torch.float32, torch.float64):
        for label, build in _MATRIX.items():
            layer = build(dtype=dtype)
            if layer.parametrization == "free":
                with torch.no_grad():
                    u, s, v = torch.linalg.svd(layer.weight.double(), full_matrices=False)
                    spread = torch.logspace(0, -2, len(s), dtype=s.dtype)
                    layer.weight.copy_((u * spread) @ v)
            models.append((label, layer))
        inner = LongTermMemory(4, AffineCoupling(12))
        network = Chain(Squeeze(2), WIC(12, 16), inner, AffineCoupling(16), WIC(16, 3))
        models.append(("network of blocks", network.to(dtype)))
    return models
