import math
import random
import statistics

import pytest
from scipy.stats import beta

from vlbench.core.errors import DataError
from vlbench.metrics import uncertainty
from vlbench.metrics.uncertainty import clustered_bootstrap, mean_score


def grouped(groups, size, draw):
    values = {f"{group}-{member}": draw(group) for group in range(groups) for member in range(size)}
    return values, {unit: unit.split("-")[0] for unit in values}


def test_single_units_give_the_binomial_error():
    values, groups = grouped(2000, 1, lambda group: float(group % 10 < 3))
    interval = clustered_bootstrap(values, groups, resamples=4000)
    stderr = math.sqrt(0.3 * 0.7 / 2000)
    assert interval.stderr == pytest.approx(stderr, rel=0.05)
    assert (interval.low, interval.high) == pytest.approx((0.3 - 1.96 * stderr, 0.3 + 1.96 * stderr), abs=0.002)


def test_members_that_hang_together_count_once():
    values, groups = grouped(500, 4, lambda group: float(group % 2))
    interval = clustered_bootstrap(values, groups, resamples=4000)
    assert interval.stderr == pytest.approx(math.sqrt(0.25 / 500), rel=0.05)


def test_uneven_groups_and_fractions_agree_with_a_plain_bootstrap():
    toss = random.Random(5)
    members = [[toss.choice([0.0, 0.3, 0.9, 1.0]) for _ in range(toss.randint(1, 5))] for _ in range(60)]
    values = {(group, place): value for group, row in enumerate(members) for place, value in enumerate(row)}
    means = []
    for _ in range(4000):
        drawn = [value for row in toss.choices(members, k=len(members)) for value in row]
        means.append(sum(drawn) / len(drawn))
    interval = clustered_bootstrap(values, {unit: str(unit[0]) for unit in values}, resamples=4000)
    assert interval.stderr == pytest.approx(statistics.stdev(means), rel=0.06)
    low, *_, high = statistics.quantiles(means, n=40)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)


def test_result_depends_on_seed_but_not_on_order_or_block_size(monkeypatch):
    values = {(group, member): member / (10 + group % 7) for group in range(50) for member in range(1, 4)}
    groups = {unit: str(unit[0]) for unit in values}
    first = clustered_bootstrap(values, groups, seed=1)
    assert clustered_bootstrap(values, groups, seed=2) != first
    assert clustered_bootstrap(dict(reversed(values.items())), groups, seed=1) == first
    monkeypatch.setattr(uncertainty, "DRAWS_AT_ONCE", 100)
    assert clustered_bootstrap(values, groups, seed=1) == first


def test_method_says_what_was_done():
    values, groups = grouped(2018, 1, lambda group: float(group % 2))
    method = clustered_bootstrap(values, groups).method
    assert method == "95 % percentile bootstrap over 2,018 groups, 1,000 resamples; test sampling only"


def test_one_group_leaves_nothing_to_estimate():
    assert clustered_bootstrap({"a": 1.0, "b": 0.0}, {"a": "x", "b": "x"}) is None


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_values_must_be_finite(value):
    with pytest.raises(DataError, match=f"'b' is {value}"):
        clustered_bootstrap({"a": 1.0, "b": value}, {"a": "x", "b": "y"})


def test_mean_score_is_in_percent():
    values, groups = grouped(400, 1, lambda group: float(group % 4 == 0))
    score = mean_score("share", values, groups)
    interval = clustered_bootstrap(values, groups)
    assert (score.name, score.value, score.n) == ("share", 25.0, 400)
    assert (score.stderr, score.ci95) == (100 * interval.stderr, (100 * interval.low, 100 * interval.high))


def test_unanimous_groups_still_leave_doubt() -> None:
    """Clopper and Pearson's bounds are beta quantiles; scipy knows those."""
    groups = {str(unit): str(unit // 3) for unit in range(60)}
    for value in (0.0, 1.0):
        found = clustered_bootstrap(dict.fromkeys(groups, value), groups)
        assert found is not None
        low, high = (beta.ppf(0.025, 20 * value, 1), 1.0) if value else (0.0, beta.ppf(0.975, 1, 20))
        assert (found.low, found.high) == pytest.approx((low, high))
        assert "Clopper-Pearson" in found.method
