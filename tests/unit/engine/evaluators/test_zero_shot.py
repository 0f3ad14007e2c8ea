"""Images compared with sentences: the scores of a plain loop, in batches no larger than given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from vlbench import catalog
from vlbench.core.backbone import Tensors
from vlbench.core.cards import TaskCard
from vlbench.core.examples import Example, ImageRef, Label, Query
from vlbench.core.progress import Silent
from vlbench.engine.evaluators.zero_shot import compare
from vlbench.engine.learner import Learner
from vlbench.engine.runtime.interrupt import Interrupt
from vlbench.engine.runtime.progress_timing import Pace
from vlbench.heads.dual import DualHead
from vlbench.models.fake.backbone import Fake

LABELS = ("red", "2", "yes", "no", "a dog")
OF_ITS_OWN, OF_ALL = "{text} {label}", "a picture of {label}"


class Counting(Fake):
    """Records the texts of each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.read_together: list[list[str]] = []

    def prepare_texts(self, texts: Sequence[str]) -> Tensors:
        self.read_together.append(list(texts))
        return super().prepare_texts(texts)


EXAMPLES = [
    Example(f"{n}", Query((ImageRef(Path(f"{n // 2}"), f"{n // 2}"),), f"what is {n}"), Label("red"), f"{n}")
    for n in range(7)
]


def card(claim: str) -> TaskCard:
    return catalog.task_card("vqa2").model_copy(update={"claims": {"*": claim, "no": "nothing but {text}"}})


def pace(batch_size: int, workers: int = 0) -> Pace:
    return Pace(Accelerator(cpu=True), batch_size, workers, Silent(), Interrupt(), "predicting")


@pytest.mark.parametrize(("batch_size", "workers"), [(1, 0), (3, 0), (100, 0), (4, 1)])
@pytest.mark.parametrize("claim", [OF_ITS_OWN, OF_ALL])
def test_scores_are_those_of_a_loop(claim: str, batch_size: int, workers: int) -> None:
    backbone, head = Fake(), DualHead()
    predictions, timing = compare(Learner(backbone, head), EXAMPLES, card(claim), LABELS, pace(batch_size, workers))
    assert [item.example_id for item in predictions] == [item.id for item in EXAMPLES] and timing.examples == len(
        EXAMPLES
    )
    for example, prediction in zip(EXAMPLES, predictions, strict=True):
        text = example.query.text
        sentences = [f"nothing but {text}" if label == "no" else _fill_template(claim, text, label) for label in LABELS]
        with torch.no_grad():
            visual = backbone.see(backbone.prepare_images(example.query.images), torch.zeros(1, dtype=torch.int64))
            image = backbone.embed_images(visual)[0]
            texts = [
                backbone.embed_texts(backbone.read(backbone.prepare_texts([sentence])))[0] for sentence in sentences
            ]
        cosines = torch.stack([image @ text for text in texts]).double()
        expected = dict(zip(LABELS, (cosines / 0.07).softmax(dim=0).tolist(), strict=True))
        assert list(prediction.scores) == sorted(LABELS, key=lambda label: -expected[label])
        assert prediction.scores == pytest.approx(expected, abs=1e-5)


def _fill_template(claim: str, text: str, label: str) -> str:
    return claim.replace("{text}", text).replace("{label}", label)


@pytest.mark.parametrize(("claim", "distinct"), [(OF_ITS_OWN, 7 * 5), (OF_ALL, 4 + 7)])
def test_each_sentence_is_read_once_and_few_at_once(claim: str, distinct: int) -> None:
    backbone = Counting()
    compare(Learner(backbone, DualHead()), EXAMPLES, card(claim), LABELS, pace(7))
    queries = {example.query.text for example in EXAMPLES}
    read = [texts for texts in backbone.read_together if not queries.issuperset(texts)]
    sentences = [text for texts in read for text in texts]
    assert len(sentences) == len(set(sentences)) == distinct
    assert max(map(len, read)) == 7


def test_the_ten_best_labels_are_kept() -> None:
    learner, labels = Learner(Fake(), DualHead()), tuple(f"label {n}" for n in range(12))
    predictions, _ = compare(learner, EXAMPLES, card(OF_ITS_OWN), labels, pace(3))
    for prediction in predictions:
        values = list(prediction.scores.values())
        assert len(values) == 10 and values == sorted(values, reverse=True) and sum(values) < 1
        assert prediction.answer == next(iter(prediction.scores))
