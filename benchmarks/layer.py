"""One WIC layer against a plain convolution and against the layers of normflows and FrEIA.

Prints Markdown tables::

    python benchmarks/layer.py
    python benchmarks/layer.py --batch 32
    python benchmarks/layer.py --threads 2
    taskset -c 0 python benchmarks/layer.py --quick --csv layer.csv

Everything runs in one process, on one thread unless ``--threads`` says otherwise. A ratio is the
median over alternating repeats (A B, B A, A B, ...) of the time of the first to that of the
second, so that a machine that is slow for a while slows both. Times are CPU time of the thread,
which stands still while another process has the core; with several threads they are those of the
clock, and need a machine of their own.

torch's convolution of fewer than 16 images on one thread is a matrix product; all others are
oneDNN's, which is slow for few channels. Below about 100 microseconds a ratio shows Python's
overhead rather than arithmetic: the row ``nn.Conv2d`` tells what any module with one convolution
costs, the row ``plain again`` what the method itself adds. From 48 channels on, page faults of
fresh outputs blur the ratios unless malloc keeps its pages::

    export MALLOC_MMAP_THRESHOLD_=33554432 MALLOC_TRIM_THRESHOLD_=4294967296
"""

from __future__ import annotations

import argparse
import csv
import math
import os
import platform
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wic_layers import WIC
from wic_layers.functional import left_inverse
from wic_layers.layer.completion import CompletionName

Call = Callable[[], object]

SIZE = 32
SQUARE = (4, 12, 48, 64, 96)
RECTANGULAR = ((12, 48), (3, 12), (48, 12), (12, 3))
VECTORS = (12, 64)
COMPLETIONS: tuple[CompletionName, ...] = ("zero", "shift")
CONDITIONS = (1.0, 1e2, 1e4, 1e6)
HEADER = ("channels", "call", "against", "µs", "its µs", "ratio")


@dataclass
class Row:
    """One comparison: the two medians in microseconds and the median of the paired ratios."""

    channels: str
    call: str
    against: str
    first: float
    second: float
    ratio: float

    def cells(self) -> tuple[str, ...]:
        """Returns the row as text."""
        times = (f"{self.first:.1f}", f"{self.second:.1f}", f"{self.ratio:.3f}")
        return (self.channels, self.call, self.against, *times)


class Stopwatch:
    """Compares calls in alternating repeats, each of as many calls as fill about a millisecond."""

    def __init__(self, repeats: int, fill: float = 1e-3) -> None:
        self.repeats = repeats
        self.fill = fill

    def compare(self, first: Call, second: Call) -> tuple[float, float, float]:
        """Returns the median times of both in microseconds, and the median ratio."""
        calls = self._calls(second)
        for function in (first, second) * 3:
            _timed(function, calls)
        firsts, seconds = [], []
        for _ in range(self.repeats):
            seconds.append(_timed(second, calls))
            firsts.append(_timed(first, calls))
            # the second of a pair finds another cache than the first: each comes second as often
            firsts.append(_timed(first, calls))
            seconds.append(_timed(second, calls))
        ratios = [a / b for a, b in zip(firsts, seconds, strict=True)]
        ratio = math.sqrt(statistics.median(ratios[::2]) * statistics.median(ratios[1::2]))
        return 1e6 * statistics.median(firsts), 1e6 * statistics.median(seconds), ratio

    def _calls(self, function: Call) -> int:
        once = min(_timed(function, 1) for _ in range(5))
        return max(1, round(self.fill / max(once, 1e-7)))


def _timed(function: Call, calls: int) -> float:
    clock = time.thread_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
    start = clock()
    for _ in range(calls):
        function()
    return (clock() - start) / calls / 1e9


def plain(x: Tensor, matrix: Tensor) -> Call:
    """Returns the bare convolution (for vectors the bare product) with a ready-made kernel."""
    if x.ndim == 2:
        return partial(F.linear, x, matrix)
    return partial(F.conv2d, x, matrix[:, :, None, None].contiguous())


def hosts(kernel: Tensor, x: Tensor) -> list[tuple[str, Call, Call]]:
    """Returns other libraries' layers: name, the call with the kernel, that with its inverse.

    They return a log-determinant as well, which is part of what they cost.
    """
    found: list[tuple[str, Call, Call]] = []
    channels = kernel.shape[0]
    try:
        from normflows.flows.mixing import Invertible1x1Conv
    except ImportError:
        print("normflows is not installed: its rows are missing.\n")
    else:
        free, lu = Invertible1x1Conv(channels), Invertible1x1Conv(channels, use_lu=True)
        free.W.data.copy_(kernel)
        for name, flow in (("normflows", free.eval()), ("normflows LU", lu.eval())):
            # its forward goes from the latent to the data, which inverts the kernel
            found.append((name, partial(flow.inverse, x), partial(flow, x)))
    try:
        from FrEIA.modules import Fixed1x1Conv
    except ImportError:
        print("FrEIA is not installed: its rows are missing.\n")
    else:
        node = Fixed1x1Conv([tuple(x.shape[1:])], M=kernel.t().contiguous()).eval()
        found.append(("FrEIA", partial(node, [x]), partial(node, [x], rev=True)))
    return found


def square(channels: int, batch: int, watch: Stopwatch) -> Iterator[Row]:
    """Compares a square layer on images with everything there is to compare with."""
    layer = WIC(channels, channels).eval()
    kernel = layer.weight.detach().clone()
    x = torch.randn(batch, channels, SIZE, SIZE)
    module = partial(nn.Conv2d(channels, channels, 1, bias=False).eval(), x)
    forward, inverse = partial(layer, x), partial(layer.inverse, x)
    there, back = plain(x, kernel), plain(x, left_inverse(kernel))
    others = hosts(kernel, x)

    def row(call: str, against: str, first: Call, second: Call) -> Row:
        return Row(f"{channels} → {channels}", call, against, *watch.compare(first, second))

    yield row("plain again", "plain", plain(x, kernel), there)
    yield row("nn.Conv2d", "plain", module, there)
    yield row("forward", "plain", forward, there)
    yield row("forward", "nn.Conv2d", forward, module)
    for name, host, _ in others:
        yield row("forward", name, forward, host)
    for state in ("cached", "uncached"):
        layer.train(state == "uncached")
        yield row(f"inverse, {state}", "plain", inverse, back)
        for name, _, host in others:
            yield row(f"inverse, {state}", name, inverse, host)


def rectangular(n: int, m: int, batch: int, watch: Stopwatch) -> Iterator[Row]:
    """Compares a layer that changes the number of channels with plain convolutions.

    The plain way back of a narrowing layer starts from [y; c(y)], which is there already.
    """
    x, y = torch.randn(batch, n, SIZE, SIZE), torch.randn(batch, m, SIZE, SIZE)
    narrow = WIC(n, m, completion="zero").eval()

    def row(call: str, first: Call, second: Call) -> Row:
        return Row(f"{n} → {m}", call, "plain", *watch.compare(first, second))

    yield row("forward", partial(narrow, x), plain(x, narrow.weight.detach()[:m].clone()))
    for completion in COMPLETIONS if m < n else COMPLETIONS[:1]:
        layer = WIC(n, m, completion=completion).eval()
        filled = torch.cat((y, layer.complete(y)), dim=1)
        back = plain(filled, left_inverse(layer.weight.detach()))
        name = "inverse"
        if m < n:
            name = f"inverse ({completion})"
            yield row(f"completion ({completion}) and cat", partial(_fill, layer, y), back)
        yield row(f"{name}, cached", partial(layer.inverse, y), back)
        layer.train()
        yield row(f"{name}, uncached", partial(layer.inverse, y), back)


def _fill(layer: WIC, y: Tensor) -> Tensor:
    return torch.cat((y, layer.complete(y)), dim=1)


def vectors(channels: int, batch: int, watch: Stopwatch) -> Iterator[Row]:
    """Compares a square layer on plain vectors, as many as the images have pixels."""
    layer = WIC(channels, channels).eval()
    kernel = layer.weight.detach().clone()
    x = torch.randn(batch * SIZE * SIZE, channels)
    title = f"{channels} → {channels}, vectors"
    there, back = plain(x, kernel), plain(x, left_inverse(kernel))
    yield Row(title, "forward", "plain", *watch.compare(partial(layer, x), there))
    yield Row(title, "inverse, cached", "plain", *watch.compare(partial(layer.inverse, x), back))


def gram_inverse(kernel: Tensor) -> Tensor:
    """Returns the left inverse by the normal equations in the kernel's own dtype."""
    return torch.linalg.inv(kernel.mT @ kernel) @ kernel.mT


def worst_error(inverse: Callable[[Tensor], Tensor], condition: float) -> float:
    """Returns the largest ‖W⁺W - I‖ over kernels of 3 to 96 channels of that condition number.

    Inverse and kernel are float32; the product is taken in float64, so that it adds nothing.
    """
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for n in (3, 4, 12, 24, 48, 64, 96):
        for m in sorted({n, min(4 * n, 96), 96}):
            left, right = (
                torch.linalg.qr(torch.randn(rows, n, dtype=torch.float64, generator=generator)).Q
                for rows in (m, n)
            )
            values = torch.logspace(0, -1, n, base=condition, dtype=torch.float64)
            kernel = ((left * values) @ right.mT).float()
            product = inverse(kernel).double() @ kernel.double()
            error = torch.linalg.matrix_norm(product - torch.eye(n, dtype=torch.float64), 2)
            worst = max(worst, float(error.nan_to_num(torch.inf)))
    return worst


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """Returns a Markdown table."""
    header = tuple(header)
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def surroundings(batch: int) -> str:
    """Returns what the figures depend on, one item a line."""
    names = sorted(n for n in os.environ if "MALLOC" in n or n == "LD_PRELOAD")
    malloc = ", ".join(f"{name}={os.environ[name]}" for name in names) or "no variable set"
    pinned = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "?"
    x, kernel = torch.randn(batch, 64, SIZE, SIZE), torch.randn(64, 64)
    call = plain(x, kernel)
    for _ in range(20):
        call()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        call()
    faults = (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) / 20
    return "\n".join(
        (
            f"- torch {torch.__version__}, Python {platform.python_version()}, "
            f"{torch.backends.cpu.get_cpu_capability()}, float32, gradients off",
            f"- input ({batch}, C, {SIZE}, {SIZE}); {torch.get_num_threads()} thread(s) on "
            f"{pinned} core(s)",
            f"- malloc: {malloc}; {faults:.0f} page faults a plain call at 64 channels",
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=101, help="A B B A per ratio (default 101)")
    parser.add_argument("--quick", action="store_true", help="15 repeats")
    parser.add_argument("--batch", type=int, default=8, help="images in the input (default 8)")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--csv", type=Path, help="write the first table here too")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", "torch.lu is deprecated")  # normflows calls it
    print(surroundings(options.batch), end="\n\n", flush=True)
    watch = Stopwatch(15 if options.quick else options.repeats)
    rows: list[Row] = []
    with torch.no_grad():
        for channels in SQUARE:
            rows.extend(square(channels, options.batch, watch))
        for n, m in RECTANGULAR:
            rows.extend(rectangular(n, m, options.batch, watch))
        for channels in VECTORS:
            rows.extend(vectors(channels, options.batch, watch))
    print(markdown(HEADER, (row.cells() for row in rows)), end="\n\n")

    def figures(inverse: Callable[[Tensor], Tensor]) -> list[str]:
        return [f"{worst_error(inverse, condition):.1e}" for condition in CONDITIONS]

    print("Worst ‖W⁺W - I‖ (spectral) of float32 kernels of 3 to 96 channels:\n")
    methods = (("wic_layers, QR in float64", left_inverse), ("Gram inverse", gram_inverse))
    header = ("method", *(f"condition {condition:.0e}" for condition in CONDITIONS))
    print(markdown(header, ((name, *figures(inverse)) for name, inverse in methods)))
    if options.csv:
        with options.csv.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(HEADER)
            writer.writerows(row.cells() for row in rows)


if __name__ == "__main__":
    main()
