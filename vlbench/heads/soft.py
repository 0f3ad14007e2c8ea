"""One picture, one text, answers each worth something: VQA and GQA."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from vlbench.core.errors import DataError
from vlbench.core.examples import Answered, Example
from vlbench.core.results import Prediction
from vlbench.heads.classify import ClassifyHead
from vlbench.heads.labels import check_finite, ranked

TOP = 10
"""Answers kept with a prediction, of thousands."""


class SoftHead(ClassifyHead):
    """A classifier over a list of answers, any number of which may be right, each to a degree.

    Source: Anderson et al. 2018 and Tan and Bansal 2019 (binary cross-entropy on soft targets, times the answers).
    """

    def targets(self, examples: Sequence[Example[Any]]) -> Tensor:
        """The worth of every answer of the list [B, C], in [0, 1]; answers that it lacks do not count.

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
