"""Classifiers over the pooled vectors of a model: one label, or weighted open answers; and predictions from logits.

Shapes: B examples, I images per example, P = B * I pairs, C labels, D width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, Model
from vlbench.core.batch import Batch
from vlbench.core.cards import HeadLayout
from vlbench.core.errors import DataError, VlbenchError, remedy_of_nan
from vlbench.core.examples import Example, Label, is_answered
from vlbench.core.results import Prediction
from vlbench.heads.base import Head
from vlbench.heads.forward import Forward, pooled_only
from vlbench.heads.inputs import Inputs, PairInputs

TOP = 10
"""Answers kept with a prediction, of thousands."""


class ClassifyHead(Head):
    """One logit per label, from the pooled vectors of an example's images side by side, in the order of the images.

    width: of the model. images: images per example, two for NLVR2. inputs: how examples reach the model. Source: Tan
    and Bansal 2019; with width 768 it is Linear(I * 768, 1536), GELU, LayerNorm, Linear(1536, C).
    """

    def __init__(
        self, width: int, labels: tuple[str, ...], layout: HeadLayout, images: int = 1, inputs: Inputs | None = None
    ) -> None:
        super().__init__()
        self.labels, self.images, self.inputs = labels, images, inputs or PairInputs()
        self.classifier = classifier(images * width, round(layout.hidden * width), len(labels), layout)
        self._index = {label: index for index, label in enumerate(labels)}

    def forward(self, features: Features) -> Tensor:
        """Features with pooled [P, D], example by example -> logits [B, C]."""
        side_by_side = features.pooled.reshape(-1, self.images * features.pooled.shape[1])  # [P, D] -> [B, I * D]
        logits: Tensor = self.classifier(side_by_side)
        return logits

    def features(self, model: Model, batch: Batch) -> Features:
        """The features of a batch, with pooled [P, D]: all stages without the classifier."""
        return Forward(model, batch).run(self.inputs.stages).features

    def from_pooled(self, pooled: Tensor) -> Tensor:
        """Pooled vectors [P, D] -> logits [B, C]."""
        logits: Tensor = self(pooled_only(pooled))
        return logits

    def targets(self, examples: Sequence[Example[object]]) -> Tensor:
        """The labels' indices [B], int64.

        Raises:
            DataError: an example without a label of the list, named with its id.
        """
        return torch.tensor([self._target(example) for example in examples], dtype=torch.int64)

    def _target(self, example: Example[object]) -> int:
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
        """As `Head.finish`, with the probabilities of all labels; ties are in the order of the labels."""
        logits = finite_doubles(logits, ids)
        return ranked(logits.softmax(dim=-1), self.labels, ids, logits.argsort(dim=-1, descending=True, stable=True))


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
            if not is_answered(example.reference):
                raise DataError(f"example {example.id!r} has {example.reference!r} where an answer is expected")
            for answer, worth in example.reference.worths().items():
                if answer in self._index:
                    targets[row, self._index[answer]] = worth
        return targets

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Binary cross-entropy of logits and targets, both [B, C]: the sum over answers, the mean over examples."""
        return functional.binary_cross_entropy_with_logits(logits, targets) * logits.shape[1]

    def finish(self, logits: Tensor, ids: Sequence[str]) -> list[Prediction]:
        """As `Head.finish`, with the ten best answers; equal logits are ranked in the order of the list."""
        logits = finite_doubles(logits, ids)
        order = logits.argsort(dim=-1, descending=True, stable=True)[:, :TOP]
        return ranked(logits.sigmoid(), self.labels, ids, order)


def classify_head(head: Head) -> ClassifyHead:
    """The head as a classifier; a TypeError if it is none."""
    if not isinstance(head, ClassifyHead):
        raise TypeError(f"expected a classifier, not {type(head).__name__}")
    return head


def classifier(inputs: int, hidden: int, outputs: int, layout: HeadLayout) -> nn.Sequential:
    """Linear, the layers of the layout's order, Linear: [B, inputs] -> [B, outputs]; one Linear where hidden is 0.

    Weights start at N(0, 0.02), biases at 0, as in BERT. Source: Tan and Bansal 2019 (activation-norm), Kim et al. 2021
    (norm-activation), Huang et al. 2021, official code (relu-dropout).
    """
    between: dict[str, list[nn.Module]] = {
        "relu-dropout": [nn.ReLU(), nn.Dropout(layout.dropout)],
        "activation-norm": [nn.GELU(), nn.LayerNorm(hidden, eps=layout.epsilon)],
        "norm-activation": [nn.LayerNorm(hidden, eps=layout.epsilon), nn.GELU()],
    }
    hidden_layers = [nn.Linear(inputs, hidden), *between[layout.order]] if hidden else []
    layers = nn.Sequential(*hidden_layers, nn.Linear(hidden or inputs, outputs))
    # As vlbench.models.layers.bert.initialize does, which heads cannot import: both packages are of one layer.
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return layers


def ranked(
    probabilities: Tensor, labels: Sequence[str], ids: Sequence[str], order: Tensor | None = None
) -> list[Prediction]:
    """A prediction per row of probabilities [B, C], labels best first.

    order [B, k]: the columns of the labels kept; None keeps the `TOP` best.
    """
    if order is None:
        order = probabilities.argsort(dim=-1, descending=True, stable=True)[:, :TOP]
    kept = probabilities.gather(-1, order)
    return [
        Prediction(id_, labels[columns[0]], {labels[column]: p for column, p in zip(columns, values, strict=True)})
        for id_, columns, values in zip(ids, order.tolist(), kept.tolist(), strict=True)
    ]


def finite_doubles(logits: Tensor, ids: Sequence[str]) -> Tensor:
    """The logits [B, C] on the CPU, in float64, so that probabilities of different logits differ as far as possible.

    Raises:
        VlbenchError: a logit is not a finite number, naming the first such example.
    """
    finite = logits.isfinite().all(dim=-1).tolist()
    if not all(finite):
        raise VlbenchError(
            f"example {ids[finite.index(False)]!r} got logits that are not finite numbers: {remedy_of_nan()}"
        )
    return logits.detach().cpu().double()
