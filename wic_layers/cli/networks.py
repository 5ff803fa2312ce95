"""Commands about a network itself, and the layers: ``wic inspect``, ``export``, ``selftest``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from wic_layers.cli.command import Command, path

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
                    "card": model.card,
                }
            )
        )  # fmt: skip
        return 0
    print(f"{type(model).__name__} {model.preset or ''}".rstrip())
    print(flow_table(flow(model, model.config["in_channels"]), facts.conditions))
    forward, back = (f"{flops / 1000:.1f}" for flops in facts.flops)
    rows = {
        "parameters": f"{facts.parameters:,}",
        "operations": f"{forward} kFLOP per input pixel, {back} on the way back",
        "receptive field": f"{facts.receptive_field} pixels wide and high",
        "weights": model.weights_id or "none here: a random start",
        **model.card,
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name.ljust(width)}  {value}")
    return 0


def _add_export(parser: argparse.ArgumentParser) -> None:
    _add_network(parser)
    parser.add_argument(
        "--direction", required=True, choices=("forward", "reverse"),
        help="forward: hide, down or gray; reverse: reveal, up or color",
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

    exported = export_onnx(
        args.network, args.out, args.direction, precision=args.precision, force=args.force
    )
    if args.json:
        print(json.dumps({**asdict(exported), "path": str(exported.path)}))
        return 0
    print(
        f"{exported.path}: {exported.bytes / 1e6:.2f} MB, {args.direction} of {exported.task}, "
        f"opset {exported.metadata['opset']}"
    )
    for name, images in (("input", exported.inputs), ("output", exported.outputs)):
        for image, shape in images.items():
            print(f"{name} {image}: uint8 ({', '.join(map(str, shape))})")
    return 0


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
    "program: in a browser, on a phone, wherever there is a runtime for ONNX.",
)
TEST = Command("selftest", "Check the layers on this machine", lambda parser: None, _selftest)
