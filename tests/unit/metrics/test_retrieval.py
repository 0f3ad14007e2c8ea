"""Ranks and recalls against sorting and against every order of the ties."""

from __future__ import annotations

import itertools
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Caption, Example, ImageRef, Query
from vlbench.core.gallery import galleries
from vlbench.core.results import MetricAbsentError, Ranking
from vlbench.metrics import ranks as counting
from vlbench.metrics import retrieval
from vlbench.metrics.ranks import rankings, ranks


def split(texts_per_image: list[int], fold: str = "", first: int = 0) -> list[Example[Caption]]:
    return [
        Example(
            f"{fold}{image}-{n}",
            Query((ImageRef(Path(f"{fold}{image}"), f"{fold}{image}"),), f"text {n} of {image}"),
            Caption(f"{fold}{image}", fold),
            f"{fold}{image}",
        )
        for image, count in enumerate(texts_per_image, start=first)
        for n in range(count)
    ]


def ranked(scores: NDArray[np.floating], examples: list[Example[Caption]]) -> list[Ranking]:
    (gallery,) = galleries(examples)
    return rankings(scores, gallery, ranks(scores, np.asarray(gallery.owner)))


def draw(seed: int, levels: int) -> tuple[NDArray[np.float32], list[Example[Caption]]]:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 6, size=7).tolist()
    return rng.integers(0, levels, (7, sum(counts))).astype(np.float32), split(counts)


def by_sorting(row: NDArray[np.floating], right: set[int], worst: bool) -> int:
    """The place of the best right candidate after sorting, wrong ones of equal score first (`worst`) or last."""
    order = sorted(range(len(row)), key=lambda one: (-row[one], (one in right) == worst))
    return min(order.index(one) for one in right)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
@pytest.mark.parametrize("seed", range(5))
def test_ranks_are_those_of_sorting(seed: int, levels: int) -> None:
    scores, examples = draw(seed, levels)
    (gallery,) = galleries(examples)
    owner = np.asarray(gallery.owner)
    for item in ranked(scores, examples):
        if item.direction == "i2t":
            query = [ref.key for ref in gallery.images].index(item.query_id)
            row, right = scores[query], set(np.flatnonzero(owner == query).tolist())
        else:
            query = gallery.text_ids.index(item.query_id)
            row, right = scores[:, query], {int(owner[query])}
        # The query's other right answers never count against it.
        alone = max(right, key=lambda one: row[one])
        keep = [one for one in range(len(row)) if one not in right or one == alone]
        here = {keep.index(alone)}
        assert item.rank_low == by_sorting(row[keep], here, worst=False)
        assert item.rank_high == by_sorting(row[keep], here, worst=True)
        assert item.positives == sum(row[one] == row[alone] for one in right)
        names = gallery.text_ids if item.direction == "i2t" else [ref.key for ref in gallery.images]
        best = sorted(range(len(row)), key=lambda one: -row[one])[:10]
        assert item.top == tuple((names[one], float(row[one])) for one in best)


@pytest.mark.parametrize("ties", ["pessimistic", "optimistic", "expected"])
@pytest.mark.parametrize("k", [1, 2, 3, 5])
def test_recall_is_the_mean_over_all_orders_of_ties(k: int, ties: str) -> None:
    """Three ways to read the orders of up to six candidates: the worst one, the best one, the mean of all."""
    for low, tied, positives, behind in itertools.product(range(3), range(3), range(1, 3), range(2)):
        ranking = Ranking("q", "i2t", low, low + tied, positives)
        group = ["wrong"] * tied + ["right"] * positives
        hits = [
            "right" in (["wrong"] * low + list(order) + ["wrong"] * behind)[:k]
            for order in itertools.permutations(group)
        ]
        read = {"pessimistic": min, "optimistic": max, "expected": lambda all_: sum(all_) / len(all_)}[ties]
        assert retrieval.found(ranking, k, ties) == pytest.approx(float(read(hits)))


def test_figures_of_a_matrix_by_hand() -> None:
    scores = np.array([[0.9, 0.1, 0.8, 0.7], [0.2, 0.3, 0.95, 0.6]], np.float32)
    examples = split([2, 2])
    found = {name: getattr(retrieval, name)(ranked(scores, examples), examples) for name in (
        "tr_r1", "ir_r1", "ir_r5", "rsum", "tr_medr", "ir_medr", "tr_meanr", "ir_meanr")}  # fmt: skip
    # Texts 0 and 2 find their picture; 1 and 3 find the other one first.
    assert found["tr_r1"].value == 100 and found["ir_r1"].value == 50 and found["ir_r5"].value == 100
    assert found["rsum"].value == 550
    assert (found["tr_medr"].value, found["ir_medr"].value) == (1, 1)  # the median 0.5 loses its fraction
    assert (found["tr_meanr"].value, found["ir_meanr"].value) == (1, 1.5)
    assert not found["ir_meanr"].higher_is_better
    assert found["ir_r1"].per_example == {"0-0": 1, "0-1": 0, "1-0": 1, "1-1": 0}


def test_equal_scores_earn_nothing_but_what_chance_expects() -> None:
    examples = split([5] * 20)
    found = ranked(np.zeros((20, 100), np.float16), examples)
    assert retrieval.tr_r10(found, examples).value == retrieval.rsum(found, examples).value == 0
    assert retrieval.rsum_optimistic(found, examples).value == 600
    expected = retrieval.chance(examples)
    assert expected["ir_r1"] == pytest.approx(5) and expected["ir_r10"] == pytest.approx(50)
    assert expected["tr_r1"] == pytest.approx(5)
    for name, value in expected.items():
        assert getattr(retrieval, f"{name}_expected")(found, examples).value == pytest.approx(value)


def test_folds_are_ranked_apart_and_averaged() -> None:
    near, far = split([2, 2, 2], "a"), split([2, 2, 2, 2, 2], "b")
    right = np.kron(np.eye(3), np.ones(2)).astype(np.float32)
    found = ranked(right, near) + ranked(np.zeros((5, 10), np.float32), far)
    both = near + far
    assert [gallery.fold for gallery in galleries(both)] == ["a", "b"]
    assert retrieval.tr_r1(found, both).value == 50
    assert retrieval.ir_medr(found, both).value == (1 + 5) / 2
    assert retrieval.rsum(found, both).value == (600 + 300) / 2


@pytest.mark.parametrize("name", ["tr_r5", "ir_r5", "rsum", "ir_r5_expected"])
def test_the_interval_holds_the_figure_and_rsum_adds_up(name: str) -> None:
    scores, examples = draw(3, 1000)
    score = getattr(retrieval, name)(ranked(scores, examples), examples)
    assert score.ci95 is not None and score.ci95[0] <= score.value <= score.ci95[1]
    suffix = "_expected" if name.endswith("_expected") else ""
    total = sum(
        getattr(retrieval, f"{way}_r{k}{suffix}")(ranked(scores, examples), examples).value
        for way in ("tr", "ir")
        for k in (1, 5, 10)
    )
    assert getattr(retrieval, f"rsum{suffix}")(ranked(scores, examples), examples).value == pytest.approx(total)


def test_not_a_number_is_named() -> None:
    scores, examples = draw(0, 100)
    scores[3, 2] = np.nan
    with pytest.raises(DataError, match="picture 3 with text 2 is not a number"):
        ranked(scores, examples)


def test_infinities_rank() -> None:
    scores, examples = draw(0, 100)
    scores[:] = -np.inf
    scores[0, 0] = np.inf
    found = ranked(scores, examples)
    assert (found[0].rank_low, found[0].rank_high) == (0, 0)


@pytest.mark.parametrize(
    ("shape", "owner", "fault"),
    [((2, 3), [0, 1], "shape"), ((2, 2), [0, 0], "picture 1 has no text"), ((1, 2), [0, 1], "2 pictures")],
)
def test_shapes_must_fit(shape: tuple[int, int], owner: list[int], fault: str) -> None:
    with pytest.raises(DataError, match=fault):
        ranks(np.zeros(shape), np.array(owner))


def test_every_query_once() -> None:
    scores, examples = draw(1, 100)
    found = ranked(scores, examples)
    for changed, fault in ((found[1:], "1 missing"), ([*found, found[0]], "1 duplicate"), (found, "extra")):
        with pytest.raises(CoverageError, match=fault):
            retrieval.tr_r1(changed, examples[:-5] if fault == "extra" else examples)


def test_short_lists_know_only_what_they_hold() -> None:
    examples = split([1, 1])
    found = [
        Ranking("0", "i2t", 0, 0, depth=1), Ranking("1", "i2t", 1, 1, depth=1),
        Ranking("0-0", "t2i", 0, 0), Ranking("1-0", "t2i", 1, 1),
    ]  # fmt: skip
    assert retrieval.tr_r1(found, examples).value == 50
    for metric in (retrieval.tr_r5, retrieval.rsum, retrieval.tr_meanr, retrieval.tr_medr):
        with pytest.raises(MetricAbsentError):
            metric(found, examples)
    assert retrieval.ir_meanr(found, examples).value == 1.5


@settings(deadline=None)
@given(st.integers(0, 1000), st.integers(1, 200), st.randoms(use_true_random=False))
def test_neither_blocks_nor_order_count(seed: int, at_once: int, rng: Random) -> None:
    scores, examples = draw(seed, 4)
    found = ranked(scores, examples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_AT_ONCE", at_once)
        assert ranked(scores, examples) == found
    shuffled = found.copy()
    rng.shuffle(shuffled)
    assert retrieval.rsum(shuffled, examples) == retrieval.rsum(found, examples)
    assert retrieval.ir_r5_expected(shuffled, examples) == retrieval.ir_r5_expected(found, examples)
