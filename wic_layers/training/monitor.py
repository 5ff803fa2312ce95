"""``Monitor``: losses, PSNR, condition numbers and pictures, for TensorBoard."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from wic_layers.codec.carrier import CARRIER
from wic_layers.errors import needing
from wic_layers.evaluation.judging import Judgement
from wic_layers.layer.kernel import kernels_of
from wic_layers.training.objective import Losses

__all__ = ["Monitor"]

EVERY = 20  # steps between the losses that are written
PICTURES = 4  # held-out images that are shown
RESIDUAL = 20.0  # what differences are multiplied by, around grey


class Monitor:
    """Writes what ``tensorboard --logdir FOLDER`` shows.

    Args:
        folder: Where the event files go.
        start: The step that the training goes on from; what an earlier run wrote of later ones is
            hidden.

    Raises:
        WICDependencyError: If TensorBoard is not installed.
    """

    def __init__(self, folder: Path, start: int = 0) -> None:
        with needing("Training needs tensorboard", "train"):
            from torch.utils.tensorboard import SummaryWriter
        self._writer: SummaryWriter = SummaryWriter(folder, purge_step=start + 1)

    def step(self, step: int, losses: Losses, rate: float) -> None:
        """Writes the unweighted losses and the learning rate, every so often."""
        if step % EVERY:
            return
        for name, loss in losses.items():
            self._writer.add_scalar(f"loss/{name}", float(loss.detach()), step)
        self._writer.add_scalar("learning rate", rate, step)

    def judged(self, step: int, judgement: Judgement, model: nn.Module) -> None:
        """Writes the PSNR through 8 bits, the kernels' condition numbers, and pictures."""
        self._writer.add_scalar("PSNR/forward", judgement.psnr_forward, step)
        self._writer.add_scalar("PSNR/back", judgement.psnr_back, step)
        for name, layer in kernels_of(model):
            condition = float(layer.condition_number().detach())
            self._writer.add_scalar(f"condition number/{name}", condition, step)
        pairs = {"forward": (judgement.forward, judgement.reference)}
        images = zip(judgement.back.split(3, 1), judgement.original.split(3, 1), strict=True)
        several = judgement.back.shape[1] > 3
        for index, pair in enumerate(images, start=1):
            pairs[f"back {index}" if several else "back"] = pair
        for name, (picture, original) in pairs.items():
            residual = ((picture - original) * RESIDUAL + 0.5).clamp(0, 1)
            self._add_images(name, picture, step)
            self._add_images(f"{name}, residual x{RESIDUAL:g}", residual, step)

    def _add_images(self, name: str, images: Tensor, step: int) -> None:
        pixels = CARRIER.pixels(images[:PICTURES]).cpu()
        self._writer.add_images(name, pixels.expand(-1, 3, -1, -1), step)

    def close(self) -> None:
        """Writes what is left."""
        self._writer.close()
