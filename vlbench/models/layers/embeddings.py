"""Text embeddings, as BERT has them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlbench.models.layers.blocks import EPSILON

SEGMENTS = 2


class TextEmbeddings(nn.Module):
    """dropout(LayerNorm(word + position + segment)); every text is segment 0. Source: Devlin et al. 2019.

    frozen_row: a row of each of the three tables that gets no gradient through a look-up (`padding_idx`); None where
    all rows are trained.
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
