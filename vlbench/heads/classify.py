"""Classifiers over the pooled vectors of a model: one label, one label for several images, or weighted open answers.

Shapes: B examples, I images per example, C labels, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.backbone import Features
from vlbench.core.cards import HeadLayout
from vlbench.core.errors import DataError
from vlbench.core.examples import Answered, Example
from vlbench.core.results import Prediction
from vlbench.heads.inputs import Inputs
from vlbench.heads.labels import LabelHead, check_finite, ranked

TOP = 10
"""Answers kept with a prediction, of thousands."""


class ClassifyHead(LabelHead):
    """One image, one text, one label: a classifier on the pooled vector of the pair.

    Source: Tan and Bansal 2019; with width 768 it is Linear(768, 1536), GELU, LayerNorm, Linear(1536, C).
    """

    def __init__(self, width: int, labels: tuple[str, ...], layout: HeadLayout, inputs: Inputs | None = None) -> None:
        super().__init__(width, labels, 1, layout, inputs)

    def forward(self, features: Features) -> Tensor:
        """Features with pooled [B, D] -> logits [B, C]."""
        logits: Tensor = self.classifier(features.pooled)
        return logits


class PairHead(LabelHead):
    """Several images, one text, one label (NLVR2): a classifier on the pooled vectors of an example's images.

    The vectors stand side by side in the order of the images. Source: Tan and Bansal 2019; with width 768 and two
    images it is Linear(1536, 1536), GELU, LayerNorm, Linear(1536, 2).
    """

    def __init__(self, width: int, labels: tuple[str, ...], images: int, layout: HeadLayout) -> None:
        super().__init__(width, labels, images, layout)
        self.images = images

    def forward(self, features: Features) -> Tensor:
        """Features with pooled [B * I, D], example by example -> logits [B, C]."""
        together = features.pooled.reshape(-1, self.images * features.pooled.shape[1])  # [B * I, D] -> [B, I * D]
        logits: Tensor = self.classifier(together)
        return logits


class SoftHead(ClassifyHead):
    """A classifier over a list of answers, of which several may be right, each to a degree.

    Source: Anderson et al. 2018 and Tan and Bansal 2019 (binary cross-entropy on soft targets, times the answers).
    """

    def targets(self, examples: Sequence[Example[object]]) -> Tensor:
        """The worth of every answer of the list [B, C], in [0, 1]; answers that are not in it do not count.

        Raises:
            DataError: an example whose reference is no answer, named with its id.
        """
        targets = torch.zeros(len(examples), len(self.labels))
        for row, example in enumerate(examples):
            if not isinstance(example.reference, Answered):
                raise DataError(f"example {example.id!r} has {example.reference!r} where an answer is expected")
            for answer, worth in example.reference.worths().items():
                if answer in self._index:
                    targets[row, self._index[answer]] = worth
        return targets

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of logits and targets, both [B, C]: the sum over answers, the mean over examples."""
        return functional.binary_cross_entropy_with_logits(logits, targets) * logits.shape[1]

    def finish(self, logits: Tensor, ids: Sequence[str]) -> list[Prediction]:
        """The likeliest answer of each row of logits [B, C], and the ten best with their probabilities.

        Equal logits are ranked in the order of the list.

        Raises:
            VlbenchError: a logit that is not a finite number, naming the first such example.
        """
        logits = logits.detach().cpu().double()
        check_finite(logits, ids)
        order = logits.argsort(dim=-1, descending=True, stable=True)[:, :TOP]
        return ranked(logits.sigmoid(), self.labels, ids, order)
