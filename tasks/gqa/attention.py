"""GQA's grounding metric: does a model attend to the objects that a question and its answer mention?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlbench._tasks.gqa.reference import Box, GqaAnswer
from vlbench.core.errors import CoverageError, DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.results import MetricAbsentError, Score
from vlbench.metrics.uncertainty import mean_score

SIDE = 7
"""Cells of the official attention map along each side of an image."""


def attention_grounding(attention: Mapping[str, ArrayLike], examples: Sequence[Example[GqaAnswer]]) -> Score:
    """The attention inside the boxes of a balanced question, summed over its boxes; the mean over questions in percent.

    Overlapping and repeated boxes count each time, so values above 100 are possible, as in the official evaluation.
    attention: question id -> a map [7, 7] that sums to 1; its first index runs from left to right, as there too.

    Raises:
        MetricAbsentError: no question is balanced, or a balanced one has no boxes because its scene graph is missing.
        CoverageError: a balanced question has no map.
        DataError: a map has another shape or values that are not finite.

    Source: Hudson and Manning 2019, official evaluation code.
    """
    balanced = {example.id: example for example in examples if example.reference.is_balanced}
    missing = balanced.keys() - attention.keys()
    if missing:
        raise CoverageError(f"{len(missing):,} questions have no attention map ({first_five(missing)}): give each one")
    values = {
        name: _attention_within(_boxes(example), _map(name, attention[name])) for name, example in balanced.items()
    }
    if not values:
        raise MetricAbsentError(f"none of the {len(examples):,} questions is balanced, and no other counts")
    return mean_score("grounding", values, {name: example.group for name, example in balanced.items()})


def _boxes(example: Example[GqaAnswer]) -> tuple[Box, ...]:
    boxes = example.reference.boxes
    if boxes is None:
        raise MetricAbsentError(f"question {example.id!r} has no boxes: add its image's scene graph")
    return boxes


def _map(name: str, values: ArrayLike) -> NDArray[np.float64]:
    weights = np.asarray(values, dtype=np.float64)
    if weights.shape != (SIDE, SIDE) or not np.isfinite(weights).all():
        raise DataError(
            f"the attention map of question {name!r} has shape {weights.shape}: expected {SIDE} x {SIDE} finite numbers"
        )
    return weights


def _attention_within(boxes: Sequence[Box], weights: NDArray[np.float64]) -> float:
    """Weights [7, 7] times the fraction of each cell that a box covers, summed over cells and boxes."""
    return float(sum(_covered(x, w) @ weights @ _covered(y, h) for x, y, w, h in boxes))


def _covered(start: float, length: float) -> NDArray[np.float64]:
    """The fraction [7] of each cell along one side that the interval covers."""
    edges = np.arange(SIDE + 1) / SIDE
    overlap: NDArray[np.float64] = np.minimum(edges[1:], start + length) - np.maximum(edges[:-1], start)
    return overlap.clip(min=0) * SIDE
