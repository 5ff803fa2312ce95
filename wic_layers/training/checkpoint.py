"""The checkpoint of a training: written at once beside the earlier one, looked at before use."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from wic_layers._files import put_in_place
from wic_layers._pickles import read_pickle, write_pickle
from wic_layers.errors import WICError, WICFileError, named, quoted, shortened
from wic_layers.layer.kernel import not_finite
from wic_layers.models.building import differences
from wic_layers.training.recipe import Settings
from wic_layers.training.terms import OPTIONAL

__all__ = ["CHECKPOINT", "FORMAT", "UNFINISHED", "check", "read", "resuming", "write"]

CHECKPOINT = "checkpoint.pt"
UNFINISHED = "checkpoint.tmp"  # it takes the checkpoint's place once it is whole
FORMAT = 1

State = dict[str, Any]


def write(folder: Path, state: State, begin: Callable[[], None] | None = None) -> None:
    """Writes a checkpoint into a folder, in the place of an earlier one.

    Args:
        folder: The folder.
        state: What it holds. It goes to the disk piece by piece.
        begin: Called once it is written, before it takes the earlier one's place.

    Raises:
        WICFileError: If it cannot be written; an earlier one is as it was.
    """
    target, unfinished = folder / CHECKPOINT, folder / UNFINISHED
    try:
        unfinished.unlink(missing_ok=True)  # of a training that was killed
        with unfinished.open("xb") as file:
            write_pickle(state, file)
        if begin is not None:
            begin()
        put_in_place(unfinished, target)
    except OSError as error:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
        if isinstance(error, WICFileError):
            raise
        raise WICFileError(
            f"{target} cannot be written: {error.strerror or error}. An earlier one is as it was: "
            "make room, and go on with --resume."
        ) from error


def read(path: Path, settings: Settings, photographs: str, device: torch.device) -> State:
    """Returns what a checkpoint holds, if it is one of these settings and photographs.

    Raises:
        WICError: If it is damaged, or of others.
    """
    with resuming(path):
        # one's own, whatever the torch: strangers send no trainings to go on with
        state: Any = read_pickle(path, trust=True, device=device)
        if not isinstance(state, dict) or "format" not in state:
            raise WICError("it is no checkpoint of a training")
    if state["format"] != FORMAT:
        raise WICError(f"{path} is of another version of wic-layers and cannot be resumed.")
    with resuming(path):
        stored = _part(state, "settings", dict)
    # a loss that was not there yet had no weight, and pictures went through 8 bits alone
    stored = {term.name: term.weight for term in OPTIONAL} | {"through": []} | stored
    changed = [n for n, value in settings.decisive().items() if stored.get(n) != value]
    if changed:
        raise WICError(f"{path} was made with another {named(changed)}; resume with the same.")
    if state.get("photographs", photographs) != photographs:
        raise WICError(
            f"{path} was made with other photographs; resume with the same files, or begin "
            f"from its weights with --start in another folder."
        )
    return state


@contextmanager
def resuming(path: Path) -> Iterator[None]:
    """Says of whatever goes wrong inside that a checkpoint cannot be resumed from."""
    try:
        yield
    except Exception as error:  # a damaged value may raise anything where it is used
        lines = " ".join(str(error).split()) or type(error).__name__
        reason = shortened(lines).removeprefix(f"{path} ").rstrip(".")
        raise WICError(f"{path} cannot be resumed from: {reason}.") from error


def check(state: State, model: nn.Module, average: nn.Module | None, optimizer: Optimizer) -> None:
    """Raises unless a checkpoint holds all that a training goes on from.

    Raises:
        WICError: Says what is missing or of another kind or shape.
    """
    _check_state(state, model, average, optimizer, "")
    if (average is None) != (state.get("average") is None):
        raise WICError("its averaged weights are not those of the settings")
    lines, seconds = state.get("lines"), state.get("seconds", 0.0)
    if lines is not None:
        _part(state, "lines", int)
    if not _is_number(seconds):
        raise WICError(f"expected seconds as a number; got {quoted(seconds)}")
    guard = _part(state, "guard", dict)
    _check_past(guard, "guard: ")
    if not _is_number(guard.get("rate")):
        raise WICError(f"guard: expected the rate as a number; got {quoted(guard.get('rate'))}")
    for name, kind in (("in_a_row", int), ("is_returned", bool), ("stuck_at", int)):
        _part(guard, name, kind, "guard: ")
    for name in ("good", "earlier"):
        earlier = _part(guard, name, dict, "guard: ")
        if earlier:
            where = f"guard: {name}: "
            _check_state(earlier, model, None, optimizer, where)
            _check_past(_part(earlier, "guard", dict, where), where)
            also = _part(earlier, "also", list, where)
            if len(also) != (average is not None):
                raise WICError(f"{where}its averaged weights are not those of the settings")
            for each in also:
                _check_tensors(each, average, f"{where}also: ")


def _check_state(
    state: State, model: nn.Module, average: nn.Module | None, optimizer: Optimizer, where: str
) -> None:
    """Checks the weights and the optimizer's state."""
    _check_tensors(_part(state, "model", dict, where), model, f"{where}model: ")
    if average is not None:
        _check_tensors(_part(state, "average", dict, where), average, f"{where}average: ")
    inner = _part(state, "optimizer", dict, where)
    where = f"{where}optimizer: "
    groups, values = _part(inner, "param_groups", list, where), _part(inner, "state", dict, where)
    own = optimizer.param_groups
    numbers = [_part(group, "params", list, where) for group in groups]
    if [len(each) for each in numbers] != [len(group["params"]) for group in own]:
        raise WICError(f"{where}its parameters are not those of the model")
    for group, mine in zip(groups, own, strict=True):
        for name, value in mine.items():
            if name in group and _is_number(value) and not _is_number(group[name]):
                raise WICError(f"{where}expected {name} as a number; got {quoted(group[name])}")
            if isinstance(value, tuple) and [*map(_is_number, group.get(name, ()))] != [
                *map(_is_number, value)
            ]:
                raise WICError(f"{where}expected {name} as numbers; got {quoted(group[name])}")
    flat = [number for each in numbers for number in each]
    parameters = [parameter for group in own for parameter in group["params"]]
    shapes = dict(zip(flat, (parameter.shape for parameter in parameters), strict=True))
    for number, each in values.items():
        if number not in shapes:
            raise WICError(f"{where}it has a state of no parameter, {quoted(number)}")
        for name, value in each.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != shapes[number]:
                raise WICError(
                    f"{where}{shortened(str(name), 80)} of parameter {number} has the shape "
                    f"{tuple(value.shape)}, not {tuple(shapes[number])}"
                )


def _check_tensors(tensors: Any, module: nn.Module | None, where: str) -> None:
    """Checks that tensors are those of a module, and finite."""
    own = {} if module is None else module.state_dict()
    others = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if others:
        raise WICError(f"{where}expected tensors; {named(others)} are none")
    wrong = differences(_shapes(own), _shapes(tensors))
    # numbers are looked at once there are no more of them than there should be
    for each in [wrong] if wrong else not_finite(tensors):
        raise WICError(f"{where}{each}")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _check_past(past: State, where: str) -> None:
    """Checks what the guard knows of the steps before."""
    steps, losses = _part(past, "steps", int, where), _part(past, "losses", list, where)
    usual = _part(past, "usual", dict, where)
    if steps < 0 or not all(map(_is_number, (*losses, *usual.values()))):
        raise WICError(f"{where}expected steps and losses as numbers")


def _part(state: Any, name: str, kind: type, where: str = "") -> Any:
    """A value that must be there, of that kind."""
    if not isinstance(state, dict) or name not in state:
        raise WICError(f"{where}it has no {name}")
    value = state[name]
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise WICError(f"{where}expected {name} as {kind.__name__}; got {type(value).__name__}")
    return value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
