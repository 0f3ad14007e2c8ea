"""Pictures compared with sentences: the scores of a plain loop, and no more work at once than was asked for."""

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
    """Remembers the texts that it was given together."""

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
    found, timing = compare(Learner(backbone, head), EXAMPLES, card(claim), LABELS, pace(batch_size, workers))
    assert [one.example_id for one in found] == [one.id for one in EXAMPLES] and timing.examples == len(EXAMPLES)
    for example, one in zip(EXAMPLES, found, strict=True):
        text = example.query.text
        sentences = [f"nothing but {text}" if label == "no" else _worded(claim, text, label) for label in LABELS]
        with torch.no_grad():
            picture = backbone.see(backbone.prepare_images(example.query.images), torch.zeros(1, dtype=torch.int64))
            image = backbone.embed_images(picture)[0]
            texts = [backbone.embed_texts(backbone.read(backbone.prepare_texts([one])))[0] for one in sentences]
        cosines = torch.stack([image @ text for text in texts]).double()
        expected = dict(zip(LABELS, (cosines / 0.07).softmax(dim=0).tolist(), strict=True))
        assert list(one.scores) == sorted(LABELS, key=lambda label: -expected[label])
        assert one.scores == pytest.approx(expected, abs=1e-5)


def _worded(claim: str, text: str, label: str) -> str:
    return claim.replace("{text}", text).replace("{label}", label)


@pytest.mark.parametrize(("claim", "distinct"), [(OF_ITS_OWN, 7 * 5), (OF_ALL, 4 + 7)])
def test_each_sentence_is_read_once_and_few_at_once(claim: str, distinct: int) -> None:
    backbone = Counting()
    compare(Learner(backbone, DualHead()), EXAMPLES, card(claim), LABELS, pace(7))
    queries = {example.query.text for example in EXAMPLES}
    said = [texts for texts in backbone.read_together if not queries.issuperset(texts)]
    sentences = [text for texts in said for text in texts]
    assert len(sentences) == len(set(sentences)) == distinct
    assert max(map(len, said)) == 7
