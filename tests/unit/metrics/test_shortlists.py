"""Two stages against sorting every list by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vlbench.core.examples import ImageRef
from vlbench.core.gallery import Gallery
from vlbench.core.results import Ranking
from vlbench.metrics.shortlists import depths, in_two_stages

PICTURES, TEXTS = 5, 13


def gallery() -> Gallery:
    owner = [row % PICTURES for row in range(TEXTS)]
    refs = [ImageRef(Path(), f"p{row}") for row in range(PICTURES)]
    return Gallery("", refs, [f"t{row}" for row in range(TEXTS)], [""] * TEXTS, owner)


def by_hand(quick: NDArray[np.float32], slow: NDArray[np.float32], right: set[int], depth: int) -> tuple[int, int, int]:
    """One query: lists sorted by Python, and ranks counted as their definition says."""
    order = sorted(range(len(quick)), key=lambda place: -quick[place])
    marks = {place: (1, slow[place]) if place in order[:depth] else (0, quick[place]) for place in order}
    best = max(marks[place] for place in right)
    low = sum(marks[place] > best for place in order)
    tied = sum(marks[place] == best and place not in right for place in order)
    return low, low + tied, sum(marks[place] == best for place in right)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 16), st.integers(2, 9))
def test_every_depth_is_what_sorting_gives(seed: int, k: int, levels: int) -> None:
    """Few different scores, so that many are tied."""
    draw = np.random.default_rng(seed)
    quick, slow = draw.integers(0, levels, (2, PICTURES, TEXTS)).astype(np.float32)
    of, asked = gallery(), []

    def look(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float32]:
        asked.extend(zip(rows.tolist(), columns.tolist(), strict=True))
        found: NDArray[np.float32] = slow[rows, columns]
        return found

    found = in_two_stages(quick, of, k, look)
    assert list(found) == depths(k)
    assert asked == sorted(set(asked))
    for depth, rankings in found.items():
        for row in range(PICTURES):
            own = {column for column in range(TEXTS) if of.owner[column] == row}
            assert counts(rankings[row]) == by_hand(quick[row], slow[row], own, depth)
        for column in range(TEXTS):
            own = {of.owner[column]}
            assert counts(rankings[PICTURES + column]) == by_hand(quick[:, column], slow[:, column], own, depth)


def counts(ranking: Ranking) -> tuple[int, int, int]:
    return ranking.rank_low, ranking.rank_high, ranking.positives


def test_the_best_fall() -> None:
    draw = np.random.default_rng(0)
    quick, slow = draw.standard_normal((2, PICTURES, TEXTS)).astype(np.float32)
    found = in_two_stages(quick, gallery(), 3, lambda rows, columns: slow[rows, columns])[3]
    names = [name for name, _ in found[0].top]
    order = sorted(range(TEXTS), key=lambda place: -quick[0, place])
    expected = [*sorted(order[:3], key=lambda place: -slow[0, place]), *order[3:11]]
    assert names == [f"t{place}" for place in expected]
    marks = [mark for _, mark in found[0].top]
    assert marks == sorted(marks, reverse=True)


@pytest.mark.parametrize(("k", "steps"), [(1, [1]), (2, [1, 2]), (10, [1, 2, 5, 10]), (64, [1, 2, 5, 10, 20, 50, 64])])
def test_depths(k: int, steps: list[int]) -> None:
    assert depths(k) == steps
