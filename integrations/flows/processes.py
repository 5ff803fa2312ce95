"""The columns of the table that take two processes: DistributedDataParallel and FSDP2, by gloo."""

from __future__ import annotations

import contextlib
import io
import pickle
import socket
import tempfile
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, multiprocessing, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

from integrations.flows import checks
from integrations.flows.rows import groups
from wic_layers import swap_1x1

STEPS, PROCESSES = 2, 2


def _trained(model: nn.Module, case: Any) -> None:
    own = [p for name, p in model.named_parameters() if not name.endswith(case.drifts or "/")]
    optimizer = torch.optim.SGD([p for p in own if p.requires_grad], 1e-2, momentum=0.9)
    model.train()
    for step in range(STEPS):
        optimizer.zero_grad()
        model(checks.batch(case, 10 + PROCESSES * step + dist.get_rank())).backward()
        optimizer.step()


def _whole(model: nn.Module) -> tuple[Tensor, ...]:
    """All parameters, gathered where they are in pieces."""
    values = (p.detach() for p in model.parameters())
    return tuple(p.full_tensor() if hasattr(p, "full_tensor") else p for p in values)


def _compared(case: Any, swap: checks.Swap, wrap: Callable[[nn.Module], nn.Module]) -> None:
    results = []
    for kind in (swap, checks.keep):
        model = wrap(checks.Shell(checks.model_of(case, kind), case))
        _trained(model, case)
        results.append(_whole(model))
    checks.require(checks.largest(*results), 1e-4, "parameters")
    for value in results[0]:
        if not value.is_floating_point():
            continue
        first = value.clone()
        dist.broadcast(first, 0)
        checks.require(checks.off(value, first), 0.0, "parameters of the second process")


def data_parallel(case: Any, swap: checks.Swap) -> None:
    """Two steps of DDP give the parameters that they give unswapped, in both processes."""
    _compared(case, swap, DistributedDataParallel)


def sharded(case: Any, swap: checks.Swap, *, layers: bool = True) -> None:
    """The same with ``fully_shard`` on each layer and the whole."""
    mesh = init_device_mesh("cpu", (PROCESSES,))

    def wrap(shell: nn.Module) -> nn.Module:
        for parameter in shell.parameters():  # FSDP2 takes no other, and QR returns others
            parameter.data = parameter.data.contiguous()
        for name in case.layers if layers else ():
            fully_shard(shell.model.get_submodule(name), mesh=mesh)
        return fully_shard(shell, mesh=mesh)

    _compared(case, swap, wrap)


def sharded_as_one(case: Any, swap: checks.Swap) -> None:
    """The same with ``fully_shard`` on the whole alone."""
    sharded(case, swap, layers=False)


COLUMNS: dict[str, tuple[tuple[Callable[..., None], str], ...]] = {
    "DDP": ((data_parallel, "yes"),),
    "FSDP2": ((sharded, "yes"), (sharded_as_one, "as one")),
}


def _attempt(check: Callable[..., None], case: Any, swap: checks.Swap) -> tuple[bool, str]:
    """Whether a check holds in both processes, and what it raises in this one."""
    text = ""
    try:
        check(case, swap)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())[:160]
    failures = torch.tensor(float(bool(text)))
    dist.all_reduce(failures)
    return not failures.item(), text


def _cell(case: Any, column: str) -> tuple[str, str]:
    text = ""
    for check, word in COLUMNS[column]:
        holds, text = _attempt(check, case, swap_1x1)
        if holds:
            return word, ""
        holds, own = _attempt(check, case, checks.keep)
        if holds:
            return "no", text or "in the other process"
        text = own
    return "host", text


def _work(rank: int, port: int, only: str, out: str) -> None:
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"tcp://127.0.0.1:{port}",
        rank=rank,
        world_size=PROCESSES,
        timeout=timedelta(seconds=120),
    )
    cells = {}
    for title, cases in groups():
        for case in cases:
            if only in f"{title} {case.name}" and case.layers:
                with contextlib.redirect_stdout(io.StringIO()):
                    cells[case.name] = {column: _cell(case, column) for column in COLUMNS}
    if rank == 0:
        Path(out).write_bytes(pickle.dumps(cells))
    dist.destroy_process_group()


def run(only: str = "") -> dict[str, dict[str, tuple[str, str]]]:
    """The cells of all flows whose name or row has a text in it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "cells"
        multiprocessing.spawn(_work, (port, only, str(out)), nprocs=PROCESSES)
        return pickle.loads(out.read_bytes())
