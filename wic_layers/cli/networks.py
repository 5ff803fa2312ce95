"""Commands about a network itself, and the layers: ``wic inspect``, ``export``, ``selftest``."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from wic_layers._text import abridged
from wic_layers.cli.command import Command, path, print_line
from wic_layers.errors import WICArgumentError, WICFileError

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["EXPORT", "INSPECT", "TEST"]


def _add_network(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("network", help="a preset, or the folder of weights")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    _add_network(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _inspect(args: argparse.Namespace) -> int:
    from wic_layers.models import (
        NETWORKS,
        PRESETS,
        from_pretrained,
        inspect,
        packaged_weights,
    )
    from wic_layers.models.inspection import flow, flow_table

    has_weights = args.network in packaged_weights() or Path(args.network).is_dir()
    if args.network in PRESETS and not has_weights:
        model = NETWORKS[PRESETS[args.network].network].from_preset(args.network)
    else:
        model = from_pretrained(args.network)
    facts = inspect(model)
    if args.json:
        print(
            json.dumps(
                {
                    "preset": model.preset, "network": type(model).__name__,
                    "arguments": model.config, **asdict(facts), "weights": model.weights_id,
                    "through": model.through, "card": model.card,
                }
            )
        )  # fmt: skip
        return 0
    print_line(f"{type(model).__name__} {model.preset or ''}".rstrip())
    print_line(*flow_table(flow(model, model.config["in_channels"]), facts.conditions).split("\n"))
    forward, back = (f"{flops / 1000:.1f}" for flops in facts.flops)
    rows = {
        "parameters": f"{facts.parameters:,}",
        "operations": f"{forward} kFLOP per input pixel, {back} on the way back",
        "receptive field": f"{facts.receptive_field} pixels wide and high",
        "weights": model.weights_id or "none here: a random start",
        **({"trained through": ", ".join(model.through)} if model.through else {}),
        **model.card,
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print_line(f"{name.ljust(width)}  {abridged(value)}")
    return 0


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "network",
        help="a preset, the folder of weights, or a model of your own as FILE.py:FUNCTION (or "
        "MODULE:FUNCTION), whose function returns the model and a tuple of inputs",
    )
    parser.add_argument(
        "--direction", choices=("forward", "reverse"),
        help="forward: hide, down or gray; reverse: reveal, up or color; a model of your own is "
        "exported as it is called without one",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--out", metavar="ONNX", type=path, required=True, help="ONNX file to write"
    )
    parser.add_argument(
        "--precision", choices=("float32", "float16"), default="float32",
        help="float16: half the file; the networks inside couplings run in float16",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace an output that exists")
    parser.add_argument("--json", action="store_true", help="print JSON")


def _export(args: argparse.Namespace) -> int:
    from wic_layers.deploy import export_onnx

    place, _, function = args.network.rpartition(":")
    if place and function.isidentifier() and not Path(args.network).exists():
        return _export_own(args)
    if args.direction is None:
        raise WICArgumentError("Expected --direction forward or reverse for a network of ours.")
    exported = export_onnx(
        args.network, args.out, args.direction, precision=args.precision, force=args.force
    )
    if args.json:
        print(json.dumps({**asdict(exported), "path": str(exported.path)}))
        return 0
    print_line(
        f"{exported.path}: {exported.bytes / 1e6:.2f} MB, {args.direction} of {exported.task}, "
        f"opset {exported.metadata['opset']}"
    )
    for name, images in (("input", exported.inputs), ("output", exported.outputs)):
        for image, shape in images.items():
            print(f"{name} {image}: uint8 ({', '.join(map(str, shape))})")
    return 0


def _export_own(args: argparse.Namespace) -> int:
    """Exports what a user's function returns."""
    from wic_layers.deploy import export_model, fuse

    model, inputs = _built(args.network)
    fused = fuse(model, args.direction)
    written = export_model(fused, inputs, args.out, precision=args.precision, force=args.force)
    size = written.stat().st_size
    if args.json:
        print(json.dumps({"path": str(written), "bytes": size}))
    else:
        print_line(f"{written}: {size / 1e6:.2f} MB, {type(model).__name__} of {args.network}")
    return 0


def _built(place: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model and inputs that ``FILE.py:FUNCTION`` or ``MODULE:FUNCTION`` returns."""
    from torch import Tensor, nn

    name, _, function = place.rpartition(":")
    sys.path.insert(0, str(Path(name).resolve().parent if name.endswith(".py") else Path.cwd()))
    try:
        module = importlib.import_module(Path(name).stem if name.endswith(".py") else name)
    except ModuleNotFoundError as error:
        raise WICFileError(
            f"Expected a Python file or module before ':{function}'; {name} cannot be imported "
            f"({error})."
        ) from error
    finally:
        del sys.path[0]
    build = getattr(module, function, None)
    if not callable(build):
        raise WICArgumentError(f"Expected a function {function} in {name}; it has none.")
    result = build()
    if not (isinstance(result, tuple) and len(result) == 2 and isinstance(result[0], nn.Module)):
        raise WICArgumentError(
            f"Expected {place} to return a model and a tuple of input tensors; got "
            f"{type(result).__name__}. Write: return model, (x,)"
        )
    model, inputs = result
    return model, (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)


def _selftest(args: argparse.Namespace) -> int:
    from wic_layers.cli.selftest import selftest

    return int(selftest())


INSPECT = Command("inspect", "Show what a network does, and what it costs", _add_inspect, _inspect)
EXPORT = Command(
    "export",
    "Write one direction of a network as an ONNX file",
    _add_export,
    _export,
    "It takes and gives images as they are, 8-bit pixels of any size, and runs without this "
    "program: in a browser, on a phone, wherever there is a runtime for ONNX. A model of your "
    "own, with invertible 1x1 convolutions of any kind, is exported as it is called: "
    "FILE.py:FUNCTION, whose function returns the model and example inputs.",
)
TEST = Command("selftest", "Check the layers on this machine", lambda parser: None, _selftest)
