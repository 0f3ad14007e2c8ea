"""The systems that a comparison sees: seeds of one together, each by a name that tells it from the others."""

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
    """One system with its runs, which differ in nothing but their seed.

    stderr: of `mean`, the mean over its seeds, from the choice of test examples alone; None where it is not known.
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
    """The systems of the runs, in the order these come; seeds of one system alone are a system each."""
    grouped = by_system(runs)
    if len(grouped) == 1:
        grouped = [[run] for run in runs]
    found = [_system(group, metric) for group in grouped]
    called = labels([one.runs for one in found], [one.name for one in found])
    return tuple(replace(one, name=name) for one, name in zip(found, called, strict=True))


def settings_apart(runs: Sequence[FoundRun]) -> str:
    """What the runs were told otherwise, in words: "steps (1, 5), lr (0.01, 0.0002)"; empty where nothing."""
    apart = differing([run.record for run in runs])
    told = [f"{name} ({', '.join(dict.fromkeys(values))})" for name, values in apart.items()]
    rest = f" and {len(told) - SETTINGS} more" if len(told) > SETTINGS else ""
    return ", ".join(told[:SETTINGS]) + rest


def _system(group: Sequence[FoundRun], metric: str) -> System:
    units = tuple(read_units(run.folder, run.record, metric) for run in group)
    figures = [one.figure for one in units]
    return System(
        name=model_name(group[0].record),
        runs=tuple(group),
        units=units,
        mean=fmean(figures),
        spread=stdev(figures) if len(figures) > 1 else None,
        stderr=_stderr(group, units, metric),
    )


def _stderr(group: Sequence[FoundRun], units: Sequence[Units], metric: str) -> float | None:
    """As the record has it; of several seeds, that of what each unit scores on average."""
    if len(group) == 1:
        result = group[0].record.result(metric)
        return result.stderr if result else None
    if any(one.values.keys() != units[0].values.keys() for one in units):
        return None  # which the comparison refuses
    interval = mean_interval(Seeds.of([one.values for one in units]).mean, units[0].groups)
    return units[0].scale * interval.stderr if interval else None
