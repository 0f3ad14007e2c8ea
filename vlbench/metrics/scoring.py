"""From predictions to results: every metric over all examples, and the main one per slice."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import isfinite
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlbench.core.columns import Chosen, Columns, columnar, columns_of, values_of
from vlbench.core.errors import CoverageError, DataError, first_five
from vlbench.core.examples import Examples
from vlbench.core.record import Result
from vlbench.core.results import Metric, MetricAbsentError, Prediction, Ranking, Score
from vlbench.core.task import ids_of
from vlbench.core.user_code import UserCodeError, same_folder
from vlbench.metrics.coverage import in_order
from vlbench.metrics.uncertainty import Sample, groups_of

Results: TypeAlias = Sequence[Prediction] | Sequence[Ranking]
Slices: TypeAlias = dict[str, dict[str, Result]]
ScoreRows: TypeAlias = Callable[[NDArray[np.int64]], Score | None]
"""From rows to their score; None where the metric counts none of them."""


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
    results = _in_order(results, examples)
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


def _in_order(results: Results, examples: Examples) -> Results:
    """Predictions in the order of the examples, for all metrics at once; where they do not match, metrics say so."""
    predictions = [item for item in results if isinstance(item, Prediction)]
    with suppress(CoverageError):
        return in_order(predictions, examples) if predictions else results
    return results


def cut_groups(examples: Examples, scored: Examples) -> frozenset[str]:
    """The groups that have some of their examples among those scored, but not all."""
    if scored is examples:
        return frozenset()
    columns, kept = columns_of(examples), set(ids_of(scored))
    rows = list(zip(columns.ids, columns.groups, strict=True))
    rest = {group for name, group in rows if name not in kept}
    return frozenset(group for name, group in rows if name in kept and group in rest)


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
    columns = columns_of(examples)
    is_mean = _is_over_examples(overall, results)
    score_rows = _means(overall, columns) if is_mean else _scores(metric, results, examples)
    slices: Slices = {}
    for tag in tags:
        scores = {value: score_rows(rows) for value, rows in _rows_by_value(columns, tag).items()}
        known = {value: _result(overall.name, score, {}) for value, score in scores.items() if score is not None}
        if known:
            slices[tag] = known
    return slices


def _scores(metric: Metric, results: Results, examples: Examples) -> ScoreRows:
    """A function that returns the metric of some rows."""
    by_id = {item.example_id: item for item in results if isinstance(item, Prediction)}

    def score_rows(rows: NDArray[np.int64]) -> Score:
        part = Chosen(examples, rows.tolist())
        return metric([by_id[name] for name in part.ids], part)

    return score_rows


def _means(overall: Score, columns: Columns[object]) -> ScoreRows:
    """A function that returns the mean of some rows."""
    ids, groups = values_of(columns.ids), columns.derive(groups_of)
    is_counted = np.fromiter(map(overall.per_example.__contains__, ids), np.bool_, len(ids))
    sample = Sample(np.array([overall.per_example.get(name, 0.0) for name in ids]), groups.numbers, len(groups.texts))
    sample.reject_not_finite(ids)

    def score_rows(rows: NDArray[np.int64]) -> Score | None:
        counted = rows[is_counted[rows]]
        if not len(counted):
            return None
        return replace(sample.take(counted).score(overall.name), higher_is_better=overall.higher_is_better)

    return score_rows


def _result(name: str, score: Score, slices: Slices) -> Result:
    if not isfinite(score.value):
        raise DataError(f"{name} is {score.value} over {score.n:,} units: expected a finite number")
    return Result.from_score(name, score, slices)
