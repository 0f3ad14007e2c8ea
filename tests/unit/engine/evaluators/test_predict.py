"""Answering is done in evaluation mode, and a learner is left in the mode it was in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vlbench import catalog
from vlbench.core.cards import HeadLayout
from vlbench.core.errors import VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.progress import Silent
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.engine.evaluators.classification import classify
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.heads.classify import ClassifyHead

EXAMPLES = [
    Example(str(row), Query((ImageRef(Path(f"{row}"), f"{row}"),), f"text {row}"), Label("yes"), str(row))
    for row in range(9)
]


class Dropping(ClassifyHead):
    """A head behind dropout, which changes every answer in training mode; it records the mode of each forward."""

    def __init__(self, width: int, labels: tuple[str, ...], layout: HeadLayout) -> None:
        super().__init__(width, labels, layout)
        self.dropout, self.modes = nn.Dropout(0.5), list[bool]()

    def forward(self, features: Any) -> torch.Tensor:
        self.modes.append(self.training)
        logits: torch.Tensor = self.dropout(super().forward(features))
        return logits


@pytest.fixture
def learner() -> Learner:
    torch.manual_seed(3)
    backbone: Any = catalog.load_model(catalog.model_card("fake"), "tiny", Resources(None, ImageFiles()))
    head: Any = Dropping(backbone.width, ("yes", "no"), HeadLayout(hidden=0))
    return Learner(backbone, head)


@pytest.fixture
def pace() -> Pace:
    return Pace(Accelerator(cpu=True), 4, 0, Silent(), Interrupt(), "predicting")


@pytest.mark.parametrize("training", [True, False])
def test_answers_are_those_of_evaluation_mode_and_the_mode_is_left(
    training: bool, learner: Learner, pace: Pace
) -> None:
    expected, _ = classify(learner.eval(), EXAMPLES, pace)
    learner.train(training)
    head: Any = learner.head
    head.modes.clear()
    predictions, _ = classify(learner, EXAMPLES, pace)
    assert [item.scores for item in predictions] == [item.scores for item in expected]
    assert head.modes == [False, False, False]
    assert all(module.training is training for module in learner.modules())


def test_training_continues_with_dropout_after_answering(learner: Learner, pace: Pace) -> None:
    """By the effect: two forwards of one batch differ in training mode, and in evaluation mode they do not."""
    batch = learner.head.collate(EXAMPLES, range(9), learner.model)

    def differ() -> bool:
        return not torch.equal(learner(batch).logits, learner(batch).logits)

    learner.train()
    assert differ()
    classify(learner, EXAMPLES, pace)
    assert differ()
    learner.eval()
    classify(learner, EXAMPLES, pace)
    assert not differ()


def test_the_mode_is_left_where_answering_fails(learner: Learner, pace: Pace) -> None:
    learner.train()
    with torch.no_grad():
        next(learner.head.parameters()).fill_(float("nan"))
    with pytest.raises(VlbenchError, match="not finite"):
        classify(learner, EXAMPLES, pace)
    assert learner.training
