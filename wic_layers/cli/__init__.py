"""The command line: :func:`main` runs one command of ``wic``.

It is what stands before torch, which takes seconds to be imported: until a command runs, Ctrl-C
ends the process as the system does it, without a traceback, and there is nothing to be lost.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence

__all__ = ["main"]

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        arguments: The words after ``wic``; by default those of the process, which then is the
            command's own: Ctrl-C ends it, and closed streams are opened.

    Returns:
        The exit code: 0; 1 if some of several files failed; 2 after another error, such as one of
        the arguments or of the only file; 130 after Ctrl-C.
    """
    if arguments is not None:
        from wic_layers.cli.program import run

        return run(arguments)
    try:
        return _run_alone()
    except KeyboardInterrupt:  # before it was ours, or after
        return _end_as_interrupted()


def _run_alone() -> int:
    """Runs the command of a process that is there for it."""
    # in the background of a script Ctrl-C is ignored, and stays so
    is_ours = (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )
    if is_ours:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    _open_streams()
    from wic_layers.cli.program import keep_memory, run

    keep_memory()
    try:
        code = run(sys.argv[1:], takes_interrupts=is_ours)
    finally:
        if is_ours:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _end_as_interrupted() if code == INTERRUPTED and is_ours else code


def _end_as_interrupted() -> int:
    """Ends the process by the signal itself, or the loop of a shell would go on with the next."""
    if os.name == "posix":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return INTERRUPTED


def _open_streams() -> None:
    """Opens what whoever started us has closed, or the first files would get its numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            number = os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))
