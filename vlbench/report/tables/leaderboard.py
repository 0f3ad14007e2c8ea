"""Leaderboards: models by tasks, made from records; only comparable values share a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import fmean

from vlbench import catalog
from vlbench.core.errors import VlbenchError, unknown
from vlbench.metrics.direction import worth
from vlbench.records.collect import FoundRun
from vlbench.report.tables.aggregates import COSTS, SELECTION, Aggregate, aggregate, doubt, pareto
from vlbench.report.tables.protocol import Column, column, newest, unsealed_notes
from vlbench.report.tables.system_names import placed

MAIN = "main"
BESIDE = {*COSTS, SELECTION}
"""Columns next to the results that do not count in a system's rank."""


@dataclass(frozen=True, order=True)
class Heading:
    """Column of a table: a metric or cost on a task. title: the text shown."""

    column: Column
    metric: str
    title: str = field(default="", compare=False)


@dataclass(frozen=True)
class Entry:
    """Entry of a table. rank: among the values that count, 1 is the best. tie: within noise of the best. front: on the
    Pareto front."""

    aggregate: Aggregate
    rank: int | None = None
    tie: bool = False
    front: bool = False


@dataclass(frozen=True)
class Row:
    """Row of a table: the systems with one name, and their entry in each column."""

    name: str
    entries: Mapping[Heading, Entry]

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(entry.rank for entry in self.entries.values() if entry.rank is not None)


@dataclass(frozen=True)
class Table:
    """Table of the systems that were measured on the same kind of data by the same protocol."""

    data: str
    protocol: str
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]

    @property
    def ranked(self) -> bool:
        """Whether ranks are shown: several systems count, in several columns of metrics."""
        return (
            sum(bool(row.ranks) for row in self.rows) > 1
            and sum(heading.metric not in BESIDE for heading in self.headings) > 1
        )

    def priced(self, heading: Heading, cost: str) -> list[tuple[Row, Entry, Entry]]:
        """The rows that count in that column and in its cost column, with their entries in both."""
        pairs = [(row, row.entries.get(heading), row.entries.get(replace(heading, metric=cost))) for row in self.rows]
        return [
            (row, entry, price)
            for row, entry, price in pairs
            if entry and price and entry.rank is not None and price.rank is not None
        ]


@dataclass(frozen=True)
class Board:
    """A leaderboard. notes: what could not be read or compared. pareto: the cost of the fronts, empty for none."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    pareto: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks with a column in a table, by name."""
        return tuple(sorted({heading.column.task for table in self.tables for heading in table.headings}))


@dataclass(frozen=True)
class Choice:
    """What a leaderboard shows, by the flags of `vlbench leaderboard`. columns: metrics, `main` for each task's main
    metric, `selection` for its value on the split that selected the checkpoint, or costs (see COSTS). sort: `rank`, the
    mean rank over metrics; `model`; a task; a metric or a cost.
    """

    tasks: tuple[str, ...] = ()
    columns: tuple[str, ...] = (MAIN,)
    sort: str = "rank"
    pareto: str = ""


def board(
    runs: Sequence[FoundRun], faults: Sequence[str], choice: Choice, version: str, task_versions: Mapping[str, int]
) -> Board:
    """Arrange runs in tables. version, task_versions: of this vlbench and of the known task cards; other records are
    outdated. Raises VlbenchError: a task, column, order or cost that no record has.
    """
    tasks = {run.record.task.name for run in runs}
    for task in choice.tasks:
        if task not in tasks and task in catalog.task_folders():
            raise VlbenchError(f"no record of {task}: there are records of {', '.join(sorted(tasks)) or 'nothing'}")
        if task not in tasks:
            raise unknown("task", task, tasks, "tasks that the records have")
    chosen = newest([run for run in runs if not choice.tasks or run.record.task.name in choice.tasks])
    if choice.pareto and choice.pareto not in COSTS:
        raise unknown("cost", choice.pareto, COSTS, "given as --pareto")
    columns = (*choice.columns, choice.pareto) if choice.pareto not in ("", *choice.columns) else choice.columns
    known = {result.metric for run in chosen for result in run.record.results} | {MAIN, *BESIDE}
    for name in columns:
        if name not in known:
            raise unknown("column", name, known, "given in --columns")
    orders = {"rank", "model", *(run.record.task.name for run in chosen), *known} - {MAIN}
    if choice.sort not in orders:
        raise unknown("order", choice.sort, orders, "given as --sort")
    doubts = [doubt(run.record, version, task_versions) for run in chosen]
    kinds: dict[tuple[str, str], list[tuple[FoundRun, str]]] = {}
    for run, why in zip(chosen, doubts, strict=True):
        place = column(run.record)
        kinds.setdefault((place.data, place.protocol), []).append((run, why))
    tables = [
        _table(data, how, place, columns, choice)
        for (data, how), place in sorted(kinds.items(), key=lambda kind: kind[0])
    ]
    return Board(
        tuple(tables),
        (
            *(f"left out: {fault}" for fault in faults),
            *unsealed_notes(chosen),
            *_machines(chosen, columns),
            *_batches(chosen, columns),
        ),
        choice.pareto,
    )


def _table(data: str, how: str, runs: Sequence[tuple[FoundRun, str]], columns: Sequence[str], choice: Choice) -> Table:
    mains = {run.record.task.name: main for run, _ in runs if (main := run.record.task.main_metric)}
    rows: dict[str, dict[Heading, Aggregate]] = {}
    for system in placed(runs):
        values = rows.setdefault(system.label, {})
        for metric in _metrics(system.runs[0], columns, mains):
            value = aggregate(system.runs, metric, system.doubt)
            if value is None and (system.doubt or metric == mains.get(system.column.task)):
                value = Aggregate(float("nan"), seeds=(), doubt=system.doubt or f"its record has no {metric}")
            if value is not None:
                prints = tuple(run.record.fingerprint for run in system.runs)
                values[Heading(system.column, metric)] = replace(value, fingerprints=prints)
    every = {heading for values in rows.values() for heading in values}
    headings = _titled(sorted(every, key=lambda heading: _order(heading, columns)))
    entries = {
        heading: _entries({name: values[heading] for name, values in rows.items() if heading in values})
        for heading in headings
    }
    unordered = [
        Row(name, {heading: value[name] for heading, value in entries.items() if name in value}) for name in rows
    ]
    ordered = sorted(unordered, key=lambda row: _place(row, headings, choice.sort))
    table = Table(data, how, tuple(headings), tuple(ordered))
    return _fronts(table, choice.pareto) if choice.pareto else table


def _metrics(run: FoundRun, columns: Sequence[str], mains: Mapping[str, str]) -> list[str]:
    """The metrics of a run that the columns name; if no record has the task's main metric, its first."""
    results = [result.metric for result in run.record.results]
    main = mains.get(run.record.task.name) or next(iter(results), "score")
    return list(dict.fromkeys(main if name == MAIN else name for name in columns))


def _order(heading: Heading, columns: Sequence[str]) -> tuple[str, Column, int, str]:
    known = columns.index(heading.metric) if heading.metric in columns else -1
    return heading.column.task, heading.column, known, heading.metric


def _titled(headings: Sequence[Heading]) -> list[Heading]:
    """Headings with unique titles: with the task's version and the data's hash only where needed."""
    plain = [f"{heading.column.title} {COSTS.get(heading.metric, heading.metric)}" for heading in headings]
    return [
        replace(heading, title=title if plain.count(title) == 1 else f"{title} {heading.column.origin}")
        for heading, title in zip(headings, plain, strict=True)
    ]


def _entries(values: Mapping[str, Aggregate]) -> dict[str, Entry]:
    """Ranks among the values that count, and which of them are within noise of the best."""
    counting = [value for value in values.values() if not value.doubt and isfinite(value.value)]
    best = max(counting, key=_worth, default=None)
    entries = {}
    for name, value in values.items():
        entries[name] = Entry(value)
        if best is not None and value in counting:
            rank = 1 + sum(_worth(other) > _worth(value) for other in counting)
            entries[name] = Entry(value, rank, tie=rank > 1 and value.is_near(best))
    return entries


def _worth(aggregate: Aggregate) -> float:
    return worth(aggregate.value, aggregate.higher_is_better)


def _fronts(table: Table, cost: str) -> Table:
    """Mark in each column of a metric the rows that no other row beats in both value and cost."""
    marked = {row.name: dict(row.entries) for row in table.rows}
    for heading in table.headings:
        if heading.metric in BESIDE:
            continue
        points = {
            row.name: (-_worth(price.aggregate), _worth(entry.aggregate))
            for row, entry, price in table.priced(heading, cost)
        }
        front = pareto([*points.values()])
        for name, point in points.items():
            if point in front:
                marked[name][heading] = replace(marked[name][heading], front=True)
    return replace(table, rows=tuple(replace(row, entries=marked[row.name]) for row in table.rows))


def _place(row: Row, headings: Sequence[Heading], sort: str) -> tuple[float, float, str]:
    """Sort key of a row: rows without a value that counts come last, ties by name; costs count only if named."""
    if sort == "model":
        return 0.0, 0.0, row.name
    asked = [
        heading
        for heading in headings
        if sort == heading.metric or (sort in ("rank", heading.column.task) and heading.metric not in BESIDE)
    ]
    ranks = [rank for heading in asked if heading in row.entries and (rank := row.entries[heading].rank) is not None]
    return float(not ranks), fmean(ranks) if ranks else 0.0, row.name


def _machines(runs: Sequence[FoundRun], columns: Sequence[str]) -> list[str]:
    """A warning where costs were measured on different machines, or beside other trials."""
    if not {*columns} & (COSTS.keys() - {"parameters"}):
        return []
    machines = {
        f"{environment.gpu or environment.cpu}, {environment.threads} threads, {environment.device}"
        + (f", {environment.trials_at_once} trials at once" if environment.trials_at_once > 1 else "")
        for environment in (run.record.environment for run in runs)
    }
    if len(machines) < 2:
        return []
    return [f"costs were measured under different conditions and do not compare: {'; '.join(sorted(machines))}"]


def _batches(runs: Sequence[FoundRun], columns: Sequence[str]) -> list[str]:
    """A warning where costs of whole batches were measured with batches of different sizes."""
    sizes = {run.record.spec.eval_batch_size for run in runs if run.record.efficiency} - {None}
    asked = [name for name in ("latency", "memory") if name in columns]
    if len(sizes) < 2 or not asked:
        return []
    names = ", ".join(f"{size:,}" for size in sorted(filter(None, sizes)))
    return [
        f"{' and '.join(asked)} of batches of different sizes do not compare: {names} examples; "
        "run all with one --eval-batch-size"
    ]
