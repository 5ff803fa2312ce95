"""load_official, save_official: checkpoints of the authors' code into our networks, and back.

A :class:`~wic_layers.models.official.format.Format` knows the names of one code base; this module
reads and writes files.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wic_layers._files import write_whole
from wic_layers.errors import WICArgumentError, WICFileError
from wic_layers.layer.completion import CompletionName
from wic_layers.models.base import Network, with_wic
from wic_layers.models.colours import Colours, check_colours
from wic_layers.models.official.format import Format
from wic_layers.models.official.hcflow import HCFlowFormat
from wic_layers.models.official.hinet import HiNetFormat
from wic_layers.models.official.iicnet import IICNetFormat
from wic_layers.models.official.irn import DLVIRNFormat, IRNFormat
from wic_layers.models.official.win import WINFormat

__all__ = ["load_official", "save_official"]


_FORMATS: tuple[Format, ...] = (
    WINFormat(), DLVIRNFormat(), IRNFormat(), HiNetFormat(), IICNetFormat(), HCFlowFormat(),
)  # fmt: skip
_KNOWN = "WIN, WIN-Naive, IRN, HiNet, IICNet or HCFlow"
# how they begin, and an example of each
_BEGINNINGS = {
    "operations.": "operations.1.F.conv1.weight",
    "inv1.": "inv1.f.conv1.weight",
    "2.operations.": "2.operations.0.F.conv1.weight",
    "flow.layers.": "flow.layers.1.actnorm.bias",
}
# what DataParallel, torch.compile, HiNet's Model, WellPosed and DualLatent put in front of a name
_WRAPPED = re.compile(r"^(?:(?:module|_orig_mod|model|1(?=\.net\.)|net)\.)+")


def load_official(
    source: str | Path | Mapping[str, object],
    *,
    out_channels: int | None = None,
    copies: int | None = None,
    completion: CompletionName | None = None,
    colours: Colours | None = None,
) -> Network:
    """Builds the network that a checkpoint of its authors' code is for, and loads it.

    Which network it is (WIN, WIN-Naive, IRN, HiNet, IICNet or HCFlow for rescaling; channels,
    widths and depths) is read from the names and shapes alone. The prefix that DataParallel adds
    is taken off, and a state dict inside a larger checkpoint is found. A network that was trained
    with the lines of ``integrations/`` in its own code, which put a WIC there, is one with that
    WIC here; so is a DLV-IRN, in the code of IRN.

    Args:
        source: A ``.pth`` file, read with ``weights_only=True``, or a state dict. Half and double
            precision become float32.
        out_channels: Of WIN and IICNet: channels of the network's result, where the shapes leave
            them open: 3, of WIN for decolorization 1 when None.
        copies: Of WIN: how often the last kernel gives that result: 4 for x4 where the shapes
            allow it, which is how the authors' code trains it, and 1 otherwise when None.
        completion: Of a network that was trained with a WIC: what completes it, where the names
            leave it open: ``"zero"``, which is what those lines have, when None.
        colours: The order in which the code that trained it gave it colours: its authors' when
            None, ``"BGR"`` of IICNet and ``"RGB"`` of all others (of HCFlow that of its tests).
            Say ``"RGB"`` if your data sets for IICNet turn what OpenCV reads. The network takes
            and gives RGB in any case.

    Returns:
        The network as published (WIN with ``layout="published"``, IRN and HiNet with
        ``random_z=True``, IICNet with ``channel_squeeze=True``, HCFlow with ``z="drawn"``), or
        with the WIC of the checkpoint, in ``eval()`` mode, on the CPU. Of an IICNet that makes
        four images one of half the size the shapes leave the order of the channels open, and it is
        taken to be ``"bands"``.

    Raises:
        WICFileError: If the file cannot be read, or holds something else, NaN or infinite weights;
            the message lists the names that differ.
        WICArgumentError: If an argument does not go with the checkpoint.

    References:
        | The code of Tackling Ill-posedness of Reversible Image Conversion with Well-posed
        | Invertible Network (Huang and Huang), of Invertible Image Rescaling (Xiao et al., 2020),
        | of HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), of IICNet: A
        | Generic Framework for Reversible Image Conversion (Cheng et al., 2021), and of
        | Hierarchical Conditional Flow (Liang et al., 2021)
    """
    what = str(source) if isinstance(source, (str, Path)) else "the state dict"
    state = _state_of(_read(Path(source)) if isinstance(source, (str, Path)) else source, what)
    _check_finite(state, what)
    form = next((each for each in _FORMATS if each.recognises(state)), _FORMATS[0])
    state = form.canonical(state)
    is_closed = form.is_closed(state)
    if completion is not None and not is_closed:
        raise WICArgumentError(
            f"Expected no completion, as {what} has no WIC; got {completion!r}. Give it to "
            "with_wic, which puts one there."
        )
    try:
        model = form.build(state, out_channels, copies)
        if is_closed:
            model = with_wic(model, _completion(state, form.wic, completion))
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
    own = model.state_dict()
    names = {ours: theirs for theirs, ours in expected.items()}
    wrong = [
        f"{names[key]} is {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in values.items()
        if value.shape != own[key].shape
    ]
    if wrong:
        more = f", and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WICFileError(
            f"{what} has other shapes than its network, {type(model).__name__} of a width and "
            f"depth that its first tensors say: {'; '.join(wrong[:3])}{more}. One that has "
            "several widths is not known here."
        )
    model.load_state_dict({**own, **values})
    model.colours = form.colours if colours is None else check_colours(colours)
    return model.eval()


def save_official(model: Network, path: str | Path, *, colours: Colours | None = None) -> None:
    """Writes a network's checkpoint as its authors' code does.

    A network with a WIC (IRN, HiNet, IICNet, DLV-IRN) is written for that code with the lines of
    ``integrations/``, which put a WIC there; the completion must be the same, ``"zero"`` unless
    those lines say another. HiNet's optimizer has taken no step yet, and the settings with which
    its training starts; all others keep no optimizer in this file.

    Args:
        model: A network as published, as :func:`load_official` builds it, or with a WIC in its
            place. An IICNet has to have ``colours="BGR"``, as all from :func:`load_official` and
            ``wic train`` have.
        path: The ``.pth`` file; replaced if it exists.
        colours: The order in which the code that is to read the file gives colours, as in
            :func:`load_official`. The weights are written as they are: a network of another order
            would see red and blue exchanged.

    Raises:
        WICArgumentError: If the network is of another layout, kind or order of colours, or its
            completion is not theirs.
        WICFileError: If the file cannot be written.
    """
    form = next((each for each in _FORMATS if isinstance(model, each.networks)), None)
    if form is None:
        raise WICArgumentError(f"Expected a {_KNOWN}; got {type(model).__name__}.")
    form.check(model)
    order = form.colours if colours is None else check_colours(colours)
    if model.colours != order:
        kind = type(model).__name__
        raise WICArgumentError(
            f'Expected a network with colours="{order}", which is how {kind}\'s data sets give '
            f'them; got one that sees {model.colours}. Say colours="{model.colours}" if your copy '
            f"of that code turns them, or train it with --colours {order} (model.colours = "
            f'"{order}") from the start.'
        )
    names = form.names(model)
    state = {
        names[key]: value[..., None, None] if form.is_kernel(model, key) else value
        for key, value in model.state_dict().items()
        if key in names
    }
    state.update(form.constants(model))
    state = {key: value.detach().cpu() for key, value in state.items()}
    content = io.BytesIO()
    torch.save(form.checkpoint(model, state), content)
    write_whole(Path(path), content.getvalue())


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
    parts: list[tuple[str, object]] = [("", checkpoint)]
    others: list[tuple[str, list[str]]] = []
    while parts:
        place, part = parts.pop(0)
        if not isinstance(part, Mapping):
            continue
        tensors = {
            str(key): value
            for key, value in part.items()
            if isinstance(value, Tensor) and "tmp_var" not in str(key)  # HiNet's code skips them
        }
        state = {_WRAPPED.sub("", key): value for key, value in tensors.items()}
        if any(key.startswith(tuple(_BEGINNINGS)) for key in state):
            if len(state) < len(tensors):
                raise WICFileError(
                    f"{what} holds {len(tensors) - len(state)} tensors twice, with and without "
                    "module., model. or net. in front; expected one network."
                )
            return state
        if tensors:
            others.append((place, list(tensors)))
        parts += [(f"{place}[{str(key)!r}]", value) for key, value in part.items()]
    raise WICFileError(
        f"Expected a state dict with names like {' or '.join(_BEGINNINGS.values())}; {what} holds "
        f"{_described(checkpoint, others)}."
    )


def _described(checkpoint: object, others: list[tuple[str, list[str]]]) -> str:
    """What a checkpoint holds in place of a network that is known: its most tensors."""
    if others:
        place, names = max(others, key=lambda each: len(each[1]))
        where = f" in {place}" if place else ""
        return f"{', '.join(names[:4])}{where} ({len(names)} tensors)"
    if isinstance(checkpoint, Mapping) and checkpoint:
        return f"no tensors, but {', '.join(map(str, list(checkpoint)[:4]))}"
    return f"no tensors ({type(checkpoint).__name__})"


def _check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raises if weights are no numbers, or none of float32."""
    wrong = [key for key, value in state.items() if not value.float().isfinite().all()]
    if wrong:
        raise WICFileError(
            f"{what} holds weights that are NaN, or infinite in float32, in {len(wrong)} of "
            f"{len(state)} tensors ({', '.join(wrong[:4])}), so that nothing can come back. Take "
            "a checkpoint from before its training went astray."
        )


def _completion(
    state: Mapping[str, Tensor], wic: str, completion: CompletionName | None
) -> CompletionName | None:
    """What completes the WIC of a checkpoint: a predictor has weights of its own."""
    if not any(key.startswith(f"{wic}completion.") for key in state):
        return completion
    if completion not in (None, "learned"):
        raise WICArgumentError(f'the completion in it is "learned", not {completion!r}')
    return "learned"
