r"""Networks against a plain implementation of the published structure: inference and training.

    python benchmarks/speed.py infer [--preset hiding-1] [--sizes 128 256 512] [--threads 1]
    python benchmarks/speed.py fresh [--preset hiding-1] [--sizes 128 256 512] [--threads 1]
    python benchmarks/speed.py step [--preset hiding-1] [--batch 4] [--crop 144]
    python benchmarks/speed.py growth [--sizes 128 1024 4896]
    python benchmarks/speed.py cuda [--preset hiding-1]

The plain one has the same blocks and weights; its dense blocks are written as the authors' code
has them: memory in PyTorch's default order, a list of results, concatenated anew for every
convolution, under plain autograd. ``infer``: both directions, float32 and bfloat16 inside the
couplings. ``fresh``: the same in processes of their own, where malloc is as it is by default for
the plain one, and as the command line sets it for ours. ``step``: a forward and a reverse pass,
losses and gradients; time, and peak memory in a process of its own for each. ``growth``: how time
grows with the pixels of an image, up to 24 megapixels, for x2, x4 and one to four secrets, on one
and two threads; adds to ``results/growth.csv`` and draws ``.png``. ``cuda``: images per second at
256 x 256, 1024 x 1024 and 3840 x 2160, in both directions, one image at a time, with no wait for
the device in between (``torch.cuda.set_sync_debug_mode("error")``), and the fraction of what large
convolutions in bfloat16 reach there.

Variants alternate, in one process if not said otherwise; ratios are medians over the repeats, with
their quartiles.
Malloc's state counts: by default glibc returns large buffers to the system at once, and page
faults take about a quarter of the time of all variants; it is printed, and kept by
MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8589934592 MALLOC_TOP_PAD_=268435456.
"""

from __future__ import annotations

import argparse
import copy
import csv
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from trials import alternate

from wic_layers.blocks.dense_block import DenseBlock
from wic_layers.blocks.reversible import save_memory
from wic_layers.cli.program import keep_memory
from wic_layers.codec.running import backward_pixels, forward_pixels
from wic_layers.models import NETWORKS, PRESETS
from wic_layers.tasks import TASKS
from wic_layers.training import Objective

RESULTS = Path(__file__).parent / "results"

GROWTH = ("preset", "threads", "side", "direction", "seconds")

STEPS = {
    "plain": {"plain": True},
    "float32": {},
    "float32, save_memory": {"saves": True},
    "plain, bfloat16": {"plain": True, "bf16": True},
    "bfloat16": {"bf16": True},
    "bfloat16, save_memory": {"bf16": True, "saves": True},
}


class Plain(nn.Module):
    """A dense block as the published code has it, with the convolutions of ours."""

    def __init__(self, block: DenseBlock) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(block.children()).to(
            memory_format=torch.contiguous_format
        )  # type: ignore[call-overload]
        self.activation = nn.LeakyReLU(block.slope, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        found = [x.contiguous()]
        for conv in self.convolutions[:-1]:
            found.append(self.activation(conv(torch.cat(found, dim=1))))
        out: Tensor = self.convolutions[-1](torch.cat(found, dim=1))
        return out


def plain(model: nn.Module) -> nn.Module:
    """A copy of a network with plain dense blocks."""
    model = copy.deepcopy(model)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, DenseBlock):
                setattr(parent, name, Plain(child))
    return model


def build(preset: str) -> Any:
    """The network with random numbers in every convolution: zeros would be quick to add."""
    torch.manual_seed(0)
    model = NETWORKS[PRESETS[preset].network].from_preset(preset)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, std=0.1 / module.weight[0].numel() ** 0.5)
    return model


def show(title: str, times: dict[str, list[float]]) -> None:
    base = times[next(iter(times))]
    for name, found in times.items():
        ratios = sorted(one / two for one, two in zip(base, found, strict=True))
        low, middle, high = (ratios[int(len(ratios) * at)] for at in (0.25, 0.5, 0.75))
        milliseconds = statistics.median(found) * 1e3
        print(
            f"| {title} | {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | {milliseconds:.0f} |"
        )


def machine() -> str:
    keeps = bool({"MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_"} & os.environ.keys())
    return (
        f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}, "
        f"malloc {'keeps its pages' if keeps else 'as it is by default'}"
    )


@torch.no_grad()
def infer(args: argparse.Namespace) -> None:
    model = build(args.preset).eval()
    variants = {
        "plain": plain(model).eval(), "float32": model,
        "bfloat16": copy.deepcopy(model).optimize(torch.bfloat16),
    }  # fmt: skip
    channels = model.config["in_channels"]
    print(f"{args.preset}, {machine()}\n\n| | | times as fast | ms |\n|---|---|---|---|")
    for side in args.sizes:
        x = torch.rand(1, channels, side, side)
        y = model(x)
        forward = {name: partial(n, x) for name, n in variants.items()}
        back = {name: partial(n.inverse, y) for name, n in variants.items()}
        show(f"{side} x {side}, forward", alternate(forward, args.repeats))
        show(f"{side} x {side}, reverse", alternate(back, args.repeats))
        for title, runs in (("forward", forward), ("reverse", back)):
            exact = runs["plain"]()
            for name in ("float32", "bfloat16"):
                off = (runs[name]() - exact).square().mean() / exact.square().mean()
                print(f"    {title}, {name}: {-10 * float(off.clamp(min=1e-20).log10()):.0f} dB")


FRESH = ("plain", "float32", "bfloat16")


@torch.no_grad()
def fresh(args: argparse.Namespace) -> None:
    if args.only is not None:
        if args.only != "plain":
            keep_memory()
        model = build(args.preset).eval()
        if args.only == "plain":
            model = plain(model).eval()
        elif args.only == "bfloat16":
            model.optimize(torch.bfloat16)
        for side in args.sizes:
            x = torch.rand(1, model.config["in_channels"], side, side)
            y = model(x)
            model.inverse(y)
            for run in (partial(model, x), partial(model.inverse, y)):
                print(statistics.median(timed(run) for _ in range(3)))
        return
    print(f"{args.preset}, {machine()}\n\n| | | times as fast | ms |\n|---|---|---|---|")
    found: dict[tuple[str, str], list[float]] = {}
    rows = [(side, way) for side in args.sizes for way in ("forward", "reverse")]
    for _ in range(args.repeats):
        for name in FRESH:
            command = [sys.executable, *sys.argv, "--only", name]
            lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout
            for (side, way), line in zip(rows, lines.split(), strict=True):
                found.setdefault((f"{side} x {side}, {way}", name), []).append(float(line))
    for title in dict.fromkeys(key[0] for key in found):
        show(title, {name: found[title, name] for name in FRESH})


class Captured:
    """A function of one tensor on CUDA as a graph, launched in one piece."""

    def __init__(self, function: Callable[[Tensor], Tensor], x: Tensor) -> None:
        self.x = x.clone()
        for _ in range(3):  # caches are filled, convolutions chosen
            function(self.x)
        torch.cuda.synchronize()
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.y = function(self.x)

    def __call__(self, x: Tensor) -> Tensor:
        self.x.copy_(x)
        self.graph.replay()
        return self.y


def device_time(function: Callable[[], object], repeats: int) -> float:
    """The median of seconds between two events on the device, five launches apart."""
    found = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(5):
            function()
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 5e3)
    return statistics.median(found)


def convolution_peak() -> float:
    """Operations per second of a large 3x3 convolution in bfloat16, channels-last."""
    last = torch.channels_last
    x = torch.randn(8, 256, 512, 512, device="cuda", dtype=torch.bfloat16).to(memory_format=last)
    weight = torch.randn(256, 256, 3, 3, device="cuda", dtype=torch.bfloat16)
    weight = weight.to(memory_format=last)
    run = partial(torch.conv2d, x, weight, padding=1)
    for _ in range(3):
        run()
    return 2 * x.numel() * 256 * 9 / device_time(run, 5)


@torch.no_grad()
def cuda(args: argparse.Namespace) -> None:
    torch.backends.cudnn.benchmark = True
    peak_rate = convolution_peak()
    print(
        f"{args.preset}, {torch.cuda.get_device_name()}, torch {torch.__version__}; a large "
        f"convolution in bfloat16 runs at {peak_rate / 1e12:.0f} TFLOP/s\n\n"
        "| size, direction | | images per second | times as fast | of that peak | from plain |\n"
        "|---|---|---|---|---|---|"
    )
    model = build(args.preset).cuda().eval()
    variants = {
        "plain": plain(model).cuda().eval(),
        "float32": model,
        "bfloat16": copy.deepcopy(model).optimize(torch.bfloat16),
    }
    for width, height in ((256, 256), (1024, 1024), (3840, 2160)):
        x = torch.rand(1, model.config["in_channels"], height, width, device="cuda")
        y = model(x)
        for way, given in (("forward", x), ("reverse", y)):
            runs: dict[str, Callable[[Tensor], Tensor]] = {
                name: n if way == "forward" else n.inverse for name, n in variants.items()
            }
            with FlopCounterMode(display=False) as counter:
                exact = runs["plain"](given)
            runs["bfloat16, graph"] = Captured(runs["bfloat16"], given)
            base = 0.0
            for name, run in runs.items():
                for _ in range(3):
                    found = run(given)
                off = (found - exact).square().mean() / exact.square().mean()
                decibels = -10 * float(off.clamp(min=1e-20).log10())
                torch.cuda.set_sync_debug_mode("error")
                run(given)
                torch.cuda.set_sync_debug_mode("default")
                seconds = device_time(partial(run, given), args.repeats)
                base = base or seconds
                reached = counter.get_total_flops() / seconds / peak_rate
                print(
                    f"| {width} x {height}, {way} | {name} | {1 / seconds:.1f} | "
                    f"{base / seconds:.2f} | {reached:.2f} | {decibels:.0f} dB |",
                    flush=True,
                )


def one_step(args: argparse.Namespace, variant: str) -> Callable[[], object]:
    """A training step of a variant, to be called."""
    wanted: dict[str, bool] = STEPS[variant]
    model, task = build(args.preset).train(), TASKS[PRESETS[args.preset].task]
    if wanted.get("plain"):
        model = plain(model).train()
    save_memory(model, enabled=bool(wanted.get("saves")))
    torch.manual_seed(0)
    x = torch.rand(args.batch, model.config["in_channels"], args.crop, args.crop)
    reference, objective = task.reference(x), Objective(task)

    def run() -> None:
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bool(wanted.get("bf16"))):
            losses = objective.weighted(objective(model, x, reference))
        sum(losses.values()).backward()

    return run


def peak() -> float:
    """Most memory that this process has had, in MB (Linux; getrusage starts with its parent's)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (found,) = (line.split()[1] for line in lines if line.startswith("VmHWM"))
    return int(found) / 2**10


def step(args: argparse.Namespace) -> None:
    if args.only:  # in a process of its own: what a step takes beyond the network and its images
        run = one_step(args, args.only)
        before = peak()
        run()
        print(peak() - before)
        return
    print(f"{args.preset}, batch {args.batch}, crop {args.crop}, {machine()}\n")
    print("| | | times as fast | ms |\n|---|---|---|---|")
    times = alternate({name: one_step(args, name) for name in STEPS}, args.repeats)
    show("step", times)
    print("\n| | peak memory, MB | of plain |\n|---|---|---|")
    first = 0.0
    for name in STEPS:
        words = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found = float(done.stdout)
        first = first or found
        print(f"| {name} | {found:.0f} | {found / first:.2f} |")


def growth(args: argparse.Namespace) -> None:
    """Times both directions on 8-bit images, in tiles where large, as commands run them."""
    rows = read_growth()  # of other presets, sizes and threads
    for threads in args.counts:
        torch.set_num_threads(threads)
        for preset in args.presets:
            task, model = TASKS[PRESETS[preset].task], build(preset).eval()
            for side in args.sizes:
                images = [
                    torch.randint(0, 256, (3, side, side), dtype=torch.uint8)
                    for _ in range(task.images)
                ]
                picture = forward_pixels(task, model, task.packed(*images))
                sizes = [(side, side)] * task.restored_count
                runs = {
                    "forward": partial(forward_pixels, task, model, task.packed(*images)),
                    "reverse": partial(backward_pixels, task, model, picture, sizes),
                }
                if side <= 1024:
                    times = alternate(runs, args.repeats if side <= 512 else 1)
                else:  # long enough not to need a round to warm up
                    times = {way: [timed(run)] for way, run in runs.items()}
                for way, found in times.items():
                    seconds = statistics.median(found)
                    rows[preset, threads, side, way] = seconds
                    print(
                        f"{preset}, {threads} threads, {side} x {side}, {way}: {seconds:.3f} s, "
                        f"{seconds * 1e6 / side**2:.2f} microseconds a pixel", flush=True,
                    )  # fmt: skip
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / "growth.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(GROWTH)
        writer.writerows((*key, seconds) for key, seconds in sorted(rows.items()))
    plot([(*key, seconds) for key, seconds in sorted(rows.items())])


def timed(run: Callable[[], object]) -> float:
    began = time.perf_counter()
    run()
    return time.perf_counter() - began


def read_growth() -> dict[tuple[str, int, int, str], float]:
    """The lines of ``results/growth.csv``, if there is one."""
    path = RESULTS / "growth.csv"
    if not path.is_file():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        return {
            (line["preset"], int(line["threads"]), int(line["side"]), line["direction"]): float(
                line["seconds"]
            )
            for line in csv.DictReader(file)
        }


def plot(rows: list[tuple[str, int, int, str, float]]) -> None:
    """Seconds by pixels, and what would be linear."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(13, 4.5), sharey=True, layout="constrained")
    presets = list(dict.fromkeys(row[0] for row in rows))
    for axis, way in zip(axes, ("forward", "reverse"), strict=True):
        for preset, threads in dict.fromkeys(row[:2] for row in rows):
            points = [
                (r[2] ** 2 / 1e6, r[4]) for r in rows if r[:2] == (preset, threads) and r[3] == way
            ]
            axis.plot(
                *zip(*points, strict=True), "o-" if threads == 1 else "o--", markersize=4,
                color=f"C{presets.index(preset)}",
                label=f"{preset}, {threads} thread{'s' if threads > 1 else ''}",
            )  # fmt: skip
        ends = [min(r[2] for r in rows) ** 2 / 1e6, max(r[2] for r in rows) ** 2 / 1e6]
        axis.plot(ends, [3 * x for x in ends], ":", color="gray", label="3 microseconds a pixel")
        axis.set(xscale="log", yscale="log", title=way, xlabel="megapixels", ylabel="seconds")
        axis.grid(alpha=0.3)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right", fontsize=8)
    figure.savefig(RESULTS / "growth.png", dpi=110)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, dest="command")
    for run in (infer, fresh, step, growth, cuda):
        name = run.__name__
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        command.add_argument("--threads", type=int, default=1)
        command.add_argument("--repeats", type=int, default=9)
        if name != "growth":
            command.add_argument("--preset", default="hiding-1")
        if name in ("infer", "fresh", "growth"):
            command.add_argument("--sizes", type=int, nargs="+", default=[128, 256, 512])
    commands.choices["fresh"].add_argument("--only", choices=FRESH, help=argparse.SUPPRESS)
    step_command = commands.choices["step"]
    step_command.add_argument("--batch", type=int, default=4)
    step_command.add_argument("--crop", type=int, default=144)
    step_command.add_argument("--only", choices=tuple(STEPS), help=argparse.SUPPRESS)
    growth_command = commands.choices["growth"]
    growth_command.add_argument("--counts", type=int, nargs="+", default=[1, 2], help="of threads")
    growth_command.add_argument(
        "--presets", nargs="+", choices=PRESETS.names(),
        default=[
            "rescaling-x2-naive-small", "rescaling-x4-plain-naive-tiny",
            *(f"hiding-{secrets}-naive-tiny" for secrets in range(1, 5)),
        ],
    )  # fmt: skip
    growth_command.set_defaults(sizes=[128, 256, 512, 1024, 2048, 4896])
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.run(args)


if __name__ == "__main__":
    main()
