r"""What the dense block's own ways are worth, against a plain loop in channels-last memory.

    python benchmarks/dense_block.py [--channels 12] [--growth 32] [--batch 4] [--side 72]

Three variants alternate in one process: the published code's (PyTorch's default memory), the same
loop in channels-last memory under plain autograd, and ours. Forward without gradients and a step
(forward and backward), in float32 and in bfloat16; on a CPU bfloat16 is autocast's for a step and
``optimize``'s for inference, where the loop casts its weights at every call. Ratios are medians
over the repeats with their quartiles; memory is what autograd keeps of a step, every storage once.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from trials import alternate

from wic_layers.blocks.dense_block import DenseBlock


def loop(block: DenseBlock, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Five calls and four concatenations, in the memory format of ``x``."""
    features = x if dtype is None else x.to(dtype)
    out = features
    for index, conv in enumerate(block.convolutions()):
        weight, bias = (each.to(features.dtype) if dtype else each for each in conv.parameters())
        out = F.conv2d(features, weight, bias, padding=1)
        if index < 4:
            features = torch.cat((features, F.leaky_relu(out, block.slope)), dim=1)
    return out.to(x.dtype) if dtype else out


def last(block: DenseBlock, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return loop(block, x.contiguous(memory_format=torch.channels_last), dtype)


def ours(block: DenseBlock, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    return block(x)


VARIANTS = {"default memory": loop, "channels-last": last, "ours": ours}


def infer(function: Callable[..., Tensor], block: DenseBlock, x: Tensor, *, half: bool) -> None:
    with torch.no_grad():
        function(block, x, torch.bfloat16 if half else None)


def step(function: Callable[..., Tensor], block: DenseBlock, x: Tensor, *, half: bool) -> None:
    block.zero_grad()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
        y = function(block, x)
    y.float().square().mean().backward()


def kept(function: Callable[..., Tensor], block: DenseBlock, x: Tensor, *, half: bool) -> float:
    """Megabytes that autograd keeps of a forward."""
    storages: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=half):
            function(block, x)
    return sum(storages.values()) / 2**20


def show(title: str, times: dict[str, list[float]], memory: dict[str, float] | None) -> None:
    base = times["default memory"]
    for name, seconds in times.items():
        ratios = sorted(one / two for one, two in zip(base, seconds, strict=True))
        low, middle, high = (ratios[int(len(ratios) * at)] for at in (0.25, 0.5, 0.75))
        megabytes = "" if memory is None else f"{memory[name]:.1f}"
        print(
            f"| {title} | {name} | {middle:.2f} ({low:.2f} to {high:.2f}) | "
            f"{statistics.median(seconds) * 1e3:.1f} | {megabytes} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, value in (("channels", 12), ("growth", 32), ("batch", 4), ("side", 72)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    block = DenseBlock(args.channels, args.channels, args.growth)
    for conv in block.convolutions():
        torch.nn.init.normal_(conv.weight, std=0.1 / conv.weight[0].numel() ** 0.5)
    x = torch.rand(args.batch, args.channels, args.side, args.side, requires_grad=True)
    print(f"{tuple(x.shape)}, growth {args.growth}, {args.threads} threads, {torch.__version__}\n")
    print("| | | times as fast | ms | MB kept |\n|---|---|---|---|---|")
    for half in (False, True):
        title = "bfloat16" if half else "float32"
        block.eval().optimize(torch.bfloat16 if half else None)
        runs = {n: partial(infer, f, block, x, half=half) for n, f in VARIANTS.items()}
        show(f"forward, {title}", alternate(runs, args.repeats), None)
        block.train()
        runs = {n: partial(step, f, block, x, half=half) for n, f in VARIANTS.items()}
        memory = {n: kept(f, block, x, half=half) for n, f in VARIANTS.items()}
        show(f"step, {title}", alternate(runs, args.repeats), memory)


if __name__ == "__main__":
    main()
