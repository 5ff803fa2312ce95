"""OWNERS: how the owner of each code base trains it there, and uses it here.

What is run is their ``train.py``, with options and pictures of ours.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import runpy
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import yaml
from PIL import Image
from torch import Tensor, nn

from integrations.changing import Change
from integrations.dlv import change as dlv
from integrations.hinet import change as hinet
from integrations.iicnet import change as iicnet
from integrations.irn import change as irn
from integrations.trying import shims
from wic_layers.models import DualLatent
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


class IRN(WithOptions):
    """IRN, with a network of one coupling in each stage."""

    suffix = "_G"
    folder = "irn"
    change = irn.CHANGE
    side = 36

    def __init__(self, name: str, scale: int, **network: Any) -> None:
        self.name, self.scale = name, scale
        self.upgrade = ("irn",)
        self.task = f"rescaling-x{scale}"
        self.commands = ("down", "up")
        self.network = network
        self.model = "IRN"
        self.training: dict[str, Any] = {}

    def prepare(self, checkout: Path) -> None:
        """See :meth:`Owner.prepare`."""
        write_pictures(checkout / "pictures", 2, self.side)

    def options(self, checkout: Path) -> dict[str, Any]:
        """See :meth:`WithOptions.options`."""
        data = {"mode": "LQGT", "dataroot_GT": str(checkout / "pictures"), "n_workers": 0}
        size = {"GT_size": self.side, "batch_size": 2, "color": "RGB", "use_flip": True}
        network = {"which_model_G": {"subnet_type": "DBNet"}, "in_nc": 3, "out_nc": 3, "gc": 4}
        network.update(block_num=[1, 1], init="xavier", scale=self.scale, **self.network)
        return {
            "model": self.model, "distortion": "sr", "scale": self.scale,
            "datasets": {"train": {"name": "t", **data, **size}, "val": {"name": "v", **data}},
            "network_G": network,
            "train": {
                "lr_G": 2e-4, "beta1": 0.9, "beta2": 0.999, "lr_scheme": "MultiStepLR",
                "lr_steps": [3], "lr_gamma": 0.5, "pixel_criterion_forw": "l2",
                "pixel_criterion_back": "l1", "manual_seed": 10, "lambda_fit_forw": 4.0,
                "lambda_rec_back": 1, "lambda_ce_forw": 1, "weight_decay_G": 1e-5,
                "gradient_clipping": 10, "warmup_iter": -1, **self.training,
            },
        }  # fmt: skip

    def session(self, model: Any) -> Session:
        """See :meth:`WithOptions.session`."""
        net, kept = model.netG, 1 if "Color" in self.model else 3
        return Session(
            getattr(net, "module", net),
            model.optimizer_G,
            lambda x: net(x=x)[:, :kept],
            lambda y: net(x=y, rev=True)[:, :3],
        )

    def was_validated(self, checkout: Path, run: str) -> bool:
        """See :meth:`Owner.was_validated`."""
        return len(list(self.runs(checkout, run).glob("val_images/*/*_2.png"))) > 0


class Colour(IRN):
    """IRN's decolorization."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 1)
        self.task = "decolorization"
        self.commands = ("gray", "color")
        self.model = "IRN-Color"
        self.program = "train_IRN-Color.py"

    def options(self, checkout: Path) -> dict[str, Any]:
        """See :meth:`WithOptions.options`."""
        options = super().options(checkout)
        del options["network_G"]
        options["scale"] = 2  # as theirs; it crops the validation's borders
        options["network_grey"] = {
            "which_model": {"rgb_type": "RGB", "subnet_type": "DBNet"}, "block_num": [1],
            "init": "xavier", "Conv1x1Grey_learnable": True,
        }  # fmt: skip
        for data in options["datasets"].values():
            data["use_grey"] = True
            data.pop("color", None)
        return options


class Compressed(IRN):
    """IRN with a network for JPEG, whose trainings are to go on as they did."""

    def __init__(self, name: str) -> None:
        super().__init__(name, 2)
        self.model = "IRN-CRM"
        self.file = "IRN_model_CRM.py"
        self.program = "train_IRN-Compression.py"
        self.training = {
            "lr_R": 2e-4, "beta1_R": 0.9, "beta2_R": 0.999, "pixel_criterion_jpeg": "l2",
            "jpg_quality": 90, "lambda_rec_jpeg": 1, "lambda_joint_back": 0,
        }  # fmt: skip

    def options(self, checkout: Path) -> dict[str, Any]:
        """See :meth:`WithOptions.options`."""
        options = super().options(checkout)
        options["test"] = {"jpg_quality": 90}
        options["network_R"] = {"in_nc": 3, "out_nc": 3, "nf": 4, "nb": 1, "gc": 4}
        return options


class Perceptual(IRN):
    """IRN+, whose discriminator takes crops of 128."""

    side = 128

    def __init__(self, name: str) -> None:
        super().__init__(name, 4)
        self.model = "IRN+"
        self.file = "IRNp_model.py"
        self.training = {
            "feature_weight": 0, "lr_D": 1e-4, "weight_decay_D": 0, "beta1_D": 0.9,
            "beta2_D": 0.99, "gan_type": "gan", "gan_weight": 1, "D_update_ratio": 1,
            "D_init_iters": 0,
        }  # fmt: skip

    def options(self, checkout: Path) -> dict[str, Any]:
        """See :meth:`WithOptions.options`."""
        options = super().options(checkout)
        options["network_D"] = {"which_model_D": "discriminator_vgg_128", "in_nc": 3, "nf": 64}
        return options


class DLV(IRN):
    """IRN with two channels of w."""

    folder = "dlv"
    change = dlv.CHANGE
    has_before = False

    def __init__(self, name: str, scale: int) -> None:
        super().__init__(name, scale, in_nc=5)
        self.upgrade = ("dlv",)

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
        """See :meth:`Owner.train`; w is drawn in every step."""
        draw, drawn = DualLatent.draw, []

        def counted(net: DualLatent, x: Tensor) -> Tensor:
            drawn.append(draw(net, x))
            return drawn[-1]

        training = super().train(checkout, run, steps, after=after, weights=weights)
        with mock.patch.object(DualLatent, "draw", counted), training as session:
            if len(drawn) != steps - after:
                raise ValueError(f"expected {steps - after} draws of w; there were {len(drawn)}")
            yield session


class IICNet(WithOptions):
    """IICNet, with and without halving."""

    folder = "iicnet"
    change = iicnet.CHANGE
    side = 32

    def __init__(self, name: str, down: dict[str, Any], task: str, images: int) -> None:
        self.name, self.down, self.task, self.images = name, down, task, images
        self.has_stand_in = not down["use_down"]
        self.upgrade = ("iicnet", "--task", task)
        self.commands = (f"pack {task}", "unpack")

    def prepare(self, checkout: Path) -> None:
        """See :meth:`Owner.prepare`."""
        paths = write_pictures(checkout / "pictures", self.images + 1, self.side)
        references = write_pictures(checkout / "half", 2, self.side // self.down["scale"])
        scenes = {}
        for n in range(2):
            frames = paths[n : n + self.images]
            scene = {f"input_frame_{at:02d}_path": str(path) for at, path in enumerate(frames)}
            scenes[f"{n:04d}"] = {"0000": {**scene, "ref_frame_path": str(references[n])}}
        (checkout / "scenes.json").write_text(json.dumps(scenes), encoding="utf-8")

    def options(self, checkout: Path) -> dict[str, Any]:
        """See :meth:`WithOptions.options`."""
        data = {
            "name": "flicker1024", "use_full_frame": False, "downsample": 1,
            "frame_size": self.side, "annotation_path": str(checkout / "scenes.json"),
            "vis_step": 1, "n_workers": 0,
        }  # fmt: skip
        return {
            "model": "InvNet",
            "datasets": {"train": {**data, "batch_size": 2}, "val": dict(data)},
            "network": {
                "input": {"num_of_frames": self.images, "in_img_nc": 3},
                "rel": {"use_rel": True, "nf": 4},
                "down": self.down,
                "block": {"type": "DBNet", "block_num": 1},
                "cs": {"out_nc": 3},
                "quant": "noise",
                "criterions": {
                    "criterion_embedding_frame_basic": "l2",
                    "criterion_embedding_frame_freq": True,
                    "criterion_fake_frames_basic": "l1",
                },
                "lambdas": {
                    "lambda_embedding_frame_basic": 1, "lambda_embedding_frame_freq": 0.001,
                    "lambda_fake_frames_basic": 3,
                },
            },
            "train": {
                "lr": 2e-4, "beta1": 0.9, "beta2": 0.999, "warmup_iter": -1,
                "lr_scheme": "MultiStepLR", "lr_steps": [3], "lr_gamma": 0.5,
                "weight_decay": 1e-5, "gradient_clipping": 10, "manual_seed": 10,
            },
        }  # fmt: skip

    def session(self, model: Any) -> Session:
        """See :meth:`WithOptions.session`."""

        def back(y: Tensor) -> Tensor:
            for part in (model.cs, model.block, model.down, model.rel):
                y = part(y, rev=True)
            return y

        return Session(
            model.net,
            model.optimizer,
            lambda x: model.cs(model.block(model.down(model.rel(x)))),
            back,
        )

    def was_validated(self, checkout: Path, run: str) -> bool:
        """See :meth:`Owner.was_validated`."""
        return len(list(self.runs(checkout, run).glob("val_samples/2/*/*/*.png"))) > 0

    def theirs(self, images: Tensor) -> Tensor:
        """See :meth:`Owner.theirs`."""
        return images.unflatten(1, (-1, 3)).flip(2).flatten(1, 2)


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


WHOLE = {"use_down": False, "scale": 1, "type": "haar", "order": "ref", "use_conv1x1": True}
HALVED = {**WHOLE, "use_down": True, "scale": 2}

OWNERS: tuple[Owner, ...] = (
    IRN("IRN x2", 2),
    IRN("IRN x4", 4),
    IRN("IRN x3", 3, which_model_G={"subnet_type": "DBNet", "use_ConvDownsampling": True}),
    Colour("IRN decolorization"),
    HiNet("HiNet"),
    IICNet("IICNet stereo", WHOLE, "stereo", 2),
    IICNet("IICNet clip-3-x2", HALVED, "clip-3-x2", 3),
    DLV("DLV-IRN x2", 2),
)
OTHERS: tuple[Compressed | Perceptual, ...] = (Compressed("IRN-CRM"), Perceptual("IRN+"))
