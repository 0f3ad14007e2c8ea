"""Whether two systems differ on one test set: paired tests, confidence intervals and smallest detectable differences.

Every value belongs to a unit (an example, an image, a statement). Units of one group are dependent, so only groups are
resampled, sign-flipped or counted as independent. Differences are B minus A.
Shapes: G groups, K different kinds of groups, S seeds, U units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from vlbench.metrics.uncertainty import group_totals, resampled_means, unseen_share

POWER = 0.8
"""The probability of finding a true difference as large as the smallest detectable one."""
_LEVEL = 0.05
_FLIPS = 6
"""The fewest changes that are significant at that level when all go one way: 2 / 2**5 > 0.05."""
_RESAMPLES = 2000
_PERMUTATIONS = 9_999
_DRAWS_AT_ONCE = 1 << 22

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A over the same units, in the unit of the values.

    effect: the mean difference. low, high: its 95 % interval. p: two-sided, in [0, 1]. test: how p was computed;
    method: how the interval was computed. n: units. detectable: the smallest difference, up or down, that these data
    would show (p < 0.05) with `POWER`; where all units agree, the effect of `_FLIPS` changes one way, the fewest that
    any test finds significant; infinite for fewer groups. degrees: of freedom. seed_stderr, test_stderr: the standard
    errors from training seeds and from the choice of test examples; the randomness of single answers is in both.
    """

    effect: float
    stderr: float
    low: float
    high: float
    p: float
    test: str
    method: str
    n: int
    groups: int
    detectable: float
    degrees: float = float("inf")
    seed_stderr: float = 0.0
    test_stderr: float = 0.0

    def beyond(self, limit: float) -> float:
        """The one-sided p, in [0, 1], of the hypothesis that the difference is at most `limit`."""
        from scipy import stats

        if self.stderr == 0 or self.groups < 2:
            return 0.0 if self.low > limit else 1.0
        return float(stats.t.sf((self.effect - limit) / self.stderr, self.degrees))


def paired(a: Values, b: Values, groups: Mapping[str, str], seed: int = 0) -> Difference:
    """Compare one run with one run, paired by unit.

    The test is McNemar's exact one where values are 0 or 1 and every unit is a group of its own, else a permutation
    test that swaps A and B in whole groups. The interval is a percentile bootstrap over groups. a, b: unit -> value of
    the same units, in [0, 1] except where folds of unequal size are weighted. groups: unit -> its group. seed: of the
    random generator that resamples and permutes.
    Raises ValueError: the units differ, or there are none.
    """
    if a.keys() != b.keys() or not a:
        raise ValueError("paired values are of the same units, of which there is at least one")
    change = {unit: b[unit] - a[unit] for unit in a}
    sums, counts = group_totals(change, groups)
    rng = np.random.default_rng(seed)
    effect = float(sums.sum() / counts.sum())
    binary = {*a.values(), *b.values()} <= {0.0, 1.0}
    flips = [int((sums > 0).sum()), int((sums < 0).sum())]
    exact = binary and len(sums) == len(change)
    p = mcnemar(*flips) if exact else permutation(sums, rng)
    stderr, low, high, method = _bootstrap(sums, counts, rng)
    detectable = max(_by_signs(sums, counts), _detectable(stderr, len(sums) - 1.0))
    return Difference(
        effect, stderr, low, high, p, "McNemar" if exact else f"permutation of {len(sums):,} groups", method,
        len(change), len(sums), detectable=_by_flips(len(sums), sum(flips)) if exact else detectable,
        degrees=len(sums) - 1.0, test_stderr=stderr,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seeds:
    """A system over its seeds. mean: unit -> its mean value over seeds. figures: the score (mean over units) of each
    seed. noise: the part of the mean score's variance that comes from the randomness of single answers; it is in the
    variance over seeds and in that over units, and would otherwise be counted twice.
    """

    mean: Values
    figures: tuple[float, ...]
    noise: float = 0.0

    @classmethod
    def of(cls, runs: Sequence[Values]) -> Seeds:
        """Pool the values of each seed's run. Raises ValueError: their units differ, or there are none."""
        if not runs or not runs[0] or any(values.keys() != runs[0].keys() for values in runs):
            raise ValueError("all seeds have values of the same units, of which there is at least one")
        mean = {unit: fmean(values[unit] for values in runs) for unit in runs[0]}
        return cls(mean, tuple(fmean(values.values()) for values in runs), _noise(runs))


def seeded(a: Seeds, b: Seeds, groups: Mapping[str, str], seed: int = 0) -> Difference:
    """Compare two systems of several seeds each, with the variance of seeds and of the choice of examples added.

    The test-set variance is a bootstrap over groups of the mean over seeds; the seed variance is that of the seeds'
    scores. They add, less the noise of single answers that is in both, with Welch's and Satterthwaite's degrees of
    freedom: a bootstrap over three seeds would show two thirds of their variance, and a normal interval would be too
    narrow for so few. With one group of examples the test-set variance is unknown, and so is the interval. a, b: the
    systems, at least one of them with two seeds or more; a single seed has a variance of zero. groups: unit -> its
    group. seed: of the random generator that resamples and permutes.
    Raises ValueError: the units differ.
    """
    from scipy import stats

    if a.mean.keys() != b.mean.keys():
        raise ValueError("both sides have values of the same units")
    change = {unit: b.mean[unit] - value for unit, value in a.mean.items()}
    sums, counts = group_totals(change, groups)
    rng = np.random.default_rng(seed)
    test_stderr, *_ = _bootstrap(sums, counts, rng)
    parts = [(_seed_variance(side.figures), len(side.figures) - 1.0) for side in (a, b)]
    parts = [*((variance, free) for variance, free in parts if free > 0), (test_stderr**2, len(sums) - 1.0)]
    both = sum(variance for variance, _ in parts) - a.noise - b.noise
    total = max(both, *(variance for variance, _ in parts))
    stderr, degrees, effect = total**0.5, _satterthwaite(parts), float(sums.sum() / counts.sum())
    if len(sums) < 2:
        half_width, detectable, p = float("inf"), float("inf"), 1.0
    elif not stderr:
        half_width, detectable, p = unseen_share(len(sums)), _by_signs(sums, counts), permutation(sums, rng)
    else:
        half_width, detectable = float(stats.t.isf(_LEVEL / 2, degrees)) * stderr, _detectable(stderr, degrees)
        p = 2 * float(stats.t.sf(abs(effect) / stderr, degrees))
    within = all(0 <= value <= 1 for side in (a, b) for value in side.mean.values())
    low, high = _outward(effect - half_width, effect + half_width, effect, unseen_share(len(sums)))
    return Difference(
        effect, stderr, max(low, -1.0) if within else low, min(high, 1.0) if within else high, p,
        test=f"t over {len(a.figures)} and {len(b.figures)} seeds and {len(sums):,} groups",
        method="95 % t interval of the seeds' spread and a bootstrap over groups together",
        n=len(change), groups=len(sums),
        detectable=float("inf") if within and detectable > 1 else detectable,
        degrees=degrees, test_stderr=test_stderr,
        seed_stderr=sum(variance for variance, _ in parts[:-1]) ** 0.5,
    )  # fmt: skip


def mcnemar(fixed: int, broken: int) -> float:
    """McNemar's exact two-sided p, in [0, 1] (McNemar 1947). fixed: units that only B answers correctly. broken: units
    that only A answers correctly.
    """
    from scipy import stats

    return float(stats.binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def permutation(sums: NDArray[np.float64], rng: np.random.Generator) -> float:
    """The two-sided p, in (0, 1], of the sum of group differences [G] under random flips of their signs. The same
    distribution as scipy.stats.permutation_test(permutation_type="samples"), at the cost of the K different sizes of a
    difference instead of all G: of m groups with one size, a binomial number keeps its sign.
    """
    sizes, times = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    observed, extreme = abs(sums.sum()), 0
    block = max(1, _DRAWS_AT_ONCE // len(sizes))
    for start in range(0, _PERMUTATIONS, block):
        kept = rng.binomial(times, 0.5, size=(min(block, _PERMUTATIONS - start), len(sizes)))
        drawn = np.abs((2 * kept - times) @ sizes)
        extreme += int((drawn >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + _PERMUTATIONS)


def holm(ps: Sequence[float]) -> list[float]:
    """The p values in the given order, adjusted to control the family-wise error rate (Holm 1979)."""
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    raised = accumulate((min(1.0, (len(ps) - rank) * ps[place]) for rank, place in enumerate(order)), max)
    adjusted = dict(zip(order, raised, strict=True))
    return [adjusted[place] for place in range(len(ps))]


def _bootstrap(
    sums: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator
) -> tuple[float, float, float, str]:
    """The standard error, low and high end, and method of the interval of the mean difference of [G] sums and counts.

    Where every unit changed by the same c, resampling shows no variance: the share of units that may change by -1 or by
    1 instead, or by -c or c if |c| is larger, is then bounded as in `unseen_share`. Where only some changed, the end in
    the direction of the effect is at least as far out as where none did.
    """
    if len(sums) < 2:
        return 0.0, float("-inf"), float("inf"), "none: one group leaves nothing to estimate"
    means, share = sums / counts, unseen_share(len(sums))
    if np.ptp(means) < 1e-12:
        same = float(means[0])
        far = max(1.0, abs(same))
        return 0.0, same - share * (far + same), same + share * (far - same), "95 % Clopper-Pearson: all units agree"
    drawn = resampled_means(sums, counts, rng, _RESAMPLES)
    low, high = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    low, high = _outward(low, high, float(sums.sum()), share)
    return float(drawn.std(ddof=1)), low, high, f"95 % percentile bootstrap over {len(sums):,} groups"


def _outward(low: float, high: float, effect: float, share: float) -> tuple[float, float]:
    """The interval, whose end in the direction of the effect is at least `share` from 0, as without any change."""
    return min(low, -share) if effect <= 0 else low, max(high, share) if effect >= 0 else high


def _seed_variance(figures: Sequence[float]) -> float:
    """The variance of the mean over seeds, 0 for one seed."""
    return float(np.var(figures, ddof=1)) / len(figures) if len(figures) > 1 else 0.0


def _noise(runs: Sequence[Values]) -> float:
    """The variance that the randomness of single answers adds to the mean over S seeds and U units. It is the residual
    mean square of the table [S, U] of values, over S * U. For dependent units it is slightly too small, which is
    conservative.
    """
    table = np.array([list(values.values()) for values in ({unit: run[unit] for unit in runs[0]} for run in runs)])
    if min(table.shape) < 2:
        return 0.0
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)) / table.size)


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """The degrees of freedom of a sum of variances, given as (variance, its degrees of freedom)."""
    below = sum(variance**2 / free for variance, free in parts if free > 0)
    return sum(variance for variance, _ in parts) ** 2 / below if below else float("inf")


def _by_flips(n: int, flips: int) -> float:
    """The smallest gain in accuracy, as a share of n examples, that McNemar's test finds with `POWER`. The share of
    changed answers is that of these data, or what the gain needs (Connett, Smith and McHugh 1987).
    """
    from scipy import optimize, stats

    def power(share: float) -> float:
        flipping = max(flips / n, share)
        few, many = (float(stats.binom.ppf(edge, n, flipping)) for edge in (1e-9, 1 - 1e-9))
        numbers = np.arange(few, many + 1)
        enough = stats.binom.isf(_LEVEL / 2, numbers, 0.5) + 1
        significant = stats.binom.sf(enough - 1, numbers, (flipping + share) / (2 * flipping))
        return float(stats.binom.pmf(numbers, n, flipping) @ significant)

    return float(optimize.brentq(lambda share: power(share) - POWER, 1e-9, 1)) if n >= _FLIPS else float("inf")


def _by_signs(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """The smallest difference that changes enough of G groups one way for a permutation test to find it with `POWER`. A
    group that changes does so by the mean size of a change in these data, or by one unit where nothing changed.
    """
    from scipy import stats

    if len(sums) < _FLIPS:
        return float("inf")
    share = stats.beta.ppf(POWER, _FLIPS, len(sums) - _FLIPS + 1)  # of so many groups, at least _FLIPS
    changed = np.abs(sums[sums != 0])
    return float(share * len(sums) * (changed.mean() if len(changed) else 1.0) / counts.sum())


def _detectable(stderr: float, degrees: float) -> float:
    """The smallest difference that a t test finds with `POWER`."""
    from scipy import stats

    if degrees < 1:
        return float("inf")
    return float(stats.t.isf(_LEVEL / 2, degrees) + stats.t.ppf(POWER, degrees)) * stderr
