"""A cross-encoder that ranks: every pair of picture and text is looked at together and gets one score.

Shapes: B examples, N negatives of each, P = B * (1 + N) pairs, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Caption, Example, Query
from vlbench.objectives.hinge import ranking_loss

TEXTS, MARGIN = 15, 0.2
_TRIES = 1000


class RankHead(nn.Module):
    """One score per pair, trained on each example against negatives drawn at random.

    negative_texts: captions of other images besides the example's own, 15 as in ViLT. negative_images: other images
    besides its own. Losses: `softmax` over all of them (Kim et al. 2021); `hinge`, the mean over all of them of how
    far each comes within `margin` of the example, scores through a sigmoid (Chen et al. 2020); `binary`, each pair by
    itself (the matching head's own).
    """

    def __init__(self, width: int, recipe: Recipe) -> None:
        super().__init__()
        self.score = nn.Linear(width, 1)
        nn.init.normal_(self.score.weight, std=0.02)
        nn.init.zeros_(self.score.bias)
        self.kind = recipe.rank_loss or "softmax"
        self.texts = TEXTS if recipe.negative_texts is None else recipe.negative_texts
        self.images = recipe.negative_images or 0
        self.margin = recipe.margin or MARGIN
        if self.texts + self.images == 0:
            raise VlbenchError("negative_texts and negative_images are both 0: a ranking needs one at least")

    def queries(self, rows: Sequence[int], examples: Sequence[Example[Caption]], rng: Random) -> list[Query]:
        """Each example, then its negative texts, then its negative images.

        Raises:
            VlbenchError: the examples show one picture only, so that there are no negatives.
        """
        asked: list[Query] = []
        for row in rows:
            own = examples[row]
            others = [other.query for other in _others(own, examples, self.texts + self.images, rng)]
            asked.append(own.query)
            asked += [replace(own.query, text=other.text) for other in others[: self.texts]]
            asked += [replace(own.query, images=other.images) for other in others[self.texts :]]
        return asked

    def targets(self, examples: Sequence[Example[Any]]) -> Tensor:
        """The place [B] of the right pair among its 1 + N: always the first, int64."""
        return torch.zeros(len(examples), dtype=torch.int64)

    def forward(self, features: Features) -> Tensor:
        """Features with pooled [P, D] -> logits [P]."""
        scores: Tensor = self.score(features.pooled)
        return scores[:, 0]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over examples of the loss of logits [P] with targets [B], a scalar."""
        scores = logits.view(len(targets), -1)  # [B, 1 + N]
        if self.kind == "softmax":
            return functional.cross_entropy(scores, targets)
        if self.kind == "binary":
            right = functional.one_hot(targets, scores.shape[1]).to(scores)
            return functional.binary_cross_entropy_with_logits(scores, right)
        return ranking_loss(scores[:, 0], scores[:, 1:], self.margin)


def _others(
    own: Example[Caption], examples: Sequence[Example[Caption]], wanted: int, rng: Random
) -> Iterator[Example[Caption]]:
    """Examples of other pictures than its own, drawn at random."""
    for _ in range(wanted):
        for _ in range(_TRIES):
            other = examples[int(rng.random() * len(examples))]
            if other.reference.image != own.reference.image:
                yield other
                break
        else:
            raise VlbenchError(
                f"hardly any of the {len(examples):,} training examples shows another picture than "
                f"{own.reference.image!r}: ranking needs negatives, train on more pictures"
            )
