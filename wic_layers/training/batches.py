"""The crops of every step: cut out by one process of many, and packed for a task."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wic_layers.tasks import Task
from wic_layers.training.data import Crops, Photographs, arrange
from wic_layers.training.recipe import Settings

__all__ = ["Batches", "margin", "pack_crops", "read_batches"]


def margin(task: Task) -> int:
    """Pixels around a crop, so that its reference is that of the whole photograph."""
    return -(-8 // task.scale) * task.scale


class Batches(Dataset[Crops]):
    """One process' crops of every step; each step's depend on its number alone.

    Args:
        images: Where they come from.
        task: Says of how many photographs a sample is made, and how large they are.
        settings: Batch, crop, seed and candidates.
        process: Number of the process, from 0.
        processes: How many there are; each has its share of every batch.
    """

    def __init__(
        self, images: Photographs, task: Task, settings: Settings, process: int, processes: int
    ) -> None:
        self.images = images
        self.arguments: dict[str, Any] = {
            "size": settings.batch * task.sources,
            "crop": task.source_side(settings.crop + 2 * margin(task)),
            "seed": settings.seed,
            "candidates": settings.candidates,
            "rows": [
                image * settings.batch + row
                for image in range(task.sources)
                for row in range(process, settings.batch, processes)
            ],
        }

    def __getitem__(self, step: int) -> Crops:
        return self.images.crops(step, **self.arguments)


def pack_crops(crops: Crops, task: Task, *, saturate: float = 0.0) -> tuple[Tensor, Tensor]:
    """Returns the packed crops of a step and their reference."""
    sources = arrange(crops, saturate=saturate).chunk(task.sources)
    packed = task.pack(*task.compose(*sources))
    around = margin(task)
    inner = slice(around, -around)
    edge = slice(around // task.scale, -(around // task.scale))
    return packed[..., inner, inner], task.reference(packed)[..., edge, edge]


def read_batches(
    batches: Batches, settings: Settings, start: int, device: torch.device
) -> Iterator[Crops]:
    """Yields the crops of the steps from ``start`` on, cut out by ``settings.readers``."""
    loader: DataLoader[Crops] = DataLoader(
        batches,
        batch_size=None,
        sampler=range(start, settings.steps),
        num_workers=settings.readers,
        pin_memory=device.type == "cuda",
        generator=torch.Generator(),  # it draws a seed for its readers, not from ours
    )
    return iter(loader)
