"""The systems that a comparison sees: seeds of one together, each by a name that tells it from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from vlbench.metrics.significance import Seeds
from vlbench.metrics.uncertainty import clustered_bootstrap
from vlbench.records.collect import FoundRun
from vlbench.report.protocol import by_system, differing, model_name
from vlbench.report.units import Units, read_units

_SETTINGS = 5
"""Settings that are named where systems differ in more."""


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
    alike: dict[str, list[System]] = {}
    for one in found:
        alike.setdefault(one.name, []).append(one)
    named = {id(one): name for same in alike.values() for one, name in zip(same, _names(same), strict=True)}
    return tuple(replace(one, name=named[id(one)]) for one in found)


def settings_apart(runs: Sequence[FoundRun]) -> str:
    """What the runs were told otherwise, in words: "steps (1, 5), lr (0.01, 0.0002)"; empty where nothing."""
    told = [f"{name} ({', '.join(dict.fromkeys(values))})" for name, values in _differing(runs).items()]
    rest = f" and {len(told) - _SETTINGS} more" if len(told) > _SETTINGS else ""
    return ", ".join(told[:_SETTINGS]) + rest


def _differing(runs: Sequence[FoundRun]) -> Mapping[str, list[str]]:
    return differing([run.record for run in runs])


def _names(alike: Sequence[System]) -> list[str]:
    """Names that tell systems of one model apart: by settings; else by seed, fingerprint or folder besides."""
    if len(alike) == 1:
        return [alike[0].name]
    firsts = [one.runs[0] for one in alike]
    told = list(_differing(firsts).items())[:_SETTINGS]
    of_settings = [
        ", ".join(values[place] if name == "protocol" else f"{name} {values[place]}" for name, values in told)
        for place in range(len(alike))
    ]
    besides = (
        [""] * len(alike),
        [f"seed{'s' * (len(one.seeds) > 1)} {', '.join(map(str, one.seeds))}" for one in alike],
        [run.record.fingerprint[:8] for run in firsts],
        [str(run.path.parent) for run in firsts],
    )
    ways = [[", ".join(filter(None, pair)) for pair in zip(of_settings, more, strict=True)] for more in besides]
    clear = next((way for way in ways if len(set(way)) == len(alike)), ways[-1])
    return [f"{one.name} ({telling})" for one, telling in zip(alike, clear, strict=True)]


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
    """As the record has it; of several seeds, the bootstrap over groups of what each unit scores on average."""
    if len(group) == 1:
        result = group[0].record.result(metric)
        return result.stderr if result else None
    if any(one.values.keys() != units[0].values.keys() for one in units):
        return None  # which the comparison refuses
    interval = clustered_bootstrap(Seeds.of([one.values for one in units]).mean, units[0].groups)
    return units[0].scale * interval.stderr if interval else None
