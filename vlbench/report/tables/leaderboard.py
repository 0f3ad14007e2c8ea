"""Models by tasks, from records alone: figures that mean the same side by side, and no others."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from statistics import fmean

from vlbench import catalog
from vlbench.core.errors import VlbenchError, unknown
from vlbench.metrics.direction import worth
from vlbench.records.collect import FoundRun
from vlbench.report.tables.aggregates import COSTS, SELECTION, Figure, doubt, figure, pareto
from vlbench.report.tables.protocol import Column, column, newest
from vlbench.report.tables.system_names import placed

MAIN = "main"
BESIDE = {*COSTS, SELECTION}
"""Columns that stand beside the results and do not count in a system's rank."""


@dataclass(frozen=True, order=True)
class Heading:
    """A column of a table: what was measured on what. title: as it is shown."""

    column: Column
    metric: str
    title: str = field(default="", compare=False)


@dataclass(frozen=True)
class Entry:
    """A figure in its place. rank: among those that count, 1 the best. tie: within noise of the best, front: on the
    Pareto front."""

    figure: Figure
    rank: int | None = None
    tie: bool = False
    front: bool = False


@dataclass(frozen=True)
class Row:
    """What goes by one name: a system of each column, and its entry there."""

    name: str
    entries: Mapping[Heading, Entry]

    @property
    def ranks(self) -> tuple[int, ...]:
        return tuple(entry.rank for entry in self.entries.values() if entry.rank is not None)


@dataclass(frozen=True)
class Table:
    """The systems that were measured on the same kind of data by the same protocol."""

    data: str
    protocol: str
    headings: tuple[Heading, ...]
    rows: tuple[Row, ...]

    @property
    def ranked(self) -> bool:
        """Whether ranks stand beside the scores: several systems that count, in several columns of metrics."""
        return (
            sum(bool(row.ranks) for row in self.rows) > 1 and sum(one.metric not in BESIDE for one in self.headings) > 1
        )

    def priced(self, heading: Heading, cost: str) -> list[tuple[Row, Entry, Entry]]:
        """The rows that count in that column and in the cost beside it, with their entries in both."""
        pairs = [(row, row.entries.get(heading), row.entries.get(replace(heading, metric=cost))) for row in self.rows]
        return [
            (row, entry, price)
            for row, entry, price in pairs
            if entry and price and entry.rank is not None and price.rank is not None
        ]


@dataclass(frozen=True)
class Board:
    """All tables, and what could not be read or compared. pareto: what the fronts weigh figures against."""

    tables: tuple[Table, ...]
    notes: tuple[str, ...]
    pareto: str = ""

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks that a table has a column of, by name."""
        return tuple(sorted({heading.column.task for table in self.tables for heading in table.headings}))


@dataclass(frozen=True)
class Choice:
    """What of the records is shown, and how: the flags of `vlbench leaderboard`.

    columns: metrics, `main` for each task's main one, `selection` for its value on the
    split that chose the checkpoint, or costs (see COSTS). sort: `rank`, the mean over metrics;
    `model`; a task; a metric or a cost.
    """

    tasks: tuple[str, ...] = ()
    columns: tuple[str, ...] = (MAIN,)
    sort: str = "rank"
    pareto: str = ""


def board(
    runs: Sequence[FoundRun], faults: Sequence[str], choice: Choice, version: str, task_versions: Mapping[str, int]
) -> Board:
    """Arrange the runs.

    version, task_versions: of this vlbench and of the cards at hand, by which records are outdated.

    Raises:
        VlbenchError: a task, column, order or cost that no record has.
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
    _check_order(choice.sort, chosen, known)
    doubts = [doubt(run.record, version, task_versions) for run in chosen]
    kinds: dict[tuple[str, str], list[tuple[FoundRun, str]]] = {}
    for run, why in zip(chosen, doubts, strict=True):
        of = column(run.record)
        kinds.setdefault((of.data, of.protocol), []).append((run, why))
    tables = [
        _table(data, how, of, columns, choice) for (data, how), of in sorted(kinds.items(), key=lambda kind: kind[0])
    ]
    return Board(
        tuple(tables),
        (*(f"left out: {fault}" for fault in faults), *_machines(chosen, columns), *_batches(chosen, columns)),
        choice.pareto,
    )


def _check_order(sort: str, runs: Sequence[FoundRun], metrics: Collection[str]) -> None:
    orders = {"rank", "model", *(run.record.task.name for run in runs), *metrics} - {MAIN}
    if sort not in orders:
        raise unknown("order", sort, orders, "given as --sort")


def _table(data: str, how: str, runs: Sequence[tuple[FoundRun, str]], columns: Sequence[str], choice: Choice) -> Table:
    mains = {run.record.task.name: main for run, _ in runs if (main := run.record.task.main_metric)}
    rows: dict[str, dict[Heading, Figure]] = {}
    for one in placed(runs):
        figures = rows.setdefault(one.label, {})
        for metric in _metrics(one.runs[0], columns, mains):
            found = figure(one.runs, metric, one.doubt)
            if found is None and (one.doubt or metric == mains.get(one.column.task)):
                found = Figure(float("nan"), seeds=(), doubt=one.doubt or f"its record has no {metric}")
            if found is not None:
                prints = tuple(run.record.fingerprint for run in one.runs)
                figures[Heading(one.column, metric)] = replace(found, fingerprints=prints)
    headings = _titled(sorted({heading for figures in rows.values() for heading in figures}, key=_order(columns)))
    entries = {
        heading: _entries({name: figures[heading] for name, figures in rows.items() if heading in figures})
        for heading in headings
    }
    made = [Row(name, {heading: found[name] for heading, found in entries.items() if name in found}) for name in rows]
    ordered = sorted(made, key=lambda row: _place(row, headings, choice.sort))
    table = Table(data, how, tuple(headings), tuple(ordered))
    return _fronts(table, choice.pareto) if choice.pareto else table


def _metrics(run: FoundRun, columns: Sequence[str], mains: Mapping[str, str]) -> list[str]:
    """The metrics of a run that the columns ask for; where no record knows the task's main one, its first."""
    results = [result.metric for result in run.record.results]
    main = mains.get(run.record.task.name) or next(iter(results), "score")
    return list(dict.fromkeys(main if name == MAIN else name for name in columns))


def _order(columns: Sequence[str]) -> Callable[[Heading], tuple[str, Column, int, str]]:
    def place(heading: Heading) -> tuple[str, Column, int, str]:
        known = columns.index(heading.metric) if heading.metric in columns else -1
        return heading.column.task, heading.column, known, heading.metric

    return place


def _titled(headings: Sequence[Heading]) -> list[Heading]:
    """Headings with titles that tell them apart: the task's version and the data's hash only where they are needed."""
    plain = [f"{one.column.title} {COSTS.get(one.metric, one.metric)}" for one in headings]
    return [
        replace(
            one,
            title=title
            if plain.count(title) == 1
            else f"{title} (version {one.column.version}, data {one.column.manifest})",
        )
        for one, title in zip(headings, plain, strict=True)
    ]


def _entries(figures: Mapping[str, Figure]) -> dict[str, Entry]:
    """Ranks among the figures that count, and which of them are within noise of the best."""
    counting = [one for one in figures.values() if not one.doubt and isfinite(one.value)]
    if not counting:
        return {key: Entry(one) for key, one in figures.items()}
    best = max(counting, key=_worth)
    return {
        key: Entry(
            one,
            rank=1 + sum(_worth(other) > _worth(one) for other in counting),
            tie=_worth(one) < _worth(best) and one.near(best),
        )
        if one in counting
        else Entry(one)
        for key, one in figures.items()
    }


def _worth(one: Figure) -> float:
    return worth(one.value, one.higher_is_better)


def _fronts(table: Table, cost: str) -> Table:
    """Mark in each column of a metric the rows that no other beats in both the figure and its cost."""
    marked = {row.name: dict(row.entries) for row in table.rows}
    for heading in table.headings:
        if heading.metric in BESIDE:
            continue
        points = {
            row.name: (-_worth(price.figure), _worth(entry.figure)) for row, entry, price in table.priced(heading, cost)
        }
        front = pareto([*points.values()])
        for name, point in points.items():
            if point in front:
                marked[name][heading] = replace(marked[name][heading], front=True)
    return replace(table, rows=tuple(replace(row, entries=marked[row.name]) for row in table.rows))


def _place(row: Row, headings: Sequence[Heading], sort: str) -> tuple[float, float, str]:
    """Where a row stands: those without a figure that counts last, ties by name; costs count only by their name."""
    if sort == "model":
        return 0.0, 0.0, row.name
    asked = [
        one
        for one in headings
        if sort == one.metric or (sort in ("rank", one.column.task) and one.metric not in BESIDE)
    ]
    ranks = [rank for one in asked if one in row.entries and (rank := row.entries[one].rank) is not None]
    return float(not ranks), fmean(ranks) if ranks else 0.0, row.name


def _machines(runs: Sequence[FoundRun], columns: Sequence[str]) -> list[str]:
    """A warning where costs were measured on different machines."""
    if not {*columns} & (COSTS.keys() - {"parameters"}):
        return []
    machines = {(of.gpu or of.cpu, of.threads, of.device) for of in (run.record.environment for run in runs)}
    said = "; ".join(sorted(f"{name}, {threads} threads, {device}" for name, threads, device in machines))
    return [f"costs were measured on different machines and do not compare: {said}"] if len(machines) > 1 else []


def _batches(runs: Sequence[FoundRun], columns: Sequence[str]) -> list[str]:
    """A warning where costs of whole batches were measured with batches of different sizes."""
    sizes = {run.record.spec.eval_batch_size for run in runs if run.record.efficiency} - {None}
    asked = [name for name in ("latency", "memory") if name in columns]
    if len(sizes) < 2 or not asked:
        return []
    said = ", ".join(f"{size:,}" for size in sorted(filter(None, sizes)))
    return [
        f"{' and '.join(asked)} of batches of different sizes do not compare: {said} examples; "
        "run all with one --eval-batch-size"
    ]
