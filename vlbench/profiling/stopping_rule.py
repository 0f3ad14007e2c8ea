"""When enough was measured, and what the numbers then say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom

from vlbench.core.profile import INTERVAL_FROM, Times


@dataclass(frozen=True)
class Rule:
    """At least so many iterations and seconds of a subject; then until its median is known to `precision`, for which
    it takes `INTERVAL_FROM` iterations at least."""

    iterations: int
    seconds: float
    precision: float

    def satisfied(self, seconds: Sequence[float]) -> bool:
        """Whether these durations of one subject suffice."""
        enough = len(seconds) >= max(self.iterations, INTERVAL_FROM) and sum(seconds) >= self.seconds
        return enough and self.is_precise(seconds)

    def is_precise(self, seconds: Sequence[float]) -> bool:
        """Whether their median is known well enough."""
        low, high = median_interval(seconds)
        return (high - low) / 2 <= self.precision * float(np.median(seconds))


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """An interval that holds the median with that probability at least, whatever the distribution.

    Order statistics: how many of n independent values lie below the median is binomial (n, 1/2). Of fewer than
    `INTERVAL_FROM` values it is their range, which holds the median with less than 95 %.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    below = max(int(binom.ppf((1 - level) / 2, len(ordered), 0.5)) - 1, 0)
    return float(ordered[below]), float(ordered[-1 - below])


def times(seconds: Sequence[float]) -> Times:
    """Percentiles in milliseconds."""
    ms = np.asarray(seconds, np.float64) * 1000
    p50, p90, p95, p99 = (float(value) for value in np.percentile(ms, [50, 90, 95, 99]))
    low, high = median_interval(ms.tolist())
    deviation = float(ms.std(ddof=1)) if len(ms) > 1 else 0.0
    return Times(
        n=len(ms), p50=p50, p90=p90, p95=p95, p99=p99, mean=float(ms.mean()), stdev=deviation, ci95=(low, high)
    )
