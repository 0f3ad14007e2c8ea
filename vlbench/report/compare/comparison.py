"""Paired comparison of runs on the same examples: the difference, its confidence interval and the changed examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from vlbench.core.errors import ExitCode, VlbenchError, first_five, unknown
from vlbench.metrics.direction import is_better
from vlbench.metrics.significance import Difference, Seeds, holm, paired, seeded
from vlbench.metrics.uncertainty import mean_interval
from vlbench.records.collect import FoundRun
from vlbench.records.folder import RunFolder, read_run
from vlbench.report.tables.per_example import Units, read_units
from vlbench.report.tables.protocol import by_system, model_name, newest, unsealed_notes
from vlbench.report.tables.system_names import SETTINGS, differing, labels


@dataclass(frozen=True)
class System:
    """A system: runs that differ only in their seed. mean, spread: mean and standard deviation over seeds. stderr: of
    `mean`, from test sampling only; None if unknown.
    """

    name: str
    runs: tuple[FoundRun, ...]
    units: tuple[Units, ...]
    mean: float
    spread: float | None
    stderr: float | None

    @property
    def seeds(self) -> tuple[int, ...]:
        return tuple(run.record.spec.seed for run in self.runs)


@dataclass(frozen=True)
class Verdict:
    """Result of comparing B with A, in the unit of the metric, over all examples or one slice. part: the slice, `all`
    for all examples. holm: the p-value adjusted by Holm's method.
    """

    part: str
    a: float
    b: float
    difference: Difference
    holm: float


@dataclass(frozen=True)
class Flips:
    """Example ids that B scores higher than A (fixed) and lower (broken); empty where a side has several seeds."""

    fixed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """Comparison of one system with the first."""

    a: System
    b: System
    overall: Verdict
    slices: tuple[Verdict, ...]
    flips: Flips


@dataclass(frozen=True)
class Comparison:
    """Result of `vlbench compare`. by: the tag of the slices. notes: what else differs between the runs."""

    task: str
    split: str
    metric: str
    higher_is_better: bool
    by: str
    systems: tuple[System, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


def compare_runs(paths: Sequence[Path], metric: str = "", by: str = "") -> Comparison:
    """Compare the first system with every other system.

    Args:
        paths: run folders or run.json files, two or more; runs that differ only in their seed are one system, copies of
            a run count once, unless there is no other run. Unfinished and limited runs are left out with a note if two
            complete runs remain; folders of runs that were rejected at once are left out without a note.
        metric: the metric; empty for the task's main one.
        by: a tag to slice the comparison by, such as answer_type; empty for none.

    Raises VlbenchError: fewer than two runs, an unknown metric or tag, or runs that cannot be compared (exit 10).
    Raises DataError: a run's files are missing or corrupt.
    """
    if len(paths) < 2:
        raise VlbenchError(f"{len(paths)} run to compare: give two runs or more")
    begun = [path for path in paths if not RunFolder(path).holds_lock_alone()]
    read = [FoundRun(RunFolder.open(path).run_json, read_run(path)) for path in (begun if len(begun) > 1 else paths)]
    given, left_out = _complete(read)
    runs = distinct if len(distinct := newest(given)) > 1 else given
    first = runs[0].record
    for run in runs:
        _check_record(runs[0], run)
    metric = metric or first.task.main_metric
    known = {result.metric for run in runs for result in run.record.results}
    if metric not in known:  # a metric that only some runs have is rejected where it is read
        raise unknown("metric", metric, known, "given as --metric")
    compared = systems(runs, metric)
    first_units = compared[0].units[0]
    for system in compared:
        for run, units in zip(system.runs, system.units, strict=True):
            _check_units(first_units, units, runs[0], run)
    if by and by not in first_units.tags:
        raise unknown("tag", by, first_units.tags or {"none"}, f"given as --by for {metric}")
    result = first.result(metric)
    better = result is None or result.higher_is_better
    pairs = tuple(_pair(compared[0], other, by, better) for other in compared[1:])
    notes = (*left_out, *_copies(given, runs), *_notes(runs), *unsealed_notes(runs))
    return Comparison(first.task.name, first.task.split, metric, better, by, compared, pairs, notes)


def _complete(runs: Sequence[FoundRun]) -> tuple[list[FoundRun], list[str]]:
    """The runs that are finished and cover their whole split, and a note for each other run. Returns all runs if fewer
    than two are complete: later checks report what is wrong, or all are limited alike.
    """
    faults = [_incomplete(run) for run in runs]
    complete = [run for run, fault in zip(runs, faults, strict=True) if not fault]
    if len(complete) < 2:
        return list(runs), []
    return complete, [f"left out: {run.path.parent}, {fault}" for run, fault in zip(runs, faults, strict=True) if fault]


def _incomplete(run: FoundRun) -> str:
    """Why a run is not complete; empty if it is."""
    task = run.record.task
    if run.record.status != "done":
        return f"which is {run.record.status}"
    return f"limited to {task.n_scored:,} of {task.n_total:,} examples" if task.n_scored != task.n_total else ""


def systems(runs: Sequence[FoundRun], metric: str) -> tuple[System, ...]:
    """The systems of the runs, in order; if there is only one system, each of its seeds is a system."""
    grouped = by_system(runs)
    if len(grouped) == 1:
        grouped = [[run] for run in runs]
    unnamed = [_system(group, metric) for group in grouped]
    names = labels([system.runs for system in unnamed], [system.name for system in unnamed])
    return tuple(replace(system, name=name) for system, name in zip(unnamed, names, strict=True))


def settings_apart(runs: Sequence[FoundRun]) -> str:
    """The settings that differ between the runs, as in "steps (1, 5), lr (0.01, 0.0002)"; empty if none differ."""
    apart = differing([run.record for run in runs])
    named = [f"{name} ({', '.join(dict.fromkeys(values))})" for name, values in apart.items()]
    rest = f" and {len(named) - SETTINGS} more" if len(named) > SETTINGS else ""
    return ", ".join(named[:SETTINGS]) + rest


def _system(group: Sequence[FoundRun], metric: str) -> System:
    units = tuple(read_units(run.folder, run.record, metric) for run in group)
    values = [seed_units.value for seed_units in units]
    spread = stdev(values) if len(values) > 1 else None
    return System(
        model_name(group[0].record), tuple(group), units, fmean(values), spread, _stderr(group, units, metric)
    )


def _stderr(group: Sequence[FoundRun], units: Sequence[Units], metric: str) -> float | None:
    """The record's standard error; with several seeds, that of the mean score of each unit."""
    if len(group) == 1:
        result = group[0].record.result(metric)
        return result.stderr if result else None
    if any(seed_units.values.keys() != units[0].values.keys() for seed_units in units):
        return None  # the comparison rejects this later
    interval = mean_interval(Seeds.of([seed_units.values for seed_units in units]).mean, units[0].groups)
    return units[0].scale * interval.stderr if interval else None


def difference(a: Sequence[Units], b: Sequence[Units], part: frozenset[str] | None = None) -> Difference:
    """B minus A in the unit of the metric, over all units or `part`; pools the seeds where a side has several."""
    of_a, of_b = ([_only(units.values, part) for units in side] for side in (a, b))
    groups, scale = a[0].groups, a[0].scale
    single = len(a) == len(b) == 1
    shares = paired(of_a[0], of_b[0], groups) if single else seeded(Seeds.of(of_a), Seeds.of(of_b), groups)
    return scaled(shares, scale)


def scaled(difference: Difference, scale: float) -> Difference:
    """The difference with all its values multiplied by `scale`, such as fractions to percent."""
    names = ("effect", "stderr", "low", "high", "detectable", "seed_stderr", "test_stderr")
    return replace(difference, **{name: scale * getattr(difference, name) for name in names})


def _pair(a: System, b: System, by: str, higher_is_better: bool) -> Pair:
    overall = _verdict("all", a, b, None)
    slices = [_verdict(part, a, b, units) for part, units in _parts(a.units[0], by)]
    adjusted = holm([verdict.difference.p for verdict in slices])
    return Pair(
        a, b, overall,
        tuple(replace(verdict, holm=p) for verdict, p in zip(slices, adjusted, strict=True)),
        _flips(a.units[0], b.units[0], higher_is_better) if len(a.units) == len(b.units) == 1 else Flips(),
    )  # fmt: skip


def _verdict(part: str, a: System, b: System, units: frozenset[str] | None) -> Verdict:
    shown = difference(a.units, b.units, units)
    means = [fmean(run.scale * fmean(_only(run.values, units).values()) for run in side.units) for side in (a, b)]
    return Verdict(part, means[0], means[1], shown, shown.p)


def _parts(units: Units, by: str) -> list[tuple[str, frozenset[str]]]:
    parts: dict[str, set[str]] = {}
    for unit, part in units.tags.get(by, {}).items():
        parts.setdefault(part, set()).add(unit)
    return [(part, frozenset(ids)) for part, ids in sorted(parts.items())]


def _flips(a: Units, b: Units, higher_is_better: bool) -> Flips:
    fixed = sorted(unit for unit, value in a.values.items() if is_better(b.values[unit], value, higher_is_better))
    broken = sorted(unit for unit, value in a.values.items() if is_better(value, b.values[unit], higher_is_better))
    return Flips(tuple(fixed), tuple(broken))


def _only(values: Mapping[str, float], part: frozenset[str] | None) -> Mapping[str, float]:
    return values if part is None else {unit: value for unit, value in values.items() if unit in part}


def _check_record(first: FoundRun, run: FoundRun) -> None:
    """Reject what the record alone shows: an unfinished run, another task or other data."""
    if run.record.status != "done":
        raise _not_comparable(f"{run.path.parent} is {run.record.status}: finish it first")
    if not run.record.results:
        raise _not_comparable(
            f"{run.path.parent} has no scores, as the answers of its split are not public: run another split"
        )
    for what, a, b in zip(("task", "task version", "data", "domain", "split"), _data(first), _data(run), strict=True):
        if a != b:
            raise _not_comparable(
                f"{first.path.parent} and {run.path.parent} differ in their {what} ({a} and {b}): "
                f"compare runs of one task on the same data"
            )


def _data(run: FoundRun) -> tuple[str, ...]:
    task = run.record.task
    return task.name, str(task.version), task.source, run.record.spec.domain, task.split


def _check_units(first: Units, units: Units, first_run: FoundRun, run: FoundRun) -> None:
    """Reject what only the samples show: other examples, or other questions and answers under the same ids."""
    missing, extra = first.values.keys() - units.values.keys(), units.values.keys() - first.values.keys()
    where = f"{first_run.path.parent} and {run.path.parent}"
    if missing or extra:
        raise _not_comparable(
            f"{where} do not score the same examples: {len(missing):,} are only in the first and {len(extra):,} only "
            f"in the second ({first_five([*missing, *extra])}); run both with the same --limit"
        )
    if first.data != units.data:
        raise _not_comparable(f"{where} have other questions or answers under the same ids: run both on the same data")


def _copies(given: Sequence[FoundRun], kept: Sequence[FoundRun]) -> list[str]:
    """A note for each run that is left out as a copy of another, or one note if all are the same run."""
    same = {run.record.fingerprint: run.path for run in kept}
    if len(same) == 1:
        who = "both are" if len(kept) == 2 else "all are"
        copied = "" if len({run.path.resolve() for run in kept}) == 1 else ": copies, or reruns"
        return [f"{who} the same run{copied}"]
    return [
        f"{run.path.parent} is the same run as {same[run.record.fingerprint].parent} and is counted once"
        for run in given
        if not any(run is other for other in kept)
    ]


def _notes(runs: Sequence[FoundRun]) -> list[str]:
    """What differs between the runs besides their answers, and whether they are partial."""
    apart = settings_apart(runs)
    notes = [f"the runs differ in {apart}"] if apart else []
    task = runs[0].record.task
    if task.n_scored != task.n_total:
        notes.append(f"partial: {task.n_scored:,} of {task.n_total:,} examples")
    notes += [
        f"{run.path.parent}: {run.record.unanswered:,} examples could not be answered and count as wrong"
        for run in runs
        if run.record.unanswered
    ]
    return notes


def _not_comparable(message: str) -> VlbenchError:
    return VlbenchError(message, ExitCode.NOT_COMPARABLE)
