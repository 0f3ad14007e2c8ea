"""How far a figure moves, against the metric itself counted again with the answers changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from vlbench.core.examples import Caption, Example, ImageRef, Label, Query
from vlbench.core.record import Result
from vlbench.core.results import Direction, Prediction, Ranking, Score
from vlbench.metrics.accuracy import accuracy, consistency
from vlbench.metrics.retrieval import Recall, RecallSum
from vlbench.records.folder import RunFolder
from vlbench.records.rankings import write_ranks
from vlbench.records.samples import sample_rows, write_samples
from vlbench.report.gate.near_tie_bound import largest_change

STATEMENTS = [Example(f"e{row}", Query((), ""), Label("True"), f"s{row // 4}") for row in range(20)]


def answers_with(*wrong: str) -> list[Prediction]:
    return [Prediction(one.id, "False" if one.id in wrong else "True") for one in STATEMENTS]


@pytest.mark.parametrize("flips", [("e3",), ("e3", "e2"), ("e3", "e9", "e10", "e17")])
@pytest.mark.parametrize("metric", [accuracy, consistency])
def test_answers_by_example_and_by_group(folder: Path, metric: Callable[..., Score], flips: tuple[str, ...]) -> None:
    scores = accuracy(answers_with(), STATEMENTS).per_example if metric is accuracy else {}
    write_samples(RunFolder(folder).samples, sample_rows(STATEMENTS, answers_with(), scores, "dev"))
    before, after = metric(answers_with(), STATEMENTS), metric(answers_with(*flips), STATEMENTS)
    result = Result(metric=before.name, value=before.value, n=before.n)
    moved = before.value - after.value
    assert largest_change(RunFolder(folder), result, flips) == pytest.approx(moved)


@pytest.mark.parametrize("metric", [Recall("tr_r5", "i2t", 5, "pessimistic"), RecallSum("rsum", "pessimistic")])
@pytest.mark.parametrize("flips", [("i2t p0",), ("t2i t5", "i2t p2"), ("t2i t0", "t2i t1")])
def test_queries_of_folds_of_unlike_sizes(folder: Path, metric: Recall | RecallSum, flips: tuple[str, ...]) -> None:
    """Pictures p0 and p1 are one fold, p2 another; each has two texts, and a query goes from first to last."""
    texts = [
        Example(
            f"t{row}",
            Query((ImageRef(Path(), f"p{row // 2}"),), ""),
            Caption(f"p{row // 2}", str(row // 4)),
            f"p{row // 2}",
        )
        for row in range(6)
    ]
    names: list[tuple[Direction, str]] = [
        *(("i2t", f"p{row}") for row in range(3)),
        *(("t2i", one.id) for one in texts),
    ]
    before = [Ranking(name, way, 0, 0) for way, name in names]
    after = [Ranking(name, way, *([99] * 2 if f"{way} {name}" in flips else [0, 0])) for way, name in names]
    write_ranks(RunFolder(folder).ranks, before)
    write_samples(RunFolder(folder).samples, sample_rows(texts, [Prediction(one.id, "") for one in texts], {}, "test"))
    figure = metric(before, texts)
    moved = figure.value - metric(after, texts).value
    assert largest_change(
        RunFolder(folder), Result(metric=figure.name, value=figure.value, n=figure.n), flips
    ) == pytest.approx(moved)


def test_a_median_rank_is_not_bounded(folder: Path) -> None:
    write_ranks(RunFolder(folder).ranks, [Ranking("p0", "i2t", 0, 0)])
    write_samples(RunFolder(folder).samples, sample_rows(STATEMENTS, answers_with(), {}, "dev"))
    assert largest_change(RunFolder(folder), Result(metric="tr_medr", value=1.0, n=1), ["i2t p0"]) is None


def test_a_mean_over_slices_weighs_rare_ones_more(folder: Path) -> None:
    """One example of a slice of its own is half of the mean over two slices."""
    cut = [replace(one, tags={"kind": "rare" if one.id == "e3" else "usual"}) for one in STATEMENTS]
    write_samples(RunFolder(folder).samples, sample_rows(cut, answers_with("e3"), {one.id: 0.5 for one in cut}, "dev"))
    result = Result(metric="macro", value=10.0, n=2)
    assert largest_change(RunFolder(folder), result, ["e3"]) == pytest.approx(50.0)
    assert largest_change(RunFolder(folder), result, ["e4"]) == pytest.approx(100 / 5), "a whole group"


def test_an_example_of_no_slice_weighs_nothing_in_their_mean(folder: Path) -> None:
    """Two slices of one example each: either is half of their mean, however many examples have no tag."""
    kinds = {"e0": "a", "e1": "b"}
    cut = [replace(one, tags={"kind": kinds[one.id]} if one.id in kinds else {}) for one in STATEMENTS]
    write_samples(RunFolder(folder).samples, sample_rows(cut, answers_with("e0"), {one.id: 0.5 for one in cut}, "dev"))
    assert largest_change(RunFolder(folder), Result(metric="macro", value=10.0, n=2), ["e0"]) == pytest.approx(50.0)
