"""When a measurement is precise enough, and the statistics of what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy

from vlbench.core.profile import INTERVAL_FROM, Times


@dataclass(frozen=True)
class StoppingRule:
    """A rule that says when a model was measured often enough.

    iterations, seconds: the least of each. precision: the median's 95 % interval must be within this share of the
    median, for which at least `INTERVAL_FROM` iterations are needed.
    """

    iterations: int
    seconds: float
    precision: float

    def is_satisfied(self, seconds: Sequence[float]) -> bool:
        """Whether these durations of one model suffice."""
        enough = len(seconds) >= max(self.iterations, INTERVAL_FROM) and sum(seconds) >= self.seconds
        return enough and self.is_precise(seconds)

    def is_precise(self, seconds: Sequence[float]) -> bool:
        """Whether the median of the durations is known to `precision`."""
        low, high = median_interval(seconds)
        return (high - low) / 2 <= self.precision * float(np.median(seconds))


def median_interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float]:
    """An interval that holds the median with at least probability `level`, for any distribution.

    Order statistics: the number of n independent values below the median is binomial (n, 1/2). For fewer than
    `INTERVAL_FROM` values it is their range, which holds the median with less than 95 %.
    """
    ordered = np.sort(np.asarray(values, np.float64))
    below = max(int(scipy.stats.binom.ppf((1 - level) / 2, len(ordered), 0.5)) - 1, 0)
    return float(ordered[below]), float(ordered[-1 - below])


def summarize_times(seconds: Sequence[float]) -> Times:
    """Mean, percentiles and the median's interval, in milliseconds."""
    ms = np.asarray(seconds, np.float64) * 1000
    p50, p90, p95, p99 = (float(value) for value in np.percentile(ms, [50, 90, 95, 99]))
    interval = median_interval(ms.tolist())
    mean, deviation = float(ms.mean()), float(ms.std(ddof=1)) if len(ms) > 1 else 0.0
    return Times(n=len(ms), p50=p50, p90=p90, p95=p95, p99=p99, mean=mean, stdev=deviation, ci95=interval)
