"""What a network makes of pictures in memory, through 8 bits; of files ``wic eval`` says it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from wic_layers._probe import in_evaluation_mode
from wic_layers.layer.quantization import quantize
from wic_layers.tasks import Task

__all__ = ["Judgement", "judge", "psnr"]


class Judgement:
    """What a network makes of the held-out images, through 8 bits.

    For hiding, what comes back is judged by the secrets alone.

    Args:
        model: The network.
        task: What it is for.
        x: Packed images (B, C, H, W).

    Attributes:
        forward: The forward pictures, rounded to 8 bits, in [0, 1].
        reference: What they should look like.
        back: What comes back from them, (B, 3 * images, H, W).
        wanted: What it should be.
        psnr_forward: PSNR in dB of the forward pictures.
        psnr_back: PSNR in dB of what comes back.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, task: Task, x: Tensor) -> None:
        network: Any = in_evaluation_mode(model)
        self.forward = quantize(network(x))
        back = quantize(network.inverse(self.forward))
        self.reference = quantize(task.reference(x))
        self.back, self.wanted = (torch.cat(task.restored(y), dim=1) for y in (back, x))
        self.psnr_forward = psnr(self.forward, self.reference)
        self.psnr_back = psnr(self.back, self.wanted)


def judge(model: nn.Module, task: Task, x: Tensor) -> tuple[float, float]:
    """Returns the PSNR in dB of the forward pictures and of what comes back: both of 8 bits."""
    found = Judgement(model, task, x)
    return found.psnr_forward, found.psnr_back


def psnr(a: Tensor, b: Tensor, crop: int = 0) -> float:
    """Returns the PSNR in dB of two batches in [0, 1], as one; at most 120.

    Args:
        a: Pictures (..., H, W).
        b: Pictures of the same shape.
        crop: Pixels at each border that do not count.
    """
    inner = slice(crop, -crop or None)
    error = (a - b)[..., inner, inner].square().mean()
    return -10 * math.log10(max(float(error), 1e-12))
