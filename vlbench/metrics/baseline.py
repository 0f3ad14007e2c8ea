"""What an answer that never looks would score."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from vlbench.core.errors import CoverageError
from vlbench.core.examples import Answered, Example
from vlbench.core.results import Metric, Prediction
from vlbench.metrics.scoring import parts


def majority(metric: Metric, examples: Sequence[Example[Any]]) -> float | None:
    """What a metric makes of always giving the answer that is most frequent in these examples, in its own unit.

    Returns:
        None where the references are no answers, as in retrieval.

    Raises:
        CoverageError: there are no examples.
    """
    if not examples:
        raise CoverageError("there are no examples to take a majority of: expected at least one")
    counts = Counter(example.reference.consensus for example in examples if isinstance(example.reference, Answered))
    if not counts:
        return None
    answer = counts.most_common(1)[0][0]
    return metric([Prediction(example.id, answer) for example in examples], examples).value


def slice_majorities(
    metric: Metric, slices: Sequence[str], examples: Sequence[Example[Any]]
) -> Mapping[str, Mapping[str, float]]:
    """`majority` of each part by itself: tag -> value -> figure; tags that are the answer itself have none."""
    found: dict[str, dict[str, float]] = {}
    for tag in slices:
        by_value = parts(examples, tag)
        if all(
            len({example.reference.consensus for example in part if isinstance(example.reference, Answered)}) < 2
            for part in by_value.values()
        ):
            continue
        figures = {value: majority(metric, part) for value, part in by_value.items()}
        found[tag] = {value: figure for value, figure in figures.items() if figure is not None}
    return found
