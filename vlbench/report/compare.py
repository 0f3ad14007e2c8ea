"""Runs against runs on the same examples: by how much they differ, how sure that is, and on which examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, stdev

from vlbench.core.errors import ExitCode, VlbenchError, first_five, unknown
from vlbench.core.record import RunRecord
from vlbench.metrics.significance import Difference, Seeds, holm, paired, seeded
from vlbench.records.collect import FoundRun
from vlbench.records.folder import RunFolder, read_run
from vlbench.report.protocol import by_system, model_name, newest, protocol
from vlbench.report.units import Units, read_units


@dataclass(frozen=True)
class System:
    """One system with its runs, which differ in nothing but their seed.

    stderr: of the mean over seeds, from the choice of test examples alone, as the records have it.
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
    """B against A, in the unit of the metric, over all examples or those of one part; holm: the adjusted p."""

    part: str
    a: float
    b: float
    difference: Difference
    holm: float


@dataclass(frozen=True)
class Flips:
    """The ids that B has better than A (fixed) and worse (broken); none where a side has several seeds."""

    fixed: tuple[str, ...] = ()
    broken: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pair:
    """One system against the first."""

    a: System
    b: System
    overall: Verdict
    slices: tuple[Verdict, ...]
    flips: Flips


@dataclass(frozen=True)
class Comparison:
    """Everything `vlbench compare` says. notes: what differs between the runs besides their answers."""

    task: str
    split: str
    metric: str
    higher_is_better: bool
    by: str
    systems: tuple[System, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]


def compare_runs(paths: Sequence[Path], metric: str = "", by: str = "") -> Comparison:
    """Compare the first system with each other one.

    Args:
        paths: run folders or run.json files, two or more; those that differ in their seed alone are one system, and
            copies of one run count once, unless there is no other.
        metric: the metric; empty for the task's main one.
        by: a tag to break the comparison down by, such as answer_type; empty for none.

    Raises:
        VlbenchError: fewer than two runs, an unknown tag, or runs that cannot be compared, with the reason (exit 10).
        DataError: a run's files are missing or corrupt.
    """
    if len(paths) < 2:
        raise VlbenchError(f"{len(paths)} run to compare: give two runs or more")
    given = [FoundRun(RunFolder.open(path).run_json, read_run(path)) for path in paths]
    runs = found if len(found := newest(given)) > 1 else given
    first = runs[0].record
    for run in runs:
        _check_record(runs[0], run)
    metric = metric or first.task.main_metric
    systems = _systems(runs, metric)
    of_first = systems[0].units[0]
    for one in systems:
        for run, units in zip(one.runs, one.units, strict=True):
            _check_units(of_first, units, runs[0], run)
    if by and by not in of_first.tags:
        raise unknown("tag", by, of_first.tags or {"none"}, f"given as --by for {metric}")
    result = first.result(metric)
    return Comparison(
        task=first.task.name,
        split=first.task.split,
        metric=metric,
        higher_is_better=result is None or result.higher_is_better,
        by=by,
        systems=systems,
        pairs=tuple(_pair(systems[0], other, by) for other in systems[1:]),
        notes=(*_copies(given, runs), *_notes([run.record for run in runs])),
    )


def difference(a: Sequence[Units], b: Sequence[Units], part: frozenset[str] | None = None) -> Difference:
    """B minus A in the unit of the metric, over all units or some; of several seeds where a side has them."""
    of_a, of_b = ([_only(units.values, part) for units in side] for side in (a, b))
    groups, scale = a[0].groups, a[0].scale
    single = len(a) == len(b) == 1
    found = paired(of_a[0], of_b[0], groups) if single else seeded(Seeds.of(of_a), Seeds.of(of_b), groups)
    return scaled(found, scale)


def scaled(found: Difference, scale: float) -> Difference:
    """The difference in a unit that is `scale` times smaller: in percent instead of shares."""
    return replace(
        found,
        effect=scale * found.effect,
        stderr=scale * found.stderr,
        low=scale * found.low,
        high=scale * found.high,
        detectable=scale * found.detectable,
        seed_stderr=scale * found.seed_stderr,
        test_stderr=scale * found.test_stderr,
    )


def _systems(runs: Sequence[FoundRun], metric: str) -> tuple[System, ...]:
    grouped = by_system(runs)
    if len(grouped) == 1:
        grouped = [[run] for run in grouped[0]]
    systems = [_system(group, metric) for group in grouped]
    alike: dict[str, list[System]] = {}
    for one in systems:
        alike.setdefault(one.name, []).append(one)
    return tuple(
        replace(one, name=f"{one.name} ({_apart(one, alike[one.name])})") if len(alike[one.name]) > 1 else one
        for one in systems
    )


def _apart(one: System, alike: Sequence[System]) -> str:
    """What tells a system from others of its name: its seed, else the fingerprint of its first run, else its folder."""
    tellings: tuple[Callable[[System], str], ...] = (
        lambda of: f"seed{'s' * (len(of.seeds) > 1)} {', '.join(map(str, of.seeds))}",
        lambda of: of.runs[0].record.fingerprint[:8],
        lambda of: str(of.runs[0].path.parent),
    )
    clear = (tell for tell in tellings if len({tell(other) for other in alike}) == len(alike))
    return next(clear, tellings[-1])(one)


def _system(group: Sequence[FoundRun], metric: str) -> System:
    units = tuple(read_units(run.folder, run.record, metric) for run in group)
    figures = [one.figure for one in units]
    errors = [result.stderr for run in group if (result := run.record.result(metric)) and result.stderr is not None]
    return System(
        name=model_name(group[0].record),
        runs=tuple(group),
        units=units,
        mean=fmean(figures),
        spread=stdev(figures) if len(figures) > 1 else None,
        stderr=fmean(errors) if errors else None,
    )


def _pair(a: System, b: System, by: str) -> Pair:
    overall = _verdict("all", a, b, None)
    slices = [_verdict(part, a, b, units) for part, units in _parts(a.units[0], by)]
    adjusted = holm([one.difference.p for one in slices])
    return Pair(
        a, b, overall,
        tuple(replace(one, holm=p) for one, p in zip(slices, adjusted, strict=True)),
        _flips(a.units[0], b.units[0]) if len(a.units) == len(b.units) == 1 else Flips(),
    )  # fmt: skip


def _verdict(part: str, a: System, b: System, units: frozenset[str] | None) -> Verdict:
    found = difference(a.units, b.units, units)
    means = [fmean(one.scale * fmean(_only(one.values, units).values()) for one in side.units) for side in (a, b)]
    return Verdict(part, means[0], means[1], found, found.p)


def _parts(units: Units, by: str) -> list[tuple[str, frozenset[str]]]:
    parts: dict[str, set[str]] = {}
    for unit, part in units.tags.get(by, {}).items():
        parts.setdefault(part, set()).add(unit)
    return [(part, frozenset(of)) for part, of in sorted(parts.items())]


def _flips(a: Units, b: Units) -> Flips:
    fixed = sorted(unit for unit, value in a.values.items() if b.values[unit] > value)
    broken = sorted(unit for unit, value in a.values.items() if b.values[unit] < value)
    return Flips(tuple(fixed), tuple(broken))


def _only(values: Mapping[str, float], part: frozenset[str] | None) -> Mapping[str, float]:
    return values if part is None else {unit: value for unit, value in values.items() if unit in part}


def _check_record(first: FoundRun, run: FoundRun) -> None:
    """Refuse what a record alone tells: unfinished, or made of another task or other data."""
    if run.record.status != "done":
        raise _refused(f"{run.path.parent} is {run.record.status}: finish it first")
    if not run.record.results:
        raise _refused(
            f"{run.path.parent} has no scores, as the answers of its split are not public: run another split"
        )
    for what, a, b in zip(("task", "task version", "data", "domain", "split"), _data(first), _data(run), strict=True):
        if a != b:
            raise _refused(
                f"{first.path.parent} and {run.path.parent} differ in their {what} ({a} and {b}): "
                f"compare runs of one task on the same data"
            )


def _data(run: FoundRun) -> tuple[str, ...]:
    task = run.record.task
    return task.name, str(task.version), task.source, run.record.spec.domain, task.split


def _check_units(first: Units, units: Units, first_run: FoundRun, run: FoundRun) -> None:
    """Refuse what only the samples tell: other examples, or other questions and answers under the same ids."""
    missing, extra = first.values.keys() - units.values.keys(), units.values.keys() - first.values.keys()
    where = f"{first_run.path.parent} and {run.path.parent}"
    if missing or extra:
        raise _refused(
            f"{where} do not score the same examples: {len(missing):,} are only in the first and {len(extra):,} only "
            f"in the second ({first_five([*missing, *extra])}); run both with the same --limit"
        )
    if first.data != units.data:
        raise _refused(f"{where} have other questions or answers under the same ids: run both on the same data")


def _copies(given: Sequence[FoundRun], kept: Sequence[FoundRun]) -> list[str]:
    """Which of the given runs are left out, as another one is the same run."""
    same = {run.record.fingerprint: run.path for run in kept}
    return [
        f"{run.path.parent} is the same run as {same[run.record.fingerprint].parent} and does not count again"
        for run in given
        if not any(run is one for one in kept)
    ]


def _notes(records: Sequence[RunRecord]) -> list[str]:
    """What besides the answers differs between the runs, and what makes them partial."""
    facts: dict[str, list[str]] = {
        "protocol": [protocol(record) for record in records],
        "vlbench": [record.tool.version for record in records],
        "number type": [str(record.spec.dtype) for record in records],
    }
    notes = [
        f"the runs differ in their {what}: {', '.join(dict.fromkeys(found))}"
        for what, found in facts.items()
        if len(set(found)) > 1
    ]
    task = records[0].task
    if task.n_scored != task.n_total:
        notes.append(f"partial: {task.n_scored:,} of {task.n_total:,} examples")
    return notes


def _refused(message: str) -> VlbenchError:
    return VlbenchError(message, ExitCode.NOT_COMPARABLE)
