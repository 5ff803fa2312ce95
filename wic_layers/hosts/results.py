"""LogDet and Result: what a method of a host's layer returns, as it is written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from wic_layers.layer.pointwise import autocast_is_on

__all__ = ["LogDet", "Result"]


@dataclass(frozen=True)
class LogDet:
    """A log-determinant as a method returns it.

    Attributes:
        sign: Of the log-volume of the host's forward; 0 where none is ever returned but zero.
        shape: Its dimensions: ``"batch"``, 1, or ``"pixels"`` for all spatial ones.
        factor: What the log-volume of one position is multiplied by: ``"one"``, ``"pixels"``,
            ``"batch"`` or ``"all"``, the positions of the whole batch.
        is_masked: Whether only the positions that a mask leaves count.
        lowers: Whether it is in autocast's dtype under autocast.
    """

    sign: int
    shape: tuple[str | int, ...]
    factor: str
    is_masked: bool = False
    lowers: bool = False

    def of(self, volume: Tensor | None, x: Tensor, positions: Tensor | int) -> Tensor:
        """The log-determinant for an input x, whose samples have so many positions each.

        Args:
            volume: The log-volume of one position along the host's forward, a scalar; None for 0.
            x: Input with the channels in dimension 1.
            positions: Per sample; a tensor (B,) where a mask leaves some of them out.
        """
        batch = x.shape[0]
        value = x.new_zeros(()) if volume is None else volume * self.sign
        if self.factor == "pixels":
            value = value * positions
        elif self.factor == "batch":
            value = value * batch
        elif self.factor == "all":
            value = value * (
                positions.sum() if isinstance(positions, Tensor) else positions * batch
            )
        if value.ndim and len(self.shape) > 1:
            value = value.view(batch, *(1,) * (len(self.shape) - 1))
        sizes: list[int] = []
        for part in self.shape:
            sizes += x.shape[2:] if part == "pixels" else [batch if part == "batch" else 1]
        if self.lowers and autocast_is_on(x.device.type):
            value = value.to(torch.get_autocast_dtype(x.device.type))
        return value.expand(sizes).clone() if sizes else value


@dataclass(frozen=True)
class Result:
    """What a method returns in one direction.

    Attributes:
        outer: The container (tuple or list) of tensor and log-determinant; None for one alone.
        inner: The container around the tensor, as FrEIA has it.
        log_det: None where there is none, or None stands in its place.
        is_log_det: Whether the log-determinant alone is returned.
        lowers: Whether the tensor is in autocast's dtype under autocast.
    """

    outer: type[Any] | None = None
    inner: type[Any] | None = None
    log_det: LogDet | None = None
    is_log_det: bool = False
    lowers: bool = True

    def packed(self, y: Tensor, log_det: object) -> object:
        """The tensor and its log-determinant as the method returns them."""
        if self.is_log_det:
            return log_det
        inner = y if self.inner is None else self.inner((y,))
        return inner if self.outer is None else self.outer((inner, log_det))
