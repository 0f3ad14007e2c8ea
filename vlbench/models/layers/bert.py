"""BERT's modules: text embeddings, post-norm transformer layers, pooler and weight initialization.

Shapes: B rows, M texts, T tokens, D width.
Source: Devlin et al. 2019 (arXiv 1810.04805).
"""

from __future__ import annotations

from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.validate import Frozen
from vlbench.models.layers.attention import Attention, leading

EPSILON = 1e-12
"""The epsilon of BERT's LayerNorms."""
SEGMENTS = 2


class TransformerConfig(Frozen):
    """The sizes of a transformer over text; vocab_size comes from the data.

    inner: width of a feed-forward network's hidden layer. positions: longest text in tokens. dropout: a probability.
    initial_std: standard deviation of the weights before training.
    """

    width: int = Field(ge=1)
    heads: int = Field(ge=1)
    inner: int = Field(ge=1)
    positions: int = Field(ge=2)
    dropout: float = Field(ge=0, lt=1)
    initial_std: float = Field(gt=0)
    vocab_size: int = Field(ge=1)

    @model_validator(mode="after")
    def _check_heads(self) -> Self:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {self.heads}")
        return self


class BertConfig(TransformerConfig):
    """The sizes of a model with BERT's layers. attention_dropout: the probability of dropping an attention weight."""

    attention_dropout: float = Field(ge=0, lt=1)

    def encoder_layers(self, count: int) -> nn.ModuleList:
        """Build `count` layers of these sizes."""
        sizes = (self.width, self.heads, self.inner, self.dropout, self.attention_dropout)
        return nn.ModuleList(EncoderLayer(*sizes) for _ in range(count))


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

    def forward(self, states: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
        """States [B, T, D], mask [B, 1, 1, T] (True where a token is real) -> [B, T, D], or the first `count` of T."""
        queries = leading(states, count)
        updated: Tensor = self.norm(queries + self.dropout(self.attention(states, mask, queries)))
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

    def forward(self, states: Tensor, mask: Tensor, count: int | None = None) -> Tensor:
        """States [B, T, D], mask [B, 1, 1, T] (True where a token is real) -> [B, T, D], or the first `count` of T."""
        updated: Tensor = self.feed_forward(self.attention(states, mask, count))
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


def perceptron(width: int, outputs: int) -> nn.Sequential:
    """A head with a hidden layer twice as wide: Linear, GELU, LayerNorm, Linear; states [..., D] -> [..., outputs]."""
    wide = 2 * width
    return nn.Sequential(nn.Linear(width, wide), nn.GELU(), nn.LayerNorm(wide, eps=EPSILON), nn.Linear(wide, outputs))


def initialize(module: nn.Module, std: float) -> None:
    """Set linear and embedding weights inside `module` to N(0, std), 0.02 in BERT, biases to 0, LayerNorms to 1, 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Embedding):
            nn.init.normal_(layer.weight, std=std)
        if isinstance(layer, nn.LayerNorm):
            nn.init.ones_(layer.weight)
        if isinstance(layer, nn.Linear | nn.LayerNorm) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
