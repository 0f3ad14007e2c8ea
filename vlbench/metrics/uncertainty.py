"""Confidence intervals of means over a test set whose examples are clustered in groups (an image, a statement).

Shapes: N units, G groups.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import fsum, isfinite, sqrt
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from vlbench.core.columns import Columns, Numbered, number_texts, values_of
from vlbench.core.errors import DataError
from vlbench.core.results import Score

Unit = TypeVar("Unit", bound=Hashable)
DRAWS_AT_ONCE = 1 << 22
"""The number of counts in one block of multinomial draws, which bounds its memory."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A standard error and a 95 % confidence interval, in the unit of the values. method: how they were computed, for
    the record.
    """

    stderr: float
    low: float
    high: float
    method: str


@dataclass(frozen=True)
class Sample:
    """The values of N units in their groups. values: [N]. groups: [N], their groups as numbers below `group_count`."""

    values: NDArray[np.float64]
    groups: NDArray[np.int64]
    group_count: int

    @classmethod
    def of(cls, values: Mapping[Unit, float], groups: Mapping[Unit, str]) -> Sample:
        """The sample of values by unit. groups: unit -> its group. Raises DataError: a value that is not finite."""
        numbered = number_texts([groups[unit] for unit in values])
        sample = cls(np.fromiter(values.values(), np.float64, len(values)), numbered.numbers, len(numbered.texts))
        sample.reject_not_finite(values)
        return sample

    def take(self, rows: NDArray[np.int64]) -> Sample:
        """The sample of some units."""
        return Sample(self.values[rows], self.groups[rows], self.group_count)

    def reject_not_finite(self, units: Iterable[object]) -> None:
        """Raise DataError if a value is not finite. units: the names of all units."""
        if not np.isfinite(self.values).all():
            unit, value = next(
                (unit, value) for unit, value in zip(units, self.values, strict=True) if not isfinite(value)
            )
            raise DataError(f"the value of {unit!r} is {value}: expected a finite number, so there is no score")

    @cached_property
    def total(self) -> float:
        """The sum of all values, correctly rounded."""
        return fsum(self.values.tolist())

    def totals(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The sum and the number of the values of each of the G groups that have any: two arrays [G]."""
        # Float sums depend on the order of their terms, and a metric must not depend on the order of its examples.
        order = np.argsort(self.values)
        sums = np.bincount(self.groups[order], self.values[order], self.group_count).astype(np.float64)
        counts = np.bincount(self.groups, minlength=self.group_count).astype(np.float64)
        return sums[counts > 0], counts[counts > 0]

    def interval(self) -> Interval | None:
        """The interval of the mean: `effective_binomial` where all values lie in [0, 1], else `clustered_bootstrap`. It
        does not depend on the order of units. None for fewer than two groups: one group gives no variance.
        """
        if not ((self.values >= 0) & (self.values <= 1)).all():
            return self.bootstrap()
        sums, counts = self.totals()
        return effective_binomial(sums, counts, self.total / len(self.values)) if len(sums) > 1 else None

    def bootstrap(self, seed: int = 0, resamples: int = 1000) -> Interval | None:
        """See `clustered_bootstrap`."""
        sums, counts = self.totals()
        if len(sums) < 2:
            return None
        if self.values[0] in (0.0, 1.0) and (self.values == self.values[0]).all():
            return _unanimous(float(self.values[0]), len(sums))
        means = resampled_means(sums, counts, np.random.default_rng(seed), resamples)
        low, high = np.percentile(means, (2.5, 97.5))
        method = f"95 % percentile bootstrap over {len(sums):,} groups, {resamples:,} resamples; test sampling only"
        return Interval(float(means.std(ddof=1)), float(low), float(high), method)

    def score(self, name: str) -> Score:
        """The mean as a score in percent with the interval of `interval`, without values per unit."""
        return scaled_score(name, 100 * self.total / len(self.values), len(self.values), self.interval(), scale=100)


def groups_of(columns: Columns[object]) -> Numbered:
    """The numbered groups of examples, for `Columns.derive`."""
    return number_texts(columns.groups)


def mean_interval(values: Mapping[Unit, float], groups: Mapping[Unit, str]) -> Interval | None:
    """`Sample.interval` of values by unit. groups: unit -> its group. Raises DataError: a value that is not finite."""
    return Sample.of(values, groups).interval()


def effective_binomial(sums: NDArray[np.float64], counts: NDArray[np.float64], mean: float) -> Interval:
    """Clopper and Pearson's interval of a mean of values in [0, 1], with Korn and Graubard's effective sample size.

    The standard error se is that of a ratio of group totals, with G / (G - 1) as for a variance of G groups. The
    effective sample size is p (1 - p) / se^2. It is n, and the interval Clopper and Pearson's of k out of n, where
    every value is 0 or 1 and a group of its own. It is at most n: no values in [0, 1] vary more than zeros and ones do,
    and equal groups (se = 0) do not prove certainty. Where every value is 0, or every one 1, it is G. Fewer errors must
    not lower the bounds, so the low end is never above that of G groups that are all correct, and the high end never
    below that of G groups that are all wrong. sums: [G], the sum of the values of each group, G at least 2. counts:
    [G], the number of values of each group. mean: the mean of all values, in [0, 1].
    Source: Korn and Graubard 1998.
    """
    size, units = len(sums), float(counts.sum())
    if mean in (0.0, 1.0):
        return _unanimous(mean, size)
    squares = fsum(((sums - mean * counts) ** 2).tolist()) / units**2
    variance = squares * size / (size - 1) * (units - 1) / units
    spread = mean * (1 - mean)
    effective = min(units, spread / variance) if variance > 0 else units
    method = f"95 % Clopper-Pearson over {size:,} groups, effective sample size p (1 - p) / se^2; test sampling only"
    return _at_most_unanimous(Interval(sqrt(variance), *_clopper_pearson(mean * effective, effective), method), size)


def _clopper_pearson(successes: float, trials: float) -> tuple[float, float]:
    """The 95 % interval of a proportion; the numbers need not be whole (Clopper, Pearson 1934)."""
    from scipy.special import betaincinv

    low = betaincinv(successes, trials - successes + 1, 0.025) if successes > 0 else 0.0
    high = betaincinv(successes + 1, trials - successes, 0.975) if successes < trials else 1.0
    return float(low), float(high)


def _at_most_unanimous(interval: Interval, groups: int) -> Interval:
    """The interval, widened to what groups that all agree would give at the same end."""
    share = unseen_share(groups)
    return replace(interval, low=min(interval.low, 1 - share), high=max(interval.high, share))


def clustered_bootstrap(
    values: Mapping[Unit, float], groups: Mapping[Unit, str], seed: int = 0, resamples: int = 1000
) -> Interval | None:
    """The percentile bootstrap of the mean of `values`, resampling whole groups with replacement.

    groups: unit -> its group. The result does not depend on the order of units. Where every value is 0, or every one 1,
    resampling shows no variance; the interval then is Clopper and Pearson's over the groups. Returns None for fewer
    than two groups: one group gives no variance.
    Raises DataError: a value that is not finite.
    """
    return Sample.of(values, groups).bootstrap(seed, resamples)


def bounded_bootstrap(values: Mapping[Unit, float], groups: Mapping[Unit, str]) -> Interval | None:
    """`clustered_bootstrap` of a mean in [0, 1], never narrower at an end than for groups that all agree."""
    interval = clustered_bootstrap(values, groups)
    return interval and _at_most_unanimous(interval, len({groups[unit] for unit in values}))


def _unanimous(value: float, groups: int) -> Interval:
    """Clopper and Pearson 1934 for 0, or all, successes in so many groups."""
    share = unseen_share(groups)
    low, high = (0.0, share) if value == 0 else (1 - share, 1.0)
    return Interval(0.0, low, high, f"95 % Clopper-Pearson over {groups:,} groups that all agree; test sampling only")


def unseen_share(groups: int) -> float:
    """The 97.5 % upper bound, in [0, 1], of the rate of an event that no group shows (Clopper, Pearson 1934)."""
    return float(1 - 0.025 ** (1 / groups))


def mean_score(name: str, values: Mapping[str, float], groups: Mapping[str, str]) -> Score:
    """The mean of per-unit values, most often in [0, 1], as a score in percent with the interval of `mean_interval`.
    groups: unit -> its group.
    """
    return replace(Sample.of(values, groups).score(name), per_example=values)


def mean_of_rows(
    name: str, columns: Columns[object], values: NDArray[np.float64], rows: NDArray[np.int64] | None = None
) -> Score:
    """`mean_score` of examples, with their own groups. values: [R], in the order of `rows`. rows: [R], those of the
    examples that count; None for all of them.
    """
    groups = columns.derive(groups_of)
    ids = values_of(columns.ids)
    units = ids if rows is None else list(map(ids.__getitem__, rows.tolist()))
    sample = Sample(values, groups.numbers if rows is None else groups.numbers[rows], len(groups.texts))
    sample.reject_not_finite(units)
    return replace(sample.score(name), per_example=dict(zip(units, values.tolist(), strict=True)))


def scaled_score(
    name: str, value: float, n: int, interval: Interval | None, *, scale: float, offset: float = 0
) -> Score:
    """A score without values per example, whose interval is `scale` times the given one plus `offset`."""
    if interval is None:
        return Score(name, value, n, None, None, {})
    ends = (scale * interval.low + offset, scale * interval.high + offset)
    return Score(name, value, n, scale * interval.stderr, ends, {}, method=interval.method)


def group_totals(
    values: Mapping[Unit, float], groups: Mapping[Unit, str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The sum and the number of the values of each of G groups: two arrays [G]. groups: unit -> its group. Raises
    DataError: a value that is not finite.
    """
    return Sample.of(values, groups).totals()


def resampled_means(
    sums: NDArray[np.float64], counts: NDArray[np.float64], rng: np.random.Generator, resamples: int
) -> NDArray[np.float64]:
    """The mean [resamples] in each of `resamples` draws of G groups out of G, from their sums [G] and counts [G].
    Groups with the same sum and count are interchangeable, so the number of times that each of the K different kinds is
    drawn is one multinomial draw: the same distribution as drawing G groups, at the cost of K.
    """
    # Sums that differ by rounding alone are of one kind, whatever order they were added up in.
    rounded = np.round(np.stack([sums, counts], axis=1), 12)
    kinds, times = np.unique(rounded, axis=0, return_counts=True)
    block = max(1, DRAWS_AT_ONCE // len(kinds))
    totals = [
        rng.multinomial(len(sums), times / len(sums), size=min(block, resamples - start)) @ kinds
        for start in range(0, resamples, block)
    ]
    drawn = np.concatenate(totals)  # [resamples, 2]
    return np.asarray(drawn[:, 0] / drawn[:, 1])
