"""plan_resize: what another number of channels at one layer asks of the modules behind it."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from wic_layers.blocks import Chain, LongTermMemory
from wic_layers.errors import WICArgumentError
from wic_layers.hosts.refit import Fit, Size, channels_of, refit, tensors_in
from wic_layers.hosts.trial import Mismatch, no_traces, twin_of
from wic_layers.hosts.well_posed import WellPosed

__all__ = ["Part", "ResizePlan", "Size", "plan_resize"]

Verdict = Literal["replace", "rebuild", "keep", "untouched", "unclear"]
Run = Callable[[Any, Any], object]

_OPEN = (nn.Sequential, nn.ModuleList, nn.ModuleDict, Chain, LongTermMemory, WellPosed)
_OPEN_CODE = ("FrEIA.framework", "normflows.core")
_SHOWN = 4


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
        before: Sequence[str],
        shapes: tuple[tuple[tuple[int, ...], ...], tuple[tuple[int, ...], ...] | None],
        stop: str = "",
    ) -> None:
        self._parts = tuple(parts)
        self.before = tuple(before)
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
            f"{_listed([part.name for part in self._parts])}."
        )

    def __str__(self) -> str:
        layer, *behind = self._parts
        count = len(self.before)
        lines = [
            f"{layer.name} ({type(layer.module).__name__}) gives {_words(layer.gives[1])} in place "
            f"of {_words(layer.gives[0])} channels: WIC({layer.takes[1][0]}, {layer.gives[1][0]})."
        ]
        if layer.note:
            lines[0] += f" {layer.note}"
        lines += ["Behind it run:"] if behind else ["Nothing runs behind it."]
        lines += [f"  {part}" for part in behind]
        if self.stop:
            lines.append(self.stop)
        elif self.shapes[0] == self.shapes[1]:
            lines.append(f"The model gives {_shapes(self.shapes[0])}, as today.")
        else:
            today, then = self.shapes
            lines.append(f"The model gives {_shapes(then or ())} in place of {_shapes(today)}.")
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
    whole = nn.ModuleList(model) if isinstance(model, (list, tuple)) else model
    if not isinstance(whole, nn.Module):
        raise WICArgumentError(
            f"Expected a model or a list of layers; got {type(model).__name__}."
        )
    name = _known(whole, name)
    if isinstance(out_channels, bool) or not isinstance(out_channels, int) or out_channels < 1:
        raise WICArgumentError(
            f"Expected out_channels as an int of at least 1; got {out_channels!r}."
        )
    run = _default_run if run is None else run
    with no_traces(whole), torch.no_grad():
        today = _watched(whole, name, x, run, None)
        if today.error is not None:
            raise WICArgumentError(
                f"Expected a model that runs on x; {type(whole).__name__} raised "
                f"{type(today.error).__name__}: {today.error}. Say with run how it is called, as "
                "run=lambda model, x: model.inverse(x)."
            ) from today.error
        first = next((i for i, call in enumerate(today.calls) if call.name == name), None)
        if first is None or not channels_of(today.calls[first].result):
            raise WICArgumentError(
                f"Expected a layer that runs and gives (B, C, ...); {name!r} "
                f"{'did not run' if first is None else 'gave no such tensor'} as the model ran. "
                "Say with run how it is called, as run=lambda model, x: model.inverse(x)."
            )
        then = _watched(whole, name, x, run, (today.calls, out_channels))
    return _plan(whole, name, today, then, first)


def _known(model: nn.Module, name: str) -> str:
    """The name of a module; a node's name in FrEIA's graph becomes that of its module."""
    names = [known for known, _ in model.named_modules(remove_duplicate=False) if known]
    if name in names:
        return name
    for node in getattr(model, "node_list", ()):
        if getattr(node, "name", None) == name and node.module is not None:
            return next(known for known, module in model.named_modules() if module is node.module)
    outer = [known for known in names if known.count(".") < 2]
    raise WICArgumentError(
        f"Expected the name of a layer of {type(model).__name__}; got {name!r}. There are "
        f"{_listed(outer)}."
    )


def _default_run(model: Any, x: Any) -> object:
    if type(model).__module__.startswith("normflows.core") and hasattr(model, "log_prob"):
        takes_y = "y" in inspect.signature(model.log_prob).parameters
        return model.log_prob(x, None) if takes_y else model.log_prob(x)
    if not isinstance(model, nn.ModuleList):
        return model(x)
    for layer in model:
        x = layer(x)
        while isinstance(x, (tuple, list)):
            x = x[0]
    return x


@dataclass
class _Call:
    """One run of a module."""

    name: str
    module: nn.Module
    taken: object
    result: object
    fit: Fit | None = None
    is_replaced: bool = False


@dataclass
class _Watch:
    """What ran, in order."""

    calls: list[_Call]
    result: object = None
    error: Exception | None = None
    own_error: Exception | None = None


def _units(model: nn.Module, name: str, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The modules that are looked at from outside."""
    for part, module in model.named_children():
        full = f"{prefix}{part}"
        is_open = isinstance(module, _OPEN) or type(module).__module__.startswith(_OPEN_CODE)
        if full != name and (is_open or name.startswith(f"{full}.")):
            yield from _units(module, name, f"{full}.")
        else:
            yield full, module


def _methods(module: nn.Module) -> list[str]:
    """Names of the public methods that its own class, and not torch's, has; and forward."""
    names = []
    for method in dir(type(module)):
        function = inspect.getattr_static(type(module), method)
        is_own = inspect.isfunction(function) and not hasattr(nn.Module, method)
        if method == "forward" or (is_own and not method.startswith("_")):
            names.append(method)
    return names


def _watched(
    model: nn.Module,
    name: str,
    x: Any,
    run: Run,
    change: tuple[Sequence[_Call], int] | None,
) -> _Watch:
    """Runs a copy, and notes what its modules take and give.

    With ``change``, today's calls and the layer's new channels, every module takes what arrives.
    """
    try:
        twin = twin_of(model)
    except Mismatch as mismatch:
        raise WICArgumentError(
            f"Expected a model that can be copied; {type(model).__name__}: {mismatch}."
        ) from mismatch
    watch = _Watch([])
    originals = dict(model.named_modules(remove_duplicate=False))
    inside: list[str] = []  # the module that runs, whose inner calls do not count
    for full, module in list(_units(twin, name)):
        for method in _methods(module):
            original = getattr(module, method)

            def noted(
                *args: Any,
                full: str = full,
                method: str = method,
                original: Callable[..., object] = original,
                **kwargs: Any,
            ) -> object:
                if inside or not tensors_in((args, kwargs)):
                    return original(*args, **kwargs)
                inside.append(full)
                try:
                    taken = _copied((args, kwargs))
                    if change is None:
                        result = original(*args, **kwargs)
                        call = _Call(full, originals[full], taken, _copied(result))
                    else:
                        call = _call_then(
                            originals[full], full, method, taken, watch, change, name
                        )
                        result = _copied(call.result)
                    watch.calls.append(call)
                finally:
                    inside.clear()
                return result

            setattr(module, method, noted)
    try:
        watch.result = _copied(run(twin, x))
    except Exception as error:  # of somebody else's code, which is shown to the caller
        watch.error = error
    if watch.own_error is not None:  # is no matter of the model's
        raise watch.own_error
    return watch


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, dict):
        return {key: _copied(entry) for key, entry in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_copied(entry) for entry in value)
    return value


def _call_then(
    module: nn.Module,
    full: str,
    method: str,
    taken: Any,
    watch: _Watch,
    change: tuple[Sequence[_Call], int],
    name: str,
) -> _Call:
    """A call of the second run: what the module gives for what arrives."""
    calls, out_channels = change
    turn = sum(call.name == full for call in watch.calls)
    same = [call for call in calls if call.name == full]
    if turn >= len(same):
        raise RuntimeError(f"{full} runs more often than with the channels of today")
    before = same[turn]

    def run_on(arguments: Any) -> Callable[[nn.Module], object]:
        args, kwargs = arguments

        def run_copy(copy: Any) -> object:
            function = copy if method == "forward" else getattr(copy, method)  # with its hooks
            return function(*_copied(args), **_copied(kwargs))

        return run_copy

    is_same = _all_shapes(taken) == _all_shapes(before.taken)
    if full == name and is_same:
        result = _with_channels(before.result, [out_channels])
        return _Call(full, module, taken, result, is_replaced=True)
    if is_same:
        return _Call(full, module, taken, run_on(taken)(twin_of(module)))
    today = (before.taken, before.result)
    try:
        fit = refit(module, today, taken, run_on(before.taken), run_on(taken))
    except Exception as error:
        watch.own_error = error
        raise
    result = fit.result
    if result is None:
        result = _with_channels(before.result, _guessed(before, taken))
    return _Call(full, module, taken, result, fit)


def _all_shapes(value: object) -> list[torch.Size]:
    return [tensor.shape for tensor in tensors_in(value)]


def _guessed(before: _Call, taken: object) -> list[int]:
    """What a module that did not run would have to give: as many channels as it takes."""
    old, new = channels_of(before.taken), channels_of(taken)
    changed = dict(zip(old, new, strict=False))
    return [changed.get(channels, channels) for channels in channels_of(before.result)]


def _with_channels(result: Any, channels: list[int]) -> Any:
    """A result with other channels, cut or repeated."""
    left = list(channels)

    def resized(value: Any) -> Any:
        if isinstance(value, Tensor):
            if value.ndim < 2 or not left:
                return value
            index = torch.arange(left.pop(0), device=value.device) % value.shape[1]
            return value.index_select(1, index)
        if type(value) in (tuple, list):
            return type(value)(resized(entry) for entry in value)
        return value

    return resized(result)


def _plan(model: nn.Module, name: str, today: _Watch, then: _Watch, first: int) -> ResizePlan:
    parts: list[Part] = []
    turns: Counter[str] = Counter()
    new: dict[tuple[str, int], _Call] = {}
    for call in then.calls:
        new[call.name, turns[call.name]] = call
        turns[call.name] += 1
    turns.clear()
    before = []
    for index, call in enumerate(today.calls):
        turn = turns[call.name]
        turns[call.name] += 1
        after = new.get((call.name, turn))
        if index < first:
            before.append(call.name)
        else:
            parts.append(_part(call, after))
    parts = _merged(parts, before)
    shapes = tuple(map(tuple, _all_shapes(today.result)))
    if then.error is None:
        return ResizePlan(parts, before, (shapes, tuple(map(tuple, _all_shapes(then.result)))))
    last = then.calls[-1].name if then.calls else name
    stop = (
        f"Behind {last} the model's own code does not run with the new channels "
        f"({type(then.error).__name__}: {str(then.error).splitlines()[0] if str(then.error) else ''}): "
        "what it joins there must have the same channels, so change them on both sides."
    )
    return ResizePlan(parts, before, (shapes, None), stop)


def _part(call: _Call, after: _Call | None) -> Part:
    takes, gives = channels_of(call.taken), channels_of(call.result)
    if after is None:
        note = "not reached with the new channels"
        return Part(call.name, call.module, "unclear", (takes, takes), (gives, gives), (), note)
    taken, given = channels_of(after.taken), channels_of(after.result)
    flow: Any = ((takes, taken), (gives, given))
    if after.is_replaced:
        return Part(call.name, call.module, "replace", *flow)
    if after.fit is None:
        return Part(call.name, call.module, "untouched", *flow)
    fit = after.fit
    notes = []
    if fit.chance:
        notes.append(f"it holds {', '.join(fit.chance)}: if that means its channels, rebuild it")
    if fit.result is None:
        notes.insert(0, "it ran with none of the sizes that were tried; see its constructor")
        return Part(call.name, call.module, "unclear", *flow, (), "; ".join(notes))
    if fit.sizes and not any(size.is_tensor for size in fit.sizes):
        notes.insert(0, "it has no weights that change")
    verdict: Verdict = "rebuild" if fit.sizes else "keep"
    return Part(call.name, call.module, verdict, *flow, fit.sizes, "; ".join(notes))


def _merged(parts: Sequence[Part], before: Sequence[str]) -> list[Part]:
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
    for name in set(before) & merged.keys():
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


def _listed(names: Sequence[str], most: int = 20) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
