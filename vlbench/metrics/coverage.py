"""The check before scoring: every expected id occurs exactly once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from functools import cached_property

from vlbench.core.columns import Columns, columns_of
from vlbench.core.errors import CoverageError, first_five
from vlbench.core.examples import Caption, Example, Examples
from vlbench.core.record import Coverage
from vlbench.core.results import Prediction, Ranking
from vlbench.core.task import ids_of


def leave_out(
    predictions: Sequence[Prediction], examples: Examples, larger: Iterable[tuple[str, Collection[str]]]
) -> tuple[Sequence[Prediction], tuple[str, ...]]:
    """The predictions without those that only a larger split expects, and a note for each such split.

    Predictions whose ids belong to no split stay, so that `match` names them. larger: (split, its ids), the smallest
    split first; the next one is read only while there are extra ids.
    Source: `compute_filtered_accuracy.py` of NLVR2 scores the predictions of a whole split on a part of it.
    """
    expected = set(ids_of(examples))
    extra = {prediction.example_id for prediction in predictions} - expected
    splits, notes, outside = iter(larger), [], set[str]()
    while extra and (entry := next(splits, None)):
        split, ids = entry
        others = extra.intersection(ids)
        if others:
            notes.append(f"{len(others):,} predictions of {split} were left out: they answer no example of this split")
        outside |= others
        extra -= others
    if not outside:
        return predictions, ()
    return [prediction for prediction in predictions if prediction.example_id not in outside], tuple(notes)


def match(
    predictions: Sequence[Prediction], examples: Examples, labels: Sequence[str] = (), allow_missing: bool = False
) -> Coverage:
    """Check that predictions and examples match one to one, and count them.

    labels: the answers allowed, in any case; empty allows every answer. Predictions whose status is not "ok" have no
    answer and are counted as unparsed or as errors instead.
    Raises CoverageError: no examples; ids that are missing (unless allow_missing), duplicate or extra; or answers that
    are not in `labels`. The message gives the count and the first five of each kind of fault.
    """
    if not examples:
        raise CoverageError("there are no examples to score: expected at least one")
    expected = set(ids_of(examples))
    given = Counter(prediction.example_id for prediction in predictions)
    missing = expected - given.keys()
    outside = _outside(predictions, labels)
    faults = [
        *id_faults(given, expected, allow_missing),
        *_fault(f"answered with none of {', '.join(labels)}", outside),
    ]
    if faults:
        rule = " (another answer is rejected: it is neither counted as wrong nor left out)" if outside else ""
        raise CoverageError(
            f"predictions do not match the {len(expected):,} examples one to one: {', '.join(faults)}; "
            f"give each example's id once, with an answer{rule}"
        )
    statuses = Counter(prediction.status for prediction in predictions)
    unparsed, errors = statuses["unparsed"], statuses["error"] + statuses["skipped"]
    return Coverage(expected=len(expected), scored=len(given), missing=len(missing), unparsed=unparsed, errors=errors)


class OrderedPredictions(list[Prediction]):
    """Predictions in the order of the N examples with these columns."""

    def __init__(self, predictions: Iterable[Prediction], columns: Columns[object]) -> None:
        super().__init__(predictions)
        self.columns = columns

    @cached_property
    def answers(self) -> Sequence[str | None]:
        """The answers [N], None where the status is not "ok"."""
        return [item.answer if item.status == "ok" else None for item in self]


def in_order(predictions: Sequence[Prediction], examples: Examples) -> OrderedPredictions:
    """The predictions in the order of the examples. Raises CoverageError: they do not match one to one."""
    columns = columns_of(examples)
    if isinstance(predictions, OrderedPredictions) and predictions.columns is columns:
        return predictions
    row_of = columns.derive(rows_by_id)
    by_id = {item.example_id: item for item in predictions}
    if not by_id or len(by_id) < len(predictions) or by_id.keys() != row_of.keys():
        match(predictions, examples)  # names the faults, at twice the cost of this test
    return OrderedPredictions(map(by_id.__getitem__, columns.ids), columns)


def rows_by_id(columns: Columns[object]) -> Mapping[str, int]:
    """The id of an example -> its row."""
    return {name: row for row, name in enumerate(columns.ids)}


def id_faults(given: Counter[str], expected: Set[str], allow_missing: bool = False) -> list[str]:
    """The missing, duplicate and extra ids: a text for each kind of fault, with the count and the first five ids.
    given: id -> how often it occurs.
    """
    return [
        *_fault("missing", () if allow_missing else expected - given.keys()),
        *_fault("duplicate", (name for name, times in given.items() if times > 1)),
        *_fault("extra", given.keys() - expected),
    ]


def ranking_coverage(examples: Sequence[Example[Caption]], rankings: Sequence[Ranking]) -> Coverage:
    """Count rankings against a gallery: every image and every text is a query. The metrics check the ids."""
    images = {reference.image for reference in columns_of(examples).references}
    expected = len(images) + len(examples)
    given = {(ranking.direction, ranking.query_id) for ranking in rankings}
    return Coverage(expected=expected, scored=len(given), missing=max(0, expected - len(given)))


def _outside(predictions: Sequence[Prediction], labels: Sequence[str]) -> list[str]:
    allowed = {label.lower() for label in labels}
    answered = (prediction for prediction in predictions if allowed and prediction.status == "ok")
    return [f"{item.example_id}: {item.answer!r}" for item in answered if item.answer.lower() not in allowed]


def _fault(kind: str, items: Iterable[str]) -> list[str]:
    """The fault as a list of one text, empty where there are no such items."""
    listed = list(items)
    return [f"{len(listed):,} {kind} ({first_five(listed)})"] if listed else []
