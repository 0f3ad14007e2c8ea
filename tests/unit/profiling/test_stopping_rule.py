from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from vlbench.profiling.stopping_rule import StoppingRule, median_interval, summarize_times


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    draw = np.random.default_rng(0)
    held = []
    for _ in range(2000):
        low, high = median_interval(draw.exponential(size=25).tolist())
        held.append(low <= np.log(2) <= high)
    exact = binom.cdf(17, 25, 0.5) - binom.cdf(7, 25, 0.5)  # between the 8th and the 18th of 25
    assert 0.95 <= exact < 0.97
    assert abs(np.mean(held) - exact) < 3 * np.sqrt(exact * (1 - exact) / 2000)


def test_its_ends_are_measured_values() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 9.0, 7.0, 8.0, 10.0]
    assert median_interval(values) == (2.0, 9.0)  # of 10, the 2nd and the 9th: 97.9 %
    assert median_interval([3.0, 1.0]) == (1.0, 3.0)


@pytest.mark.parametrize(
    ("seconds", "enough"),
    [
        ([1.0] * 20, True),
        ([1.0] * 9, False),  # too few
        ([0.01] * 20, False),  # too short
        ([1.0, 1.1] * 20, False),  # not precise
        ([1.0, 1.03] * 20, True),
    ],
)
def test_when_it_is_enough(seconds: list[float], enough: bool) -> None:
    assert StoppingRule(iterations=10, seconds=5.0, precision=0.02).is_satisfied(seconds) is enough


@pytest.mark.parametrize("n", range(1, 10))
def test_too_few_for_an_interval_are_never_enough(n: int) -> None:
    confidence = 1 - 2 * 0.5**n  # that not all of n lie on one side of the median
    assert StoppingRule(iterations=1, seconds=0.0, precision=1.0).is_satisfied([1.0] * n) is (confidence >= 0.95)


def test_percentiles_are_in_milliseconds() -> None:
    found = summarize_times([number / 1000 for number in range(1, 102)])
    assert (found.n, found.p50, found.p90, found.p95, found.p99) == pytest.approx((101, 51, 91, 96, 100))
    assert found.stdev == pytest.approx(np.std(range(1, 102), ddof=1))
