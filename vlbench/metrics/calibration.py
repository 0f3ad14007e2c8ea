"""Whether a model is as often right as it says it is sure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from statistics import fmean


@dataclass(frozen=True)
class Bin:
    """Answers of like confidence, in (low, high]. confidence, accuracy: their means in [0, 1]."""

    low: float
    high: float
    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """The bins that hold answers, lowest first. ece: the mean gap of confidence and accuracy over n answers."""

    bins: tuple[Bin, ...]
    ece: float
    n: int


def calibration(confidences: Sequence[float], scores: Sequence[float], bins: int = 15) -> Calibration:
    """Reliability in bins of equal width, and the expected calibration error.

    Args:
        confidences: B probabilities of the given answers, in [0, 1].
        scores: B worths of those answers in [0, 1]; in parts where a metric gives parts.
        bins: how many.

    Raises:
        ValueError: nothing given, lengths differ, or a confidence outside [0, 1].

    Source: Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 2-3 (which has 15 bins).

    >>> calibration([0.9, 0.8, 0.3], [1.0, 0.0, 0.0], bins=2).ece
    0.3333333333333333
    """
    if not confidences or len(confidences) != len(scores):
        raise ValueError(f"{len(confidences)} confidences and {len(scores)} scores: expected as many, at least one")
    if not all(0 <= value <= 1 for value in confidences):
        raise ValueError("a confidence lies outside [0, 1]: expected probabilities")
    held: dict[int, list[tuple[float, float]]] = {}
    for confidence, score in zip(confidences, scores, strict=True):
        held.setdefault(max(ceil(confidence * bins) - 1, 0), []).append((confidence, score))
    found = [
        Bin(number / bins, (number + 1) / bins, len(of), fmean(sure for sure, _ in of), fmean(right for _, right in of))
        for number, of in sorted(held.items())
    ]
    total = len(confidences)
    return Calibration(tuple(found), sum(one.n / total * abs(one.accuracy - one.confidence) for one in found), total)
