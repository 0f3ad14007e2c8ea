"""Whether two systems differ on one test set: paired tests, intervals, and what the data could have shown at all.

Every value belongs to a unit (an example, a picture, a statement), and units of one group hang together, so that only
groups are drawn, flipped or counted as independent. Differences are B minus A.
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
"""How often the smallest detectable difference, were it real, would be found."""
_LEVEL = 0.05
_FLIPS = 6
"""Fewer changes, were they all one way, are no difference at that level: 2 / 2**5 > 0.05."""
_RESAMPLES = 2000
_PERMUTATIONS = 9_999
_AT_ONCE = 1 << 22

Values = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """B minus A over the same units, in the unit of the values.

    low, high: the 95 % interval. p: two-sided. test: how p was made, and method how the interval. detectable: the
    smallest difference, up or down, that these data would show (p < 0.05) in 80 % of cases; where all units agree, what
    six changes one way come to, the fewest that any test shows; infinite where there are fewer groups.
    seed_stderr, test_stderr: what chance in training and the choice of test examples each add to `stderr`; chance in
    single answers is in both.
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
        """The one-sided p of the difference being no larger than `limit`."""
        from scipy import stats

        if self.stderr == 0 or self.groups < 2:
            return 0.0 if self.low > limit else 1.0
        return float(stats.t.sf((self.effect - limit) / self.stderr, self.degrees))


def paired(a: Values, b: Values, groups: Mapping[str, str], seed: int = 0) -> Difference:
    """Compare one run with one run, unit by unit.

    a, b: unit -> value of the same units, in [0, 1] but for weights of unlike folds. groups: unit -> its group.
    The test is McNemar's exact one where values are 0 or 1 and every unit is a group of its own, else a permutation
    test that swaps A and B in whole groups. The interval is a percentile bootstrap over groups.

    Raises:
        ValueError: the units differ, or there are none.
    """
    if a.keys() != b.keys() or not a:
        raise ValueError("paired values are of the same units, of which there is at least one")
    change = {unit: b[unit] - a[unit] for unit in a}
    sums, counts = group_totals(change, groups)
    generator = np.random.default_rng(seed)
    effect = float(sums.sum() / counts.sum())
    binary = {*a.values(), *b.values()} <= {0.0, 1.0}
    flips = [int((sums > 0).sum()), int((sums < 0).sum())]
    exact = binary and len(sums) == len(change)
    p = mcnemar(*flips) if exact else permutation(sums, generator)
    stderr, low, high, method = _bootstrap(sums, counts, generator)
    shown = max(_by_signs(sums, counts), _detectable(stderr, len(sums) - 1.0))
    return Difference(
        effect, stderr, low, high, p, "McNemar" if exact else f"permutation of {len(sums):,} groups", method,
        len(change), len(sums), detectable=_by_flips(len(sums), sum(flips)) if exact else shown,
        degrees=len(sums) - 1.0, test_stderr=stderr,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seeds:
    """A system over its seeds: each unit's mean value, and the figure (the mean over units) of each seed.

    noise: the part of the mean figure's variance that is chance in single answers. It shows in the spread of the seeds
    and in that of the units alike, and would otherwise be counted twice.
    """

    mean: Values
    figures: tuple[float, ...]
    noise: float = 0.0

    @classmethod
    def of(cls, runs: Sequence[Values]) -> Seeds:
        """Put the values of each seed's run together.

        Raises:
            ValueError: their units differ, or there are none.
        """
        if not runs or not runs[0] or any(values.keys() != runs[0].keys() for values in runs):
            raise ValueError("all seeds have values of the same units, of which there is at least one")
        mean = {unit: fmean(values[unit] for values in runs) for unit in runs[0]}
        return cls(mean, tuple(fmean(values.values()) for values in runs), _noise(runs))


def seeded(a: Seeds, b: Seeds, groups: Mapping[str, str], seed: int = 0) -> Difference:
    """Compare two systems of several seeds each: what seeds and what the choice of examples leave open, together.

    The test-set part is a bootstrap over groups of the mean over seeds; the seed part is the spread of the seeds'
    figures. Both variances add, less the chance in single answers that is in both, with Welch's and Satterthwaite's
    degrees of freedom: three seeds drawn with replacement would show two thirds of their variance, and a normal
    interval would take three for many. One group of examples leaves the test-set part unknown, and so everything.

    a, b: two seeds or more on at least one side; one seed alone has a spread of zero.

    Raises:
        ValueError: the units differ.
    """
    if a.mean.keys() != b.mean.keys():
        raise ValueError("both sides have values of the same units")
    change = {unit: b.mean[unit] - value for unit, value in a.mean.items()}
    sums, counts = group_totals(change, groups)
    generator = np.random.default_rng(seed)
    test_stderr, *_ = _bootstrap(sums, counts, generator)
    parts = [(_spread(side.figures), len(side.figures) - 1.0) for side in (a, b)]
    parts = [*((variance, free) for variance, free in parts if free > 0), (test_stderr**2, len(sums) - 1.0)]
    both = sum(variance for variance, _ in parts) - a.noise - b.noise
    total = max(both, *(variance for variance, _ in parts))
    found = _Chance(total**0.5, _satterthwaite(parts), len(sums))
    effect = float(sums.sum() / counts.sum())
    shown = found.detectable if found.stderr else _by_signs(sums, counts)
    within = all(0 <= value <= 1 for side in (a, b) for value in side.mean.values())
    low, high = _outward(effect - found.reach, effect + found.reach, effect, unseen_share(len(sums)))
    return Difference(
        effect, found.stderr, max(low, -1.0) if within else low, min(high, 1.0) if within else high,
        p=found.p(effect) if found.stderr else permutation(sums, generator),
        test=f"t over {len(a.figures)} and {len(b.figures)} seeds and {len(sums):,} groups",
        method="95 % t interval of the seeds' spread and a bootstrap over groups together",
        n=len(change), groups=len(sums),
        detectable=float("inf") if within and shown > 1 else shown,
        degrees=found.degrees, test_stderr=test_stderr,
        seed_stderr=sum(variance for variance, _ in parts[:-1]) ** 0.5,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Chance:
    """What chance does to a difference over so many groups; one group tells nothing of it."""

    stderr: float
    degrees: float
    groups: int

    @property
    def reach(self) -> float:
        """Half the 95 % interval."""
        from scipy import stats

        if self.groups < 2:
            return float("inf")
        return float(stats.t.isf(_LEVEL / 2, self.degrees)) * self.stderr if self.stderr else unseen_share(self.groups)

    @property
    def detectable(self) -> float:
        return _detectable(self.stderr, self.degrees) if self.groups > 1 else float("inf")

    def p(self, effect: float) -> float:
        """Two-sided."""
        from scipy import stats

        return 2 * float(stats.t.sf(abs(effect) / self.stderr, self.degrees)) if self.groups > 1 else 1.0


def mcnemar(fixed: int, broken: int) -> float:
    """The exact two-sided p that so many right from wrong and wrong from right are chance (McNemar 1947)."""
    from scipy import stats

    return float(stats.binomtest(fixed, fixed + broken).pvalue) if fixed + broken else 1.0


def permutation(sums: NDArray[np.float64], generator: np.random.Generator) -> float:
    """The two-sided p of the sum of [G] group differences, when each might as well have had the other sign.

    What scipy.stats.permutation_test(permutation_type="samples") draws, at the cost of the K different sizes of a
    difference instead of all G: of m groups with one size, a binomial number keeps its sign.
    """
    sizes, times = np.unique(np.abs(sums[sums != 0]), return_counts=True)
    if not len(sizes):
        return 1.0
    observed, extreme = abs(sums.sum()), 0
    block = max(1, _AT_ONCE // len(sizes))
    for start in range(0, _PERMUTATIONS, block):
        kept = generator.binomial(times, 0.5, size=(min(block, _PERMUTATIONS - start), len(sizes)))
        drawn = np.abs((2 * kept - times) @ sizes)
        extreme += int((drawn >= observed * (1 - 1e-12)).sum())
    return (1 + extreme) / (1 + _PERMUTATIONS)


def holm(ps: Sequence[float]) -> list[float]:
    """The p values, each adjusted for having looked at all of them (Holm 1979); they bound the chance of any error."""
    order = sorted(range(len(ps)), key=lambda place: ps[place])
    raised = accumulate((min(1.0, (len(ps) - rank) * ps[place]) for rank, place in enumerate(order)), max)
    adjusted = dict(zip(order, raised, strict=True))
    return [adjusted[place] for place in range(len(ps))]


def _bootstrap(
    sums: NDArray[np.float64], counts: NDArray[np.float64], generator: np.random.Generator
) -> tuple[float, float, float, str]:
    """Standard error, low, high and how, of the mean difference.

    Where every unit changed by the same c, resampling shows nothing: the share of units that may change by -1 or by 1
    instead, or by -c or c where that is further, is then bounded as in `unseen_share`. Where only
    some changed, the end in the direction of the effect is at least as far out as where none did.
    """
    if len(sums) < 2:
        return 0.0, float("-inf"), float("inf"), "none: one group leaves nothing to estimate"
    means, share = sums / counts, unseen_share(len(sums))
    if np.ptp(means) < 1e-12:
        same = float(means[0])
        far = max(1.0, abs(same))
        return 0.0, same - share * (far + same), same + share * (far - same), "95 % Clopper-Pearson: all units agree"
    drawn = resampled_means(sums, counts, generator, _RESAMPLES)
    low, high = (float(end) for end in np.percentile(drawn, (2.5, 97.5)))
    low, high = _outward(low, high, float(sums.sum()), share)
    return float(drawn.std(ddof=1)), low, high, f"95 % percentile bootstrap over {len(sums):,} groups"


def _outward(low: float, high: float, effect: float, share: float) -> tuple[float, float]:
    """An interval whose end in the direction of the effect reaches at least `share`, as that of no effect does."""
    return min(low, -share) if effect <= 0 else low, max(high, share) if effect >= 0 else high


def _spread(figures: Sequence[float]) -> float:
    """The variance of the mean over seeds."""
    return float(np.var(figures, ddof=1)) / len(figures) if len(figures) > 1 else 0.0


def _noise(runs: Sequence[Values]) -> float:
    """The variance that chance in single answers gives the mean over S seeds and U units: the residual mean square of
    the table of S x U values, over S x U. Of units that hang together it is a little too small, which is the safe side.
    """
    table = np.array([list(values.values()) for values in ({unit: run[unit] for unit in runs[0]} for run in runs)])
    if min(table.shape) < 2:
        return 0.0
    rest = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
    return float((rest**2).sum() / ((table.shape[0] - 1) * (table.shape[1] - 1)) / table.size)


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> float:
    """The degrees of freedom of a sum of (variance, degrees of freedom)."""
    below = sum(variance**2 / free for variance, free in parts if free > 0)
    return sum(variance for variance, _ in parts) ** 2 / below if below else float("inf")


def _by_flips(n: int, flips: int) -> float:
    """The smallest share by which B is right more often that McNemar's test finds with `POWER`, of n examples.

    So many answers flip as in these data, or as many as such a share needs (Connett, Smith and McHugh 1987).
    """
    from scipy import optimize, stats

    def power(share: float) -> float:
        flipping = max(flips / n, share)
        few, many = (float(stats.binom.ppf(edge, n, flipping)) for edge in (1e-9, 1 - 1e-9))
        numbers = np.arange(few, many + 1)
        enough = stats.binom.isf(_LEVEL / 2, numbers, 0.5) + 1
        found = stats.binom.sf(enough - 1, numbers, (flipping + share) / (2 * flipping))
        return float(stats.binom.pmf(numbers, n, flipping) @ found)

    return float(optimize.brentq(lambda share: power(share) - POWER, 1e-9, 1)) if n >= _FLIPS else float("inf")


def _by_signs(sums: NDArray[np.float64], counts: NDArray[np.float64]) -> float:
    """The smallest difference that changes enough of G groups one way for a permutation to be unlikely, with `POWER`.

    A changed group changes as those of these data do on average, or by one whole unit where none does.
    """
    from scipy import stats

    if len(sums) < _FLIPS:
        return float("inf")
    share = stats.beta.ppf(POWER, _FLIPS, len(sums) - _FLIPS + 1)  # of so many groups, at least _FLIPS
    changed = np.abs(sums[sums != 0])
    return float(share * len(sums) * (changed.mean() if len(changed) else 1.0) / counts.sum())


def _detectable(stderr: float, degrees: float) -> float:
    from scipy import stats

    if degrees < 1:
        return float("inf")
    return float(stats.t.isf(_LEVEL / 2, degrees) + stats.t.ppf(POWER, degrees)) * stderr
