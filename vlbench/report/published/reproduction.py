"""Comparison of records with published results of the same protocol, with deviations flagged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from vlbench import catalog
from vlbench.core.cards import Recipe
from vlbench.core.errors import VlbenchError
from vlbench.core.modes import MODES
from vlbench.core.record import RunRecord
from vlbench.core.splits import joined, split_tuple
from vlbench.records.collect import FoundRun
from vlbench.report.published.results import Published, PublishedModel, Rerun, published
from vlbench.report.tables.aggregates import aggregate, doubt
from vlbench.report.tables.protocol import by_system, model_name

Judgement = Literal["reproduced", "below", "above", "not comparable"]


@dataclass(frozen=True)
class Expectation:
    """Judgement of a measured value by the published one. low, high: the measured 95 % interval; None for none."""

    model: str
    task: str
    split: str
    metric: str
    judgement: Judgement
    reason: str = ""
    measured: float | None = None
    low: float | None = None
    high: float | None = None
    published: float | None = None
    source: str = ""


def expectations(
    runs: Sequence[FoundRun],
    version: str,
    task_versions: Mapping[str, int],
    models: Sequence[PublishedModel] | None = None,
) -> list[Expectation]:
    """A judgement for each published value of each system, or the reason why there is none.

    models: the files of published results; None for those of vlbench. reproduced: the published value lies in the
    measured interval; below, above: the measured interval lies below or above it; not comparable: the run differs from
    the published row's command, as the reason says.
    """
    judged: list[Expectation] = []
    for group in by_system(runs):
        record = group[0].record
        why = next((why for run in group if (why := _why_not(run.record, version, task_versions))), "")
        rows = list(_of(record, models))
        if why or not rows:
            why = why or "no published result of this model, size, task, split and mode"
            place = (model_name(record), record.task.name, record.task.split, record.task.main_metric)
            judged.append(Expectation(*place, "not comparable", why))
        else:
            judged += [expectation for row, again in rows for expectation in _judged(group, row, again)]
    return sorted(judged, key=attrgetter("task", "model", "split", "metric", "judgement", "source"))


def _why_not(record: RunRecord, version: str, task_versions: Mapping[str, int]) -> str:
    if record.task.source == "world":
        return "measured on the built-in world, published on real data"
    if record.model.from_scratch and MODES[record.spec.mode].trains_backbone:
        return "trained from scratch, published with pretraining"
    return doubt(record, version, task_versions)


def _of(record: RunRecord, models: Sequence[PublishedModel] | None) -> Iterator[tuple[Published, Rerun]]:
    """The published rows that this record reproduces, with their commands."""
    for row in published(record.task.name, (record.task.split,), models):
        again = row.row.rerun
        if again and (again.model, again.size, again.mode) == (record.model.name, record.model.size, record.spec.mode):
            yield row, again


def _deviation(record: RunRecord, row: Published, again: Rerun) -> str:
    """What the run did differently from the command of the published row; empty if nothing."""
    spec, trained = record.spec, record.train
    if spec.rerank_k is not None:
        return f"re-ranked the best {spec.rerank_k:,}, published with every pair scored"
    if spec.num_fewshot:
        return f"prompted with {spec.num_fewshot} examples with answers, published without"
    if not again.checkpoint and spec.checkpoint not in (None, "pretrained"):
        return f"initialized from {spec.checkpoint}, published with the model's own weights"
    if again.checkpoint and (loaded := record.model.load_report) and not loaded.converted:
        return "initialized from weights made by vlbench, published with those that its authors released"
    if trained is None:
        return ""
    if set(split_tuple(trained.train_split)) != set(row.trained_on.splits):
        return f"trained on {joined(trained.train_split)}, published with {joined(row.trained_on.splits)}"
    try:
        usual = catalog.model_card(again.model).recipe(record.task.name, again.size)
    except VlbenchError:
        return f"the recipe of {again.model} is unknown here"
    changed = _changed(trained.recipe, usual)
    return f"trained with {changed}, unlike its recipe" if changed else ""


def _changed(recipe: Recipe, usual: Recipe) -> str:
    """The fields of a recipe that differ from the usual recipe. Accumulation does not change a step; the record holds
    the training splits outside its recipe.
    """
    given, known = (values.model_dump(exclude={"accumulation", "train_splits"}) for values in (recipe, usual))
    return ", ".join(f"{name} {value}" for name, value in given.items() if value != known[name])


def _judged(group: Sequence[FoundRun], row: Published, again: Rerun) -> Iterator[Expectation]:
    record = group[0].record
    deviation = next((why for run in group if (why := _deviation(run.record, row, again))), "")
    for metric, value in row.metrics.items():
        own = aggregate(group, metric, "")
        place = (model_name(record), record.task.name, record.task.split, metric)
        if deviation or own is None or own.ci95 is None:
            why = deviation or f"no {metric} with an interval"
            yield Expectation(*place, "not comparable", why, published=value, source=row.cited)
            continue
        low, high = own.ci95
        judgement: Judgement = "below" if high < value else "above" if low > value else "reproduced"
        yield Expectation(*place, judgement, "", own.value, low, high, value, row.cited)
