"""Which of two values of a metric is better. Every comparison of metric values is made here."""

from __future__ import annotations

from dataclasses import dataclass
from math import isnan


@dataclass(frozen=True, slots=True)
class MetricValue:
    """A value of a metric, in the metric's unit, with the direction in which it improves."""

    value: float
    higher_is_better: bool = True

    def is_better_than(self, other: float | None) -> bool:
        """Whether it is strictly better than another value of the same metric; any number is better than None."""
        return other is None or is_better(self.value, other, self.higher_is_better)


def worth(value: float, higher_is_better: bool) -> float:
    """The value as a key for `max` and `sorted`, where larger is better: negated if lower values are better."""
    return value if higher_is_better else -value


def is_better(value: float, than: float, higher_is_better: bool) -> bool:
    """Whether a value is strictly better than another one of the same metric; a number is better than NaN."""
    if isnan(value) or isnan(than):
        return isnan(than) and not isnan(value)
    return worth(value, higher_is_better) > worth(than, higher_is_better)
