"""``run``: runs one command of ``wic``, of those that the other modules of this folder list.

Errors are one line on stderr and exit code 2; where some of several files failed the others are
done, and the exit code is 1. Ctrl-C is exit code 130.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import difflib
import os
import signal
import sys
from collections.abc import Sequence

from wic_layers import __version__
from wic_layers.cli import files, learning, networks, presets
from wic_layers.cli.command import ERROR, Parser, complain, sentence_of
from wic_layers.cli.warning import warnings_in_lines
from wic_layers.cli.words import meant
from wic_layers.errors import WICArgumentError, WICError

__all__ = ["keep_memory", "run"]

INTERRUPTED = 130
COMMANDS = (
    *files.COMMANDS, networks.INSPECT, presets.PRESETS_COMMAND, *learning.COMMANDS,
    networks.EXPORT, networks.TEST,
)  # fmt: skip
"""All commands, in the order of the help."""

_ENDS = (
    "exit codes: 0 all is done; 1 some of several files failed, the others are done; 2 the only "
    "file failed, or the arguments were wrong; 130 Ctrl-C"
)


def run(arguments: Sequence[str], *, takes_interrupts: bool = False) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``wic``.
        takes_interrupts: Whether Ctrl-C is to be an exception from here on.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            # a file name may hold what the terminal cannot show
            stream.reconfigure(errors="backslashreplace")
    try:
        if takes_interrupts:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        words = _without_help(list(arguments))
        parser, own = _parsers(words)
        args = parser.parse_args(words if own is None else [words[0], *meant(words[1:], own)])
        with warnings_in_lines():
            code = int(args.run(args))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read our lines has gone, as `head` does
        _write_nowhere()
        return ERROR
    except Exception as error:
        message = sentence_of(error)
        if message is None:
            raise
        complain(message)
        if isinstance(error, OSError) and not isinstance(error, WICError) and not error.filename:
            _write_nowhere()  # it is stdout's, such as on a disk that is full
        return ERROR
    return code


def _write_nowhere() -> None:
    """Lets what stdout still holds go nowhere, or Python complains about it at the end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def keep_memory() -> None:
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


def _without_help(words: list[str]) -> list[str]:
    """The words with --help in place of a first "help"."""
    return [*words[1:2], "--help"] if words[:1] == ["help"] else words


def _parsers(
    words: Sequence[str],
) -> tuple[argparse.ArgumentParser, argparse.ArgumentParser | None]:
    """The parser of all commands, and the one of the command that is called.

    Only that one's arguments are added.

    Raises:
        WICArgumentError: If there is no such command.
    """
    parser = Parser(
        prog="wic",
        description="Hide images in images, make images smaller or grey, pack several into one, "
        "and bring them back. wic help COMMAND says more of one.",
        epilog=_ENDS,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"wic-layers {__version__}")
    parsers = parser.add_subparsers(metavar="COMMAND", required=True, title="commands")
    called = None
    for command in COMMANDS:
        description = f"{command.summary}. {command.more}".strip()
        own = parsers.add_parser(
            command.name, help=command.summary, description=description, allow_abbrev=False
        )
        own.set_defaults(run=command.run)
        if words[:1] == [command.name]:
            command.add_arguments(own)
            called = own
    names = [command.name for command in COMMANDS]
    if words and called is None and not words[0].startswith("-"):
        close = difflib.get_close_matches(words[0].lower(), names, n=2, cutoff=0.65) or names
        raise WICArgumentError(
            f"Expected a command, such as {', '.join(close)}; got {words[0]!r} (see wic --help)."
        )
    return parser, called
