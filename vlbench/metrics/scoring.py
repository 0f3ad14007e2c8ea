"""From predictions to results: every metric overall, and the main one per slice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Example
from vlbench.core.record import Result
from vlbench.core.results import Metric, Prediction, Score

Slices = dict[str, dict[str, Result]]


def score(
    metrics: Mapping[str, Metric],
    main_metric: str,
    slices: Sequence[str],
    predictions: Sequence[Prediction],
    examples: Sequence[Example[Any]],
) -> list[Result]:
    """One result per metric, in the order of `metrics`.

    main_metric: the metric also broken down by the tags in `slices`, over the examples that carry the tag.

    Raises:
        CoverageError: predictions and examples do not match one to one.
        DataError: a prediction's score or a metric's value is not finite.
    """
    _refuse_unsure(predictions)
    return [
        _result(
            name,
            metric(predictions, examples),
            _by_slice(name, metric, slices, predictions, examples) if name == main_metric else {},
        )
        for name, metric in metrics.items()
    ]


def _refuse_unsure(predictions: Sequence[Prediction]) -> None:
    bad = [item.example_id for item in predictions if not all(map(isfinite, item.scores.values()))]
    if bad:
        raise DataError(
            f"{len(bad):,} predictions have scores that are not finite ({first_five(bad)}): "
            f"expected probabilities, so there is no score"
        )


def _by_slice(
    name: str,
    metric: Metric,
    tags: Sequence[str],
    predictions: Sequence[Prediction],
    examples: Sequence[Example[Any]],
) -> Slices:
    by_id = {item.example_id: item for item in predictions}
    slices: Slices = {}
    for tag in tags:
        parts: dict[str, list[Example[Any]]] = defaultdict(list)
        for example in examples:
            if tag in example.tags:
                parts[example.tags[tag]].append(example)
        results = {
            value: _result(name, metric([by_id[example.id] for example in part], part), {})
            for value, part in sorted(parts.items())
        }
        if results:
            slices[tag] = results
    return slices


def _result(name: str, verdict: Score, slices: Slices) -> Result:
    if not isfinite(verdict.value):
        raise DataError(f"{name} is {verdict.value} over {verdict.n:,} units: expected a finite number")
    return Result(
        metric=name,
        value=verdict.value,
        n=verdict.n,
        stderr=verdict.stderr,
        ci95=verdict.ci95,
        method=verdict.method,
        higher_is_better=verdict.higher_is_better,
        slices=slices,
    )
