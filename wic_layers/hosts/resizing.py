"""plan_resize: what another number of channels at one layer asks of the modules behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import torch
from torch import nn

from wic_layers.errors import WICArgumentError
from wic_layers.hosts.refit import channels_of
from wic_layers.hosts.twins import no_traces
from wic_layers.hosts.variants import Size
from wic_layers.hosts.watching import (
    Record,
    Run,
    Watch,
    all_shapes,
    default_run,
    known_name,
    listed,
    run_watched,
    whole_of,
)

__all__ = ["Part", "ResizePlan", "Size", "plan_resize"]

Verdict = Literal["replace", "rebuild", "keep", "untouched", "unclear"]

_SHOWN = 4
_STAY = ("keep", "untouched")


@dataclass(frozen=True, eq=False)
class Part:
    """One module, and what it has to become.

    Attributes:
        name: Its name in the model.
        module: The module, the same object as in the model.
        verdict: ``"replace"``, the layer that was asked for; ``"rebuild"``, it must be built anew
            for the channels in ``takes``; ``"keep"``, other channels arrive and it takes them as
            it is; ``"untouched"``, what arrives is what arrives today; ``"unclear"``, see the
            note.
        takes: Channels of every tensor that it takes, today and then.
        gives: Channels of every tensor that it gives, today and then; of a module that is unclear
            what it would have to give.
        sizes: What has another size then, tried on a copy: parameters, buffers, and numbers that
            the module holds.
        note: What else is to be known; or "".
    """

    name: str
    module: nn.Module
    verdict: Verdict
    takes: tuple[tuple[int, ...], tuple[int, ...]]
    gives: tuple[tuple[int, ...], tuple[int, ...]]
    sizes: tuple[Size, ...] = ()
    note: str = ""

    def __str__(self) -> str:
        title = f"{self.name}: {type(self.module).__name__}, {_flow(self.takes[0], self.gives[0])}"
        if self.verdict == "untouched":
            return f"{title}: untouched" + (f"; {self.note}" if self.note else "")
        now = f"{title}, then {_flow(self.takes[1], self.gives[1])}: {self.verdict}"
        return f"{now}{f'; {self.note}' if self.note else ''}{self._sizes()}"

    def _sizes(self) -> str:
        lines = [f"\n    {size}" for size in self.sizes[:_SHOWN]]
        if len(self.sizes) > _SHOWN:
            lines.append(f"\n    and {len(self.sizes) - _SHOWN} more in .sizes")
        return "".join(lines)


class ResizePlan(Sequence[Part]):
    """What :func:`plan_resize` says, in the order in which the modules run; prints in words.

    The first entry is the layer itself.

    Attributes:
        before: Names of the modules that run before the layer; they stay as they are.
        shapes: Shapes of the tensors that the model gives, today and then; then None where the
            model's own code does not run with the new channels.
        stop: Why that is so, and after which module; or "".
    """

    def __init__(
        self,
        parts: Sequence[Part],
        before: Mapping[str, nn.Module],
        shapes: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...] | None],
        stop: str = "",
    ) -> None:
        self._parts = tuple(parts)
        self.before = tuple(before)
        stay = {part.name: part.module for part in parts if part.verdict in _STAY}
        changed = {part.name for part in parts} - stay.keys()
        self._stay = {name: module for name, module in before.items() if name not in changed}
        self._stay |= stay
        self.shapes = shapes
        self.stop = stop

    def __len__(self) -> int:
        return len(self._parts)

    @overload
    def __getitem__(self, index: int) -> Part: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Part]: ...
    def __getitem__(self, index: int | slice) -> Part | Sequence[Part]:
        return self._parts[index]

    def names(self, *verdicts: Verdict) -> list[str]:
        """Names of the modules with one of these verdicts, such as ``plan.names("rebuild")``."""
        return [part.name for part in self._parts if part.verdict in verdicts]

    def part(self, name: str) -> Part:
        """The entry of a module.

        Raises:
            WICArgumentError: If none behind the layer has this name.
        """
        for part in self._parts:
            if part.name == name:
                return part
        raise WICArgumentError(
            f"Expected the layer or a module behind it; got {name!r}. There are "
            f"{listed([part.name for part in self._parts])}."
        )

    def transfer(self, model: nn.Module) -> list[str]:
        """Puts every module that stays into a rebuilt model, the same objects in the same places.

        These are the modules that ran before the layer, those to keep and those that are
        untouched. Nodes of FrEIA's graphs get their module, too.

        Args:
            model: The rebuilt model, with the names of the old one.

        Returns:
            The names.

        Raises:
            WICArgumentError: If the model has no module of such a name; nothing is changed then.
        """
        places = dict(whole_of(model).named_modules(remove_duplicate=False))
        missing = [name for name in self._stay if name not in places]
        if missing:
            raise WICArgumentError(
                f"Expected a rebuilt model with the names of the old one; {type(model).__name__} "
                f"has no {listed(missing)}."
            )
        for name, module in self._stay.items():
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, module)
            for node in getattr(model, "node_list", ()):
                if node.module is places[name]:
                    node.module = module
        return list(self._stay)

    def differences(self, model: nn.Module | Sequence[nn.Module]) -> list[str]:
        """Says what of a rebuilt model is not as planned; empty where all of it is.

        Modules to rebuild must have the planned sizes, and all others must be the same objects.
        Which half of an odd number of channels is larger is the choice of a module's constructor.

        Args:
            model: The rebuilt model, or list of layers, with the names of the old one.
        """
        modules = dict(whole_of(model).named_modules(remove_duplicate=False))
        lines = []
        for part in self._parts:
            module = modules.get(part.name)
            if module is None:
                lines.append(f"{part.name} is missing")
            elif part.verdict in _STAY and module is not part.module:
                lines.append(f"{part.name} is another module, and could be kept")
            elif part.verdict == "rebuild":
                state = module.state_dict()
                for size in part.sizes:
                    shape = tuple(state[size.name].shape) if size.name in state else None
                    if size.is_tensor and shape != size.after:
                        was = "missing" if shape is None else f"of shape {shape}"
                        lines.append(f"{part.name}.{size.name} is {was}; planned {size.after}")
        return lines

    def __str__(self) -> str:
        layer, *behind = self._parts
        count = len(self.before)
        today, then = map(_words, layer.gives)
        kind = type(layer.module).__name__
        lines = [f"{layer.name} ({kind}) gives {then} channels in place of {today}."]
        if layer.note:
            lines[0] += f" {layer.note}"
        lines += ["Behind it run:"] if behind else ["Nothing runs behind it."]
        lines += [f"  {part}" for part in behind]
        if self.stop:
            lines.append(self.stop)
        elif self.shapes[0] == self.shapes[1]:
            lines.append(f"The model gives {_shapes(self.shapes[0])}, as today.")
        else:
            shapes = _shapes(self.shapes[1] or ())
            lines.append(f"The model gives {shapes} in place of {_shapes(self.shapes[0])}.")
        if count:
            stay = "1 module stays as it is" if count == 1 else f"{count} modules stay as they are"
            lines.append(f"Before it {stay}.")
        return "\n".join(lines)

    __repr__ = __str__


def plan_resize(
    model: nn.Module | Sequence[nn.Module],
    name: str,
    x: Any,
    out_channels: int,
    *,
    run: Run | None = None,
) -> ResizePlan:
    """Says what has to be rebuilt, and what can stay, if a layer gave other channels.

    A copy of the model is run on ``x`` twice: as it is, and with the layer's result cut or
    repeated to ``out_channels``. The model's own code between the modules (concatenations,
    splits, the steps of a multiscale model) runs both times, so that what arrives at a module is
    measured and not guessed. A module where something else arrives is tried as it is and then as
    copies with other sizes. It keeps giving as many numbers as it takes, if it does so today
    (couplings, normalisations, square 1x1 convolutions); else it gives what it gives today (a WIC
    that narrows), and what follows is untouched. Nothing of the model changes.

    Channels are dimension 1. Modules are looked at from outside, but for ``nn.Sequential``, lists,
    :class:`~wic_layers.blocks.Chain`, FrEIA's graphs, normflows' models and what the layer is
    inside of. The one direction that runs is the one that is looked at; the other takes the same
    sizes. Sizes were tried with stand-in weights: they are what runs, and the constructors of the
    modules decide.

    Args:
        model: The model, or a list of layers that run one after another.
        name: Name of the layer, as in ``model.named_modules()``; in FrEIA's graphs also that of
            its node.
        x: What the model takes.
        out_channels: Channels that the layer is to give in the direction that runs.
        run: How the model is run, such as ``lambda model, x: model(x, rev=True)``. By default
            ``model(x)``; normflows' models run ``model.log_prob(x)``, from the data to the latent
            and its distribution.

    Raises:
        WICArgumentError: If there is no such layer or it does not run, the model does not run on
            ``x``, or ``out_channels`` is out of range.

    Example:
        >>> from wic_layers import WIC
        >>> from wic_layers.blocks import AffineCoupling, Squeeze
        >>> net = nn.Sequential(Squeeze(2), WIC(12, 12), AffineCoupling(12), WIC(12, 3))
        >>> plan = plan_resize(net, "1", torch.rand(1, 3, 8, 8), out_channels=6)
        >>> plan.names("rebuild")
        ['2', '3']
        >>> plan.part("3").gives
        ((3,), (3,))
    """
    whole = whole_of(model)
    name = known_name(whole, name)
    if isinstance(out_channels, bool) or not isinstance(out_channels, int) or out_channels < 1:
        raise WICArgumentError(
            f"Expected out_channels as an int of at least 1; got {out_channels!r}."
        )
    run = default_run if run is None else run
    with no_traces(whole), torch.no_grad():
        today = run_watched(whole, name, x, run, None)
        if today.error is not None:
            reason = f"{type(today.error).__name__}: {str(today.error).rstrip('.')}"
            raise WICArgumentError(
                f"Expected a model that runs on x; {type(whole).__name__} raised {reason}. Say "
                "with run how it is called, as run=lambda model, x: model.inverse(x)."
            ) from today.error
        first = next((i for i, call in enumerate(today.calls) if call.name == name), None)
        if first is None or not channels_of(today.calls[first].result):
            raise WICArgumentError(
                f"Expected a layer that runs and gives (B, C, ...); {name!r} "
                f"{'did not run' if first is None else 'gave no such tensor'} as the model ran. "
                "Say with run how it is called, as run=lambda model, x: model.inverse(x)."
            )
        then = run_watched(whole, name, x, run, (today.calls, out_channels))
    return _plan(whole, name, today, then, first)


def _plan(model: nn.Module, name: str, today: Watch, then: Watch, first: int) -> ResizePlan:
    parts: list[Part] = []
    turns: Counter[str] = Counter()
    new: dict[tuple[str, int], Record] = {}
    for call in then.calls:
        new[call.name, turns[call.name]] = call
        turns[call.name] += 1
    turns.clear()
    before: dict[str, nn.Module] = {}
    for index, call in enumerate(today.calls):
        turn = turns[call.name]
        turns[call.name] += 1
        after = new.get((call.name, turn))
        if index < first:
            before[call.name] = call.module
        else:
            parts.append(_part(call, after))
    parts = _merged(parts, before)
    shapes = tuple(map(tuple, all_shapes(today.result)))
    if then.error is None:
        return ResizePlan(parts, before, (shapes, tuple(map(tuple, all_shapes(then.result)))))
    last = then.calls[-1].name if then.calls else name
    reason = " ".join(f"{type(then.error).__name__}: {then.error}".split())
    stop = (
        f"Behind {last} the model's own code does not run with the new channels ({reason}). "
        "It joins tensors there that have to fit: what came before may have to give other "
        "channels than it does here."
    )
    return ResizePlan(parts, before, (shapes, None), stop)


def _part(call: Record, after: Record | None) -> Part:
    takes, gives = channels_of(call.inputs), channels_of(call.result)
    if after is None:
        note = "not reached with the new channels"
        return Part(call.name, call.module, "unclear", (takes, takes), (gives, gives), (), note)
    inputs, outputs = channels_of(after.inputs), channels_of(after.result)
    flow = ((takes, inputs), (gives, outputs))
    if after.is_replaced:
        note = f"Put WIC({takes[0]}, {outputs[0]}) in its place."
        if not _sides(call.inputs) == _sides(call.result):
            note = f"It changes more than channels: put WIC({gives[0]}, {outputs[0]}) behind it."
        return Part(call.name, call.module, "replace", *flow, (), note)
    if after.fit is None:
        return Part(call.name, call.module, "untouched", *flow)
    fit = after.fit
    notes = []
    if fit.chance:
        notes.append(f"it holds {', '.join(fit.chance)}, which may mean its channels")
    if fit.result is None:
        notes.insert(0, "it ran with none of the sizes that were tried; see its constructor")
        return Part(call.name, call.module, "unclear", *flow, (), "; ".join(notes))
    if fit.sizes and not any(size.is_tensor for size in fit.sizes):
        notes.insert(0, "it has no weights that change")
    verdict: Verdict = "rebuild" if fit.sizes else "keep"
    return Part(call.name, call.module, verdict, *flow, fit.sizes, "; ".join(notes))


def _sides(value: object) -> tuple[int, ...]:
    return tuple(next((shape[2:] for shape in all_shapes(value) if len(shape) > 1), ()))


def _merged(parts: Sequence[Part], before: Mapping[str, nn.Module]) -> list[Part]:
    """One entry for a module; one that runs several times says so."""
    merged: dict[str, Part] = {}
    weight = ("untouched", "keep", "rebuild", "unclear", "replace")
    for part in parts:
        other = merged.get(part.name)
        if other is None:
            merged[part.name] = part
            continue
        if other.takes == part.takes and other.sizes == part.sizes:
            continue
        stronger = max(other, part, key=lambda one: weight.index(one.verdict))
        note = "it runs several times, with different channels then: it needs a copy for each"
        merged[part.name] = replace(stronger, note=note)
    for name in before.keys() & merged.keys():
        part = merged[name]
        if part.verdict not in ("untouched", "keep"):
            note = "it also runs before the layer, with the channels of today: it needs a copy"
            merged[name] = replace(part, note=f"{part.note}; {note}" if part.note else note)
    return list(merged.values())


def _flow(takes: tuple[int, ...], gives: tuple[int, ...]) -> str:
    if not gives:
        return f"takes {_words(takes)}"
    return f"{_words(takes)} -> {_words(gives)}"


def _words(channels: tuple[int, ...]) -> str:
    return " + ".join(map(str, channels)) or "none"


def _shapes(shapes: Sequence[tuple[int, ...]]) -> str:
    return ", ".join(map(str, shapes)) or "no tensor"
