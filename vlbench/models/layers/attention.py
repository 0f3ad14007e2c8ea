"""Multi-head attention with masks.

Shapes: B rows, T querying tokens, S attended tokens, D width, H heads.
"""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

Projected: TypeAlias = "tuple[Tensor, Tensor, Tensor]"
"""Query, key and value of the same tokens, each [B, H, T, D / H]."""


class Attention(nn.Module):
    """Scaled dot-product attention over H heads, with its output projection; no residual and no norm.

    `dropout` is the probability of dropping an attention weight while training.
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        # Apart, as official checkpoints have them: one product for all three measured no quicker on a CPU.
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Self-attention over states [B, T, D]; mask [B, 1, 1, T], True where a token may be looked at."""
        query, key, value = self.project(states)
        return self.attend(query, key, value, mask)

    def project(self, states: Tensor) -> Projected:
        """Query, key and value of states [B, T, D]."""
        return self._split(self.query(states)), self._split(self.key(states)), self._split(self.value(states))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        """What query [B, H, T, D / H] gathers from key and value [B, H, S, D / H] -> [B, T, D].

        mask [B, 1, 1, S] is True where a token may be looked at; each row needs at least one.
        """
        dropout = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
        gathered: Tensor = self.output(mixed.transpose(1, 2).flatten(2))  # [B, H, T, D / H] -> [B, T, D]
        return gathered

    def weights(self, states: Tensor, attended: Tensor, mask: Tensor) -> Tensor:
        """How much states [B, T, D] attend to each of `attended` [B, S, D]: [B, T, S], the mean of the heads.

        mask [B, 1, 1, S] is True where a token may be looked at; elsewhere the weight is 0. Each row sums to 1. The
        fused product of `attend` tells no weights, so they are computed beside it, where somebody asks for them.
        """
        query, key = self._split(self.query(states)), self._split(self.key(attended))
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5  # [B, H, T, S]
        weights: Tensor = scores.masked_fill(~mask, -torch.inf).softmax(dim=-1).mean(dim=1)
        return weights

    def _split(self, states: Tensor) -> Tensor:
        size = states.shape[-1] // self.heads
        return states.view(*states.shape[:2], self.heads, size).transpose(1, 2)  # [B, T, D] -> [B, H, T, D / H]


def over_picture(weights: Tensor, mask: Tensor) -> Tensor:
    """The part of weights [B, S] that falls on the last R tokens, the picture's, where mask [B, R] is True.

    Returns: [B, R], brought to a sum of 1; 0 outside the mask.
    """
    kept = weights[:, -mask.shape[1] :] * mask
    return kept / kept.sum(dim=1, keepdim=True)


def attention_mask(mask: Tensor) -> Tensor:
    """Shape a token mask [B, S] so that it broadcasts over heads and querying tokens: [B, 1, 1, S]."""
    return mask[:, None, None, :]
