"""Post-norm transformer blocks, as BERT has them: sub-layer, dropout, residual, then LayerNorm.

Shapes: B rows, T tokens, D width.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.layers.attention import Attention

EPSILON = 1e-12
"""BERT's LayerNorm epsilon."""


class SelfAttentionBlock(nn.Module):
    """LayerNorm(x + dropout(self-attention(x)))."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, D], mask [B, 1, 1, T] -> [B, T, D]."""
        updated: Tensor = self.norm(states + self.dropout(self.attention(states, mask)))
        return updated


class FeedForwardBlock(nn.Module):
    """LayerNorm(x + dropout(W2 gelu(W1 x))), with the exact (erf) GELU."""

    def __init__(self, width: int, inner: int, dropout: float) -> None:
        super().__init__()
        self.inner = nn.Linear(width, inner)
        self.outer = nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, states: Tensor) -> Tensor:
        """States [B, T, D] -> [B, T, D]."""
        updated: Tensor = self.norm(states + self.dropout(self.outer(functional.gelu(self.inner(states)))))
        return updated


class EncoderLayer(nn.Module):
    """One BERT layer: self-attention, then feed-forward. Source: Devlin et al. 2019."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttentionBlock(width, heads, dropout, attention_dropout)
        self.feed_forward = FeedForwardBlock(width, inner, dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, D], mask [B, 1, 1, T] -> [B, T, D]."""
        updated: Tensor = self.feed_forward(self.attention(states, mask))
        return updated
