"""``Settings``: all of a training, from flags or a YAML file and back into one; told once."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, get_args, get_type_hints

from wic_layers._files import read_small, write_whole
from wic_layers.codec.carrier import Carrier, carrier_of
from wic_layers.errors import (
    WICArgumentError,
    WICFileError,
    named,
    needing,
    quoted,
    shortened,
)
from wic_layers.layer.completion import CompletionName
from wic_layers.models.colours import Colours
from wic_layers.tasks import Task
from wic_layers.training.objective import DISTANCES, ROUNDINGS, Objective
from wic_layers.training.terms import OPTIONAL, WEIGHTS

__all__ = ["Settings"]


# Muon at AdamW's rate trains deep networks badly: see docs/findings/optimizers.md
_RATES = {"adamw": 2e-3, "muon": 5e-4}

_MOST_WHOLE = 2**63 - 1  # what torch and numpy take
_MOST_BYTES = 1_000_000  # of a file of settings, with thousands of folders
_MOST_TEXT = 5_000  # characters of a value

Values = dict[str, Any]
"""Settings by name, as files and flags have them."""


def _is(
    default: object, help: str, *, flag: str = "", shown: object = None, run: bool = False,
    least: float | None = None, most: float = math.inf, **more: object,
) -> Any:  # fmt: skip
    """A setting: its default, what command line and file say of it, and its least and most.

    ``shown`` is the default as help shows it, if that is another. ``run`` settings do not change
    the result of a training. ``more`` is for ``add_argument``.
    """
    own = {"flag": flag, "shown": shown, "run": run, "least": least, "most": most}
    return field(default=default, metadata={**own, "argument": {"help": help, **more}})


# a weight for every loss that is not of the paper: low, frequency, ...
_Weights: Any = dataclasses.make_dataclass(
    "_Weights",
    [(term.name, float, _is(term.weight, term.help, least=0)) for term in OPTIONAL],
    frozen=True, kw_only=True,
)  # fmt: skip


@dataclass(frozen=True)
class Settings(_Weights):
    """Everything that decides the result of a training, and how it is run.

    The fields' meaning is that of ``wic train --help``. Those from ``devices`` on, and where the
    photographs are, may change when a training is resumed; all others decide its result. Every
    loss that is not of the paper has a field with its weight: see
    :mod:`wic_layers.training.terms`.

    Raises:
        WICArgumentError: If a value is out of range.
    """

    preset: str = _is("", "network to train, such as rescaling-x2-small")
    data: tuple[str, ...] = _is(
        (), "folders of photographs, searched below too; to resume, the same photographs",
        nargs="+", run=True,
    )  # fmt: skip
    reduce: str = _is(
        "auto",
        "first make photographs that many times smaller; auto: those with halved chroma by 2",
    )
    levels: int = _is(3, "sizes of every photograph, each half the one before", least=1)
    held_out: int = _is(4, "photographs kept for judging", least=1)
    start: str | None = _is(None, "folder of weights to fine-tune", metavar="WEIGHTS")
    completion: str | None = _is(
        None, "what stands in for dropped channels (default: the preset's)",
        choices=get_args(CompletionName),
    )  # fmt: skip
    colours: str | None = _is(
        None, "order in which the network sees colours, that of its authors' data sets; pictures "
        "are RGB in any case (default: BGR of IICNet, RGB of all others, as trained of weights)",
        choices=get_args(Colours),
    )  # fmt: skip
    steps: int = _is(10_000, "number of steps", least=1)
    batch: int = _is(4, "crops in a step, of all processes together", least=1)
    crop: int = _is(64, "side of a crop in pixels", least=1)
    optimizer: str = _is(
        "adamw", "what takes the steps; muon: orthogonal ones of convolutions, AdamW for others",
        choices=("adamw", "muon"),
    )  # fmt: skip
    learning_rate: float = _is(  # never None once made
        None, "largest learning rate", flag="--lr", shown="2e-3, with muon 5e-4", least=0
    )
    final_rate: float = _is(1e-6, "rate of the last step, after a cosine", least=0)
    warmup: int = _is(200, "steps in which the rate rises from 0", least=0)
    weight_decay: float = _is(0.01, "decay of the weights, apart from the gradient", least=0)
    clip: float = _is(10.0, "largest gradient norm")
    weights: tuple[float, ...] = _is(
        WEIGHTS, "of the forward, reverse, det and shift losses",
        nargs=4, metavar=("F", "R", "D", "S"),
    )  # fmt: skip
    forward: str | None = _is(
        None, "distance of the forward picture (default: the task's)", choices=tuple(DISTANCES)
    )
    reverse: str = _is(
        "l1",
        "distance of what comes back; psnr: a logarithm, to which every crop counts alike",
        choices=tuple(DISTANCES),
    )
    rounding: str = _is(
        "straight-through", "what stands for the 8 bits of a file", choices=tuple(ROUNDINGS)
    )
    through: tuple[str, ...] = _is(
        (), "what pictures go through before they come back, of which each crop draws one: "
        "jpeg:75-95 (jpeg444: with whole chroma), webp:60-90, resize:0.5-1, or a chain, "
        "resize:0.5-1+jpeg:75-95; such files then bring back (default: the preset's, or 8 bits "
        "alone, which is --through without a word)",
        nargs="*", metavar="ATTACK",
    )  # fmt: skip
    shift_target: str = _is("reference", "what L_shift completes", choices=("reference", "output"))
    returned: str = _is(
        "all", "what comes back is judged by all images, or by those wanted (HiNet)",
        choices=("all", "wanted"),
    )  # fmt: skip
    w: str = _is(
        "drawn", "latent on the way forward, of networks that have one (DLV)",
        choices=("drawn", "zero"),
    )  # fmt: skip
    saturate: float = _is(
        0.0, "chance of a crop to have some pixels made black or white", metavar="CHANCE",
        least=0, most=1,
    )  # fmt: skip
    grey: float = _is(
        0.0, "chance of a crop to lose its colours, so that grey photographs show little colour",
        metavar="CHANCE", least=0, most=1,
    )  # fmt: skip
    lettering: float = _is(
        0.0, "chance of a crop to be shown with text and shapes on it, or them alone",
        metavar="CHANCE", least=0, most=1,
    )  # fmt: skip
    candidates: int = _is(1, "take the most detailed of so many random crops", least=1)
    bf16: bool = _is(default=False, help="run the networks inside couplings in bfloat16")
    save_memory: bool = _is(
        default=False, help="compute activations again on the way back, in a tenth of the memory"
    )
    ema: float = _is(
        0.0, "decay of averaged weights, which are then the result; 0: none", least=0, most=1
    )
    every: int = _is(500, "steps between checkpoints, to which an explosion goes back", least=1)
    seed: int = _is(0, "of weights, crops and noise", least=0)
    # how it is run
    devices: int = _is(
        1, "processes, each with a device; torchrun says it itself", run=True, least=1
    )
    accelerator: str = _is(
        "auto", "where to run", choices=("auto", "cpu", "cuda", "mps"), run=True
    )
    shard: bool = _is(
        default=False, help="share the optimizer's state out among the processes", run=True
    )
    readers: int = _is(
        0, "processes that cut out crops beside each training one", run=True, least=0
    )
    compile: bool = _is(
        default=False, help="compile the step (needs a C++ compiler or CUDA)", run=True
    )
    graph: bool = _is(
        default=False, help="capture the step in a CUDA graph: faster on one GPU", run=True
    )
    cache: str | None = _is(
        None, "folder for decoded photographs (default: ~/.cache/wic-layers)",
        metavar="FOLDER", run=True,
    )  # fmt: skip

    def __post_init__(self) -> None:
        if self.learning_rate is None:
            rate = _RATES.get(self.optimizer, 0.0)  # of an unknown one: refused below
            object.__setattr__(self, "learning_rate", rate)
        for each in dataclasses.fields(self):
            value, least = getattr(self, each.name), each.metadata["least"]
            if least is not None and not least <= value < math.inf:
                raise WICArgumentError(
                    f"Expected {each.name} of at least {least}; got {quoted(value)}."
                )
            most = min(each.metadata["most"], _MOST_WHOLE)
            if least is not None and value > most:
                raise WICArgumentError(
                    f"Expected {each.name} of at most {most}; got {quoted(value)}."
                )
            choices = each.metadata["argument"].get("choices")
            if choices and value is not None and value not in choices:
                raise WICArgumentError(
                    f"Expected {each.name} {' or '.join(choices)}; got {quoted(value)}."
                )
        if not 0 < self.clip < math.inf:
            raise WICArgumentError(f"Expected clip above 0; got {quoted(self.clip)}.")
        is_whole = self.reduce.isascii() and self.reduce.isdigit() and len(self.reduce) < 10
        if self.reduce != "auto" and not (is_whole and int(self.reduce)):
            raise WICArgumentError(
                f"Expected reduce auto or of at least 1; got {shortened(self.reduce)}."
            )
        carrier_of(self.through)  # raises if there is no such thing
        if len(self.weights) != 4:
            raise WICArgumentError(f"Expected four weights; got {quoted(self.weights)}.")
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise WICArgumentError(
                f"Expected weights of at least 0, and one above; got {quoted(self.weights)}."
            )

    def rate(self, step: int) -> float:
        """Returns the learning rate of step ``step`` (from 0)."""
        if step < self.warmup:
            return self.learning_rate * (step + 1) / self.warmup
        done = (step - self.warmup) / max(self.steps - 1 - self.warmup, 1)
        return (
            self.final_rate
            + (self.learning_rate - self.final_rate) * (1 + math.cos(math.pi * done)) / 2
        )

    @property
    def carrier(self) -> Carrier:
        """What a forward picture becomes before it runs back, in judging."""
        return carrier_of(self.through)

    def objective(self, task: Task) -> Objective:
        """Returns what is minimised for a task."""
        parts = ("forward", "reverse", "shift_target", "returned", "w")
        names = (*parts, *(term.name for term in OPTIONAL))
        rounding = self.carrier.through if self.through else self.rounding
        values = {name: getattr(self, name) for name in names}
        return Objective(task, self.weights, rounding=rounding, **values)

    def as_dict(self) -> Values:
        """Returns the settings as YAML and checkpoints hold them."""
        values = {name: getattr(self, name) for name in _fields()}
        return {n: list(v) if isinstance(v, tuple) else v for n, v in values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, object], source: str) -> Settings:
        """Checks values from a file or a caller and returns the settings.

        Raises:
            WICArgumentError: If a name is unknown or a value of another kind; names ``source``.
        """
        kinds = get_type_hints(cls)
        unknown = sorted(
            name if isinstance(name, str) else quoted(name) for name in set(values) - set(kinds)
        )
        if unknown:
            raise WICArgumentError(
                f"{source} has settings that are not known: {named(unknown, 9)}; expected some "
                f"of {', '.join(_fields())}."
            )
        return cls(**{name: _as(kinds[name], v, name, source) for name, v in values.items()})

    def decisive(self) -> Values:
        """Returns those settings that decide the result."""
        return {n: v for n, v in self.as_dict().items() if not _fields()[n].metadata["run"]}

    def write(self, path: Path, more: Mapping[str, object]) -> None:
        """Writes a YAML file that :meth:`read` takes, with ``more`` in comments at its top."""
        lines = [f"# {name}: {value}\n" for name, value in more.items()]
        for name, value in self.as_dict().items():
            lines.append(f"\n# {_fields()[name].metadata['argument']['help']}\n")
            lines.append(_yaml().safe_dump({name: value}, sort_keys=False))
        write_whole(path, "".join(lines).encode())

    @classmethod
    def read(cls, path: Path) -> Values:
        """Returns the settings that a YAML file names; the others have their defaults.

        Raises:
            WICFileError: If it cannot be read or is no mapping.
            WICArgumentError: If a setting is unknown or of another kind.
        """
        yaml = _yaml()
        try:
            text = read_small(path, _MOST_BYTES).decode("utf-8")
        except WICFileError:
            raise
        except (OSError, UnicodeDecodeError) as error:
            raise WICFileError(f"{path} cannot be read: {error}.") from error
        try:
            values = yaml.load(text, _loader(yaml)) or {}
        except Exception as error:  # of a date or a number it may be any that Python has
            reason = shortened(str(error)) or type(error).__name__
            raise WICFileError(f"{path} is no YAML: {reason}.") from error
        if not isinstance(values, dict):
            raise WICFileError(f"Expected settings in {path}, such as `steps: 1000`; got others.")
        cls.from_dict(values, str(path))
        return values

    @classmethod
    def add_arguments(
        cls,
        parser: argparse.ArgumentParser,
        defaults: Mapping[str, object] | None = None,
        without: Container[str] = (),
    ) -> None:
        """Adds a flag for every setting; those that are not given stay out of the namespace.

        Args:
            parser: Where they are added.
            defaults: What the help says of defaults that are others than those of the class.
            without: Settings that the command does not take.
        """
        kinds = get_type_hints(cls)
        for name, each in _fields().items():
            if name == "preset" or name in without:
                continue
            argument = dict(each.metadata["argument"])
            default = (defaults or {}).get(name, each.metadata["shown"] or each.default)
            if default not in (None, "", (), False) and "default" not in argument["help"]:
                shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
                argument["help"] += f" (default {shown})"
            if kinds[name] is bool:
                argument["action"] = argparse.BooleanOptionalAction
            elif kinds[name] in (int, float):
                argument["type"] = kinds[name]
            elif name == "weights":
                argument["type"] = float
            flag = each.metadata["flag"] or f"--{name.replace('_', '-')}"
            parser.add_argument(flag, dest=name, default=argparse.SUPPRESS, **argument)


def _fields() -> dict[str, dataclasses.Field[object]]:
    """The settings by name, in the order of flags and files: weights of losses together."""
    fields = {each.name: each for each in dataclasses.fields(Settings)}
    losses = [term.name for term in OPTIONAL]
    others = [name for name in fields if name not in losses]
    after = others.index("weights") + 1
    return {name: fields[name] for name in (*others[:after], *losses, *others[after:])}


def _as(kind: Any, value: Any, name: str, source: str) -> Any:
    """A value as its setting has it: YAML reads 2e-3 as a text and 2 as an integer."""
    kinds = get_args(kind)
    if type(None) in kinds:
        return None if value is None else _as(kinds[0], value, name, source)
    try:
        if kinds:  # a tuple
            values = [value] if isinstance(value, str) else list(value)
            return tuple(_as(kinds[0], item, name, source) for item in values)
        if not isinstance(value, (str, int, float)):
            raise TypeError
        if kind is bool and not isinstance(value, bool):
            raise ValueError
        if kind is int and (isinstance(value, bool) or int(value) != float(value)):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        expected = words.get(kind, f"a list, each {words.get(kinds[0]) if kinds else ''}")
        raise WICArgumentError(
            f"{source}: expected {name} as {expected}; got {quoted(value)}."
        ) from error


def _yaml() -> ModuleType:
    with needing("Training needs PyYAML", "train"):
        import yaml
    return yaml


def _loader(yaml: ModuleType) -> Any:
    """Reads YAML without aliases, of which a few lines make values of any size."""

    class Plain(yaml.SafeLoader):  # type: ignore[name-defined]
        def compose_node(self, parent: Any, index: Any) -> Any:
            event = self.peek_event()
            wrong = ""
            if isinstance(event, yaml.AliasEvent):
                wrong = "settings have no aliases"
            elif isinstance(event, yaml.ScalarEvent) and len(event.value) > _MOST_TEXT:
                wrong = f"expected values of at most {_MOST_TEXT} characters"
            if wrong:
                raise yaml.composer.ComposerError(None, None, wrong, event.start_mark)
            return super().compose_node(parent, index)

    return Plain
