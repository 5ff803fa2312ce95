"""Copies of this process, made by fork: processes of their own, without seconds of imports each.

What they import is imported here before; they have one thread, as no others are copied.
"""

import importlib.util
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import warnings
from multiprocessing import connection
from pathlib import Path

import pytest
import torch

from wic_layers import cli

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs processes that fork")

LIMIT = 300
"""Seconds after which processes count as hanging."""

SLOW = ("torch._dynamo", "lightning_fabric")
"""What takes seconds to be imported."""


def ran(function, *arguments, folder="."):
    """Calls a function in a process of its own; its exit code is that of the interpreter."""
    with tempfile.TemporaryDirectory() as elsewhere:
        streams = [Path(elsewhere, name) for name in ("stdout", "stderr")]
        process = _started(_in_folder, Path(folder), streams, function, arguments)
        _join([process])
        return subprocess.CompletedProcess(
            arguments, process.exitcode, *(path.read_text(encoding="utf-8") for path in streams)
        )


def module(name, *words, folder="."):
    """``python -m name words``."""
    return ran(_module, name, *map(str, words), folder=folder)


def script(path, *words, folder="."):
    """``python path words``."""
    return ran(_script, Path(path).resolve(), *map(str, words), folder=folder)


def wic(*words, folder="."):
    """``wic words``."""
    return ran(_command, *map(str, words), folder=folder)


def together(count, function, *arguments):
    """Calls a function in ``count`` processes that know each other as those of torchrun do."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "tests",
    }  # fmt: skip
    processes = [
        _started(_of_several, {**shared, "RANK": rank, "LOCAL_RANK": rank}, function, arguments)
        for rank in range(count)
    ]
    _join(processes)
    assert [process.exitcode for process in processes] == [0] * count, "see what they printed"


def grouped(count, function, *arguments):
    """Calls a function in ``count`` processes that have a process group, of gloo.

    The group outlives all that the function made: a DistributedDataParallel that outlives its
    group ends the group itself, and may wait for good, with Python's lock, for a thread of gloo
    that waits for this lock.
    """
    together(count, _in_group, function, arguments)


def _started(target, *arguments):
    for name in SLOW:
        if importlib.util.find_spec(name):
            importlib.import_module(name)
    process = multiprocessing.get_context("fork").Process(target=target, args=arguments)
    process.start()
    return process


def _join(processes):
    """Waits for all, or for the first that fails: the others would wait for it."""
    left = {process.sentinel: process for process in processes}
    try:
        while left:
            ended = connection.wait(left, timeout=LIMIT)
            assert ended, f"no end after {LIMIT} s"
            for sentinel in ended:
                process = left.pop(sentinel)
                process.join()
                if process.exitcode:
                    return
    finally:
        for process in left.values():
            process.kill()
            process.join()


def _of_several(environment, function, arguments):
    os.environ.update({name: str(value) for name, value in environment.items()})
    torch.set_num_threads(1)
    function(*arguments)


def _in_group(function, arguments):
    torch.distributed.init_process_group("gloo")
    function(*arguments)
    torch.distributed.destroy_process_group()


def _in_folder(folder, streams, function, arguments):
    """With files as its streams, and the warnings of an interpreter, not of pytest."""
    for path, descriptor, name in zip(streams, (1, 2), ("stdout", "stderr"), strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
        setattr(sys, name, open(descriptor, "w", encoding="utf-8", closefd=False))
    warnings.resetwarnings()
    for category in (DeprecationWarning, PendingDeprecationWarning, ResourceWarning):
        warnings.simplefilter("ignore", category)
    warnings.showwarning = lambda *told: sys.stderr.write(warnings.formatwarning(*told[:4]))
    os.chdir(folder)
    torch.set_num_threads(1)
    function(*arguments)


def _command(*words):
    sys.argv = ["wic", *words]
    sys.exit(cli.main())


def _module(name, *words):
    sys.argv = [name, *words]
    sys.path.insert(0, os.getcwd())
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _script(path, *words):
    sys.argv = [str(path), *words]
    sys.path.insert(0, str(path.parent))
    runpy.run_path(str(path), run_name="__main__")
