"""Score anybody's predictions: no model, no GPU, no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from vlbench.core.examples import Example
from vlbench.core.record import Coverage, Result
from vlbench.core.results import Prediction
from vlbench.core.task import Task
from vlbench.core.validate import Frozen
from vlbench.metrics.coverage import match, ranking_coverage
from vlbench.metrics.scoring import cut_groups, score
from vlbench.records.predictions import read_predictions
from vlbench.records.rankings import read_rankings


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

    allow_partial: examples without a prediction are left out and noted; ids twice or unknown stay errors.

    Raises:
        DataError: the split or the file of predictions cannot be read.
        CoverageError: ids do not match one to one, or an answer is none of the card's labels.
    """
    examples = task.load(split)
    if task.card.output == "rank":
        return _score_rankings(task, split, predictions, examples)
    answers = read_predictions(predictions)
    coverage = match(answers, examples, task.card.labels, allow_missing=allow_partial)
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
        notes=(*task.notes, *((left_out,) if coverage.missing else ()), *scores.notes),
    )


def _score_rankings(task: Task, split: str, path: Path, examples: Sequence[Example[Any]]) -> ScoreReport:
    """Rankings are scored whole or not at all: a candidate left out would lift all others."""
    rankings = read_rankings(path, examples)
    scores = score(task.metrics, task.card.main_metric, task.card.slices, rankings, examples)
    coverage = ranking_coverage(examples, rankings)
    notes = (*task.notes, *scores.notes)
    return ScoreReport(
        task=task.card.name,
        source=task.source,
        split=split,
        n=len(examples),
        results=scores.results,
        coverage=coverage,
        notes=notes,
    )


def _covered(predictions: Sequence[Prediction], examples: Sequence[Example[Any]]) -> list[Example[Any]]:
    given = {prediction.example_id for prediction in predictions}
    return [example for example in examples if example.id in given]


def _numbers(result: Result) -> dict[str, object]:
    return result.model_dump(include={"value", "n", "stderr", "ci95"}, mode="json")
