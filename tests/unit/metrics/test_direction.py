"""Which of two values is the better one, in both directions."""

from __future__ import annotations

from math import nan

import pytest

from vlbench.metrics.direction import MetricValue, is_better, worth


@pytest.mark.parametrize(
    ("value", "than", "higher", "better"),
    [
        (60.0, 50.0, True, True), (50.0, 60.0, True, False), (50.0, 50.0, True, False),
        (3.0, 7.5, False, True), (7.5, 3.0, False, False), (3.0, 3.0, False, False),
        (nan, 3.0, True, False), (nan, 3.0, False, False), (3.0, nan, True, True), (3.0, nan, False, True),
        (nan, nan, True, False),
    ],
)  # fmt: skip
def test_a_value_is_better_in_the_metrics_direction(value: float, than: float, higher: bool, better: bool) -> None:
    assert is_better(value, than, higher) is better
    assert MetricValue(value, higher).is_better_than(than) is better


def test_any_value_is_better_than_none() -> None:
    assert MetricValue(0.0).is_better_than(None) and MetricValue(9.0, False).is_better_than(None)


def test_values_are_ordered_by_worth() -> None:
    ranks = [5.0, 1.0, 3.0]
    assert (
        max(ranks, key=lambda rank: worth(rank, False)) == 1.0 and max(ranks, key=lambda one: worth(one, True)) == 5.0
    )
