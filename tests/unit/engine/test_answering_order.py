"""Predictions are in the order of the examples, which are answered image by image."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from vlbench.core.cards import HeadLayout
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.progress import Silent
from vlbench.engine.evaluators.classification import classify
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.heads.classify import ClassifyHead
from vlbench.models.fake.backbone import Fake


def test_predictions_keep_the_order_of_the_examples() -> None:
    spread = [
        Example(f"e{row}", Query((ImageRef(Path(), "abc"[row % 3]),), f"text {row}"), Label("yes"), "")
        for row in range(10)
    ]
    learner = Learner(Fake(), ClassifyHead(Fake().width, ("yes", "no"), HeadLayout(hidden=0)))
    pace = Pace(Accelerator(cpu=True), 4, 0, Silent(), Interrupt(), "predicting")
    predictions, timing = classify(learner, spread, pace)
    assert [item.example_id for item in predictions] == [example.id for example in spread]
    alone = [classify(learner, [example], pace)[0][0] for example in spread]
    assert [item.answer for item in predictions] == [item.answer for item in alone]
    assert timing.examples == 10
