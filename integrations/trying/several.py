"""IICNet, several images in one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor

from integrations.iicnet import change as iicnet
from integrations.trying.owner import (
    Session,
    WithOptions,
    write_pictures,
)

WHOLE = {"use_down": False, "scale": 1, "type": "haar", "order": "ref", "use_conv1x1": True}
HALVED = {**WHOLE, "use_down": True, "scale": 2}


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
