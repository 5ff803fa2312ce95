"""The command line: ``wic hide | reveal | down | up | train | selftest``.

Errors are one line on stderr and exit code 2; Ctrl-C is exit code 130.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from wic_layers import __version__
from wic_layers.errors import WICArgumentError, WICDependencyError, WICError

if TYPE_CHECKING:
    from wic_layers.tasks import Written

__all__ = ["main"]

ERROR = 2
INTERRUPTED = 130


class _Parser(argparse.ArgumentParser):
    """One whose errors look like all others."""

    def error(self, message: str) -> NoReturn:
        _complain(f"{message} (see {self.prog} --help)")
        raise SystemExit(ERROR)


def _complain(message: str) -> None:
    print("wic: error:", " ".join(message.splitlines()), file=sys.stderr)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``wic``; those of the process by default.

    Returns:
        The exit code: 0, 2 after an error, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a file name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        args = _parser(words).parse_args(words)
        return int(args.run(args))
    except WICError as error:
        _complain(str(error))
        return ERROR
    except MemoryError:
        _complain("There is not enough memory for these images; take smaller ones.")
        return ERROR
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser(words: list[str]) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="wic",
        description="Hide images in images and make images smaller, and bring them back.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wic-layers {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")

    def add(name: str, summary: str, run: Any, more: str = "") -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=summary, description=f"{summary}. {more}".strip(), allow_abbrev=False
        )
        command.set_defaults(run=run)
        return command

    hide = add(
        "hide", "Hide an image in another one", _hide,
        "Writes a PNG that looks like COVER and gives SECRET back; nothing protects the secret "
        "from others who have this program. An odd side of COVER becomes one pixel longer.",
    )  # fmt: skip
    hide.add_argument("cover", metavar="COVER", type=Path, help="what the result should look like")
    hide.add_argument("secret", metavar="SECRET", type=Path, help="what it should hold")
    hide.add_argument(
        "--unmarked", action="store_true",
        help="write pixels only, no note on what made them; reveal then needs --preset and --size",
    )  # fmt: skip
    hide.add_argument("--fit", action="store_true", help="reduce a secret larger than the cover")
    _add_common(hide, "STEGO", "hiding-1-naive-small")

    reveal = add("reveal", "Bring a hidden image back", _reveal, "STEGO is all that is needed.")
    reveal.add_argument("stego", metavar="STEGO", type=Path, help="PNG written by wic hide")
    _add_size(reveal)
    _add_common(reveal, "SECRET", None)

    down = add(
        "down", "Make an image half as wide and high", _down,
        "Writes a PNG that looks like the bicubic reduction of PHOTO, and from which wic up "
        "brings the photo back at its own size.",
    )  # fmt: skip
    down.add_argument("photo", metavar="PHOTO", type=Path, help="image to make smaller")
    down.add_argument("-s", "--scale", default="2", help="how many times smaller (only 2)")
    _add_common(down, "SMALL", "rescaling-x2-naive-small")

    up = add(
        "up", "Bring an image back that wic down made small", _up,
        "This is not super-resolution: other small images are refused.",
    )  # fmt: skip
    up.add_argument("small", metavar="SMALL", type=Path, help="PNG written by wic down")
    _add_size(up)
    _add_common(up, "PHOTO", None)

    train = add("train", "Train a network on a folder of photographs", _train)
    if words[:1] == ["train"]:
        _training().add_arguments(train)
    add("selftest", "Check the layers on this machine", _selftest)
    return parser


def _add_common(command: argparse.ArgumentParser, out: str, preset: str | None) -> None:
    default = f"default {preset}" if preset else "default: what the file says"
    command.add_argument("-o", "--out", metavar=out, type=Path, required=True, help="PNG to write")
    network = command.add_mutually_exclusive_group()
    network.add_argument(
        "--preset", default=preset, metavar="NAME", help=f"network to use ({default})"
    )
    network.add_argument(
        "--weights", metavar="FILE", type=Path, help="weights file to use instead of a preset's"
    )
    command.add_argument("--force", action="store_true", help="replace the output if it exists")
    command.add_argument("--device", default="cpu", help="where to run, such as cuda")


def _add_size(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--size", metavar="WxH", type=_size, help="size of what comes back, if the file says none"
    )


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"([1-9][0-9]{0,6})[xX]([1-9][0-9]{0,6})", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 640x480; got {text!r}")
    return int(found[1]), int(found[2])


def _model(args: argparse.Namespace) -> Any:
    """What --weights or --preset name; None if neither is given."""
    from wic_layers.models.presets import find_preset

    if args.weights is not None:
        if not args.weights.is_file():
            raise WICArgumentError(f"Expected --weights to be a file; {args.weights} is not one.")
        return args.weights
    if args.preset is not None:
        find_preset(args.preset)
    return args.preset


def _times(size: tuple[int, int] | None) -> str:
    return "" if size is None else f"{size[0]}x{size[1]}"


def _decibel(value: float | None) -> str:
    if value is None or math.isinf(value):
        return "no difference"
    return f"{value:.2f} dB PSNR"


def _say(written: Written, against: str, returned: str) -> None:
    assured = "" if written.returns is None else (
        f", {_decibel(written.psnr)} from {against}; {returned} comes back at "
        f"{_times(written.returns)}, {_decibel(written.psnr_back)}"
    )  # fmt: skip
    print(f"{written.path}: {_times(written.size)}{assured}")


def _hide(args: argparse.Namespace) -> int:
    from wic_layers.tasks import hide_file

    written = hide_file(
        args.cover, args.secret, args.out, model=_model(args), marked=not args.unmarked,
        fit=args.fit, force=args.force, device=args.device,
    )  # fmt: skip
    _say(written, "the cover", "the secret")
    notes = []
    if written.reduced_from is not None:
        notes.append(f"the secret was reduced from {_times(written.reduced_from)}")
    if written.size != written.source:
        notes.append(
            f"the cover, {_times(written.source)}, was padded to even sides; do not crop the file"
        )
    if args.unmarked:
        network = f"--weights {args.weights}" if args.weights else f"--preset {args.preset}"
        notes.append(f"unmarked: wic reveal needs {network} --size {_times(written.returns)}")
    if notes:
        print("note:", "; ".join(notes))
    return 0


def _reveal(args: argparse.Namespace) -> int:
    from wic_layers.tasks import reveal_file

    _say(
        reveal_file(
            args.stego, args.out, model=_model(args), size=args.size, force=args.force,
            device=args.device,
        ),
        "", "",
    )  # fmt: skip
    return 0


def _down(args: argparse.Namespace) -> int:
    from wic_layers.tasks import down_file

    if args.scale != "2":
        raise WICArgumentError(
            f"wic down makes images 2 times smaller (-s 2); -s {args.scale} is not available."
        )
    written = down_file(
        args.photo, args.out, model=_model(args), force=args.force, device=args.device
    )
    _say(written, "bicubic", "the photo")
    return 0


def _up(args: argparse.Namespace) -> int:
    from wic_layers.tasks import up_file

    _say(
        up_file(
            args.small, args.out, model=_model(args), size=args.size, force=args.force,
            device=args.device,
        ),
        "", "",
    )  # fmt: skip
    return 0


def _training() -> Any:
    try:
        from wic_layers.training import command
    except ModuleNotFoundError as error:
        raise WICDependencyError(
            f"Training needs {error.name}, which is not installed. "
            f"Run: pip install 'wic-layers[train]'"
        ) from error
    return command


def _train(args: argparse.Namespace) -> int:
    return int(_training().run(args))


def _selftest(args: argparse.Namespace) -> int:
    from wic_layers.testing import selftest

    return int(selftest())
