"""load_official, save_official: checkpoints of the authors' code into our networks, and back.

A :class:`~wic_layers.models.official.format.Format` knows the names of one code base; this module
reads and writes files.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wic_layers._files import write_whole
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.models.base import Network
from wic_layers.models.official.format import Format
from wic_layers.models.official.hinet import HiNetFormat
from wic_layers.models.official.iicnet import IICNetFormat
from wic_layers.models.official.irn import IRNFormat
from wic_layers.models.official.win import WINFormat

__all__ = ["load_official", "save_official"]


_FORMATS: tuple[Format, ...] = (WINFormat(), IRNFormat(), HiNetFormat(), IICNetFormat())
_KNOWN = "WIN, WIN-Naive, IRN, HiNet or IICNet"
# how they begin, and an example of each
_BEGINNINGS = {
    "operations.": "operations.1.F.conv1.weight",
    "inv1.": "inv1.f.conv1.weight",
    "2.operations.": "2.operations.0.F.conv1.weight",
}


def load_official(
    source: str | Path | Mapping[str, object],
    *,
    out_channels: int | None = None,
    copies: int | None = None,
) -> Network:
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
    form = next((each for each in _FORMATS if each.recognises(state)), _FORMATS[0])
    try:
        model = form.build(state, out_channels, copies)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, WICArgumentError) as error:
        has_sizes = out_channels is not None or copies is not None
        if has_sizes and isinstance(error, WICArgumentError):
            raise
        raise WICFileError(
            f"Expected the state dict of {_KNOWN}; {what} holds {len(state)} tensors such "
            f"as {', '.join(list(state)[:3])}, which make none ({error})."
        ) from error
    expected = {theirs: ours for ours, theirs in form.names(model).items()}
    constants = form.constants(model)
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
        key for key, value in ours.items() if form.is_kernel(model, key) and value.ndim == 4
    }
    values = {key: value.flatten(1) if key in kernels else value for key, value in ours.items()}
    try:
        model.load_state_dict({**model.state_dict(), **values})
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
    form = next((each for each in _FORMATS if isinstance(model, each.networks)), None)
    if form is None:
        raise WICArgumentError(f"Expected a {_KNOWN}; got {type(model).__name__}.")
    form.check(model)
    names = form.names(model)
    state = {
        names[key]: value[..., None, None] if form.is_kernel(model, key) else value
        for key, value in model.state_dict().items()
        if key in names
    }
    state.update(form.constants(model))
    target = Path(path)
    content = io.BytesIO()
    torch.save(state, content)
    write_whole(target, content.getvalue())


def _read(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WICFileError(f"{path} cannot be read: {error.strerror or error}.") from error
    except Exception as error:  # torch.load raises nearly anything for a file that is none of its
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise WICFileError(
            f"{path} is damaged, no checkpoint of torch, or holds more than tensors: {reason}"
        ) from error


def _state_of(checkpoint: object, what: str) -> dict[str, Tensor]:
    """The tensors with names of one of the codes, wherever in a checkpoint they are."""
    parts = [checkpoint]
    while parts:
        part = parts.pop(0)
        if not isinstance(part, Mapping):
            continue
        state = {
            str(key).removeprefix("module.").removeprefix("model."): value
            for key, value in part.items()
            if isinstance(value, Tensor) and "tmp_var" not in str(key)  # HiNet's code skips them
        }
        if any(key.startswith(tuple(_BEGINNINGS)) for key in state):
            return state
        parts += part.values()
    names = ", ".join(map(str, list(checkpoint)[:4])) if isinstance(checkpoint, Mapping) else ""
    raise WICFileError(
        f"Expected a state dict with names like {' or '.join(_BEGINNINGS.values())}; {what} holds "
        f"{names or type(checkpoint).__name__}."
    )
