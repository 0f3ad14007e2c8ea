"""The majority baseline: the score of an answer that depends on neither the image nor the question."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from vlbench.core.columns import columnar, columns_of
from vlbench.core.errors import CoverageError
from vlbench.core.examples import Examples, is_answered
from vlbench.core.results import Metric, Prediction
from vlbench.core.task import ids_of
from vlbench.metrics.scoring import parts


def majority(metric: Metric, examples: Examples) -> float | None:
    """The metric's value, in its own unit, where the most frequent answer of these examples is given to all of them.
    Returns None where the references are not answers, as in retrieval. Raises CoverageError: there are no examples.
    """
    if not len(examples):
        raise CoverageError("there are no examples for a majority baseline: expected at least one")
    counts = Counter(_answers(examples))
    if not counts:
        return None
    answer = counts.most_common(1)[0][0]
    return metric([Prediction(name, answer) for name in ids_of(examples)], examples).value


def slice_majorities(metric: Metric, slices: Sequence[str], examples: Examples) -> Mapping[str, Mapping[str, float]]:
    """`majority` of each slice by itself: tag -> value -> score. A tag is left out where each slice has one answer."""
    examples = columnar(examples)
    majorities: dict[str, dict[str, float]] = {}
    for tag in slices:
        by_value = parts(examples, tag)
        if any(len(set(_answers(part))) > 1 for part in by_value.values()):
            scores = {value: majority(metric, part) for value, part in by_value.items()}
            majorities[tag] = {value: score for value, score in scores.items() if score is not None}
    return majorities


def _answers(examples: Examples) -> list[str]:
    references = columns_of(examples).references
    return [reference.consensus for reference in references if is_answered(reference)]
