"""Score an existing prediction file, without a model, a GPU or torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

from vlbench.core.columns import Chosen
from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Caption, Example, Examples, captioned
from vlbench.core.record import Coverage, Result
from vlbench.core.results import Prediction, Ranking
from vlbench.core.task import Task, ids_of
from vlbench.core.validate import Frozen
from vlbench.data.cache.index import read_examples
from vlbench.metrics.coverage import leave_out, match, ranking_coverage
from vlbench.metrics.scoring import MetricResults, cut_groups, score
from vlbench.records.collect import without_garbage_collection
from vlbench.records.folder import read_record_file
from vlbench.records.predictions import read_predictions
from vlbench.records.rankings import rankings_of_scores, read_rankings_of

IN_MEMORY = 512 << 20
"""Bytes of annotations up to which a split is not written into an index first: it is read once."""


class ScoreReport(Frozen):
    """The scores of a prediction file on one split. n: examples scored. notes: what is partial about the scores."""

    task: str
    source: Literal["world", "real"]
    split: str
    n: int
    results: tuple[Result, ...]
    coverage: Coverage
    notes: tuple[str, ...] = ()

    def to_json_object(self) -> dict[str, object]:
        """The output of `vlbench score --json`: scores by metric, slices by tag, value and metric."""
        return {
            "task": self.task,
            "split": self.split,
            "n": self.n,
            "scores": {result.metric: _numbers(result) for result in self.results},
            "slices": self._slices(),
            "coverage": self.coverage.model_dump(),
            "source": self.source,
            "notes": list(self.notes),
        }

    def _slices(self) -> dict[str, dict[str, dict[str, object]]]:
        slices: dict[str, dict[str, dict[str, object]]] = {}
        for result in self.results:
            for tag, parts in result.slices.items():
                for value, part in parts.items():
                    slices.setdefault(tag, {}).setdefault(value, {})[result.metric] = _numbers(part)
        return slices


def score_file(task: Task, split: str, predictions: Path, allow_partial: bool = False) -> ScoreReport:
    """Score the predictions in a file against a split of a task.

    Predictions of a larger split that contains this one (`within` on the card) are accepted; those for other examples
    are left out, with a note. allow_partial: leave out examples without a prediction, with a note; duplicate or unknown
    ids are still errors.

    Raises:
        DataError: the split or the file of predictions cannot be read.
        CoverageError: ids do not match one to one, or an answer is not among the card's labels.
    """
    task = replace(task, reader=partial(read_examples, big=IN_MEMORY))
    with without_garbage_collection():
        return _score_file(task, split, predictions, allow_partial)


def _score_file(task: Task, split: str, predictions: Path, allow_partial: bool) -> ScoreReport:
    examples = task.load(split)
    if task.card.is_retrieval:
        return _score_rankings(task, split, predictions, examples)
    given = read_predictions(predictions, _count_largest(task, split, examples))
    answers, notes, coverage = _match(task, split, given, examples, allow_partial)
    scored = _answered(examples, answers) if coverage.missing else examples
    scores = score(task.metrics, task.card.main_metric, task.card.slices, answers, scored, cut_groups(examples, scored))
    left_out = f"{coverage.missing:,} of {len(examples):,} examples have no prediction and are left out"
    notes = (*notes, *((left_out,) if coverage.missing else ()))
    return _make_report(task, split, len(scored), scores, coverage, notes)


def _answered(examples: Examples, answers: Sequence[Prediction]) -> Examples:
    """The examples that have an answer."""
    ids = {answer.example_id for answer in answers}
    return Chosen(examples, [row for row, name in enumerate(ids_of(examples)) if name in ids])


def _match(
    task: Task, split: str, predictions: Sequence[Prediction], examples: Examples, allow_partial: bool
) -> tuple[Sequence[Prediction], tuple[str, ...], Coverage]:
    """The predictions for this split, notes on those for larger splits only, and the counts."""
    unread: list[str] = []
    kept, notes = leave_out(predictions, examples, _larger_splits(task, split, unread))
    try:
        return kept, notes, match(kept, examples, task.card.labels, allow_missing=allow_partial)
    except CoverageError as error:
        if not unread:
            raise
        raise CoverageError(f"{error.message}; extra ids were not looked up in {'; '.join(unread)}") from None


def _larger_splits(task: Task, split: str, unread: list[str]) -> Iterator[tuple[str, Collection[str]]]:
    """The splits that contain this one, with their ids; a split that cannot be read is added to `unread`."""
    for name in task.card.larger_splits(split):
        try:
            ids = frozenset(ids_of(task.reader(task.adapter, task.files(name))))
        except DataError as error:
            unread.append(f"{name}, which holds this split ({error.message})")
        else:
            yield name, ids


def _count_largest(task: Task, split: str, examples: Examples) -> int:
    """The number of examples in the largest split that contains this one; by the card where it says so."""
    counts = {name: task.card.splits[name].count for name in task.card.larger_splits(split)}
    if None in counts.values():
        counts |= {name: len(ids) for name, ids in _larger_splits(task, split, [])}
    return max([len(examples), *(count for count in counts.values() if count)])


def _score_rankings(task: Task, split: str, path: Path, examples: Examples) -> ScoreReport:
    """Score rankings, which must be complete: leaving out a candidate would improve the ranks of all others."""
    _check_split(path, task, split)
    gallery = captioned(examples)
    rankings, notes = _read_rankings(task, split, path, gallery)
    scores = score(task.metrics, task.card.main_metric, task.card.slices, rankings, examples)
    return _make_report(task, split, len(examples), scores, ranking_coverage(gallery, rankings), notes)


def _read_rankings(
    task: Task, split: str, path: Path, gallery: Sequence[Example[Caption]]
) -> tuple[Sequence[Ranking], tuple[str, ...]]:
    if path.suffix != ".pt":
        return read_rankings_of(path, gallery, lambda: captioned(_larger_examples(task, split)))
    from vlbench.engine.weights.score_tensor import read_score_tensor  # the only format that needs torch

    return list(rankings_of_scores(gallery, partial(read_score_tensor, path))), ()


def _make_report(
    task: Task, split: str, n: int, scores: MetricResults, coverage: Coverage, notes: tuple[str, ...]
) -> ScoreReport:
    return ScoreReport(
        task=task.card.name,
        source=task.source,
        split=split,
        n=n,
        results=scores.results,
        coverage=coverage,
        notes=(*task.notes, *notes, *scores.notes),
    )


def _larger_examples(task: Task, split: str) -> list[Example[object]]:
    """The examples of the splits that contain this one, as far as their files exist."""
    examples: list[Example[object]] = []
    for name in task.card.larger_splits(split):
        with suppress(DataError):
            examples.extend(task.reader(task.adapter, task.files(name)))
    return examples


def _check_split(path: Path, task: Task, split: str) -> None:
    """Raise a DataError if the ranks are of a run on another task or split: these have other candidates."""
    record_path = path.with_name("run.json")
    if path.suffix != ".parquet" or not record_path.is_file():
        return
    info = read_record_file(record_path).task
    if (info.name, info.split) != (task.card.name, split):
        raise DataError(
            f"{path} has ranks among the candidates of {info.name}, split {info.split}, where {task.card.name}, "
            f"split {split}, is expected: score that split, or give scores or lists of the best"
        )


def _numbers(result: Result) -> dict[str, object]:
    return result.model_dump(include={"value", "n", "stderr", "ci95"}, mode="json")
