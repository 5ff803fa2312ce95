"""``main``: runs one command of ``wic``, of those that the other modules of this folder list.

Errors are one line on stderr and exit code 2, those of one file among several after the others are
done; Ctrl-C is exit code 130.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import sys
from collections.abc import Sequence

from wic_layers import __version__
from wic_layers.cli import files, learning, networks
from wic_layers.cli.command import ERROR, Parser, complain
from wic_layers.cli.warning import warnings_in_lines
from wic_layers.errors import WICError

__all__ = ["main"]

INTERRUPTED = 130
COMMANDS = (*files.COMMANDS, networks.INSPECT, *learning.COMMANDS, networks.EXPORT, networks.TEST)
"""All commands, in the order of the help."""


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
        with warnings_in_lines():
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


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """The parser of all commands; the arguments of the one that is called alone are added."""
    parser = Parser(
        prog="wic",
        description="Hide images in images, make images smaller or grey, pack several into one, "
        "and bring them back.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wic-layers {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    for command in COMMANDS:
        description = f"{command.summary}. {command.more}".strip()
        own = parsers.add_parser(
            command.name, help=command.summary, description=description, allow_abbrev=False
        )
        own.set_defaults(run=command.run)
        if words[:1] == [command.name]:
            command.add_arguments(own)
    return parser
