"""``Judgement``: what a network makes of pictures in memory, through 8 bits."""

from __future__ import annotations

import torch
from torch import Tensor

from wic_layers.codec.carrier import CARRIER, Carrier
from wic_layers.models import Network
from wic_layers.models.inspection import in_evaluation_mode
from wic_layers.pictures import psnr
from wic_layers.tasks import Task

__all__ = ["Judgement", "capped_psnr"]

_LARGEST = 120.0


def capped_psnr(a: Tensor, b: Tensor) -> float:
    """Returns the PSNR in dB of two batches in [0, 1], at most 120: finite for equal ones too."""
    return min(psnr(a, b), _LARGEST)


class Judgement:
    """What a network makes of the held-out images, through 8 bits or more.

    For hiding, what comes back is judged by the secrets alone.

    Args:
        model: The network.
        task: What it is for.
        x: Packed images (B, C, H, W).
        decodings: How often the same pictures are run backwards.
        carrier: What they go through; what it leaves to chance is the same for every network.

    Attributes:
        forward: The forward pictures, rounded to 8 bits, in [0, 1].
        reference: What they should look like.
        decoded: What comes back from them at each decoding, (B, 3 * images, H, W) each.
        original: What it should be.
        psnr_forward: PSNR in dB of the forward pictures.
        psnrs_back: PSNR in dB of each decoding.
    """

    @torch.no_grad()
    def __init__(
        self,
        model: Network,
        task: Task,
        x: Tensor,
        decodings: int = 1,
        *,
        carrier: Carrier = CARRIER,
    ) -> None:
        network = in_evaluation_mode(model)
        self.forward = CARRIER.through(network(x))
        self.reference = CARRIER.through(task.reference(x))
        self.original = torch.cat(task.restored(x), dim=1)
        arriving = self.forward
        if carrier is not CARRIER:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                arriving = carrier.through(self.forward)
        self.decoded = [
            torch.cat(task.restored(CARRIER.through(network.inverse(arriving))), dim=1)
            for _ in range(decodings)
        ]
        self.psnr_forward = capped_psnr(self.forward, self.reference)
        self.psnrs_back = [capped_psnr(back, self.original) for back in self.decoded]

    @property
    def back(self) -> Tensor:
        """What comes back at the first decoding."""
        return self.decoded[0]

    @property
    def spread(self) -> float:
        """How far a pixel of what comes back is from decoding to decoding.

        The standard deviation in grey levels, mean over all pixels. 0 for a network without random
        numbers.
        """
        return float(torch.stack(self.decoded).std(dim=0, correction=0).mean()) * 255

    @property
    def psnr_back(self) -> float:
        """PSNR in dB of it."""
        return self.psnrs_back[0]
