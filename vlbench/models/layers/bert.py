"""BERT's modules: text embeddings, post-norm transformer layers, pooler and weight initialization.

Shapes: B rows, M texts, T tokens, D width.
Source: Devlin et al. 2019 (arXiv 1810.04805).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.models.layers.attention import Attention

EPSILON = 1e-12
"""The epsilon of BERT's LayerNorms."""
SEGMENTS = 2


class TextEmbeddings(nn.Module):
    """dropout(LayerNorm(word + position + segment)); every text is segment 0.

    frozen_row: the row of each of the three tables that gets no gradient (`padding_idx`); None trains all rows.
    """

    def __init__(
        self, vocab_size: int, positions: int, width: int, dropout: float, *, frozen_row: int | None = None
    ) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocab_size, width, padding_idx=frozen_row)
        self.position_embeddings = nn.Embedding(positions, width, padding_idx=frozen_row)
        self.token_type_embeddings = nn.Embedding(SEGMENTS, width, padding_idx=frozen_row)
        self.norm = nn.LayerNorm(width, eps=EPSILON)
        self.dropout = nn.Dropout(dropout)

    def forward(self, ids: Tensor) -> Tensor:
        """Token ids [M, T] -> states [M, T, D]."""
        places = torch.arange(ids.shape[1], device=ids.device)
        position = self.position_embeddings(places) + self.token_type_embeddings(torch.zeros_like(places))  # [T, D]
        states: Tensor = self.dropout(self.norm(self.word_embeddings(ids) + position))
        return states


class SelfAttentionBlock(nn.Module):
    """LayerNorm(x + dropout(self-attention(x)))."""

    def __init__(self, width: int, heads: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, attention_dropout)
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=EPSILON)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, D], mask [B, 1, 1, T] (True where a token is real) -> [B, T, D]."""
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
    """One BERT layer: self-attention, then a feed-forward network."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float, attention_dropout: float) -> None:
        super().__init__()
        self.attention = SelfAttentionBlock(width, heads, dropout, attention_dropout)
        self.feed_forward = FeedForwardBlock(width, inner, dropout)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """States [B, T, D], mask [B, 1, 1, T] (True where a token is real) -> [B, T, D]."""
        updated: Tensor = self.feed_forward(self.attention(states, mask))
        return updated


class Pooler(nn.Module):
    """tanh(W x) of the first token."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)

    def forward(self, states: Tensor) -> Tensor:
        """States [B, T, D] -> [B, D], in (-1, 1)."""
        return torch.tanh(self.dense(states[:, 0]))


def prediction_transform(width: int) -> nn.Sequential:
    """The layers before BERT's prediction of a token: Linear, GELU, LayerNorm; states [..., D] -> [..., D]."""
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width, eps=EPSILON))


def initialize(module: nn.Module, std: float) -> None:
    """Set each linear and embedding weight inside `module` to N(0, std), biases to 0, LayerNorms to (1, 0).

    BERT uses a std of 0.02.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        if isinstance(layer, nn.Linear | nn.LayerNorm) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
