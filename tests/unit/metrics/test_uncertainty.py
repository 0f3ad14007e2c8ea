import itertools
import math
import random
import statistics

import numpy as np
import pytest
from scipy.stats import beta, binom, binomtest

from vlbench.core.errors import DataError
from vlbench.metrics import uncertainty
from vlbench.metrics.uncertainty import bounded_bootstrap, clustered_bootstrap, mean_interval, mean_score

SAMPLING = "test sampling only"


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
    exact = binomtest(100, 400).proportion_ci(method="exact")
    assert (score.name, score.value, score.n) == ("share", 25.0, 400)
    assert score.stderr == pytest.approx(100 * math.sqrt(0.25 * 0.75 / 400))
    assert score.ci95 == pytest.approx((100 * exact.low, 100 * exact.high))
    assert score.method == "95 % Clopper-Pearson over 400 groups, effective sample size p (1 - p) / se^2; " + SAMPLING


def test_unanimous_groups_still_leave_doubt() -> None:
    """Clopper and Pearson's bounds are beta quantiles; scipy knows those."""
    groups = {str(unit): str(unit // 3) for unit in range(60)}
    for value in (0.0, 1.0):
        found = clustered_bootstrap(dict.fromkeys(groups, value), groups)
        assert found is not None
        low, high = (beta.ppf(0.025, 20 * value, 1), 1.0) if value else (0.0, beta.ppf(0.975, 1, 20))
        assert (found.low, found.high) == pytest.approx((low, high))
        assert "Clopper-Pearson" in found.method


def filled(right: int, units: int, size: int = 1) -> uncertainty.Interval:
    """The interval where the first `right` of so many units are 1; groups of `size` units follow each other."""
    values = {unit: float(unit < right) for unit in range(units)}
    found = mean_interval(values, {unit: str(unit // size) for unit in values})
    assert found is not None
    return found


@pytest.mark.parametrize("units", [2, 30, 100])
def test_units_by_themselves_get_the_exact_binomial_interval(units: int) -> None:
    for right in range(units + 1):
        found, exact = filled(right, units), binomtest(right, units).proportion_ci(method="exact")
        assert (found.low, found.high) == pytest.approx((exact.low, exact.high), abs=1e-9)


@pytest.mark.parametrize(("units", "size"), [(30, 1), (100, 1), (100, 2), (120, 4)])
def test_more_right_answers_never_lower_the_interval(units: int, size: int) -> None:
    """Groups are filled one after the other; those of four are compared where they are whole, since a group in between
    tells otherwise than the rest how much its members hang together."""
    found = [filled(right, units, size) for right in range(0, units + 1, size if size > 2 else 1)]
    for before, after in itertools.pairwise(found):
        assert before.low <= after.low + 1e-12 and before.high <= after.high + 1e-12


@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("wrong", [0.0, 0.9])
def test_one_fault_never_makes_an_interval_surer(size: int, wrong: float) -> None:
    """99 of 100 right and the last one wrong, or worth .9, against 100 of 100; and the same from below."""
    values = dict.fromkeys(range(100), 1.0)
    groups = {unit: str(unit // size) for unit in values}
    whole, less = mean_interval(values, groups), mean_interval(values | {7: wrong}, groups)
    assert whole is not None and less is not None and less.low <= whole.low
    none, some = (
        mean_interval({unit: 1 - value for unit, value in of.items()}, groups) for of in (values, {**values, 7: wrong})
    )
    assert none is not None and some is not None and none.high <= some.high


def test_the_interval_covers_at_thirty_examples() -> None:
    """The chance of all counts whose interval holds the true share, by the binomial distribution itself."""
    intervals = [filled(right, 30) for right in range(31)]
    for share in [place / 200 for place in range(1, 200)]:
        held = [right for right, one in enumerate(intervals) if one.low <= share <= one.high]
        assert binom.pmf(held, 30, share).sum() >= 0.95


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95])
def test_the_interval_covers_groups_that_hang_together(share: float) -> None:
    """1,000 samples of 30 groups of five; each group has a share of its own, from a beta distribution."""
    generator, repeats, covered = np.random.default_rng(3), 1000, 0
    groups = {unit: str(unit // 5) for unit in range(150)}
    for _ in range(repeats):
        own = np.repeat(generator.beta(2 * share, 2 * (1 - share), 30), 5)
        found = mean_interval(dict(enumerate((generator.random(150) < own).astype(float).tolist())), groups)
        covered += found is not None and found.low <= share <= found.high
    assert covered / repeats >= 0.95 - 2 * math.sqrt(0.95 * 0.05 / repeats)


def test_groups_that_hang_together_give_a_wider_interval() -> None:
    """20 groups of 3, 15 of them right throughout. By hand: the variance of 20 group means of 0 and 1 is .75 * .25 *
    20 / 19, that of their mean a twentieth; 59 / 60 brings 60 groups of one to the binomial .75 * .25 / 60."""
    together, apart = filled(45, 60, 3), filled(45, 60)
    square = 0.75 * 0.25 / 19 * 59 / 60
    size = 0.75 * 0.25 / square
    assert together.stderr == pytest.approx(math.sqrt(square)) and 19 < size < 20
    assert together.low == pytest.approx(beta.ppf(0.025, 0.75 * size, 0.25 * size + 1))
    assert together.high == pytest.approx(beta.ppf(0.975, 0.75 * size + 1, 0.25 * size))
    assert together.low < apart.low and together.high > apart.high


@pytest.mark.parametrize("value", [(0.5, 0.5), (0.0, 1.0), (1.0, 0.0, 0.5)])
def test_groups_that_are_all_alike_are_no_certainty(value: tuple[float, ...]) -> None:
    """Resampled, a mean of groups that are all .5 does not move; the interval is that of 60 tosses of a coin."""
    values = {unit: value[unit % len(value)] for unit in range(60)}
    found = mean_interval(values, {unit: str(unit // len(value)) for unit in values})
    exact = binomtest(30, 60).proportion_ci(method="exact")
    assert found is not None and found.stderr == pytest.approx(0, abs=1e-12)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_values_outside_of_zero_and_one_are_resampled() -> None:
    values, groups = grouped(50, 2, lambda group: float(group % 3))
    assert mean_interval(values, groups) == clustered_bootstrap(values, groups)
    assert mean_interval(dict.fromkeys("ab", 1.0), dict.fromkeys("ab", "one")) is None


def test_the_interval_does_not_depend_on_order() -> None:
    toss = random.Random(8)
    values = {unit: toss.choice([0.0, 0.3, 0.6, 0.9, 1.0]) for unit in range(200)}
    groups = {unit: str(unit % 37) for unit in values}
    shuffled = toss.sample(list(values), 200)
    assert mean_interval({unit: values[unit] for unit in shuffled}, groups) == mean_interval(values, groups)


def test_a_resampled_share_is_no_surer_than_groups_that_agree() -> None:
    groups = {unit: str(unit) for unit in range(100)}
    whole = bounded_bootstrap(dict.fromkeys(groups, 1.0), groups)
    less = bounded_bootstrap(dict.fromkeys(groups, 1.0) | {3: 0.9}, groups)
    assert whole is not None and less is not None and less.low <= whole.low == pytest.approx(0.025**0.01)
    middle = {unit: unit / 100 for unit in groups}
    assert bounded_bootstrap(middle, groups) == clustered_bootstrap(middle, groups)
