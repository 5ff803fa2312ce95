"""Checkpoints of the authors' code of WIN, IRN, HiNet and IICNet into our networks, and back.

Each part (``win``, ``irn``, ``hinet``, ``iicnet``) knows the names of one code base; this one
reads and writes files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from wic_layers._files import write_whole
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models.base import Network
from wic_layers.models.official import hinet, iicnet, irn, win

__all__ = ["load_official", "save_official"]


class _Code(Protocol):
    """What a part knows of its code base."""

    @property
    def KINDS(self) -> tuple[type[Network], ...]: ...

    def recognises(self, state: Mapping[str, Tensor]) -> bool: ...

    def build(
        self, state: Mapping[str, Tensor], out_channels: int | None, copies: int | None
    ) -> Network: ...

    def check(self, model: Network) -> None: ...

    def names(self, model: Network) -> dict[str, str]: ...

    def is_kernel(self, model: Network, key: str) -> bool: ...

    def constants(self, model: Network) -> dict[str, Tensor]: ...


_CODES: tuple[_Code, ...] = (win, irn, hinet, iicnet)
_KNOWN = "WIN, WIN-Naive, IRN, HiNet or IICNet"
# how they begin, and an example of each
_BEGINNINGS = {
    "operations.": "operations.1.F.conv1.weight",
    "inv1.": "inv1.f.conv1.weight",
    "2.operations.": "2.operations.0.F.conv1.weight",
}


def load_official(
    source: str | Path | Mapping[str, Any],
    *,
    out_channels: int | None = None,
    copies: int | None = None,
) -> Any:
    """Builds the network that a checkpoint of its authors' code is for, and loads it.

    Which network it is (WIN, WIN-Naive, IRN, HiNet or IICNet; channels, widths and depths) is read
    from the names and shapes alone. The prefix that DataParallel adds is taken
    off, and a state dict inside a larger checkpoint is found.

    Args:
        source: A ``.pth`` file, read with ``weights_only=True``, or a state dict.
        out_channels: Of WIN and IICNet: channels of the network's result, where the shapes leave
            them open: 3, of WIN for decolorization 1 when None.
        copies: Of WIN: how often the last kernel gives that result: 4 for x4 where the shapes
            allow it, which is how the authors' code trains it, and 1 otherwise when None.

    Returns:
        The network as published (WIN with ``layout="published"``, IRN and HiNet with
        ``random_z=True``, IICNet with ``channel_squeeze=True``), in ``eval()`` mode, on the CPU.
        Of an IICNet that makes four images one of half the size the shapes leave the order of the
        channels open, and it is taken to be ``"bands"``.

    Raises:
        WICFileError: If the file cannot be read, or holds something else; the message lists the
            names that differ.
        WICArgumentError: If ``out_channels`` or ``copies`` do not go with the shapes.

    References:
        | The code of Tackling Ill-posedness of Reversible Image Conversion with Well-posed
        | Invertible Network (Huang and Huang), of Invertible Image Rescaling (Xiao et al., 2020),
        | of HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), and of IICNet: A
        | Generic Framework for Reversible Image Conversion (Cheng et al., 2021)
    """
    what = str(source) if isinstance(source, (str, Path)) else "the state dict"
    state = _state_of(_read(Path(source)) if isinstance(source, (str, Path)) else source, what)
    code = next((code for code in _CODES if code.recognises(state)), _CODES[0])
    try:
        model = code.build(state, out_channels, copies)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, WICArgumentError) as error:
        given = out_channels is not None or copies is not None
        if given and isinstance(error, WICArgumentError):
            raise
        raise WICFileError(
            f"Expected the state dict of {_KNOWN}; {what} holds {len(state)} tensors such "
            f"as {', '.join(list(state)[:3])}, which make none ({error})."
        ) from error
    expected = {theirs: ours for ours, theirs in code.names(model).items()}
    constants = code.constants(model)
    known = expected.keys() | constants.keys()
    missing, unknown = sorted(known - state.keys()), sorted(state.keys() - known)
    if missing or unknown:
        raise WICFileError(
            f"{what} does not fit the network that its shapes ask for: {len(missing)} names are "
            f"missing ({', '.join(missing[:4])}), {len(unknown)} are unknown "
            f"({', '.join(unknown[:4])})."
        )
    changed = [
        key for key, value in constants.items()
        if value.shape != state[key].shape or not torch.equal(value, state[key].to(value))
    ]  # fmt: skip
    if changed:
        raise WICFileError(
            f"{what} has another transform than its network in {', '.join(changed)}; expected "
            "Haar's, which is not trained."
        )
    ours = {expected[key]: value for key, value in state.items() if key in expected}
    kernels = {
        key for key, value in ours.items() if code.is_kernel(model, key) and value.ndim == 4
    }
    found = {key: value.flatten(1) if key in kernels else value for key, value in ours.items()}
    try:
        model.load_state_dict({**model.state_dict(), **found})
    except RuntimeError as error:
        raise WICFileError(f"{what} has other shapes than its network: {error}") from error
    return model.eval()


def save_official(model: Network, path: str | Path) -> None:
    """Writes a network's state dict under the names that its authors' code gives it.

    Args:
        model: A network as published, as :func:`load_official` builds it; another has a last layer
            that their code cannot read.
        path: The ``.pth`` file; replaced if it exists.

    Raises:
        WICArgumentError: If the network is of another layout or kind, has a WIC in place of z, or
            its completion is not theirs.
        WICFileError: If the file cannot be written.
    """
    code = next((code for code in _CODES if isinstance(model, code.KINDS)), None)
    if code is None:
        raise WICArgumentError(f"Expected a {_KNOWN}; got {type(model).__name__}.")
    code.check(model)
    names = code.names(model)
    state = {
        names[key]: value[..., None, None] if code.is_kernel(model, key) else value
        for key, value in model.state_dict().items()
        if key in names
    }
    state.update(code.constants(model))
    target = Path(path)
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(target, content.getvalue())


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WICFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # torch.load raises nearly anything for a file that is none of its
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WICFileError(
            f"{path} is damaged, no checkpoint of torch, or holds more than tensors: {reason}"
        ) from error


def _state_of(checkpoint: Any, what: str) -> dict[str, Tensor]:
    """The tensors with names of one of the codes, wherever in a checkpoint they are."""
    seen = [checkpoint]
    while seen:
        found = seen.pop(0)
        if not isinstance(found, Mapping):
            continue
        state = {
            str(key).removeprefix("module.").removeprefix("model."): value
            for key, value in found.items()
            if isinstance(value, Tensor) and "tmp_var" not in str(key)  # HiNet's code skips them
        }
        if any(key.startswith(tuple(_BEGINNINGS)) for key in state):
            return state
        seen += found.values()
    names = ", ".join(map(str, list(checkpoint)[:4])) if isinstance(checkpoint, Mapping) else ""
    raise WICFileError(
        f"Expected a state dict with names like {' or '.join(_BEGINNINGS.values())}; {what} holds "
        f"{names or type(checkpoint).__name__}."
    )
