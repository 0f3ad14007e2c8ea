"""From token states to one vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Pooler(nn.Module):
    """tanh(W x) of the first token. Source: Devlin et al. 2019."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States [B, T, D] -> [B, D]."""
        return torch.tanh(self.dense(states[:, 0]))
