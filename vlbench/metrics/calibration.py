"""Calibration: whether answers given with confidence p are correct in a share p of cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean


@dataclass(frozen=True)
class Bin:
    """The n answers whose confidence lies in (low, high]. confidence, accuracy: their means, in [0, 1]."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """A reliability diagram: the bins that hold answers, lowest first. ece: the expected calibration error in [0, 1],
    the mean of |accuracy - confidence| over all n answers.
    """

    bins: tuple[Bin, ...]
    ece: float
    n: int


def calibration(confidences: Sequence[float], scores: Sequence[float], bins: int = 15) -> Calibration:
    """Reliability in bins of equal width, and the expected calibration error.

    confidences: B probabilities of the given answers, in [0, 1]. scores: B scores of those answers, in [0, 1];
    fractions where a metric gives partial credit.
    Raises ValueError: no values, different lengths, or a confidence outside [0, 1].
    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 2-3 (with 15 bins).

    >>> calibration([0.9, 0.8, 0.3], [1.0, 0.0, 0.0], bins=2).ece
    0.3333333333333333
    """
    if not confidences or len(confidences) != len(scores):
        raise ValueError(f"{len(confidences)} confidences and {len(scores)} scores: expected as many, at least one")
    if not all(0 <= value <= 1 for value in confidences):
        raise ValueError("a confidence lies outside [0, 1]: expected probabilities")
    members: dict[int, list[tuple[float, float]]] = {}
    for confidence, score in zip(confidences, scores, strict=True):
        members.setdefault(max(ceil(confidence * bins) - 1, 0), []).append((confidence, score))
    filled = [
        Bin(number / bins, (number + 1) / bins, len(answers), *(fmean(values) for values in zip(*answers, strict=True)))
        for number, answers in sorted(members.items())
    ]
    total = len(confidences)
    return Calibration(tuple(filled), sum(b.n / total * abs(b.accuracy - b.confidence) for b in filled), total)
