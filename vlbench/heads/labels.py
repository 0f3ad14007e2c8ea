"""What the heads over a closed list of labels have in common: targets, loss and predictions.

Shapes: B examples, C labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.cards import HeadLayout
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, Label, Query
from vlbench.core.results import Prediction
from vlbench.heads.layout import classifier


class LabelHead(nn.Module):
    """One logit per label; a head that is one adds `forward` from features to logits [B, C].

    width: of the backbone. images: pictures per example, whose pooled vectors the classifier sees at once.
    """

    def __init__(self, width: int, labels: tuple[str, ...], images: int, layout: HeadLayout) -> None:
        super().__init__()
        self.labels = labels
        self.classifier = classifier(images * width, round(layout.hidden * width), len(labels), layout)
        self._index = {label: index for index, label in enumerate(labels)}

    def queries(self, rows: Sequence[int], examples: Sequence[Example[Any]], rng: Random) -> list[Query]:
        """Each example's own."""
        return [examples[row].query for row in rows]

    def targets(self, examples: Sequence[Example[Any]]) -> Tensor:
        """The labels' indices [B], int64.

        Raises:
            DataError: an example without a label of the list, named with its id.
        """
        return torch.tensor([self._target(example) for example in examples], dtype=torch.int64)

    def _target(self, example: Example[Any]) -> int:
        value = example.reference.value if isinstance(example.reference, Label) else repr(example.reference)
        if value not in self._index:
            raise DataError(
                f"example {example.id!r} has the label {value!r} where one of {', '.join(self.labels)} is expected: "
                f"correct it in the annotations, or the labels in the task card"
            )
        return self._index[value]

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy of logits [B, C] and targets [B], a scalar."""
        return functional.cross_entropy(logits, targets)

    def finish(self, logits: Tensor, ids: Sequence[str]) -> list[Prediction]:
        """The likeliest label of each row of logits [B, C], with the probabilities of all of them.

        Equal logits are ranked in the order of the labels.

        Raises:
            VlbenchError: a logit that is not a finite number, naming the first such example.
        """
        # Doubles, so that logits that differ keep probabilities that differ as far as possible.
        logits = logits.detach().cpu().double()
        check_finite(logits, ids)
        return ranked(logits.softmax(dim=-1), self.labels, ids, logits.argsort(dim=-1, descending=True, stable=True))


def ranked(
    probabilities: Tensor, labels: Sequence[str], ids: Sequence[str], order: Tensor | None = None
) -> list[Prediction]:
    """A prediction per row of probabilities [B, C]: labels best first; order [B, k] names those kept, by place."""
    if order is None:
        order = probabilities.argsort(dim=-1, descending=True, stable=True)
    kept = probabilities.gather(-1, order)
    return [
        Prediction(id_, labels[places[0]], {labels[place]: one for place, one in zip(places, of_row, strict=True)})
        for id_, places, of_row in zip(ids, order.tolist(), kept.tolist(), strict=True)
    ]


def check_finite(logits: Tensor, ids: Sequence[str]) -> None:
    """A logit of [B, C] that is not a finite number is a VlbenchError naming the first such example."""
    finite = logits.isfinite().all(dim=-1).tolist()
    if not all(finite):
        raise VlbenchError(
            f"example {ids[finite.index(False)]!r} got logits that are not finite numbers: training has diverged "
            f"or the precision is too low; try a smaller --lr or, with another --dtype, float32"
        )
