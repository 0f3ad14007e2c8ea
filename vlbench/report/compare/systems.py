"""The systems of a comparison: runs grouped over seeds, each system with a unique name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from vlbench.metrics.significance import Seeds
from vlbench.metrics.uncertainty import mean_interval
from vlbench.records.collect import FoundRun
from vlbench.report.tables.per_example import Units, read_units
from vlbench.report.tables.protocol import by_system, model_name
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
