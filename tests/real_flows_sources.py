"""Loads public flow code bases from a folder of their files, each in a world of its own.

Many of these code bases call their modules ``models``, ``utils`` or ``flows``, and import packages
that need not be there for the layers. A :class:`Source` therefore keeps its own set of imported
modules, puts an empty stand-in in the place of a package that is not installed, and takes itself
out of ``sys.modules`` when the next one enters.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import torch


class _Anything(type):
    """A class whose every attribute and call is itself: names that are imported and not used."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return cls

    def __call__(cls, *arguments: Any, **options: Any) -> Any:
        if len(arguments) == 1 and callable(arguments[0]) and not options:
            return arguments[0]  # a decorator without arguments
        return cls


class _Absent(ModuleType):
    """The stand-in of a package that is not installed."""

    __path__: list[str] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Anything(name, (), {"__module__": self.__name__})


class _AbsentPackages(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds the packages of a list, and everything below them, as stand-ins."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any, target: Any = None) -> Any:
        if any(name == absent or name.startswith(f"{absent}.") for absent in self.names):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        return _Absent(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        pass


@dataclass(eq=False)
class Source:
    """A code base, and what has to be there so that its layers load.

    Attributes:
        name: "owner/name" of the repository, or "registry: name" for an installed copy.
        folders: Where its imports start, relative to its folder.
        absent: Packages that it imports and that the layers do not need; they are stood in for
            where they are not installed.
        bare: Packages of its own whose ``__init__`` is not run.
    """

    name: str
    folders: tuple[str, ...] = ("",)
    absent: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    root: Path | None = None
    modules: dict[str, ModuleType] = field(default_factory=dict)
    owns: tuple[str, ...] = ()

    entered: ClassVar[Any] = None  # the source whose modules can be imported now

    @property
    def commit(self) -> str:
        """Its commit, from ``COMMITS.md`` beside the code bases, or its version."""
        assert self.root is not None
        if self.name.startswith("registry: "):
            package = self.name.removeprefix("registry: ").lower()
            infos = [info.stem.lower() for info in self.root.glob("*.dist-info")]
            return next((info.split("-")[1] for info in infos if info.startswith(package)), "")
        listed = self.root.parent / "COMMITS.md"
        lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
        return next((line.split()[2][:9] for line in lines if f" {self.name} " in line), "")

    def find(self, sources: Path) -> bool:
        """Whether it is in the folder, as OWNER+NAME; a copy from the registry lies beside it."""
        if self.name.startswith("registry: "):
            self.root = sources.parent / "registry"
            found = (self.root / self.name.removeprefix("registry: ")).is_dir()
        else:
            self.root = sources / self.name.replace("/", "+")
            found = self.root.is_dir()
        starts = [self.root / folder for folder in self.folders]
        self.owns = tuple(
            entry.stem
            for start in starts
            if start.is_dir()
            for entry in start.iterdir()
            if entry.suffix == ".py" or (entry.is_dir() and entry.stem.isidentifier())
        )
        return found

    def enter(self) -> None:
        """Makes its modules the ones that ``import`` finds."""
        if Source.entered is self:
            return
        if Source.entered is not None:
            Source.entered.leave()
        Source.entered = self
        self._missing = tuple(name for name in self.absent if _missing(name))
        self._outside = {name: sys.modules.pop(name) for name in self._names()}
        sys.modules.update(self.modules)
        assert self.root is not None
        self._path = [str(self.root / folder) for folder in self.folders]
        sys.path[:0] = self._path
        self._finder = _AbsentPackages(self._missing)
        sys.meta_path.append(self._finder)
        importlib.invalidate_caches()
        for package in self.bare:
            if package not in sys.modules:
                self._enter_bare(package)

    def leave(self) -> None:
        """Puts back what was there before."""
        self.modules = {name: sys.modules.pop(name) for name in self._names()}
        sys.modules.update(self._outside)
        for folder in self._path:
            sys.path.remove(folder)
        sys.meta_path.remove(self._finder)
        Source.entered = None

    def load(self, name: str) -> ModuleType:
        """Imports one of its modules."""
        self.enter()
        return importlib.import_module(name)

    def _enter_bare(self, package: str) -> None:
        bare = ModuleType(package)
        bare.__path__ = [f"{folder}/{package.replace('.', '/')}" for folder in self._path]
        bare.__spec__ = importlib.machinery.ModuleSpec(package, None, is_package=True)
        sys.modules[package] = bare
        parent, _, child = package.rpartition(".")
        if parent in sys.modules:
            setattr(sys.modules[parent], child, bare)

    def _names(self) -> list[str]:
        mine = {*self.owns, *(name.split(".")[0] for name in self._missing)}
        return [
            name
            for name, module in sys.modules.items()
            if name.split(".")[0] in mine and not _standard(name, module)
        ]


def _standard(name: str, module: ModuleType) -> bool:
    """Whether the module is Python's own or an installed one that stays (only stand-ins go)."""
    first = name.split(".")[0]
    return first in sys.stdlib_module_names or first in _STAY


_STAY = {"torch", "numpy", "scipy", "pytest", "wic_layers", "tests", "matplotlib", "PIL", "yaml"}


def _missing(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is None
    except (ImportError, ValueError):
        return True


@contextlib.contextmanager
def old_torch() -> Iterator[None]:
    """The functions of torch 0.4 that a code base calls and that are gone."""
    names: dict[str, Callable[..., Any]] = {"btriunpack": torch.lu_unpack}
    for name, function in names.items():
        setattr(torch, name, function)
    torch.Tensor.btrifact = torch.Tensor.lu  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for name in names:
            delattr(torch, name)
        del torch.Tensor.btrifact  # type: ignore[attr-defined]


@contextlib.contextmanager
def no_cuda() -> Iterator[None]:
    """``tensor.cuda()`` that stays on the CPU, for layers that call it whatever the device is."""
    moves = torch.Tensor.cuda
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor  # type: ignore[method-assign,assignment]
    try:
        yield
    finally:
        torch.Tensor.cuda = moves  # type: ignore[method-assign]


def options(**values: Any) -> types.SimpleNamespace:
    """The settings object that a code base's constructors read."""
    return types.SimpleNamespace(**values)
