"""Every setting of a training: from the command line, from a YAML file, and back into one."""

from __future__ import annotations

import argparse
import dataclasses
import math
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_type_hints

from wic_layers._files import write_whole
from wic_layers.errors import WICArgumentError, WICDependencyError, WICFileError
from wic_layers.layer.completion import CompletionName
from wic_layers.training.objective import DISTANCES, ROUNDINGS

__all__ = ["Settings"]


# Muon at AdamW's rate trains deep networks badly: see "Which optimizer" in benchmarks/README.md
_RATES = {"adamw": 2e-3, "muon": 5e-4}


def _is(default: Any, help: str, **more: Any) -> Any:
    """A setting: its default and what the command line says of it."""
    return field(default=default, metadata={"help": help, **more})


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a training, and how it is run.

    The fields' meaning is that of ``wic train --help``. Those from ``devices`` on, and where the
    photographs are, may change when a training is resumed; all others decide its result.

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
    levels: int = _is(3, "sizes of every photograph, each half the one before")
    held_out: int = _is(4, "photographs kept for judging")
    start: str | None = _is(None, "folder of weights to fine-tune", metavar="WEIGHTS")
    completion: str | None = _is(
        None, "what stands in for dropped channels (default: the preset's)",
        choices=get_args(CompletionName),
    )  # fmt: skip
    steps: int = _is(10_000, "number of steps")
    batch: int = _is(4, "crops in a step, of all processes together")
    crop: int = _is(64, "side of a crop in pixels")
    optimizer: str = _is(
        "adamw", "what takes the steps; muon: orthogonal ones of convolutions, AdamW for others",
        choices=("adamw", "muon"),
    )  # fmt: skip
    learning_rate: float = _is(  # never None once made
        None, "largest learning rate", flag="--lr", shown="2e-3, with muon 5e-4"
    )
    final_rate: float = _is(1e-6, "rate of the last step, after a cosine")
    warmup: int = _is(200, "steps in which the rate rises from 0")
    weight_decay: float = _is(0.01, "decay of the weights, apart from the gradient")
    clip: float = _is(10.0, "largest gradient norm")
    weights: tuple[float, ...] = _is(
        (2.0, 1.0, 0.1, 1.0), "of the forward, reverse, det and shift losses",
        nargs=4, metavar=("F", "R", "D", "S"),
    )  # fmt: skip
    forward: str | None = _is(
        None, "distance of the forward picture (default: the task's)", choices=tuple(DISTANCES)
    )
    reverse: str = _is(
        "l1", "distance of what comes back; l2 is what PSNR measures", choices=tuple(DISTANCES)
    )
    rounding: str = _is(
        "straight-through", "what stands for the 8 bits of a file", choices=tuple(ROUNDINGS)
    )
    shift_target: str = _is("reference", "what L_shift completes", choices=("reference", "output"))
    low: float = _is(0.0, "weight of the forward picture's low frequencies (HiNet: 1)")
    frequency: float = _is(
        0.0, "weight of the forward picture's frequencies (IICNet: 0.001 times a crop's pixels)"
    )
    returned: str = _is(
        "all", "what comes back is judged by all images, or by those wanted (HiNet)",
        choices=("all", "wanted"),
    )  # fmt: skip
    w: str = _is(
        "drawn", "latent on the way forward, of networks that have one (DLV)",
        choices=("drawn", "zero"),
    )  # fmt: skip
    invariance: float = _is(
        0.0, "weight of the forward picture's deviation with w (DLV-IRN: a quarter of scale^2)"
    )
    saturate: float = _is(
        0.0, "chance of a crop to have some pixels made black or white", metavar="CHANCE"
    )
    candidates: int = _is(1, "take the most detailed of so many random crops")
    bf16: bool = _is(default=False, help="run the networks inside couplings in bfloat16")
    save_memory: bool = _is(
        default=False, help="compute activations again on the way back, in a tenth of the memory"
    )
    ema: float = _is(0.0, "decay of averaged weights, which are then the result; 0: none")
    every: int = _is(500, "steps between checkpoints, to which an explosion goes back")
    seed: int = _is(0, "of weights, crops and noise")
    # how it is run
    devices: int = _is(1, "processes, each with a device; torchrun says it itself", run=True)
    accelerator: str = _is(
        "auto", "where to run", choices=("auto", "cpu", "cuda", "mps"), run=True
    )
    shard: bool = _is(
        default=False, help="share the optimizer's state out among the processes", run=True
    )
    readers: int = _is(0, "processes that cut out crops beside each training one", run=True)
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
        for name in (
            "steps",
            "batch",
            "crop",
            "levels",
            "held_out",
            "candidates",
            "every",
            "devices",
        ):
            self._require(name, 1)
        for name in (
            "warmup",
            "readers",
            "seed",
            "saturate",
            "ema",
            "learning_rate",
            "final_rate",
            "weight_decay",
            "low",
            "invariance",
            "frequency",
        ):
            self._require(name, 0)
        if not 0 < self.clip < math.inf:
            raise WICArgumentError(f"Expected clip above 0; got {self.clip!r}.")
        for name in ("saturate", "ema"):
            if getattr(self, name) > 1:
                raise WICArgumentError(
                    f"Expected {name} of at most 1; got {getattr(self, name)!r}."
                )
        is_whole = self.reduce.isascii() and self.reduce.isdigit()
        if self.reduce != "auto" and not (is_whole and int(self.reduce)):
            raise WICArgumentError(f"Expected reduce auto or of at least 1; got {self.reduce}.")
        if len(self.weights) != 4:
            raise WICArgumentError(f"Expected four weights; got {self.weights!r}.")
        if not all(0 <= weight < math.inf for weight in self.weights) or not any(self.weights):
            raise WICArgumentError(
                f"Expected weights of at least 0, and one above; got {self.weights!r}."
            )
        for each in dataclasses.fields(self):
            choices, value = each.metadata.get("choices"), getattr(self, each.name)
            if choices and value is not None and value not in choices:
                raise WICArgumentError(
                    f"Expected {each.name} {' or '.join(choices)}; got {value!r}."
                )

    def _require(self, name: str, least: float) -> None:
        if not least <= getattr(self, name) < math.inf:
            raise WICArgumentError(
                f"Expected {name} of at least {least}; got {getattr(self, name)!r}."
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

    def as_dict(self) -> dict[str, Any]:
        """Returns the settings as YAML and checkpoints hold them."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_dict(cls, given: Mapping[str, Any], source: str) -> Settings:
        """Checks what a file or a caller gives and returns the settings.

        Raises:
            WICArgumentError: If a name is unknown or a value of another kind; names ``source``.
        """
        kinds = get_type_hints(cls)
        unknown = sorted(map(str, set(given) - set(kinds)))
        if unknown:
            raise WICArgumentError(
                f"{source} has settings that are not known: {', '.join(unknown)}; expected some "
                f"of {', '.join(kinds)}."
            )
        return cls(**{name: _as(kinds[name], v, name, source) for name, v in given.items()})

    def decisive(self) -> dict[str, Any]:
        """Returns those settings that decide the result."""
        how = {each.name for each in dataclasses.fields(self) if each.metadata.get("run")}
        return {name: value for name, value in self.as_dict().items() if name not in how}

    def write(self, path: Path, more: Mapping[str, Any]) -> None:
        """Writes a YAML file that :meth:`read` takes, with ``more`` as comments at its top."""
        comments = "".join(f"# {name}: {value}\n" for name, value in more.items())
        text = comments + _yaml().safe_dump(self.as_dict(), sort_keys=False)
        write_whole(path, text.encode())

    @classmethod
    def read(cls, path: Path) -> dict[str, Any]:
        """Returns the settings that a YAML file names; the others have their defaults.

        Raises:
            WICFileError: If it cannot be read or is no mapping.
            WICArgumentError: If a setting is unknown or of another kind.
        """
        yaml = _yaml()
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError) as error:
            raise WICFileError(f"{path} cannot be read: {error}.") from error
        except yaml.YAMLError as error:
            raise WICFileError(f"{path} is no YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(found, dict):
            raise WICFileError(f"Expected settings in {path}, such as `steps: 1000`; got others.")
        cls.from_dict(found, str(path))
        return found

    @classmethod
    def add_arguments(
        cls,
        parser: argparse.ArgumentParser,
        defaults: Mapping[str, Any] | None = None,
        without: Container[str] = (),
    ) -> None:
        """Adds a flag for every setting; those that are not given stay out of the namespace.

        Args:
            parser: Where they are added.
            defaults: What the help says of defaults that are others than those of the class.
            without: Settings that the command does not take.
        """
        kinds = get_type_hints(cls)
        for each in dataclasses.fields(cls):
            if each.name == "preset" or each.name in without:
                continue
            more = dict(each.metadata)
            more.pop("run", None)
            flag = more.pop("flag", f"--{each.name.replace('_', '-')}")
            default = (defaults or {}).get(each.name, more.pop("shown", each.default))
            if default not in (None, "", (), False) and "default" not in more["help"]:
                shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
                more["help"] += f" (default {shown})"
            if kinds[each.name] is bool:
                more["action"] = argparse.BooleanOptionalAction
            elif kinds[each.name] in (int, float):
                more["type"] = kinds[each.name]
            elif each.name == "weights":
                more["type"] = float
            parser.add_argument(flag, dest=each.name, default=argparse.SUPPRESS, **more)


def _as(kind: Any, value: Any, name: str, source: str) -> Any:
    """A value as its setting has it: YAML reads 2e-3 as a text and 2 as an integer."""
    kinds = get_args(kind)
    if type(None) in kinds:
        return None if value is None else _as(kinds[0], value, name, source)
    try:
        if kinds:  # a tuple
            values = [value] if isinstance(value, str) else list(value)
            return tuple(_as(kinds[0], item, name, source) for item in values)
        if kind is bool and not isinstance(value, bool):
            raise ValueError
        if kind is int and (isinstance(value, bool) or int(value) != float(value)):
            raise ValueError
        return kind(value)
    except (TypeError, ValueError, OverflowError) as error:
        words = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
        expected = words.get(kind, f"a list, each {words.get(kinds[0]) if kinds else ''}")
        raise WICArgumentError(
            f"{source}: expected {name} as {expected}; got {value!r}."
        ) from error


def _yaml() -> Any:
    try:
        import yaml
    except ImportError as error:
        raise WICDependencyError(
            "Training needs PyYAML, which is not installed. Run: pip install 'wic-layers[train]'"
        ) from error
    return yaml
