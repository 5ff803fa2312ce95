"""Owner: how the owner of a code base trains there, and uses it here.

What is run is their ``train.py``, with options and pictures of ours.
"""

from __future__ import annotations

import contextlib
import io
import runpy
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from integrations.changing import Change
from integrations.trying import shims
from wic_layers.tasks import TASKS

Step = Callable[[Tensor], Tensor]


@dataclass
class Session:
    """What stands in memory when a ``train.py`` has ended.

    Attributes:
        net: The network, whose state dict is what a checkpoint holds.
        optimizer: That of its parameters.
        picture: Images (B, C, H, W) in [0, 1] to the picture, not rounded.
        back: A picture to the images.
    """

    net: nn.Module
    optimizer: torch.optim.Optimizer
    picture: Step
    back: Step

    def moments(self) -> dict[str, dict[str, Tensor]]:
        """What the optimizer knows of each parameter, by the name that the bare network has."""
        names = {id(p): name for name, p in self.net.named_parameters()}
        return {
            bare(names[id(parameter)]): dict(entry)
            for parameter, entry in self.optimizer.state.items()
        }


def bare(name: str) -> str:
    """A parameter's name as it was before the change."""
    for wrapped in ("module.net.", "net.", "1.net."):
        if name.startswith(wrapped):
            return name.replace("net.", "", 1).removeprefix("1.")
    return name


class Owner(ABC):
    """A code base, and one of its trainings.

    Attributes:
        name: In the table.
        folder: The folder of its integration.
        change: What is changed.
        upgrade: What ``wic upgrade`` is told.
        commands: What is typed to use it: the way forward, and the way back.
        task: Ours that the network is for.
        has_before: Whether a training from before the change can be resumed.
        has_stand_in: Whether the tests' stand-in of the code base has this training.
    """

    name: str
    folder: str
    change: Change
    upgrade: tuple[str, ...]
    commands: tuple[str, str]
    task: str
    has_before: bool = True
    has_stand_in: bool = True

    @abstractmethod
    def prepare(self, checkout: Path) -> None:
        """Writes the pictures that are trained on."""

    @abstractmethod
    def train(
        self,
        checkout: Path,
        run: str,
        steps: int,
        *,
        after: int = 0,
        weights: Path | None = None,
    ) -> contextlib.AbstractContextManager[Session]:
        """Runs ``train.py`` up to a step: validates and saves at every second.

        Args:
            checkout: Of their code.
            run: The name of the training.
            steps: Its last step.
            after: The step whose checkpoint it resumes from, in the folder of the run.
            weights: A checkpoint to start from, with a fresh optimizer.
        """

    @abstractmethod
    def checkpoint(self, checkout: Path, run: str, step: int) -> Path:
        """The network's file that a run has written at a step."""

    @abstractmethod
    def runs(self, checkout: Path, run: str) -> Path:
        """The folder of a run."""

    @abstractmethod
    def was_validated(self, checkout: Path, run: str) -> bool:
        """Whether a run has written what a validation writes."""

    def copy_run(self, checkout: Path, run: str, other: str, source: Path | None = None) -> None:
        """Copies the folder of a run, of another checkout too."""
        shutil.copytree(
            self.runs(source or checkout, run), self.runs(checkout, other), dirs_exist_ok=True
        )

    def theirs(self, images: Tensor) -> Tensor:
        """RGB images in the order of colours that their networks see, and back."""
        return images

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """Those of the images that come back which the command writes."""
        return TASKS[self.task].unpack(images)

    def tested(self, checkout: Path, run: str, load: Path, seed: int = 0) -> bytes | None:
        """What a ``test.py`` with a loop of its own writes; None if it has none."""
        return None

    def logged(
        self, checkout: Path, run: str, steps: int
    ) -> contextlib.AbstractContextManager[Session] | None:
        """The same training by another script, if there is one."""
        return None


def picture(seed: int, side: int) -> np.ndarray:
    """A smooth RGB picture with a little noise."""
    generator = np.random.default_rng(seed)
    coarse = Image.fromarray(generator.integers(0, 256, (4, 4, 3), np.uint8))
    smooth = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC), np.int64)
    return (smooth + generator.integers(-8, 9, smooth.shape)).clip(0, 255).astype(np.uint8)


def write_pictures(folder: Path, count: int, side: int) -> list[Path]:
    """Writes so many pictures into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{n}.png" for n in range(count)]
    for n, path in enumerate(paths):
        Image.fromarray(picture(n, side)).save(path)
    return paths


@contextlib.contextmanager
def script(code: Path, name: str, *arguments: str) -> Iterator[dict[str, Any]]:
    """Runs a script of theirs as its owner does, silently; its globals."""
    output = io.StringIO()
    with (
        mock.patch.object(sys, "argv", [name, *arguments]),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(output),
    ):
        yield runpy.run_path(str(code / name), run_name="__main__")


class WithOptions(Owner):
    """A code base whose ``codes/train.py`` reads a file of options."""

    suffix = ""
    program = "train.py"

    @abstractmethod
    def options(self, checkout: Path) -> dict[str, Any]:
        """What stands in that file, but for the run's own."""

    @abstractmethod
    def session(self, model: Any) -> Session:
        """Of the model that ``create_model`` made."""

    @contextlib.contextmanager
    def train(
        self,
        checkout: Path,
        run: str,
        steps: int,
        *,
        after: int = 0,
        weights: Path | None = None,
    ) -> Iterator[Session]:
        """See :meth:`Owner.train`."""
        options = self.options(checkout)
        options.update(name=run, use_tb_logger=False, gpu_ids=[0])
        options["train"].update(niter=steps, val_freq=2)
        options["logger"] = {"print_freq": 1, "save_checkpoint_freq": 2}
        load = self.checkpoint(checkout, run, after) if after else weights
        options["path"] = {"strict_load": True, f"pretrain_model{self.suffix}": load and str(load)}
        if after:
            state = self.runs(checkout, run) / "training_state" / f"{after}.state"
            options["path"]["resume_state"] = str(state)
        path = checkout / f"{run}.yml"
        path.write_text(yaml.safe_dump(options), encoding="utf-8")

        created = []
        code = checkout / "codes"
        with shims.as_on_a_gpu(code, epoch=after):
            import models  # theirs

            create = models.create_model

            def create_model(opt: Any) -> Any:
                opt["gpu_ids"] = None  # from here on: which device
                created.append(create(opt))
                return created[-1]

            models.create_model = create_model
            with script(code, self.program, "-opt", str(path)):
                yield self.session(created[-1])
            path.unlink()

    def runs(self, checkout: Path, run: str) -> Path:
        """See :meth:`Owner.runs`."""
        return checkout / "experiments" / run

    def checkpoint(self, checkout: Path, run: str, step: int) -> Path:
        """See :meth:`Owner.checkpoint`."""
        return self.runs(checkout, run) / "models" / f"{step}{self.suffix}.pth"
