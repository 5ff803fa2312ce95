"""What ``load_official`` gives for every kind of checkpoint, as a Markdown table.

    python tests/checkpoint_rows.py

Each row changes checkpoints that small networks of each code base write; the tests have a case for
every cell.
"""

import sys
import tempfile
import warnings
from pathlib import Path

import torch
from cases import shaken

from wic_layers.errors import WICError
from wic_layers.models import (
    IRN,
    HCFlow,
    HiNet,
    IICNet,
    WINNaive,
    load_official,
    save_official,
    with_wic,
)

NETWORKS = {
    "IRN": lambda: IRN(couplings=2, growth=4, random_z=True),
    "HiNet": lambda: HiNet(couplings=2, growth=4, random_z=True),
    "IICNet": lambda: IICNet(6, 3, couplings=2, growth=4, features=2, channel_squeeze=True),
    "HCFlow": lambda: HCFlow(steps=2, growth=4, conditional_steps=1, width=8, depth=3, z="drawn"),
    "WIN-Naive": lambda: WINNaive(6, 3, couplings=2, growth=4, layout="published"),
}


def network(kind):
    model = shaken(NETWORKS[kind]()).eval()
    model.colours = "BGR" if kind == "IICNet" else "RGB"
    return model


def checkpoint(model, path):
    save_official(model, path)
    return torch.load(path, weights_only=True)


def tensors(written):
    """The state dict inside, which HiNet's code wraps."""
    return written.get("net", written)


def _with(change, *, number=None):
    """A row that changes every tensor of the state dict, or one in the middle by a number."""

    def row(written):
        state = tensors(written)
        names = [name for name in state if "haar" not in name]
        for name in [names[len(names) // 2]] if number is not None else list(state):
            state[name] = change(state[name])
            if number is not None:
                state[name].flatten()[0] = number
        return written

    return row


def _without_one(written):
    state = tensors(written)
    del state[next(name for name in state if name.endswith("conv3.bias"))]
    return written


def _another_width(written):
    state = tensors(written)
    name = next(name for name in reversed(state) if name.endswith("conv2.weight"))
    state[name] = state[name][:2]
    return written


ROWS = {
    "as written": lambda written: written,
    "half": _with(lambda value: value.half()),
    "bfloat16": _with(lambda value: value.bfloat16()),
    "float64": _with(lambda value: value.double()),
    "nested": lambda written: {"epoch": 3, "a": {"model": tensors(written), "lr": 0.1}},
    "module. and _orig_mod. in front": lambda written: {
        f"module._orig_mod.{name}": value for name, value in tensors(written).items()
    },
    "nested, of another network": lambda written: {
        "epoch": 3, "state_dict": {"encoder.weight": torch.ones(2), "encoder.bias": torch.ones(2)}
    },
    "no tensors": lambda written: {"epoch": 3},
    "NaN": _with(torch.clone, number=torch.nan),
    "inf": _with(torch.clone, number=-torch.inf),
    "float64, too large": _with(torch.Tensor.double, number=1e300),
    "a name missing": _without_one,
    "another width": _another_width,
    "truncated": None,
    "trained after the change": None,
}  # fmt: skip


def write(kind, row, folder):
    """A checkpoint of a kind, changed as the row says; and the network that it should give."""
    model, path = network(kind), folder / f"{kind}.pth"
    if row == "trained after the change":
        model = with_wic(model)
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    written = checkpoint(model, path)
    if row == "truncated":
        path.write_bytes(path.read_bytes()[:-500])
    elif ROWS[row] is not None:
        torch.save(ROWS[row](written), path)
    return model, path


def largest_difference(one, other):
    """Of the forward picture, and of what comes back of it with the same random numbers."""
    x = torch.rand(1, one.config["in_channels"], 16, 16)
    with torch.no_grad():
        y = one(x)
        backs = []
        for each in (one, other):
            torch.manual_seed(0)
            backs.append(each.inverse(y))
        differences = ((y - other(x)).abs().max(), (backs[0] - backs[1]).abs().max())
    return float(max(differences))


def result(kind, row, folder):
    """What the table says."""
    try:
        model, path = write(kind, row, folder)
        loaded = load_official(path)
    except WICError as error:
        return f"{type(error).__name__}: {error}".replace(f"{folder}/", "")
    return f"the network, off by at most {largest_difference(model, loaded):.1g}"


def main():
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    print("| checkpoint | code of | what load_official gives |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            for kind in NETWORKS:
                try:
                    cell = result(kind, row, Path(folder))
                except Exception as error:  # is to be seen in the table
                    cell = f"{type(error).__name__} (!): {error}"
                print(f"| {row} | {kind} | {cell} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
