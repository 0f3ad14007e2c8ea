"""What the heads over a list of labels have in common: layers, targets, loss and predictions.

Shapes: B examples, I images per example, P = B * I pairs, C labels, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlbench.core.backbone import Features, Model
from vlbench.core.batch import Batch
from vlbench.core.cards import HeadLayout
from vlbench.core.errors import DataError, VlbenchError, remedy_of_nan
from vlbench.core.examples import Example, Label
from vlbench.core.results import Prediction
from vlbench.heads.base import Head
from vlbench.heads.forward import Forward, Stage, pooled_only
from vlbench.heads.inputs import Inputs, PairInputs


class LabelHead(Head):
    """One logit per label; a subclass adds `forward` from features to logits [B, C].

    width: of the model. images: images per example, whose pooled vectors the classifier reads side by side. inputs: how
    examples reach the model.
    """

    def __init__(
        self,
        width: int,
        labels: tuple[str, ...],
        images: int,
        layout: HeadLayout,
        inputs: Inputs | None = None,
    ) -> None:
        super().__init__()
        self.labels = labels
        self.inputs = inputs or PairInputs()
        self.classifier = classifier(images * width, round(layout.hidden * width), len(labels), layout)
        self._index = {label: index for index, label in enumerate(labels)}

    @abstractmethod
    def forward(self, features: Features) -> Tensor:
        """Features with pooled [P, D] -> logits [B, C]."""

    def stages(self) -> tuple[Stage, ...]:
        """Those that make features, then the classifier."""
        return (*self.inputs.stages, Stage("head", self._answer))

    def _answer(self, forward: Forward) -> Tensor:
        forward.logits = self(forward.features)
        return forward.logits

    def features(self, model: Model, batch: Batch) -> Features:
        """The features of a batch, without the classifier."""
        forward = Forward(model, batch)
        for stage in self.inputs.stages:
            stage.run(forward)
        return forward.features

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
        """The likeliest label of each row of logits [B, C], with the probabilities of all of them.

        Equal logits are ranked in the order of the labels.

        Raises:
            VlbenchError: a logit that is not a finite number, naming the first such example.
        """
        # Doubles, so that logits that differ keep probabilities that differ as far as possible.
        logits = logits.detach().cpu().double()
        check_finite(logits, ids)
        return ranked(logits.softmax(dim=-1), self.labels, ids, logits.argsort(dim=-1, descending=True, stable=True))


def label_head(head: Head) -> LabelHead:
    """The head as a classifier.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(head, LabelHead):
        raise TypeError(f"expected a classifier, not {type(head).__name__}")
    return head


def classifier(inputs: int, hidden: int, outputs: int, layout: HeadLayout) -> nn.Sequential:
    """Linear, what the layout's order says, then Linear: [B, inputs] -> [B, outputs].

    Where nothing is hidden, the last Linear alone. Weights start at N(0, 0.02), biases at 0, as in BERT. Source: Tan
    and Bansal 2019 (activation-norm), Kim et al. 2021 (norm-activation), Huang et al. 2021, official code
    (relu-dropout).
    """
    layers = nn.Sequential(*_layers(inputs, hidden, outputs, layout))
    # As vlbench.models.layers.bert.initialize does, which heads cannot import: both packages are of one layer.
    for layer in layers:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
    return layers


def _layers(inputs: int, hidden: int, outputs: int, layout: HeadLayout) -> list[nn.Module]:
    if not hidden:
        return [nn.Linear(inputs, outputs)]
    between: list[nn.Module]
    if layout.order == "relu-dropout":
        between = [nn.ReLU(), nn.Dropout(layout.dropout)]
    else:
        between = [nn.GELU(), nn.LayerNorm(hidden, eps=layout.epsilon)]
    if layout.order == "norm-activation":
        between.reverse()
    return [nn.Linear(inputs, hidden), *between, nn.Linear(hidden, outputs)]


def ranked(
    probabilities: Tensor, labels: Sequence[str], ids: Sequence[str], order: Tensor | None = None
) -> list[Prediction]:
    """A prediction per row of probabilities [B, C], labels best first. order [B, k]: the places of the labels kept."""
    if order is None:
        order = probabilities.argsort(dim=-1, descending=True, stable=True)
    kept = probabilities.gather(-1, order)
    return [
        Prediction(id_, labels[places[0]], {labels[place]: value for place, value in zip(places, values, strict=True)})
        for id_, places, values in zip(ids, order.tolist(), kept.tolist(), strict=True)
    ]


def check_finite(logits: Tensor, ids: Sequence[str]) -> None:
    """Check that all logits [B, C] are finite numbers.

    Raises:
        VlbenchError: one is not, naming the first such example.
    """
    finite = logits.isfinite().all(dim=-1).tolist()
    if not all(finite):
        raise VlbenchError(
            f"example {ids[finite.index(False)]!r} got logits that are not finite numbers: {remedy_of_nan()}"
        )
