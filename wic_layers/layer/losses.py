r"""The two losses of WIC, kept apart from what the layers return.

:func:`det_loss` is pulled from parameters alone. :func:`shift_loss` needs activations: layers
append them to a linked record while :func:`record_wic` is open in their thread, and nothing stays
on any module afterwards. Both are unweighted; add them to the loss and call ``backward`` once.

Not for threaded ``nn.DataParallel``; use ``DistributedDataParallel``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers.errors import WICArgumentError, WICError, WICShapeError
from wic_layers.layer.kernel import kernels_of

__all__ = ["Record", "Records", "charbonnier", "det_loss", "record_wic", "shift_loss"]

_Link = tuple[Any, Any, Any, Any]


class _Recorder:
    """What one thread records.

    Attributes:
        head: None while nobody records, else the newest link: (layer, output, extra, older link)
            of a call, or (None, recording, its Records, older link) where a recording was opened.
            A list's length would be guarded by torch.compile and recompile at every call; a
            link's is constant.
    """

    def __init__(self) -> None:
        self.head: _Link | None = None


class _Here(threading.local):
    """The calling thread's recorder. Compiled code looks it up at every call."""

    def __init__(self) -> None:
        self.recorder = _Recorder()


_here = _Here()


def is_recording() -> bool:
    """Whether a :func:`record_wic` is open in this thread."""
    return _here.recorder.head is not None


def append_record(layer: nn.Module, output: Tensor, extra: Tensor) -> None:
    """Adds one call of a narrowing layer to the open record."""
    recorder = _here.recorder
    recorder.head = (layer, output, extra, recorder.head)


@dataclass(frozen=True, eq=False)
class Record:
    """One call of one narrowing layer.

    Attributes:
        name: The layer's name in the recorded model (``""`` for the model itself).
        layer: The layer.
        output: What the layer returned, shape (B, m, *spatial).
        extra: The channels of its other rows, shape (B, M - m, *spatial); no channels for
            ``rows="m"``.
    """

    name: str
    layer: nn.Module
    output: Tensor
    extra: Tensor


class Records(Sequence[Record]):
    """The records of one :func:`record_wic`, in order of their calls; filled when it closes."""

    def __init__(self) -> None:
        self._records: list[Record] = []

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int | slice) -> Any:
        return self._records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the layers that recorded, each once."""
        return tuple(dict.fromkeys(record.name for record in self._records))

    def __repr__(self) -> str:
        rows = ", ".join(f"{r.name or '(model)'}: {tuple(r.extra.shape)}" for r in self._records)
        return f"Records({rows})"


class record_wic(AbstractContextManager[Records]):
    """Collects the other rows' channels of the narrowing layers that run forward inside it.

    Inverse calls record nothing. Close it before ``backward``. Recordings may nest; the innermost
    one collects. Every thread has its own: what another thread runs meanwhile is not recorded.
    Inside a checkpointed region use ``use_reentrant=False``.

    Args:
        model: The module whose layers are recorded; others that run meanwhile are ignored.

    Raises:
        WICArgumentError: If it is an ``nn.DataParallel`` or holds one.

    Example:
        >>> from wic_layers import WIC, record_wic, shift_loss
        >>> layer = WIC(12, 3)
        >>> with record_wic(layer) as records:
        ...     y = layer(torch.randn(2, 12, 8, 8))
        >>> records[0].extra.shape
        torch.Size([2, 9, 8, 8])
        >>> shift_loss(records).ndim
        0
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._opened_in = _here.recorder

    def __enter__(self) -> Records:
        if any(isinstance(module, nn.DataParallel) for module in self._model.modules()):
            raise WICArgumentError(
                "Expected a model without nn.DataParallel, whose replicas run in threads of their "
                f"own and are not recorded; got {type(self._model).__name__}. Use "
                "DistributedDataParallel, or on a single device the module inside."
            )
        self._opened_in = recorder = _here.recorder
        records = Records()
        recorder.head = (None, self, records, recorder.head)
        return records

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # a generator may be closed by another thread than it was opened in
        recorder = _here.recorder if _holds(_here.recorder, self) else self._opened_in
        newer: list[_Link] = []
        link: Any = recorder.head
        while link[1] is not self:
            newer.append(link)
            link = link[3]
        records, head = link[2], link[3]
        names = {id(module): name for name, module in self._model.named_modules()}
        collected, is_innermost = [], True
        for layer, output, extra, _ in newer[::-1]:
            is_innermost = is_innermost and layer is not None
            if not is_innermost:  # a recording that was opened later is closed later
                head = (layer, output, extra, head)
            elif id(layer) in names:
                collected.append(Record(names[id(layer)], layer, output, extra))
        recorder.head = head
        records._records = collected


def _holds(recorder: _Recorder, recording: record_wic) -> bool:
    """Whether a recording is open in a recorder's thread."""
    link = recorder.head
    while link is not None and link[1] is not recording:
        link = link[3]
    return link is not None


def charbonnier(input: Tensor, target: Tensor) -> Tensor:
    r"""Returns :math:`\sqrt{(a - b)^2 + 10^{-6}}` per element: the paper's code's L1."""
    return (input - target).square().add(1e-6).sqrt()


def squared(input: Tensor, target: Tensor) -> Tensor:
    r"""Returns :math:`(a - b)^2` per element."""
    return (input - target).square()


def log_squared(input: Tensor, target: Tensor) -> Tensor:
    r"""Returns :math:`0.005 \ln(1 + 10^5 m)` per element; m: an image's mean squared error.

    A mean of PSNR is one of logarithms, to which every image counts alike that becomes 1 dB
    better. Here too, below 50 dB; what is above that counts less. It is about as large as
    :func:`charbonnier`.

    Args:
        input: Images, (B, ...).
        target: What they should be.
    """
    error = (input - target).square()
    logarithm = error.flatten(1).mean(dim=1).mul(1e5).log1p().mul(0.005)
    return logarithm.view(-1, *[1] * (error.ndim - 1)).expand_as(error)


def det_loss(model: nn.Module) -> Tensor:
    r"""Returns L_det: :math:`|\log\det K^\top K|`, summed over the layers.

    It is zero for kernels with unit volume, such as orthogonal ones. Layers are found by their
    method ``gram_logdet()``, those that :func:`~wic_layers.swap_1x1` changed too; a shared layer
    counts once. The logarithm is taken factor by factor,
    so that neither many channels nor tiny or huge weights over- or underflow.

    Args:
        model: A module that holds at least one WIC.

    Returns:
        A scalar in nats, in the kernels' dtype.

    Raises:
        WICArgumentError: If the model holds no such layer.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (11)-(12). The paper writes the signed logarithm, whose minimum is
        | a singular kernel; its code and this function take the absolute value.

    Example:
        >>> from wic_layers import WIC
        >>> det_loss(WIC(3, 12)).item() < 1e-4
        True
    """
    terms = [layer.gram_logdet().abs() for _, layer in kernels_of(model)]
    if not terms:
        raise WICArgumentError(
            f"Expected a model with at least one WIC; {type(model).__name__} has none."
        )
    return torch.stack(terms).sum()


def shift_loss(
    records: Records,
    target: Tensor | Mapping[str, Tensor] | None = None,
    criterion: Callable[[Tensor, Tensor], Tensor] = charbonnier,
) -> Tensor:
    r"""Returns L_shift: how far the dropped channels are from their completion.

    .. math:: \sum_{c, h, w} \rho\bigl(K_{inc} x,\; c(t)\bigr), \quad \text{mean over the batch}

    summed over the records, with :math:`t` the ``target`` (detached) or, without one, the layer's
    own output with its gradient. A completion with a ``penalty`` of its own (``gaussian``: half
    the square) takes that in place of the comparison. Layers with ``rows="m"`` drop nothing and
    add 0.

    Args:
        records: From a closed :class:`record_wic`.
        target: What the forward picture should be, of the layer's output shape: one tensor when
            one layer recorded, else a mapping from layer names.
        criterion: Elementwise distance :math:`\rho(input, target)`.

    Returns:
        A scalar, in float32 for smaller dtypes.

    Raises:
        WICArgumentError: If nothing was recorded, the recording is still open, or the target does
            not say which layer it is for.
        WICShapeError: If a target has another shape than its layer's output.
        WICError: If gradients are on and a record has none although its layer's kernel requires
            one, as happens inside reentrant checkpointing.

    References:
        | Tackling Ill-posedness of Reversible Image Conversion with Well-posed Invertible Network
        | (Huang and Huang), Eq. (14). The paper compares with the layer's own output, its code
        | with the target picture.
    """
    if not len(records):
        raise WICArgumentError(
            "Expected the records of at least one forward of a narrowing layer; got none. Run the "
            "model's forward inside `with record_wic(model) as records:`, in the same thread (not "
            "under nn.DataParallel but DistributedDataParallel), and compute the loss after it "
            "closes."
        )
    targets = _targets(records, target)
    total: Tensor | None = None
    for record in records:
        if (
            torch.is_grad_enabled()
            and not record.extra.requires_grad
            and _is_trained(record.layer)
        ):
            raise WICError(
                f"The record of layer '{record.name}' has no gradient although the layer is "
                "trained: it was made under no_grad. Compute the loss under no_grad too, or, if "
                "checkpointing did it, use checkpoint(..., use_reentrant=False)."
            )
        completion = getattr(record.layer, "completion", None)
        penalty = getattr(completion, "penalty", None)
        # half precision cannot hold the sum over an image
        extra = record.extra.to(torch.promote_types(record.extra.dtype, torch.float32))
        if not extra.shape[1]:
            distance = extra
        elif penalty is not None:
            distance = penalty(extra)
        else:
            aim = targets.get(record.name)
            reference = record.layer.complete(record.output if aim is None else aim)  # type: ignore[operator]
            distance = criterion(extra, reference.to(extra.dtype))
        term = distance.sum() / max(extra.shape[0], 1)
        total = term if total is None else total + term
    assert total is not None  # noqa: S101 - for the type checker; there is at least one record
    return total


def _is_trained(layer: nn.Module) -> bool:
    """Whether the layer's kernel requires a gradient; its completion takes no part in a record."""
    return any(
        parameter.requires_grad
        for name, parameter in layer.named_parameters()
        if not name.startswith("completion.")
    )


def _targets(records: Records, target: Tensor | Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if target is None:
        return {}
    names = records.names
    if isinstance(target, Tensor):
        if len(names) != 1:
            raise WICArgumentError(
                f"Expected a mapping from layer names to targets, as {len(names)} layers recorded "
                f"({', '.join(names)}); got one tensor."
            )
        targets = {names[0]: target}
    else:
        unknown = [name for name in target if name not in names]
        if unknown:
            raise WICArgumentError(
                f"Expected targets for the layers that recorded ({', '.join(names)}); got "
                f"{', '.join(unknown)}."
            )
        targets = dict(target)
    for record in records:
        aim = targets.get(record.name)
        if aim is not None and aim.shape != record.output.shape:
            raise WICShapeError(
                f"Expected a target of the output's shape {tuple(record.output.shape)} for layer "
                f"'{record.name}'; got {tuple(aim.shape)}."
            )
    return {name: aim.detach().to(_dtype_of(records, name)) for name, aim in targets.items()}


def _dtype_of(records: Records, name: str) -> torch.dtype:
    return next(record.output.dtype for record in records if record.name == name)
