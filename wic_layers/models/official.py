"""Checkpoints of the authors' code: their names and shapes into our networks, and back."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wic_layers.blocks import LongTermMemory
from wic_layers.conv import WIC
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models.win import WIN, WINNaive

__all__ = ["load_official", "save_official"]


def load_official(
    source: str | Path | Mapping[str, Any],
    *,
    out_channels: int | None = None,
    copies: int | None = None,
) -> WIN | WINNaive:
    """Builds the network that a checkpoint of the authors' code is for, and loads it.

    Which network it is (WIN or WIN-Naive, hiding, rescaling x2 or x4, decolorization, widths and
    depths) is read from the names and shapes alone. The prefix that DataParallel adds is taken
    off, and a state dict inside a larger checkpoint is found.

    Args:
        source: A ``.pth`` file, read with ``weights_only=True``, or a state dict.
        out_channels: Channels of the network's result, where the shapes leave them open: 3 for
            hiding and rescaling, 1 for decolorization when None.
        copies: How often the last kernel gives that result: 4 for x4 where the shapes allow it,
            which is how the authors' code trains it, and 1 otherwise when None.

    Returns:
        The network with ``layout="published"``, in ``eval()`` mode, on the CPU.

    Raises:
        WICFileError: If the file cannot be read, or holds something else; the message lists the
            names that differ.
        WICArgumentError: If ``out_channels`` or ``copies`` do not go with the shapes.

    References:
        | The code of Tackling Ill-posedness of Reversible Image Conversion with Well-posed
        | Invertible Network (Huang and Huang)
    """
    what = str(source) if isinstance(source, (str, Path)) else "the state dict"
    state = _state_of(_read(Path(source)) if isinstance(source, (str, Path)) else source, what)
    try:
        model = _build(state, out_channels, copies)
    except (KeyError, IndexError, ZeroDivisionError, WICArgumentError) as error:
        given = out_channels is not None or copies is not None
        if given and isinstance(error, WICArgumentError):
            raise
        raise WICFileError(
            f"Expected the state dict of WIN or WIN-Naive; {what} holds {len(state)} tensors such "
            f"as {', '.join(list(state)[:3])}, which make none ({error})."
        ) from error
    names = _names(model)
    expected = {theirs: ours for ours, theirs in names.items()}
    missing, unknown = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected)
    if missing or unknown:
        raise WICFileError(
            f"{what} does not fit the network that its shapes ask for: {len(missing)} names are "
            f"missing ({', '.join(missing[:4])}), {len(unknown)} are unknown "
            f"({', '.join(unknown[:4])})."
        )
    ours = {expected[key]: value for key, value in state.items()}
    kernels = {key for key, value in ours.items() if _is_kernel(model, key) and value.ndim == 4}
    try:
        model.load_state_dict(
            {key: value.flatten(1) if key in kernels else value for key, value in ours.items()}
        )
    except RuntimeError as error:
        raise WICFileError(f"{what} has other shapes than its network: {error}") from error
    return model.eval()


def save_official(model: WIN | WINNaive, path: str | Path) -> None:
    """Writes a network's state dict under the names that the authors' code gives it.

    Args:
        model: A network with ``layout="published"``, as :func:`load_official` builds it; another
            has other rows than their code can read.
        path: The ``.pth`` file; replaced if it exists.

    Raises:
        WICArgumentError: If the network is of another layout or kind, or its completion is not
            theirs.
        WICFileError: If the file cannot be written.
    """
    if not isinstance(model, (WIN, WINNaive)):
        raise WICArgumentError(f"Expected a WIN or WINNaive; got {type(model).__name__}.")
    config = model.config
    if config["layout"] != "published" or config["completion"] not in (None, "shift"):
        raise WICArgumentError(
            'Expected a network with layout="published" and the shift completion, which is all '
            f"that the authors' code has; got layout={config['layout']!r}, "
            f"completion={config['completion']!r}."
        )
    names = _names(model)
    state = {
        names[key]: value[..., None, None] if _is_kernel(model, key) else value
        for key, value in model.state_dict().items()
    }
    target = Path(path)
    temporary = target.with_name(f".{target.name}.tmp")
    try:
        torch.save(state, temporary)
        os.replace(temporary, target)
    except (OSError, RuntimeError) as error:  # torch.save says RuntimeError of a missing folder
        raise WICFileError(f"{target} cannot be written: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WICFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WICFileError(
            f"{path} is damaged, no checkpoint of torch, or holds more than tensors: {reason}"
        ) from error


def _state_of(checkpoint: Any, what: str) -> dict[str, Tensor]:
    """The tensors under ``operations.``, wherever in a checkpoint they are."""
    seen = [checkpoint]
    while seen:
        found = seen.pop(0)
        if not isinstance(found, Mapping):
            continue
        state = {
            str(key).removeprefix("module."): value
            for key, value in found.items()
            if isinstance(value, Tensor)
        }
        if any(key.startswith("operations.") for key in state):
            return state
        seen += found.values()
    names = ", ".join(map(str, list(checkpoint)[:4])) if isinstance(checkpoint, Mapping) else ""
    raise WICFileError(
        f"Expected a state dict with names like operations.1.F.conv1.weight; {what} holds "
        f"{names or type(checkpoint).__name__}."
    )


def _build(
    state: dict[str, Tensor], out_channels: int | None, copies: int | None
) -> WIN | WINNaive:
    """The network that the names and shapes of a state dict are for."""
    last = max(int(key.split(".")[1]) for key in state)
    rows, columns = state[f"operations.{last}.iConv2d.weight"].shape[:2]
    stages = len({key.split(".")[1] for key in state if ".transform." in key})
    shared: dict[str, Any]
    if stages:
        # [squeeze, WIC, modules] for every halving, (unsqueeze), WIC
        in_channels = state["operations.1.iConv2d.weight"].shape[1] // 4
        scale = 1 if last == 3 * stages + 1 else 2**stages
        short = state["operations.1.iConv2d.weight"].shape[0]
        width = state["operations.2.transform.0.iConv2d.weight"].shape[0]
        split = short / width
        if int(width * split) != short:
            split = (short + 0.5) / width
        shared = {
            "width": width,
            "split": split,
            "modules": _count(state, "operations.2.transform.{}.iConv2d.weight"),
            "couplings": _count(state, "operations.2.feature.0_{}.F.conv1.weight"),
            "growth": state["operations.2.feature.0_0.F.conv1.weight"].shape[0],
        }
    else:
        # [squeeze] as often as the image is halved, couplings, (unsqueeze), WIC
        squeezes = min(int(key.split(".")[1]) for key in state)
        couplings = _count(state, "operations.{}.F.conv1.weight", start=squeezes)
        first = f"operations.{squeezes}.F"
        growth, second = state[f"{first}.conv1.weight"].shape[:2]
        in_channels = (second + state[f"{first}.conv5.weight"].shape[0]) // 4**squeezes
        scale = 2**squeezes if last == squeezes + couplings else 1
        shared = {"couplings": couplings, "growth": growth}
    wanted = out_channels or (1 if scale == 1 and in_channels == 3 else 3)
    fitting = [m for m in range(1, columns) if -(-columns // m) * m == rows]
    if copies is None:
        copies = 4 if scale == 4 and 4 * wanted in fitting else 1
    if wanted * copies not in fitting:
        raise WICArgumentError(
            f"Expected out_channels times copies of {' or '.join(map(str, fitting))} for a last "
            f"kernel of shape ({rows}, {columns}); got {wanted} times {copies}."
        )
    network = WIN if stages else WINNaive
    return network(in_channels, wanted, scale=scale, copies=copies, layout="published", **shared)


def _count(state: Mapping[str, Tensor], pattern: str, start: int = 0) -> int:
    index = start
    while pattern.format(index) in state:
        index += 1
    return index - start


def _is_kernel(model: torch.nn.Module, key: str) -> bool:
    return isinstance(model.get_submodule(key.rpartition(".")[0]), WIC)


def _names(model: WIN | WINNaive) -> dict[str, str]:
    """Our names of a state dict with theirs."""
    places = dict(_places(model))
    # the deepest place first: modules stand inside one another
    prefixes = sorted(places, key=len, reverse=True)
    names = {}
    for key in model.state_dict():
        prefix = next(prefix for prefix in prefixes if key.startswith(f"{prefix}."))
        rest = key[len(prefix) + 1 :]
        if _is_kernel(model, key):
            rest = f"iConv2d.{rest}"
        names[key] = f"operations.{places[prefix]}.{rest}"
    return names


def _places(model: WIN | WINNaive) -> Iterator[tuple[str, str]]:
    """Where each part of ours is in theirs.

    Theirs is [squeeze, WIC, modules] once or twice, (unsqueeze), WIC; the modules hold
    ``transform.i`` (the WIC of module i), ``feature.i_j`` (its coupling j) and ``tail.0``. In ours
    module i + 1 stands inside the memory of module i, behind its couplings, and the tail for
    itself: [squeeze, WIC, WIC, memory, tail]. Of WIN-Naive the order is the same.
    """
    last = max(index for index, block in enumerate(model) if isinstance(block, WIC))
    if isinstance(model, WINNaive):
        yield from ((str(index), str(index)) for index in range(last + 1))
        return
    couplings, modules = model.config["couplings"], model.config["modules"]
    stages = sum(isinstance(block, LongTermMemory) for block in model)
    for stage in range(stages):
        ours, theirs = 5 * stage, 3 * stage
        yield f"{ours + 1}", f"{theirs + 1}"
        yield f"{ours + 2}", f"{theirs + 2}.transform.0"
        inside = f"{ours + 3}.inner"
        for module in range(modules):
            for coupling in range(couplings):
                yield f"{inside}.{coupling}", f"{theirs + 2}.feature.{module}_{coupling}"
            if module + 1 < modules:
                yield f"{inside}.{couplings}", f"{theirs + 2}.transform.{module + 1}"
            inside += f".{couplings + 1}.inner"
        yield f"{ours + 4}", f"{theirs + 2}.tail.0"
    yield str(last), str(last - 2 * stages)
