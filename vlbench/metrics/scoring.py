"""From predictions to results: every metric over all examples, and the main one per slice."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.columns import Chosen, Columns, columnar, columns_of
from vlbench.core.errors import DataError, first_five
from vlbench.core.examples import Examples
from vlbench.core.record import Result
from vlbench.core.results import Metric, MetricAbsentError, Prediction, Ranking, Score
from vlbench.core.task import ids_of
from vlbench.core.user_code import UserCodeError, same_folder
from vlbench.metrics.uncertainty import Sample, groups_of

Results: TypeAlias = Sequence[Prediction] | Sequence[Ranking]
Slices: TypeAlias = dict[str, dict[str, Result]]


@dataclass(frozen=True)
class MetricResults:
    """The results of the metrics that apply, and metric -> reason for those that are absent."""

    results: tuple[Result, ...]
    absent: Mapping[str, str]

    @property
    def notes(self) -> tuple[str, ...]:
        """The absent metrics as sentences, one for each reason."""
        by_reason: dict[str, list[str]] = {}
        for name, reason in self.absent.items():
            by_reason.setdefault(reason, []).append(name)
        return tuple(
            f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} absent: {reason}"
            for reason, names in by_reason.items()
        )


def score(
    metrics: Mapping[str, Metric],
    main_metric: str,
    slices: Sequence[str],
    results: Results,
    examples: Examples,
    cut: Collection[str] = frozenset(),
) -> MetricResults:
    """One result per metric, in the order of `metrics`.

    Args:
        main_metric: the metric also computed per slice.
        slices: tags; each value of a tag is a slice, made of the examples with that value.
        results: predictions, or rankings of a gallery.
        cut: groups of which only some examples are scored (see `cut_groups`): metrics over groups are then absent.

    Raises CoverageError: predictions and examples do not match one to one.
    Raises DataError: a prediction's score or a metric's value is not finite.
    """
    _reject_infinite_scores(results)
    examples = columnar(examples)
    computed, absent = [], {}
    for name, metric in metrics.items():
        try:
            with same_folder():
                overall = metric(results, examples)
            if not isinstance(overall, Score):
                raise UserCodeError(f"metric {name} returned a {type(overall).__name__}: expected a Score")
            _reject_cut_groups(overall, results, cut)
        except MetricAbsentError as reason:
            absent[name] = str(reason)
            continue
        sliced = _by_slice(overall, metric, slices, results, examples) if name == main_metric else {}
        computed.append(_result(name, overall, sliced))
    return MetricResults(tuple(computed), absent)


def cut_groups(examples: Examples, scored: Examples) -> frozenset[str]:
    """The groups that have some of their examples among those scored, but not all."""
    if scored is examples:
        return frozenset()
    kept = {example.id for example in scored}
    groups = {example.group for example in scored}
    return frozenset(example.group for example in examples if example.id not in kept and example.group in groups)


def parts(examples: Examples, tag: str) -> Mapping[str, Examples]:
    """Value of the tag -> its examples: first numbers, in their order, then words. Examples without the tag are left
    out.
    """
    return {value: Chosen(examples, rows.tolist()) for value, rows in _rows_by_value(columns_of(examples), tag).items()}


def _rows_by_value(columns: Columns[object], tag: str) -> dict[str, NDArray[np.int64]]:
    """Value of the tag -> the rows with it, in the order of `parts`."""
    tagged = columns.tags.get(tag, ())
    values = sorted({value for value in tagged if value is not None}, key=_numbers_first)
    number = {value: number for number, value in enumerate(values)} | {None: len(values)}
    numbers = np.fromiter(map(number.__getitem__, tagged), np.int64, len(tagged))
    ends = np.bincount(numbers, minlength=len(values) + 1).cumsum()
    rows = np.split(np.argsort(numbers, kind="stable"), ends)
    return dict(zip(values, rows, strict=False))  # the last ones have no value


def _numbers_first(value: str) -> tuple[bool, int, str]:
    return not value.isdecimal(), int(value) if value.isdecimal() else 0, value


def _reject_infinite_scores(results: Results) -> None:
    bad = [
        item.example_id
        for item in results
        if isinstance(item, Prediction) and item.scores and not all(map(isfinite, item.scores.values()))
    ]
    if bad:
        raise DataError(
            f"{len(bad):,} predictions have scores that are not finite ({first_five(bad)}): "
            f"expected probabilities, so there is no score"
        )


def _reject_cut_groups(score: Score, results: Results, cut: Collection[str]) -> None:
    """A group with fewer examples is more easily all correct, so a metric over groups needs whole groups. Raises
    MetricAbsentError: the metric counts groups, and some of them are cut.
    """
    incomplete = score.per_example.keys() & set(cut)
    if incomplete and not _is_over_examples(score, results):
        raise MetricAbsentError(
            f"{len(incomplete):,} of its {score.n:,} groups lack examples, as only a part of the split is scored"
        )


def _is_over_examples(score: Score, results: Results) -> bool:
    """Whether the metric is a mean over examples, and not over groups of them or over queries."""
    return score.per_example.keys() <= {item.example_id for item in results if isinstance(item, Prediction)}


def _by_slice(overall: Score, metric: Metric, tags: Sequence[str], results: Results, examples: Examples) -> Slices:
    """The metric of each slice; where it is a mean over examples, from their values in `overall`. A metric may leave
    examples out, as GQA's do with unbalanced questions; a slice of such examples only is left out.
    """
    of_slices = _means_by_slice if _is_over_examples(overall, results) else _metric_by_slice
    scores = {tag: of_slices(overall, metric, tag, results, examples) for tag in tags}
    return {
        tag: {value: _result(overall.name, score, {}) for value, score in by_value.items()}
        for tag, by_value in scores.items()
        if by_value
    }


def _metric_by_slice(
    overall: Score, metric: Metric, tag: str, results: Results, examples: Examples
) -> Mapping[str, Score]:
    by_id = {item.example_id: item for item in results if isinstance(item, Prediction)}
    return {value: metric([by_id[name] for name in ids_of(part)], part) for value, part in parts(examples, tag).items()}


def _means_by_slice(
    overall: Score, metric: Metric, tag: str, results: Results, examples: Examples
) -> Mapping[str, Score]:
    columns = columns_of(examples)
    counted = np.fromiter(map(overall.per_example.__contains__, columns.ids), np.bool_, len(columns.ids))
    values = np.fromiter((overall.per_example.get(name, 0.0) for name in columns.ids), np.float64, len(columns.ids))
    groups = columns.derive(groups_of)
    sample = Sample(values, groups.numbers, len(groups.texts))
    sample.reject_not_finite(columns.ids)
    by_value = {value: rows[counted[rows]] for value, rows in _rows_by_value(columns, tag).items()}
    return {
        value: replace(sample.take(rows).score(overall.name), higher_is_better=overall.higher_is_better)
        for value, rows in by_value.items()
        if len(rows)
    }


def _result(name: str, score: Score, slices: Slices) -> Result:
    if not isfinite(score.value):
        raise DataError(f"{name} is {score.value} over {score.n:,} units: expected a finite number")
    return Result.from_score(name, score, slices)
