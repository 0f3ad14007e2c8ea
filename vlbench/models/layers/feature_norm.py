"""Inputs brought to a common scale before the first weight sees them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Standardise(nn.Module):
    """(x - mean) / deviation, number by number; the identity until fitted. The constants are buffers, no parameters."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(dim))
        self.register_buffer("deviation", torch.ones(dim))

    def fit(self, values: Tensor, least: float = 0.02) -> None:
        """Measure on values [N, F]. `least` is added to the deviation: a number that never changes stays one."""
        self.mean.copy_(values.mean(dim=0))
        self.deviation.copy_(values.std(dim=0, correction=0) + least)

    def forward(self, values: Tensor) -> Tensor:
        """Values [..., F] -> the same shape."""
        return (values - self.mean) / self.deviation
