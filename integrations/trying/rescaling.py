"""IRN, its colour, CRM and IRN+ trainings, and DLV in the code of IRN."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from integrations.dlv import change as dlv
from integrations.irn import change as irn
from integrations.trying.owner import (
    Session,
    WithOptions,
    write_pictures,
)
from wic_layers.models import DualLatent


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
