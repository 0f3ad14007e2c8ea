"""A cross-encoder that ranks: each pair of an image and a text is encoded together and gets one score.

Shapes: B examples, N negatives of each, P = B * (1 + N) pairs, R visual tokens, T text tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from random import Random

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Backbone, Features, Textual, Visual
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, Examples, Query, image_of
from vlbench.heads.base import Head, count_own_first
from vlbench.heads.forward import fuse
from vlbench.heads.inputs import PairInputs
from vlbench.objectives.hinge import ranking_loss

TEXTS, MARGIN = 15, 0.2
_TRIES = 1000
"""Draws until an example of another image is given up."""


class RankHead(Head):
    """One score per pair, trained on each example against negatives drawn at random.

    texts: negative captions, of other images, 15 as in ViLT. images: negative images. kind: of the loss, `softmax` over
    the pair and its negatives (Kim et al. 2021); `hinge`, the mean over the negatives of how far the sigmoid of each
    score comes within `margin` of the pair's (Chen et al. 2020); `binary` cross-entropy of each pair (ITM).
    """

    inputs = PairInputs(pooled_only=True)

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

    def queries(self, rows: Sequence[int], examples: Examples, rng: Random) -> list[Query]:
        """Each example, then its negative texts, then its negative images.

        Raises:
            VlbenchError: the examples show one image only, so that there are no negatives.
        """
        queries: list[Query] = []
        for row in rows:
            own = examples[row].query
            others = [other.query for other in _draw_others(examples[row], examples, self.texts + self.images, rng)]
            queries.append(own)
            queries += [replace(own, text=other.text) for other in others[: self.texts]]
            queries += [replace(own, images=other.images) for other in others[self.texts :]]
        return queries

    def targets(self, examples: Sequence[Example[object]]) -> Tensor:
        """The index [B] of the right pair among its 1 + N, int64: always 0."""
        return torch.zeros(len(examples), dtype=torch.int64)

    def forward(self, features: Features) -> Tensor:
        """Features with pooled [P, D] -> logits [P]."""
        scores: Tensor = self.score(features.pooled)
        return scores[:, 0]

    def score_pairs(self, backbone: Backbone, visual: Visual, textual: Textual) -> Tensor:
        """The scores [P] of pairs with visual [P, R, D] and textual [P, T, D] states, in float32 in any case."""
        features = fuse(backbone, visual, textual, pooled_only=True)
        with torch.autocast(features.pooled.device.type, enabled=False):
            scores: Tensor = self(replace(features, pooled=features.pooled.float()))
        return scores

    def own_first(self, logits: Tensor, rows: int) -> tuple[int, float]:
        """As `Head.own_first`, of logits [P], among each row's own pair and its negatives."""
        table = logits.view(rows, -1)  # [B, 1 + N]
        return count_own_first(table, table[:, 0]), rows / table.shape[1]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The mean over examples of the loss of logits [P] with targets [B], a scalar."""
        scores = logits.view(len(targets), -1)  # [B, 1 + N]
        if self.kind == "softmax":
            return functional.cross_entropy(scores, targets)
        if self.kind == "binary":
            right = functional.one_hot(targets, scores.shape[1]).to(scores)
            return functional.binary_cross_entropy_with_logits(scores, right)
        return ranking_loss(scores[:, 0], scores[:, 1:], self.margin)


def _draw_others(own: Example[object], examples: Examples, wanted: int, rng: Random) -> Iterator[Example[object]]:
    """Examples of other images than its own, drawn at random."""
    image = image_of(own)
    for _ in range(wanted):
        for _ in range(_TRIES):
            other = examples[int(rng.random() * len(examples))]
            if image_of(other) != image:
                yield other
                break
        else:
            raise VlbenchError(
                f"hardly any of the {len(examples):,} training examples shows another image than {image!r}: ranking "
                f"needs negatives, train on more images"
            )
