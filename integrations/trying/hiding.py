"""HiNet, an image in an image."""

from __future__ import annotations

import contextlib
import importlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from integrations.changing import Change
from integrations.hinet import change as hinet
from integrations.trying import shims
from integrations.trying.owner import (
    Owner,
    Session,
    script,
    write_pictures,
)


@dataclass
class HiNet(Owner):
    """HiNet, whose scripts read ``config.py``; its network is that of its file."""

    name: str
    folder: str = "hinet"
    change: Change = field(default_factory=lambda: hinet.CHANGE)
    upgrade: tuple[str, ...] = ("hinet",)
    commands: tuple[str, str] = ("hide", "reveal")
    task: str = "hiding-1"
    side: int = 16

    def prepare(self, checkout: Path) -> None:
        """See :meth:`Owner.prepare`."""
        write_pictures(checkout / "pictures", 2, self.side)

    @contextlib.contextmanager
    def run(
        self, checkout: Path, program: str, run: str, load: Path | None, seed: int, **settings: Any
    ) -> Iterator[dict[str, Any]]:
        """Runs a script with settings in place of those of ``config.py``."""
        self.runs(checkout, run).mkdir(parents=True, exist_ok=True)
        own: dict[str, Any] = {
            "batch_size": 2, "cropsize": self.side, "cropsize_val": self.side, "val_freq": 2,
            "SAVE_freq": 2, "TRAIN_PATH": f"{checkout}/pictures", "shuffle_val": False,
            "VAL_PATH": f"{checkout}/pictures", "MODEL_PATH": f"{self.runs(checkout, run)}/",
        }  # fmt: skip
        if load is not None:
            own.update(tain_next=True, suffix=load.name)
            if load.parent != self.runs(checkout, run):
                shutil.copy(load, self.runs(checkout, run))
        with shims.as_on_a_gpu(checkout, epoch=settings.get("trained_epoch", 0)):
            import config  # theirs

            vars(config).update(own, **settings)
            shims.seed(seed)
            shims.Writer.scalars.clear()
            if program == "train_logging.py":
                vars(importlib.import_module("util"))["setup_logger"] = lambda *_, **__: None
            with script(checkout, program) as names:
                yield names

    @contextlib.contextmanager
    def train(
        self,
        checkout: Path,
        run: str,
        steps: int,
        *,
        after: int = 0,
        weights: Path | None = None,
        program: str = "train.py",
    ) -> Iterator[Session]:
        """See :meth:`Owner.train`."""
        load = self.checkpoint(checkout, run, after) if after else weights
        settings = {"epochs": steps - after, "trained_epoch": after}
        with self.run(checkout, program, run, load, 10, **settings) as names:
            net = names["net"]
            if "PSNR_C" in shims.Writer.scalars:
                (self.runs(checkout, run) / "validated").touch()
            dwt, iwt = names["dwt"], names["iwt"]
            yield Session(
                net,
                names["optim"],
                lambda x: iwt(net(torch.cat([dwt(image) for image in x.split(3, 1)], 1))[:, :12]),
                lambda y: torch.cat(
                    [iwt(bands) for bands in net(dwt(y), rev=True).split(12, 1)], 1
                ),
            )

    def checkpoint(self, checkout: Path, run: str, step: int) -> Path:
        """See :meth:`Owner.checkpoint`."""
        return self.runs(checkout, run) / f"model_checkpoint_{step:05d}.pt"

    def runs(self, checkout: Path, run: str) -> Path:
        """See :meth:`Owner.runs`."""
        return checkout / "experiments" / run

    def was_validated(self, checkout: Path, run: str) -> bool:
        """See :meth:`Owner.was_validated`."""
        return (self.runs(checkout, run) / "validated").exists()

    def results(self, images: Tensor) -> tuple[Tensor, ...]:
        """The secret; the cover comes back only in part."""
        return (images[:, 3:],)

    def logged(
        self, checkout: Path, run: str, steps: int
    ) -> contextlib.AbstractContextManager[Session]:
        """Runs ``train_logging.py``, which names a folder of its authors' for its log."""
        return self.train(checkout, run, steps, program="train_logging.py")

    def tested(self, checkout: Path, run: str, load: Path, seed: int = 0) -> bytes:
        """What ``test.py`` writes of the first secret that comes back."""
        folder = self.runs(checkout, run) / "pictures"
        names = ("cover", "secret", "steg", "secret_rev")
        paths = {f"IMAGE_PATH_{name}": f"{folder}/{name}/" for name in names}
        for path in paths.values():
            Path(path).mkdir(parents=True, exist_ok=True)
        with self.run(checkout, "test.py", run, load, seed, **paths):
            return (folder / "secret_rev" / "00000.png").read_bytes()
