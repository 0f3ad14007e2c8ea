"""The head over open answers: soft targets, the loss of the papers, the ten best answers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vlbench.core.cards import HeadLayout
from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.examples import Example, ImageRef, Query
from vlbench.heads.classify import SoftHead, best

ANSWERS = ("red", "blue", "2")


@dataclass(frozen=True)
class Worths:
    given: tuple[tuple[str, float], ...]
    consensus: str = ""

    def worths(self) -> Mapping[str, float]:
        return dict(self.given)


def example(reference: object) -> Example[object]:
    return Example("q1", Query((ImageRef(Path("a"), "a"),), "what colour?"), reference, "a")


@pytest.fixture
def head() -> SoftHead:
    return SoftHead(4, ANSWERS, HeadLayout())


def test_targets_are_worths_in_the_order_of_the_list(head: SoftHead) -> None:
    targets = head.targets([example(Worths((("blue", 0.9), ("red", 0.3), ("mauve", 1.0)))), example(Worths(()))])
    assert targets.tolist() == [pytest.approx([0.3, 0.9, 0.0]), [0.0, 0.0, 0.0]]


def test_a_reference_without_answers_is_named(head: SoftHead) -> None:
    with pytest.raises(DataError, match="'q1'"):
        head.targets([example("red")])


def test_loss_is_the_sum_over_answers_and_the_mean_over_examples(head: SoftHead) -> None:
    logits = torch.tensor([[0.5, -1.0, 2.0], [0.0, 3.0, -0.5]], dtype=torch.float64)
    targets = torch.tensor([[0.3, 0.9, 0.0], [1.0, 0.0, 0.6]], dtype=torch.float64)
    by_hand = 0.0
    for row in range(2):
        for column in range(3):
            likely = 1 / (1 + math.exp(-float(logits[row, column])))
            worth = float(targets[row, column])
            by_hand -= (worth * math.log(likely) + (1 - worth) * math.log(1 - likely)) / 2
    assert float(head.loss(logits, targets)) == pytest.approx(by_hand, rel=1e-12)


def test_finish_keeps_the_ten_best_and_ranks_ties_by_the_list() -> None:
    many = SoftHead(4, tuple(f"answer {n}" for n in range(30)), HeadLayout())
    logits = torch.zeros(1, 30)
    logits[0, 7] = 1.0
    (prediction,) = many.finish(logits, ["q1"])
    assert prediction.answer == "answer 7"
    assert list(prediction.scores) == ["answer 7", *(f"answer {n}" for n in (0, 1, 2, 3, 4, 5, 6, 8, 9))]
    assert prediction.scores["answer 7"] == pytest.approx(1 / (1 + math.exp(-1)))


def test_an_example_with_a_nan_logit_is_named(head: SoftHead) -> None:
    with pytest.raises(VlbenchError, match="'q2'"):
        head.finish(torch.tensor([[0.0, 1.0, 2.0], [0.0, float("nan"), 0.0]]), ["q1", "q2"])


@given(
    st.lists(st.lists(st.sampled_from((-1.5, -0.0, 0.0, 0.5, 3.0)), min_size=13, max_size=13), min_size=1, max_size=4),
    st.integers(1, 15),
)
def test_the_best_are_the_first_of_a_full_stable_sort(rows: list[list[float]], k: int) -> None:
    logits = torch.tensor(rows)
    assert torch.equal(best(logits, k), logits.argsort(dim=-1, descending=True, stable=True)[:, :k])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # bfloat16 rounds many logits to the same number
def test_the_best_of_thousands_of_answers_are_those_of_a_full_stable_sort(dtype: torch.dtype) -> None:
    logits = torch.randn(64, 3_129, generator=torch.Generator().manual_seed(0)).to(dtype).double()
    assert torch.equal(best(logits, 10), logits.argsort(dim=-1, descending=True, stable=True)[:, :10])
