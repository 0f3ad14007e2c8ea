"""Multi-head attention with masks.

Shapes: B rows, T querying tokens, S attended tokens, D width, H heads.
"""

from __future__ import annotations

from typing import TypeAlias

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

    def _split(self, states: Tensor) -> Tensor:
        size = states.shape[-1] // self.heads
        return states.view(*states.shape[:2], self.heads, size).transpose(1, 2)  # [B, T, D] -> [B, H, T, D / H]


def attention_mask(mask: Tensor) -> Tensor:
    """Shape a token mask [B, S] so that it broadcasts over heads and querying tokens: [B, 1, 1, S]."""
    return mask[:, None, None, :]
