from __future__ import annotations

from itertools import product
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from vlbench.metrics.significance import Seeds, holm, mcnemar, paired, permutation, seeded


def units(values: np.ndarray, together: int = 1) -> tuple[dict[str, float], dict[str, str]]:
    named = {str(row): float(value) for row, value in enumerate(values)}
    return named, {name: str(int(name) // together) for name in named}


def test_mcnemar_by_hand() -> None:
    # 2 fixed, 8 broken: P(at most 2 or at least 8 of 10 fair coins) = 2 * (1 + 10 + 45) / 1024.
    assert mcnemar(2, 8) == pytest.approx(112 / 1024)
    assert mcnemar(0, 0) == 1.0


def test_a_pair_of_binary_runs() -> None:
    a, groups = units(np.array([1.0] * 50 + [0.0] * 50))
    b = a | {str(row): 1.0 for row in range(50, 60)} | {"0": 0.0, "1": 0.0}
    found = paired(a, b, groups)
    assert (found.effect, found.n, found.groups) == (pytest.approx(0.08), 100, 100)
    assert found.test == "McNemar" and found.p == pytest.approx(mcnemar(10, 2))
    # The variance of a mean of 10 times 1, 2 times -1 and 88 zeros.
    stderr = ((12 / 100 - 0.08**2) / 100) ** 0.5
    assert found.stderr == pytest.approx(stderr, rel=0.06)
    assert found.low == pytest.approx(0.08 - 1.96 * stderr, abs=0.015)
    assert found.detectable == pytest.approx((1.984 + 0.846) * found.stderr, rel=0.03)


@pytest.mark.parametrize(("n", "flips"), [(6, 0), (12, 1), (100, 0), (100, 12), (1000, 2), (10_000, 300)])
def test_what_mcnemar_detects_it_does_four_times_in_five(n: int, flips: int) -> None:
    a, groups = units(np.tile([0.0, 1.0], n)[:n])
    b = a | {str(row): 1.0 - row % 2 for row in range(flips)}
    share = paired(a, b, groups).detectable
    assert share > 0
    flipping, repeats = max(share, flips / n), 3000
    shares = [(flipping + share) / 2, (flipping - share) / 2, 1 - flipping]
    drawn = np.random.default_rng(n).multinomial(n, shares, repeats)
    assert near(sum(mcnemar(fixed, broken) < 0.05 for fixed, broken, _ in drawn.tolist()), 0.8, repeats)


@pytest.mark.parametrize("together", [1, 2])
def test_what_is_detectable_has_no_sign_and_takes_six_groups(together: int) -> None:
    def detectable(a: np.ndarray, b: np.ndarray) -> float:
        return paired(units(a)[0], units(b)[0], units(a, together)[1]).detectable

    same, other = np.zeros(60 * together), np.ones(60 * together)
    assert detectable(same, other) == detectable(other, same) > 0
    few = slice(5 * together)
    assert detectable(same[few], same[few]) == detectable(same[few], other[few]) == float("inf")


@pytest.mark.parametrize("changed", [0, 6])
def test_what_groups_detect_they_do_four_times_in_five(changed: int) -> None:
    """A share of 100 groups of three changes one way, which is a sixth of a group's figure each."""
    a, groups = units(np.zeros(300), 3)
    b = a | {str(3 * row): 0.5 for row in range(changed)}
    size = 0.5 if changed else 1.0
    share = paired(a, b, groups).detectable / (size / 3)
    generator, repeats, hits = np.random.default_rng(changed), 200, 0
    for _ in range(repeats):
        moved = {str(3 * row): size for row in np.flatnonzero(generator.random(100) < share)}
        hits += paired(a, a | moved, groups).p < 0.05
    assert hits / repeats >= 0.8 - 4 * (0.8 * 0.2 / repeats) ** 0.5


def test_the_permutation_is_scipys() -> None:
    changes = np.array([0.5, 1.0, -0.5, 0.25, 1.0, 0.75, -0.25, 0.0, 1.0])
    exact = np.mean([abs(np.dot(signs, changes)) >= abs(changes.sum()) - 1e-9 for signs in product((-1, 1), repeat=9)])
    theirs = stats.permutation_test(
        (changes, np.zeros(9)), lambda x, y, axis: np.mean(x - y, axis=axis), permutation_type="samples",
        vectorized=True, n_resamples=np.inf,
    ).pvalue  # fmt: skip
    assert theirs == pytest.approx(exact)
    assert permutation(changes, np.random.default_rng(0)) == pytest.approx(exact, abs=4 * (exact / 9999) ** 0.5)


def test_groups_are_what_counts() -> None:
    change = np.repeat([1.0, 1.0, 1.0, -1.0], 25)
    a, groups = units(np.zeros(100), together=25)
    together = paired(a, units(change)[0], groups)
    alone = paired(a, units(change)[0], {name: name for name in a})
    assert together.p > 0.5 > 0.001 > alone.p
    assert together.stderr > 3 * alone.stderr


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm(ps: list[float]) -> None:
    adjusted = holm(ps)
    order = np.argsort(ps, kind="stable")
    worst = 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, ps[place] * (len(ps) - rank)))
        assert adjusted[place] == pytest.approx(worst)


def test_runs_that_agree_leave_doubt_by_their_size() -> None:
    a, groups = units(np.ones(100))
    found = paired(a, a, groups)
    assert (found.effect, found.p) == (0.0, 1.0)
    # 100 groups without a change: up to 1 - 0.025 ** 0.01 may have one.
    assert (found.low, found.high) == (pytest.approx(-0.03622, abs=1e-5), pytest.approx(0.03622, abs=1e-5))
    assert (found.beyond(found.low), found.beyond(found.low - 0.01)) == (1.0, 0.0)
    assert paired(a, a, dict.fromkeys(a, "one group")).detectable == float("inf")


@pytest.mark.parametrize("seeds", [1, 3])
def test_a_change_leaves_no_less_doubt_than_none(seeds: int) -> None:
    """1 - 0.025 ** 0.01 of 100 units may have changed where none did; where one did, not fewer may have."""
    a, groups = units(np.tile([0.0, 1.0], 50))

    def compared(b: dict[str, float]) -> tuple[float, float]:
        found = paired(a, b, groups) if seeds == 1 else seeded(Seeds.of([a] * 3), Seeds.of([b] * 3), groups)
        return found.low, found.high

    none, up, down = compared(a), compared(a | {"0": 1.0}), compared(a | {"1": 0.0})
    assert none == (pytest.approx(-0.03622, abs=1e-5), pytest.approx(0.03622, abs=1e-5))
    assert up[0] >= none[0] and up[1] >= none[1] - 1e-12
    assert down[0] <= none[0] + 1e-12 and down[1] <= none[1]
    both = compared(a | {"0": 1.0, "1": 0.0})  # which cancel each other
    assert both[0] <= none[0] + 1e-12 and both[1] >= none[1] - 1e-12
    assert compared(a | {str(row): 1.0 for row in range(0, 60, 2)})[0] > 0  # a clear effect stays one


@pytest.mark.parametrize("change", [0.0, 0.25, 1.0, 3.0])
def test_what_is_detectable_knows_no_direction(change: float) -> None:
    """Also where all 100 units change alike, beyond 1 as well: up to 0.03622 of them may do the opposite."""
    a, groups = units(np.zeros(100))
    b, _ = units(np.full(100, change))
    up, down = paired(a, b, groups), paired(b, a, groups)
    assert up.detectable == pytest.approx(down.detectable) and up.detectable > 0
    assert up.effect - up.low == pytest.approx(0.03622 * (max(1, change) + change), rel=1e-3)
    assert (up.low, up.high) == (pytest.approx(-down.high), pytest.approx(-down.low))
    assert up.low < up.effect <= up.high


def test_seeds_and_examples_are_kept_apart() -> None:
    generator = np.random.default_rng(1)
    base = generator.random(4000)
    sides = [[units(base + shift)[0] for shift in shifts] for shifts in ((-0.01, 0.0, 0.01), (0.09, 0.1, 0.11))]
    found = seeded(Seeds.of(sides[0]), Seeds.of(sides[1]), units(base)[1])
    assert found.effect == pytest.approx(0.1)
    assert found.test_stderr == pytest.approx(0.0, abs=1e-9)
    assert found.seed_stderr == pytest.approx((2 * 0.01**2 / 3) ** 0.5)
    theirs = stats.ttest_ind([0.09, 0.1, 0.11], [-0.01, 0.0, 0.01], equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue)
    interval = theirs.confidence_interval(0.95)
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.beyond(0.1) == pytest.approx(0.5)


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_seeds_that_all_agree_say_no_more_than_one_run_does(groups: int) -> None:
    a, of = units(np.zeros(groups))
    b, _ = units(np.ones(groups))
    alone, found = paired(a, b, of), seeded(Seeds.of([a] * 3), Seeds.of([b] * 3), of)
    assert found.effect == 1.0 and found.p == pytest.approx(2 * 0.5**groups if groups > 1 else 1.0, abs=0.02)
    assert found.p >= alone.p * 0.9 and found.high == 1.0
    if groups == 1:
        assert found.low == -1.0 and found.detectable == float("inf") and found.beyond(0.0) == 1.0


def test_one_group_tells_nothing_however_many_seeds() -> None:
    generator = np.random.default_rng(0)
    sides = [[units(generator.random(50) + shift, 50)[0] for _ in range(3)] for shift in (0.0, 5.0)]
    found = seeded(Seeds.of(sides[0]), Seeds.of(sides[1]), dict.fromkeys(sides[0][0], "one"))
    assert found.effect > 4 and found.p == 1.0
    assert (found.low, found.high, found.detectable) == (float("-inf"), float("inf"), float("inf"))


@pytest.mark.parametrize("seeds", [2, 3])
def test_chance_in_single_answers_is_counted_once(seeds: int) -> None:
    """Two-way analysis of variance by hand: S seeds, U units, residual mean square over S x U."""
    generator = np.random.default_rng(0)
    table = generator.random((seeds, 500))
    of_seed, of_unit, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    rest = [[table[s, u] - of_unit[u] - of_seed[s] + mean for u in range(500)] for s in range(seeds)]
    square = sum(value**2 for row in rest for value in row) / ((seeds - 1) * 499)
    assert Seeds.of([units(row)[0] for row in table]).noise == pytest.approx(square / (seeds * 500))
    assert Seeds.of([units(table[0])[0]]).noise == 0.0


def test_two_groups_tell_something() -> None:
    """Groups that differ by 3 and by 5: drawn with replacement their mean is 3, 4, 4 or 5, so that its variance is .5;
    Student's t of one degree of freedom is Cauchy's distribution."""
    a, groups = units(np.zeros(6), 3)
    b, _ = units(np.repeat([3.0, 5.0], 3))
    alone = paired(a, b, groups)
    assert (alone.effect, alone.low, alone.high) == (4.0, 3.0, 5.0)
    assert alone.stderr == pytest.approx(0.5**0.5, rel=0.05)
    found = seeded(Seeds.of([a] * 3), Seeds.of([b] * 3), groups)
    assert found.stderr == pytest.approx(alone.stderr, rel=0.05) and found.degrees == pytest.approx(1)
    assert found.low == pytest.approx(4 - stats.cauchy.isf(0.025) * found.stderr)
    assert found.p == pytest.approx(2 * stats.cauchy.sf(4 / found.stderr))
    assert found.detectable == pytest.approx((stats.cauchy.isf(0.025) + stats.cauchy.isf(0.2)) * found.stderr)
    for either in (alone, found):
        assert either.beyond(3.0) == pytest.approx(stats.cauchy.sf(1 / either.stderr))


def test_six_groups_are_the_fewest_that_show_a_difference() -> None:
    """All six of six groups must change one way, 2 / 2**6 < 0.05: where a group does with q, q**6 is to be 0.8."""
    a, groups = units(np.zeros(12), 2)
    assert paired(a, a, groups).detectable == pytest.approx(0.8 ** (1 / 6) / 2)
    fewer = {name: value for name, value in a.items() if int(name) < 10}
    assert paired(fewer, fewer, groups).detectable == float("inf")


def test_values_of_other_units_are_refused() -> None:
    a, groups = units(np.ones(3))
    with pytest.raises(ValueError, match="same units"):
        paired(a, {"0": 1.0}, groups)
    with pytest.raises(ValueError, match="same units"):
        Seeds.of([a, {"0": 1.0}])
    with pytest.raises(ValueError, match="same units"):
        seeded(Seeds.of([a]), Seeds.of([{"0": 1.0}]), groups)


def near(found: int, expected: float, of: int) -> bool:
    """Whether a count is within Monte-Carlo error (4 standard errors) of a rate."""
    return abs(found / of - expected) <= 4 * (expected * (1 - expected) / of) ** 0.5


def draw(generator: np.random.Generator, groups: int, together: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    """0/1 scores of two systems over groups of differing difficulty; B is right more often by `shift`."""
    ease = np.repeat(generator.uniform(0.2, 0.7, groups), together)
    skew = np.repeat(generator.normal(0, 0.08, groups), together)
    return (
        (generator.random(len(ease)) < ease).astype(float),
        (generator.random(len(ease)) < ease + shift + skew).astype(float),
    )


@pytest.mark.slow
@pytest.mark.parametrize("together", [1, 4])
def test_intervals_cover_and_tests_hold_their_level(together: int) -> None:
    generator, repeats = np.random.default_rng(together), 600
    covered = wrong = 0
    for _ in range(repeats):
        a, b = draw(generator, 200, together, 0.05)
        (of_a, groups), (of_b, _) = units(a, together), units(b, together)
        found = paired(of_a, of_b, groups)
        covered += found.low <= 0.05 <= found.high
        a, b = draw(generator, 200, together, 0.0)
        wrong += paired(units(a)[0], units(b)[0], groups).p < 0.05
    assert near(covered, 0.95, repeats)
    # McNemar's test is exact, so conservative; the permutation has its level.
    assert wrong / repeats < 0.05 + 4 * (0.05 * 0.95 / repeats) ** 0.5
    assert wrong / repeats > 0.01


@pytest.mark.slow
def test_the_smallest_detectable_difference_is_detected_four_times_in_five() -> None:
    generator, repeats, shift = np.random.default_rng(5), 400, 0.0
    a, b = draw(generator, 400, 1, 0.0)
    shift = paired(units(a)[0], units(b)[0], units(a)[1]).detectable
    hits = 0
    for _ in range(repeats):
        a, b = draw(generator, 400, 1, shift)
        hits += paired(units(a)[0], units(b)[0], units(a)[1]).p < 0.05
    assert hits / repeats == pytest.approx(0.8, abs=0.07)


@pytest.mark.slow
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.05])
def test_three_seeds_a_side_keep_the_level(spread: float) -> None:
    """Seeds that move every score of a run by chance, over one shared test set."""
    generator, repeats = np.random.default_rng(int(100 * spread)), 400
    groups = units(np.zeros(600), 3)[1]
    covered = 0
    for _ in range(repeats):
        ease = np.repeat(generator.uniform(0.3, 0.7, 200), 3)
        sides = [
            [units((generator.random(600) < ease + shift).astype(float))[0] for shift in generator.normal(0, spread, 3)]
            for _ in range(2)
        ]
        found = seeded(Seeds.of(sides[0]), Seeds.of(sides[1]), groups)
        covered += found.low <= 0 <= found.high
    assert near(covered, 0.95, repeats)


def test_the_normal_limit() -> None:
    a, groups = units(np.tile([0.0, 1.0], 5000), 2)
    b = a | {str(row): 1.0 for row in range(0, 400, 2)}
    found = paired(a, b, groups)
    z = found.effect / found.stderr
    assert z > 10 and found.detectable / found.stderr == pytest.approx(
        NormalDist().inv_cdf(0.975) + NormalDist().inv_cdf(0.8), abs=0.01
    )
