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

    Source: Radford et al. 2021 (CLIP): the scale starts at 1 / 0.07 and stays at or below 100, or the scale loaded if
    that is larger (SigLIP's is 117). It is brought back to that limit itself, so that its gradient never dies.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / TEMPERATURE)))
        self.log_limit = math.log(HIGHEST)
        self.register_state_dict_pre_hook(_before_saving)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_post_hook(_after_loading)  # type: ignore[no-untyped-call]

    @torch.no_grad()
    def bound(self, log_scale: float = -math.inf) -> None:
        """Bring the scale back to its limit, which is `log_scale` from now on where that is higher."""
        self.log_limit = max(self.log_limit, log_scale)
        self.log_scale.clamp_(max=self.log_limit)

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
        self.bound()
        return self.log_scale.exp() * images @ texts.T

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of logits [B, B] over rows and over columns, right pairs sharing the probability; a scalar."""
        right = (targets[:, None] == targets).to(logits)
        share = right / right.sum(dim=1, keepdim=True)
        return (functional.cross_entropy(logits, share) + functional.cross_entropy(logits.T, share)) / 2


def _before_saving(head: DualHead, *_: object) -> None:
    head.bound()


def _after_loading(head: DualHead, *_: object) -> None:
    head.bound(float(head.log_scale.detach()))
