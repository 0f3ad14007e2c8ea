"""Baseline of the regression gate: answers of frozen weights and scores of trained seeds, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TypeVar

from pydantic import Field

from vlbench.core.errors import DataError, VlbenchError
from vlbench.core.record import RunRecord
from vlbench.core.validate import Frozen, parse
from vlbench.data.cache.folder import atomic_write
from vlbench.data.files.foreign import reading
from vlbench.data.json.lines import unique
from vlbench.metrics.significance import Seeds
from vlbench.records.collect import FoundRun
from vlbench.report.gate.answers import read_answers
from vlbench.report.tables.per_example import Units, read_units
from vlbench.report.tables.protocol import by_system, column, model_name, settings, trains

NEAR_TIE = 1e-4
"""Score difference up to which the best answer may change with the machine or a library."""
_SCHEMA = 1
_DECIMALS = 9
Entry = TypeVar("Entry")


class Subject(Frozen):
    """Subject of a verdict: a model on a task's split, by a protocol, with a limit."""

    task: str
    split: str
    data: str
    protocol: str
    model: str
    limit: float | None = None

    @property
    def title(self) -> str:
        limit = "" if self.limit is None else f", limit {self.limit:g}"
        return f"{self.model} on {self.task} {self.split} ({self.data}, {self.protocol}{limit})"


class FrozenEntry(Frozen):
    """Answers of frozen weights, with the alternatives of near ties.

    near_ties: unit -> alternative answers, for units whose best answer led by no more than the baseline's margin.
    data: a hash of the questions and references.
    """

    subject: Subject
    task_version: int
    weights_sha256: str
    metric: str
    value: float
    data: str
    answers: dict[str, str]
    near_ties: dict[str, tuple[str, ...]] = Field(default_factory=dict)


class TrainedEntry(Frozen):
    """Scores of trained seeds.

    seeds: seed -> value. units: unit -> mean score over seeds, as in `Units`. noise: as in `Seeds`. settings: of the
    runs, by name; empty in older files.
    """

    subject: Subject
    task_version: int
    metric: str
    scale: float
    higher_is_better: bool
    data: str
    seeds: dict[str, float]
    units: dict[str, float]
    noise: float = 0.0
    settings: dict[str, str] = Field(default_factory=dict)

    @property
    def side(self) -> Seeds:
        return Seeds(self.units, tuple(self.seeds.values()), self.noise)


class Change(Frozen):
    """Reason of an update of the baseline, and the version of vlbench that wrote it."""

    reason: str
    version: str


class Baseline(Frozen):
    """The whole baseline file; changes: oldest first."""

    schema_version: int = _SCHEMA
    near_tie: float = NEAR_TIE
    changes: tuple[Change, ...] = Field(min_length=1)
    frozen: tuple[FrozenEntry, ...] = ()
    trained: tuple[TrainedEntry, ...] = ()


def subject(record: RunRecord) -> Subject:
    """The subject of a record, which does not include the seed."""
    place = column(record)
    return Subject(
        task=place.task, split=place.split, data=place.data, protocol=place.protocol, model=model_name(record),
        limit=record.task.limit,
    )  # fmt: skip


def by_subject(runs: Sequence[FoundRun]) -> dict[Subject, list[FoundRun]]:
    """The runs of each subject, by seed."""
    groups: dict[Subject, list[FoundRun]] = {}
    for run in sorted(runs, key=lambda run: (run.record.spec.seed, run.record.started, str(run.path))):
        groups.setdefault(subject(run.record), []).append(run)
    return groups


def side_of(runs: Sequence[FoundRun]) -> tuple[list[Units], Seeds]:
    """The units of each run by the main metric, and the seeds pooled. Raises VlbenchError: a run is not done, a seed is
    given twice, or the runs differ in more than their seed.
    """
    for run in runs:
        if run.record.status != "done":
            raise VlbenchError(f"{run.path.parent} is {run.record.status}: finish it first")
    seeds = [run.record.spec.seed for run in runs]
    if len(set(seeds)) < len(seeds):
        twice = next(seed for seed in seeds if seeds.count(seed) > 1)
        raise VlbenchError(f"seed {twice} is given twice ({runs[0].path.parent} and others): give each seed once")
    if len(systems := by_system(runs)) > 1:
        apart = f"{systems[0][0].path.parent} and {systems[1][0].path.parent} differ in more than their seed"
        raise VlbenchError(f"{apart} (recipe, weights or version): give runs of one spec")
    units = [read_units(run.folder, run.record, run.record.task.main_metric) for run in runs]
    first = units[0]
    if any(other.data != first.data or other.values.keys() != first.values.keys() for other in units):
        raise VlbenchError(f"the seeds of {subject(runs[0].record).title} are not of the same examples: run them alike")
    return units, Seeds.of([seed_units.values for seed_units in units])


def frozen_entry(run: FoundRun) -> FrozenEntry:
    """The baseline's entry of a run of frozen weights. Raises VlbenchError: the run has no value of its main metric."""
    record, answers = run.record, read_answers(run.folder, NEAR_TIE)
    result = record.result(record.task.main_metric)
    if result is None:
        raise VlbenchError(f"{run.path.parent} has no {record.task.main_metric}, its task's main metric: leave it out")
    return FrozenEntry(
        subject=subject(record), task_version=record.task.version, weights_sha256=record.model.weights_sha256,
        metric=result.metric, value=result.value, data=answers.data, answers=dict(sorted(answers.said.items())),
        near_ties=dict(sorted(answers.others.items())),
    )  # fmt: skip


def trained_entry(runs: Sequence[FoundRun]) -> TrainedEntry:
    """The baseline's entry of several trained seeds."""
    record = runs[0].record
    units, side = side_of(runs)
    result = record.result(record.task.main_metric)
    seeds = zip((str(run.record.spec.seed) for run in runs), side.figures, strict=True)
    return TrainedEntry(
        subject=subject(record), task_version=record.task.version, metric=record.task.main_metric,
        scale=units[0].scale, higher_is_better=result is None or result.higher_is_better, data=units[0].data,
        seeds=dict(seeds), units={unit: round(value, _DECIMALS) for unit, value in sorted(side.mean.items())},
        noise=side.noise, settings=settings(record),
    )  # fmt: skip


def updated(old: Baseline | None, runs: Sequence[FoundRun], reason: str, version: str) -> Baseline:
    """The baseline with the entries of the runs' subjects replaced; other subjects are kept. The same update again
    changes nothing. Raises VlbenchError: the reason is empty, or a run cannot be a baseline.
    """
    if not reason.strip():
        raise VlbenchError("--update-baseline needs a --reason, which stays in the file: say why values may change")
    frozen = {entry.subject: entry for entry in old.frozen} if old else {}
    trained = {entry.subject: entry for entry in old.trained} if old else {}
    for each, group in by_subject(runs).items():
        for run in group:
            if run.record.status != "done" or not run.record.results:
                raise VlbenchError(f"{run.path.parent} is {run.record.status} and has no scores to keep: leave it out")
            if failed := run.record.unanswered:
                raise VlbenchError(f"{failed:,} examples of {run.path.parent} could not be answered: leave it out")
        if trains(group[0].record):
            trained[each] = trained_entry(group)
        elif len(group) > 1:
            raise VlbenchError(f"{each.title} is given {len(group)} times: give one run of frozen weights")
        else:
            frozen[each] = frozen_entry(group[0])
    change = Change(reason=reason.strip(), version=version)
    new = Baseline(changes=(change,), frozen=_sorted(frozen), trained=_sorted(trained))
    if old is None:
        return new
    if old == new.model_copy(update={"changes": old.changes}) and old.changes[-1] == change:
        return old  # the same update again, for example after a kill
    return new.model_copy(update={"changes": (*old.changes, change)})


def read_baseline(path: Path) -> Baseline:
    """A baseline file. Raises DataError: it is not there, corrupt, or of another schema."""
    with reading(path, "is no baseline", "make one with --update-baseline --reason ..."):
        values = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=unique)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(values, dict) or version != _SCHEMA:
        raise DataError(f"{path} has schema_version {version!r}, expected {_SCHEMA}: make it again with this vlbench")
    try:
        baseline = parse(Baseline, values, str(path))
    except VlbenchError as error:
        raise DataError(f"{error.message}; make it again with --update-baseline") from None
    scores = (value for entry in baseline.trained for value in (*entry.seeds.values(), *entry.units.values()))
    if not all(map(isfinite, scores)):
        raise DataError(f"{path} holds scores that are not finite: make it again with --update-baseline")
    return baseline


def write_baseline(path: Path, baseline: Baseline) -> None:
    """Write the file with one entry per line, so that a diff shows which subjects changed."""
    values = baseline.model_dump(mode="json")
    lines = [
        f'"{name}": {json.dumps(value, ensure_ascii=False)}'
        for name, value in values.items()
        if name not in ("frozen", "trained")
    ]
    lines += [f'"{name}": [\n{_lines(values[name])}]' for name in ("frozen", "trained")]
    atomic_write(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _lines(entries: Sequence[object]) -> str:
    lines = [json.dumps(entry, ensure_ascii=False, allow_nan=False) for entry in entries]
    return ",\n".join(lines) + "\n" if lines else ""


def _sorted(entries: Mapping[Subject, Entry]) -> tuple[Entry, ...]:
    return tuple(entries[each] for each in sorted(entries, key=lambda each: each.title))
