"""Answering is done in evaluation mode, leaves a learner in the mode it was in, and records errors where asked to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from vlbench import catalog
from vlbench.core.cards import HeadLayout
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.progress import Silent
from vlbench.core.results import Prediction
from vlbench.data.images.load import ImageFiles
from vlbench.data.resources import Resources
from vlbench.engine.batching.prediction_shards import PredictionShards
from vlbench.engine.evaluators.classification import classify
from vlbench.engine.evaluators.predict import Work, predict_all
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


def asks(bad: set[int], asked: list[list[int]]) -> Work[list[int]]:
    """Answers by the row; rows of `bad` cannot be prepared. asked: receives the rows of each answered batch."""

    def prepare(rows: Sequence[int]) -> list[int]:
        if bad & {*rows}:
            raise DataError("the image is damaged")
        return list(rows)

    def answer(rows: list[int]) -> list[Prediction]:
        asked.append(rows)
        return [Prediction(str(row), f"answer {row}") for row in rows]

    return Work(prepare, answer)


def statuses(predictions: list[Prediction]) -> str:
    return "".join(item.status[0] for item in predictions)


def test_errors_are_kept_and_not_asked_again_unless_errors_stop(pace: Pace, tmp_path: Path) -> None:
    shards, asked, bad = PredictionShards(tmp_path, "key"), list[list[int]](), {1, 6}
    recording = replace(pace, records_errors=True)
    first, _ = predict_all(EXAMPLES, asks(bad, asked), recording, shards)
    assert (statuses(first), first[6].error) == ("oeooooeoo", "the image is damaged")
    assert asked == [[0, 2, 3], [4, 5, 7], [8]]
    asked.clear()
    assert predict_all(EXAMPLES, asks(set(), asked), recording, shards)[0] == first and not asked
    with pytest.raises(DataError, match="damaged"):
        predict_all(EXAMPLES, asks(bad, asked), pace, shards)
    answers, _ = predict_all(EXAMPLES, asks(set(), asked), pace, shards)
    assert statuses(answers) == "o" * 9 and asked == [[0, 1, 2, 3], [4, 5, 6, 7]]  # the shard without errors stays


@pytest.mark.parametrize("count", [5, 9])
def test_more_than_half_failing_ends_the_work_and_is_asked_again(count: int, pace: Pace, tmp_path: Path) -> None:
    shards, recording = PredictionShards(tmp_path, "key"), replace(pace, records_errors=True)
    with pytest.raises(DataError, match=f"{count} of 9 examples cannot be answered.*the image is damaged"):
        predict_all(EXAMPLES, asks(set(range(count)), []), recording, shards)
    assert statuses(predict_all(EXAMPLES, asks(set(), []), recording, shards)[0]) == "o" * 9


def test_it_ends_early_once_enough_examples_were_asked(pace: Pace) -> None:
    many, asked = [replace(EXAMPLES[0], id=str(row)) for row in range(1000)], list[list[int]]()
    with pytest.raises(DataError, match="60 of 100 examples cannot be answered"):
        predict_all(many, asks(set(range(60)), asked), replace(pace, batch_size=10, records_errors=True))
    assert sum(map(len, asked)) == 40


@pytest.mark.parametrize("fails", [None, "launch", "wait"])
@pytest.mark.parametrize("records_errors", [False, True])
def test_a_batch_is_launched_before_the_one_before_it_is_fetched(
    fails: str | None, records_errors: bool, pace: Pace, tmp_path: Path
) -> None:
    """Where the second batch cannot be launched or fetched, it is answered as without a device of its own."""
    events = list[str]()
    careful = asks({1} if records_errors else set(), [])

    def launch(rows: list[int]) -> Any:
        events.append(f"launch {rows[-1]}")
        if fails == "launch" and 7 in rows:
            raise RuntimeError("CUDA out of memory")

        def wait() -> list[Prediction]:
            events.append(f"fetch {rows[-1]}")
            if fails == "wait" and 7 in rows:
                raise VlbenchError("not finite")
            return careful.answer(rows)

        return wait

    pace = replace(pace, records_errors=records_errors)
    shards = PredictionShards(tmp_path, "key")
    answers, timing = predict_all(EXAMPLES, replace(careful, launch=launch), pace, shards)
    assert answers == predict_all(EXAMPLES, careful, pace)[0]
    middle = ["launch 8", "fetch 7"] if fails != "launch" else ["launch 8"]
    assert events == ["launch 3", "launch 7", "fetch 3", *middle, "fetch 8"]
    assert (len(timing.batches), timing.examples) == (3, 9)
