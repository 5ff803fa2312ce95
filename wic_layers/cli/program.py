"""The command line: ``wic hide``, ``reveal``, ``down``, ``up``, ``pack``, ``unpack`` and more.

Errors are one line on stderr and exit code 2, those of one file among several after the others are
done; Ctrl-C is exit code 130.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

from wic_layers import __version__
from wic_layers.cli.console import complain, progress_bar
from wic_layers.errors import WICDependencyError, WICError

__all__ = ["main"]

ERROR = 2
INTERRUPTED = 130


def _path(text: str) -> Path:
    if not text:  # such as a variable of a shell that is not set; Path("") would be this folder
        raise argparse.ArgumentTypeError("expected a path; got an empty text")
    return Path(text)


class _Parser(argparse.ArgumentParser):
    """One whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(ERROR)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``wic``; those of the process by default.

    Returns:
        The exit code: 0, 2 after an error, 130 after Ctrl-C.
    """
    if arguments is None:
        _keep_memory()
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a file name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        args = _parser(words).parse_args(words)
        return int(args.run(args))
    except WICError as error:
        complain(str(error))
        return ERROR
    except MemoryError:
        complain("There is not enough memory for these images; take smaller ones.")
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our lines has gone, as `head` does
        sys.stdout = open(os.devnull, "w")
        return ERROR
    except OSError as error:  # what the system has against a name, such as its length
        if error.strerror is None:
            raise
        what = f"{str(error.filename)[:100]}: " if error.filename else ""
        complain(f"{what}{error.strerror}.")
        return ERROR


def _keep_memory() -> None:
    """Tells glibc to keep freed memory for the next tensors, in a process that is our own.

    By default it hands every large tensor back to the system, and a network spends a quarter of
    its time on getting zeroed pages again. Other C libraries are left as they are.
    """
    trim_threshold, top_pad, mmap_max = -1, -2, -4  # malloc.h
    if sys.platform != "linux":
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(mmap_max, 0)
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(top_pad, 2**28)


def _parser(words: list[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="wic",
        description="Hide images in images, make images smaller or grey, pack several into one, "
        "and bring them back.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wic-layers {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")

    def add(name: str, summary: str, run: Any, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=summary, description=f"{summary}. {more}".strip(), allow_abbrev=False
        )
        command.set_defaults(run=run, called=name)
        return command

    hide = add(
        "hide", "Hide one to four images in another one", _converting,
        "Writes a PNG that looks like COVER and gives the secrets back; nothing protects them "
        "from others who have this program. An odd side of COVER becomes one pixel longer. With a "
        "folder of covers a secret goes into all of them, or the images of a folder one into "
        "each.",
    )  # fmt: skip
    hide.add_argument(
        "cover", metavar="COVER", type=_path, help="what the result should look like"
    )
    hide.add_argument(
        "secrets", metavar="SECRET", type=_path, nargs="+", help="what it should hold, up to four"
    )
    hide.add_argument(
        "--unmarked", action="store_true",
        help="write pixels only, no note on what made them; reveal then needs --preset and --size",
    )  # fmt: skip
    hide.add_argument("--fit", action="store_true", help="reduce secrets larger than the cover")
    _add_common(hide, "STEGO", forward=True)

    reveal = add(
        "reveal", "Bring hidden images back", _converting,
        "STEGO is all that is needed. Of several secrets, the outputs' names end in -1, -2, ...",
    )  # fmt: skip
    reveal.add_argument("sources", metavar="STEGO", type=_path, nargs="+", help=_from("hide"))
    _add_common(reveal, "SECRET", forward=False)

    down = add(
        "down", "Make images half, a third or a quarter as wide and high", _converting,
        "Writes a PNG that looks like the bicubic reduction of PHOTO, and from which wic up "
        "brings the photo back at its own size.",
    )  # fmt: skip
    down.add_argument("sources", metavar="PHOTO", type=_path, nargs="+", help=_IMAGES)
    down.add_argument("-s", "--scale", help="how many times smaller: 2 (default), 3 or 4")
    _add_common(down, "SMALL", forward=True)

    up = add(
        "up", "Bring images back that wic down made small", _converting,
        "This is not super-resolution: other small images are refused.",
    )  # fmt: skip
    up.add_argument("sources", metavar="SMALL", type=_path, nargs="+", help=_from("down"))
    _add_common(up, "PHOTO", forward=False)

    gray = add(
        "gray", "Make grey images that keep their colours", _converting,
        "Writes a PNG of one channel that looks like the lightness of PHOTO, and from which wic "
        "color brings the colours back. An odd side of PHOTO becomes one pixel longer.",
    )  # fmt: skip
    gray.add_argument("sources", metavar="PHOTO", type=_path, nargs="+", help=_IMAGES)
    _add_common(gray, "GRAY", forward=True)

    color = add(
        "color", "Bring the colours back that wic gray put away", _converting,
        "This does not colour photographs: other grey images are refused.",
    )  # fmt: skip
    color.add_argument("sources", metavar="GRAY", type=_path, nargs="+", help=_from("gray"))
    _add_common(color, "PHOTO", forward=False)

    pack = add(
        "pack", "Make one image of several that gives all of them back", _converting,
        "Writes a PNG that looks like one of them: of a stereo pair (stereo LEFT RIGHT) the left "
        "view; of dual views, as two cameras of a phone take them (zoom-x2, zoom-x4, zoom-x8 "
        "NORMAL ZOOMED), the normal one; of layers (layers BACKGROUND FOREGROUND, whose "
        "transparency counts) their composition; of a clip (clip-3, clip-5, clip-7, clip-9 FRAME "
        "...) the middle frame, at half the size (clip-3-x2, clip-5-x2) its reduction. In place "
        "of frames a clip may be a video or a folder of frames; it becomes a folder of PNG files, "
        "as many frames in each as TASK says. Other images of several are taken from folders, one "
        "of each.",
    )  # fmt: skip
    pack.add_argument("task", metavar="TASK", help="stereo, zoom-x4, layers, clip-5, ...")
    pack.add_argument(
        "sources", metavar="IMAGE", type=_path, nargs="+",
        help="images of one size, in the order above; or a video, or a folder of frames",
    )  # fmt: skip
    _add_common(pack, "PACKED", forward=True)

    unpack = add(
        "unpack", "Bring back the images that wic pack made one of", _converting,
        "PACKED is all that is needed. The outputs' names end in -1, -2, ...: of layers the "
        "composition, the background, and the foreground on black.",
    )  # fmt: skip
    unpack.add_argument("sources", metavar="PACKED", type=_path, nargs="+", help=_from("pack"))
    _add_common(unpack, "IMAGE", forward=False)

    inspect = add("inspect", "Show what a network does, and what it costs", _inspect)
    inspect.add_argument("network", help="a preset, or the folder of weights")
    inspect.add_argument("--json", action="store_true", help="print JSON")

    judge = add(
        "eval", "Judge a network on folders of images, through 8-bit PNG files", _eval,
        "Prints PSNR and SSIM, in RGB and of the luma Y (BT.601), of what the network makes of "
        "each image and of what comes back from its file, beside them the same without rounding "
        "(float); then by bicubic interpolation, and of a second round trip, from the original "
        "and from what came back first. Rescaling: the small picture is judged against Pillow's "
        "bicubic reduction, and borders of the scale's pixels are left out. Hiding: the images "
        "that follow are the secrets. Decolorization: the grey picture is judged against the "
        "lightness L*. Bits per pixel are those of the PNG, in bicubic's row those of the bicubic "
        "reduction.",
    )  # fmt: skip
    if words[:1] == ["eval"]:
        _optional("evaluation.command").add_arguments(judge)
    train = add(
        "train", "Train a network on a folder of photographs", _train,
        "The preset comes first: wic train PRESET --data FOLDER -o OUT. Presets of IRN, HiNet, "
        "IICNet, HCFlow and DLV have their authors' losses and schedules in place of some of the "
        "defaults below; OUT/settings.yaml says which.",
    )  # fmt: skip
    if words[:1] == ["train"]:
        _optional("training.command").add_arguments(train)
    upgrade = add(
        "upgrade", "Turn a checkpoint of other code into a network with a WIC", _upgrade,
        "Reads the checkpoint of IRN, HiNet or IICNet as its own code writes it, keeps all of its "
        "weights and puts a WIC where z was, or IICNet's channel squeeze: the forward picture "
        "stays as it is. With --data it is fine-tuned on those photographs, and judged beside the "
        "original.",
    )  # fmt: skip
    if words[:1] == ["upgrade"]:
        _optional("training.upgrade").add_arguments(upgrade)
    export = add(
        "export", "Write one direction of a network as an ONNX file", _export,
        "It takes and gives images as they are, 8-bit pixels of any size, and runs without this "
        "program: in a browser, on a phone, wherever there is a runtime for ONNX.",
    )  # fmt: skip
    export.add_argument("network", help="a preset, or the folder of weights")
    export.add_argument(
        "--direction", required=True, choices=("forward", "reverse"),
        help="forward: hide, down or gray; reverse: reveal, up or color",
    )  # fmt: skip
    export.add_argument(
        "-o", "--out", metavar="ONNX", type=_path, required=True, help="ONNX file to write"
    )
    export.add_argument(
        "--precision", choices=("float32", "float16"), default="float32",
        help="float16: half the file; the networks inside couplings run in float16",
    )  # fmt: skip
    export.add_argument("--force", action="store_true", help="replace an output that exists")
    export.add_argument("--json", action="store_true", help="print JSON")
    add("selftest", "Check the layers on this machine", _selftest)
    return parser


_FAST = (
    "run the networks inside couplings in bfloat16: about twice as fast where the machine "
    "has it, and not to be told apart by eye"
)
_IMAGES = "image file, or folder of them"


def _from(command: str) -> str:
    return f"PNG written by wic {command}, or folder of them"


def _add_common(command: argparse.ArgumentParser, out: str, *, forward: bool) -> None:
    command.add_argument(
        "-o", "--out", metavar=out, type=_path, required=True,
        help="PNG to write; of several images the folder",
    )  # fmt: skip
    default = "default: the task's own" if forward else "default: what the file says"
    network = command.add_mutually_exclusive_group()
    network.add_argument("--preset", metavar="NAME", help=f"network to use ({default})")
    network.add_argument(
        "--weights", metavar="FOLDER", type=_path, help="weights to use instead of a preset's"
    )
    if not forward:
        command.add_argument(
            "--size", metavar="WxH", type=_size, action="append",
            help="size of what comes back, if the file says none; once for each image",
        )  # fmt: skip
    if forward:
        command.add_argument(
            "--refine", metavar="N", type=int, default=0,
            help="improve the result for this image in N steps, such as 20: more comes back, and "
            "it looks as before; each takes about three times as long as the network (default 0)",
        )  # fmt: skip
    command.add_argument("--force", action="store_true", help="replace outputs that exist")
    command.add_argument(
        "--tile", metavar="N", type=int,
        help="side of the tiles in which large images are run (default: by the memory)",
    )  # fmt: skip
    command.add_argument("--device", default="cpu", help="where to run, such as cuda")
    command.add_argument("--fast", action="store_true", help=_FAST)
    command.add_argument("--json", action="store_true", help="print a line of JSON for each file")


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,6})[xX]([1-9][0-9]{0,6})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 640x480; got {text!r}")
    return int(found[1]), int(found[2])


def _converting(args: argparse.Namespace) -> int:
    """Runs a command that turns files into files."""
    from wic_layers.cli import commands

    return int(getattr(commands, args.called)(args))


def _inspect(args: argparse.Namespace) -> int:
    from wic_layers.models import (
        NETWORKS,
        PRESETS,
        from_pretrained,
        inspect,
        packaged_weights,
    )
    from wic_layers.models.inspection import flow, flow_table

    is_held = args.network in packaged_weights() or Path(args.network).is_dir()
    if args.network in PRESETS and not is_held:
        model = NETWORKS[PRESETS[args.network].network].from_preset(args.network)
    else:
        model = from_pretrained(args.network)
    found = inspect(model)
    if args.json:
        print(
            json.dumps(
                {
                    "preset": model.preset, "network": type(model).__name__,
                    "arguments": model.config, **asdict(found), "weights": model.weights_id,
                    "card": model.card,
                }
            )
        )  # fmt: skip
        return 0
    print(f"{type(model).__name__} {model.preset or ''}".rstrip())
    print(flow_table(flow(model, model.config["in_channels"]), found.conditions))
    forward, back = (f"{flops / 1000:.1f}" for flops in found.flops)
    rows = {
        "parameters": f"{found.parameters:,}",
        "operations": f"{forward} kFLOP per input pixel, {back} on the way back",
        "receptive field": f"{found.receptive_field} pixels wide and high",
        "weights": model.weights_id or "none here: a random start",
        **model.card,
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"{name.ljust(width)}  {value}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from wic_layers.deploy import export_onnx

    found = export_onnx(
        args.network, args.out, args.direction, precision=args.precision, force=args.force
    )
    if args.json:
        print(json.dumps({**asdict(found), "path": str(found.path)}))
        return 0
    print(f"{found.path}: {found.bytes / 1e6:.2f} MB, {args.direction} of {found.task}, opset "
          f"{found.metadata['opset']}")  # fmt: skip
    for name, images in (("input", found.inputs), ("output", found.outputs)):
        for image, shape in images.items():
            print(f"{name} {image}: uint8 ({', '.join(map(str, shape))})")
    return 0


def _eval(args: argparse.Namespace) -> int:
    return int(_optional("evaluation.command").run(args, progress_bar))


def _optional(part: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"wic_layers.{part}")
    except ModuleNotFoundError as error:
        raise WICDependencyError(
            f"Training needs {error.name}, which is not installed. "
            f"Run: pip install 'wic-layers[train]'"
        ) from error


def _train(args: argparse.Namespace) -> int:
    return int(_optional("training.command").run(args))


def _upgrade(args: argparse.Namespace) -> int:
    return int(_optional("training.upgrade").run(args))


def _selftest(args: argparse.Namespace) -> int:
    from wic_layers.testing import selftest

    return int(selftest())
