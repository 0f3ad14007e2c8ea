"""Two towers that rank: pictures and texts are embedded apart, and a pair's score is one dot product.

Shapes: B pairs, E embedding width.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.examples import Caption, Example, Query

TEMPERATURE, HIGHEST = 0.07, 100.0


class DualHead(nn.Module):
    """A learned temperature over dot products, trained on batches whose other pairs are the negatives (InfoNCE).

    Source: Radford et al. 2021 (CLIP): the scale starts at 1 / 0.07 and stays below 100.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))

    def queries(self, rows: Sequence[int], examples: Sequence[Example[Any]], rng: Random) -> list[Query]:
        """Each example's own."""
        return [examples[row].query for row in rows]

    def targets(self, examples: Sequence[Example[Caption]]) -> Tensor:
        """A number [B] for each example's picture, int64: texts of one picture are all right for it."""
        numbers: dict[str, int] = {}
        pictures = [numbers.setdefault(example.reference.image, len(numbers)) for example in examples]
        return torch.tensor(pictures, dtype=torch.int64)

    def forward(self, images: Tensor, texts: Tensor) -> Tensor:
        """Unit vectors [N, E] and [M, E] -> logits [N, M]."""
        return self.log_scale.exp().clamp(max=HIGHEST) * images @ texts.T

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [B, B] over rows and over columns, right pairs sharing the probability; a scalar."""
        right = (targets[:, None] == targets).to(logits)
        share = right / right.sum(dim=1, keepdim=True)
        return (functional.cross_entropy(logits, share) + functional.cross_entropy(logits.T, share)) / 2
