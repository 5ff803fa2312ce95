"""A Glow of normflows before and after its square 1x1 convolutions became WIC layers.

Prints a Markdown table of the time of the swapped model to that of the original, below 1 is
faster, for sampling, log_prob and a training step (forward KL, backward and Adam)::

    python benchmarks/hosts.py
    python benchmarks/hosts.py --threads 2
    taskset -c 0 python benchmarks/hosts.py --hidden 64 --batch 8 --repeats 5

Everything runs in one process, on one thread unless ``--threads`` says otherwise. Both models hold
the same numbers and run in turn (A B, B A, ...); a ratio is the median over the repeats. Times are
CPU time, which stands still while another process has the core; with several threads they are
those of the clock, and need a machine of their own. Sampling and log_prob run in ``eval()`` with
gradients off, where the swapped model remembers inverses and log-determinants; sampling once more
with gradients on. FrEIA's ``Fixed1x1Conv`` in a SequenceINN is measured in the same way.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
import warnings
from collections.abc import Callable, Iterator

import FrEIA.framework as Ff
import FrEIA.modules as Fm
import normflows as nf
import torch
from layer import markdown, surroundings
from torch import Tensor, nn

from wic_layers import swap_1x1

Call = Callable[[], object]

LEVELS, BLOCKS, SIZE = 3, 4, 32


def glow(hidden: int, *, use_lu: bool) -> nf.MultiscaleFlow:
    """A Glow for (3, SIZE, SIZE) with LEVELS levels of BLOCKS blocks."""
    q0, flows, merges = [], [], []
    for level in range(LEVELS):
        channels = 3 * 2 ** (LEVELS + 1 - level)
        blocks = [nf.flows.GlowBlock(channels, hidden, use_lu=use_lu) for _ in range(BLOCKS)]
        flows.append([*blocks, nf.flows.Squeeze()])
        side = SIZE // 2 ** (LEVELS - level)
        latent = channels // 2 if level else channels
        if level:
            merges.append(nf.flows.Merge())
        q0.append(nf.distributions.DiagGaussian((latent, side, side)))
    return nf.MultiscaleFlow(q0, flows, merges, class_cond=False)


def timed(call: Call, times: int) -> float:
    """Time of one call, in seconds, over several."""
    clock = time.process_time_ns if torch.get_num_threads() == 1 else time.perf_counter_ns
    start = clock()
    for _ in range(times):
        call()
    return (clock() - start) / times / 1e9


def compare(swapped: Call, original: Call, repeats: int) -> tuple[float, float, float]:
    """Median milliseconds of both, and the median ratio of neighbours in time."""
    for call in (swapped, original) * 2:
        call()
    times = max(1, round(0.05 / max(timed(original, 1), 1e-6)))
    ours, theirs = [], []
    for repeat in range(repeats):
        pair = [(ours, swapped), (theirs, original)]
        for found, call in pair if repeat % 2 else pair[::-1]:
            found.append(timed(call, times))
    ratio = statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
    return 1e3 * statistics.median(ours), 1e3 * statistics.median(theirs), ratio


def step(model: nn.Module, x: Tensor) -> Call:
    """One training step of Adam on the forward KL divergence."""
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss = model.forward_kld(x)
        loss.backward()
        optimizer.step()

    return run


def quiet(call: Call) -> Call:
    """The call with gradients off."""

    def run() -> None:
        with torch.no_grad():
            call()

    return run


def rows_of_glow(hidden: int, batch: int, repeats: int) -> Iterator[tuple[str, ...]]:
    x = torch.rand(batch, 3, SIZE, SIZE)
    for use_lu in (True, False):
        original = glow(hidden, use_lu=use_lu)
        original.forward_kld(x)  # ActNorm takes its start from data
        swapped = copy.deepcopy(original)
        swap_1x1(swapped)
        name = f"Glow, {hidden} hidden, {'LU' if use_lu else 'free'}, batch {batch}"

        def row(
            what: str, calls: Callable[[nn.Module], Call], name: str = name
        ) -> tuple[str, ...]:
            found = compare(calls(swapped), calls(original), repeats)  # noqa: B023
            return (name, what, *(f"{value:.2f}" for value in found[:2]), f"{found[2]:.3f}")

        for model in (original, swapped):
            model.eval()
        yield row("sampling", lambda model: quiet(lambda: model.sample(batch)))
        yield row("log_prob", lambda model: quiet(lambda: model.log_prob(x, None)))
        for model in (original, swapped):
            model.train()
        yield row("training step", lambda model: step(model, x))
        yield row("sampling with gradients", lambda model: lambda: model.sample(batch))


def rows_of_freia(channels: int, batch: int, repeats: int) -> Iterator[tuple[str, ...]]:
    x = torch.rand(batch, channels, SIZE, SIZE)
    original = Ff.SequenceINN(channels, SIZE, SIZE)
    for _ in range(4):
        matrix = torch.linalg.qr(torch.randn(channels, channels))[0]
        original.append(Fm.Fixed1x1Conv, M=matrix.contiguous())
    swapped = copy.deepcopy(original)
    swap_1x1(swapped)
    name = f"FrEIA, 4 Fixed1x1Conv, {channels} channels, batch {batch}"
    for what, rev in (("forward", False), ("reverse", True)):
        calls = [
            quiet(lambda model=model, rev=rev: model(x, rev=rev))
            for model in (swapped.eval(), original.eval())
        ]
        found = compare(*calls, repeats)
        yield (name, what, *(f"{value:.2f}" for value in found[:2]), f"{found[2]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=31, help="pairs per ratio (default 31)")
    parser.add_argument(
        "--hidden", type=int, nargs="+", default=[64, 512], help="channels inside couplings"
    )
    parser.add_argument("--batch", type=int, nargs="+", default=[8, 32], help="images at once")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    warnings.filterwarnings("ignore", "torch.lu is deprecated")  # normflows calls it
    print(surroundings(8).splitlines()[0])
    print(
        f"- Glow of {LEVELS} levels x {BLOCKS} blocks on (B, 3, {SIZE}, {SIZE}), "
        f"{options.threads} thread(s)\n"
    )
    rows: list[tuple[str, ...]] = []
    for batch in options.batch:
        for hidden in options.hidden:
            rows += rows_of_glow(hidden, batch, options.repeats)
        for channels in (12, 48):
            rows += rows_of_freia(channels, batch, options.repeats)
    print(markdown(("model", "call", "swapped, ms", "original, ms", "ratio"), rows))


if __name__ == "__main__":
    main()
