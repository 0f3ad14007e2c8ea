from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from vlbench.metrics.calibration import calibration


def test_as_an_independent_histogram_says() -> None:
    random = np.random.default_rng(0)
    confidences = random.uniform(size=500)
    scores = (random.uniform(size=500) < confidences**2).astype(float)
    found = calibration(confidences.tolist(), scores.tolist(), bins=10)

    edges = np.linspace(0, 1, 11)
    gaps = []
    for low, high in pairwise(edges):
        held = (confidences > low) & (confidences <= high)
        gaps.append(held.mean() * abs(scores[held].mean() - confidences[held].mean()))
    assert found.ece == pytest.approx(sum(gaps))
    assert sum(one.n for one in found.bins) == found.n == 500


def test_ends_of_the_scale_and_parts_of_a_score() -> None:
    found = calibration([0.0, 0.5, 1.0], [0.0, 0.3, 1.0], bins=2)
    assert [(one.low, one.high, one.n) for one in found.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 1)]
    assert found.ece == pytest.approx(2 / 3 * abs(0.25 - 0.15))


@pytest.mark.parametrize(
    ("confidences", "scores"), [([], []), ([0.5], []), ([1.2], [1.0]), ([-0.1], [1.0]), ([float("nan")], [1.0])]
)
def test_what_is_no_probability_is_refused(confidences: list[float], scores: list[float]) -> None:
    with pytest.raises(ValueError, match="confidence"):
        calibration(confidences, scores)
