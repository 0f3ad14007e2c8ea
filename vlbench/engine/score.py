"""Score anybody's predictions: no model, no GPU, no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from vlbench.core.errors import CoverageError, DataError
from vlbench.core.examples import Example
from vlbench.core.record import Coverage, Result
from vlbench.core.results import Prediction
from vlbench.core.task import Task, ids_of
from vlbench.core.validate import Frozen
from vlbench.metrics.coverage import leave_out, match, ranking_coverage
from vlbench.metrics.scoring import cut_groups, score
from vlbench.records.folder import read_record_file
from vlbench.records.predictions import read_predictions
from vlbench.records.rankings import read_rankings_of


class ScoreReport(Frozen):
    """What a file of predictions is worth on one split; n: examples scored; notes: what is partial about it."""

    task: str
    source: Literal["world", "real"]
    split: str
    n: int
    results: tuple[Result, ...]
    coverage: Coverage
    notes: tuple[str, ...] = ()

    def to_json_object(self) -> dict[str, object]:
        """What `vlbench score --json` prints: scores by metric, slices by tag, value and metric."""
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

    Predictions of a larger split that holds this one (`within` of its card) are accepted: those that answer no example
    of this split are left out and noted.

    allow_partial: examples without a prediction are left out and noted; ids twice or unknown stay errors.

    Raises:
        DataError: the split or the file of predictions cannot be read.
        CoverageError: ids do not match one to one, or an answer is none of the card's labels.
    """
    examples = task.load(split)
    if task.card.output == "rank":
        return _score_rankings(task, split, predictions, examples)
    answers, beside, coverage = _matched(task, split, read_predictions(predictions), examples, allow_partial)
    scored = _covered(answers, examples) if coverage.missing else examples
    scores = score(task.metrics, task.card.main_metric, task.card.slices, answers, scored, cut_groups(examples, scored))
    left_out = f"{coverage.missing:,} of {len(examples):,} examples have no prediction and are left out"
    return ScoreReport(
        task=task.card.name,
        source=task.source,
        split=split,
        n=len(scored),
        results=scores.results,
        coverage=coverage,
        notes=(*task.notes, *beside, *((left_out,) if coverage.missing else ()), *scores.notes),
    )


def _matched(
    task: Task, split: str, predictions: Sequence[Prediction], examples: Sequence[Example[Any]], allow_partial: bool
) -> tuple[Sequence[Prediction], tuple[str, ...], Coverage]:
    """The predictions of this split, notes on those of larger splits alone, and the counts."""
    unread: list[str] = []
    kept, notes = leave_out(predictions, examples, _larger_splits(task, split, unread))
    try:
        return kept, notes, match(kept, examples, task.card.labels, allow_missing=allow_partial)
    except CoverageError as error:
        if not unread:
            raise
        raise CoverageError(f"{error.message}; extra ids were not looked up in {'; '.join(unread)}") from None


def _larger_splits(task: Task, split: str, unread: list[str]) -> Iterator[tuple[str, Collection[str]]]:
    """The splits that hold this one, with their ids; why one cannot be read is added to `unread`."""
    for name in task.card.larger_splits(split):
        try:
            ids = frozenset(ids_of(task.reader(task.adapter, task.files(name))))
        except DataError as error:
            unread.append(f"{name}, which holds this split ({error.message})")
        else:
            yield name, ids


def _score_rankings(task: Task, split: str, path: Path, examples: Sequence[Example[Any]]) -> ScoreReport:
    """Rankings are scored whole or not at all: a candidate left out would lift all others."""
    _check_split(path, task, split)
    rankings, beside = read_rankings_of(path, examples, lambda: _larger_examples(task, split))
    scores = score(task.metrics, task.card.main_metric, task.card.slices, rankings, examples)
    coverage = ranking_coverage(examples, rankings)
    notes = (*task.notes, *beside, *scores.notes)
    return ScoreReport(
        task=task.card.name,
        source=task.source,
        split=split,
        n=len(examples),
        results=scores.results,
        coverage=coverage,
        notes=notes,
    )


def _larger_examples(task: Task, split: str) -> list[Example[Any]]:
    """Those of the splits that hold this one, as far as their files are there."""
    found: list[Example[Any]] = []
    for name in task.card.larger_splits(split):
        with suppress(DataError):
            found.extend(task.reader(task.adapter, task.files(name)))
    return found


def _check_split(path: Path, task: Task, split: str) -> None:
    """Reject the ranks of a run on another split: they were counted among other candidates.

    Raises:
        DataError: the record beside the ranks is of another task or split.
    """
    beside = path.with_name("run.json")
    if path.suffix != ".parquet" or not beside.is_file():
        return
    info = read_record_file(beside).task
    if (info.name, info.split) != (task.card.name, split):
        raise DataError(
            f"{path} holds ranks among the candidates of {info.name}, split {info.split}, where {task.card.name}, "
            f"split {split}, is expected: score that split, or give scores or lists of the best"
        )


def _covered(predictions: Sequence[Prediction], examples: Sequence[Example[Any]]) -> list[Example[Any]]:
    given = {prediction.example_id for prediction in predictions}
    return [example for example in examples if example.id in given]


def _numbers(result: Result) -> dict[str, object]:
    return result.model_dump(include={"value", "n", "stderr", "ci95"}, mode="json")
