"""load_official, save_official: checkpoints of the authors' code into our networks, and back.

A :class:`~wic_layers.models.official.format.Format` knows the names of one code base; this module
reads and writes files.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from wic_layers._files import writing
from wic_layers._pickles import read_pickle, write_pickle
from wic_layers.errors import WICArgumentError, WICFileError, named, quoted, shortened
from wic_layers.layer.completion import CompletionName
from wic_layers.models.base import Network, with_wic
from wic_layers.models.building import differences, outlined
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
_MOST_PARTS = 10_000  # dicts that are looked into
_ROOM = 1_000_000  # bytes
_DTYPES = {
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.int8, torch.int16, torch.int32, torch.int64, torch.uint8, torch.bool,
}  # fmt: skip
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
    trust: bool = False,
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
        trust: Read a ``.pth`` file with a torch below 2.10 too, in which ``weights_only=True``
            does not keep a harmful one from doing harm.

    Returns:
        The network as published (WIN with ``layout="published"``, IRN and HiNet with
        ``random_z=True``, IICNet with ``channel_squeeze=True``, HCFlow with ``z="drawn"``), or
        with the WIC of the checkpoint, in ``eval()`` mode, on the CPU. Of an IICNet that makes
        four images one of half the size the shapes leave the order of the channels open, and it is
        taken to be ``"bands"``.

    Raises:
        WICFileError: If the file cannot be read, or holds something else, NaN or infinite weights;
            the message lists the names that differ. Also if it is a ``.pth`` file and torch is
            older than 2.10, without ``trust``.
        WICArgumentError: If an argument does not go with the checkpoint.

    References:
        | The code of Tackling Ill-posedness of Reversible Image Conversion with Well-posed
        | Invertible Network (Huang and Huang), of Invertible Image Rescaling (Xiao et al., 2020),
        | of HiNet: Deep Image Hiding by Invertible Network (Jing et al., 2021), of IICNet: A
        | Generic Framework for Reversible Image Conversion (Cheng et al., 2021), and of
        | Hierarchical Conditional Flow (Liang et al., 2021)
    """
    what = str(source) if isinstance(source, (str, Path)) else "the state dict"
    if isinstance(source, (str, Path)):
        state = _state_of(read_pickle(Path(source), trust=trust), what)
    else:
        state = _state_of(source, what)
    form = next((each for each in _FORMATS if each.recognises(state)), _FORMATS[0])
    is_closed = form.is_closed(state)
    if completion is not None and not is_closed:
        raise WICArgumentError(
            f"Expected no completion, as {what} has no WIC; got {completion!r}. Give it to "
            "with_wic, which puts one there."
        )

    def build() -> Network:
        published = form.build(state, out_channels, copies)
        if not is_closed:
            return published
        return with_wic(published, _completion(state, form.wic, completion))

    try:
        state = form.canonical(state)
        shapes = {key: tuple(value.shape) for key, value in state.items()}
        outline = outlined(build, shapes, times=2 if is_closed else 1)  # published, then closed
    except Exception as error:  # whatever names and shapes that are none of theirs lead to
        has_sizes = out_channels is not None or copies is not None
        if has_sizes and isinstance(error, WICArgumentError):
            raise
        raise WICFileError(
            f"Expected the state dict of {_KNOWN}; {what} holds {len(state)} tensors such "
            f"as {named(state, 3)}, which make none ({shortened(str(error))})."
        ) from error
    values = _values(form, outline, state, what)
    model = build()
    model.load_state_dict({**model.state_dict(), **values})
    model.colours = form.colours if colours is None else check_colours(colours)
    return model.eval()


def _values(
    form: Format, outline: Network, state: Mapping[str, Tensor], what: str
) -> dict[str, Tensor]:
    """The tensors by our names, once they are those of a network without numbers."""
    names = form.names(outline)
    constants = form.constants(outline)
    known = {*names.values(), *constants}
    missing, unknown = sorted(known - state.keys()), sorted(state.keys() - known)
    if missing or unknown:
        raise WICFileError(
            f"{what} does not fit the network that its shapes ask for: {len(missing)} names are "
            f"missing ({named(missing)}), {len(unknown)} are unknown ({named(unknown)})."
        )
    changed = [
        key for key, value in constants.items()
        if value.shape != state[key].shape or not torch.equal(value, state[key].to(value))
    ]  # fmt: skip
    if changed:
        raise WICFileError(
            f"{what} has another transform than its network in {named(changed)}; expected "
            "Haar's, which is not trained."
        )
    values = {}
    for ours, theirs in names.items():
        value = state[theirs]
        is_flat = form.is_kernel(outline, ours) and value.ndim == 4
        values[ours] = value.flatten(1) if is_flat else value
    wrong = differences(
        {
            names[ours]: tuple(value.shape)
            for ours, value in outline.state_dict().items()
            if ours in names
        },
        {names[ours]: tuple(value.shape) for ours, value in values.items()},
    )
    if wrong:
        raise WICFileError(
            f"{what} has other shapes than its network, {type(outline).__name__} of a width and "
            f"depth that its first tensors say: {wrong}. One that has several widths is not known "
            "here."
        )
    _check_finite({names[ours]: value for ours, value in values.items()}, what)
    return values


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
    with writing(Path(path)) as file:
        write_pickle(form.checkpoint(model, state), file)


def _state_of(checkpoint: object, what: str) -> dict[str, Tensor]:
    """The tensors with names of one of the codes, wherever in a checkpoint they are."""
    parts: list[tuple[str, object]] = [("", checkpoint)]
    others: list[tuple[str, list[str]]] = []
    met: set[int] = set()  # one part may stand in many places, and in itself
    while parts:
        place, part = parts.pop(0)
        if not isinstance(part, Mapping) or id(part) in met:
            continue
        met.add(id(part))
        if len(met) > _MOST_PARTS:
            break
        tensors = {
            key: value
            for key, value in part.items()
            # HiNet's code skips tmp_var
            if isinstance(key, str) and isinstance(value, Tensor) and "tmp_var" not in key
        }
        state = {_WRAPPED.sub("", key): value for key, value in tensors.items()}
        if any(key.startswith(tuple(_BEGINNINGS)) for key in state):
            if len(state) < len(tensors):
                raise WICFileError(
                    f"{what} holds {len(tensors) - len(state)} tensors twice, with and without "
                    "module., model. or net. in front; expected one network."
                )
            _check_plain(state, what)
            return state
        if tensors:
            others.append((place, list(tensors)))
        parts += [
            (shortened(f"{place}[{quoted(key)}]"), value)
            for key, value in part.items()
            if isinstance(value, Mapping)
        ]
    raise WICFileError(
        f"Expected a state dict with names like {' or '.join(_BEGINNINGS.values())}; {what} holds "
        f"{_described(checkpoint, others)}."
    )


def _described(checkpoint: object, others: list[tuple[str, list[str]]]) -> str:
    """What a checkpoint holds in place of a network that is known: its most tensors."""
    if others:
        place, names = max(others, key=lambda each: len(each[1]))
        where = f" in {place}" if place else ""
        return f"{named(names)}{where} ({len(names)} tensors)"
    if isinstance(checkpoint, Mapping) and checkpoint:
        return f"no tensors, but {named(map(_key, list(checkpoint)[:5]))}"
    return f"no tensors ({type(checkpoint).__name__})"


def _key(key: object) -> str:
    return key if isinstance(key, str) else quoted(key)


def _check_plain(state: Mapping[str, Tensor], what: str) -> None:
    """Raises if tensors have no numbers of their own, or none that weights could be."""
    odd = [
        key for key, value in state.items()
        if value.layout != torch.strided or value.is_meta or value.dtype not in _DTYPES
    ]  # fmt: skip
    if odd:
        raise WICFileError(
            f"{what} holds tensors that cannot be weights ({named(odd)}): expected dense ones of "
            f"real numbers in 16, 32 or 64 bits; the first has {state[odd[0]].dtype}, "
            f"{state[odd[0]].layout}, on {state[odd[0]].device}."
        )
    storages = {
        value.untyped_storage().data_ptr(): value.untyped_storage() for value in state.values()
    }
    stored = sum(storage.nbytes() for storage in storages.values())
    shown = sum(math.prod(value.shape) * value.element_size() for value in state.values())
    if shown > 2 * stored + _ROOM:
        raise WICFileError(
            f"{what} is refused: its tensors show {shown:,} bytes, of {stored:,} that are stored."
        )


def _check_finite(state: Mapping[str, Tensor], what: str) -> None:
    """Raises if weights are no numbers, or none of float32."""
    wrong = [key for key, value in state.items() if not value.float().isfinite().all()]
    if wrong:
        raise WICFileError(
            f"{what} holds weights that are NaN, or infinite in float32, in {len(wrong)} of "
            f"{len(state)} tensors ({named(wrong)}), so that nothing can come back. Take "
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
