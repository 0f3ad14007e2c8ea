"""Values of tables: the mean over a system's runs, its interval and costs, and why a value does not count."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite, sqrt
from statistics import fmean, stdev

from vlbench.core.record import Result, RunRecord
from vlbench.records.collect import FoundRun

COSTS = {
    "parameters": "parameters (M)",
    "latency": "latency (ms a batch)",
    "memory": "memory (MiB)",
    "examples/s": "examples/s",
}
"""Costs of a run, shown as columns next to metrics: name -> heading."""

SELECTION = "selection"
"""The column of the score on the split that selected the checkpoint; never ranked as a result."""


@dataclass(frozen=True)
class Aggregate:
    """Mean of a metric or cost over the seeds of a system. ci95: the 95 % interval, None if there is none. spread: the
    standard deviation over seeds, None for one seed. doubt: why the value does not count, so it is shown in grey and
    never the best; empty if it counts. fingerprints: of the runs.
    """

    value: float
    ci95: tuple[float, float] | None = None
    seeds: tuple[int, ...] = ()
    spread: float | None = None
    higher_is_better: bool = True
    doubt: str = ""
    fingerprints: tuple[str, ...] = ()

    @property
    def reach(self) -> float | None:
        """The longer side of the interval, shown after ±."""
        return None if self.ci95 is None else max(self.value - self.ci95[0], self.ci95[1] - self.value)

    def is_near(self, other: Aggregate) -> bool:
        """Whether both differ by no more than noise, as independent values (`vlbench compare` pairs by example)."""
        if self.reach is None or other.reach is None:
            return self.value == other.value
        return abs(self.value - other.value) <= sqrt(self.reach**2 + other.reach**2)


def aggregate(runs: Sequence[FoundRun], metric: str, doubt: str) -> Aggregate | None:
    """The aggregate of the runs of one system; None where a run lacks the metric."""
    seeds = tuple(run.record.spec.seed for run in runs)
    if metric in COSTS:
        costs = [cost for run in runs if (cost := _cost(run.record, metric)) is not None]
        return Aggregate(fmean(costs), None, seeds, None, metric == "examples/s", doubt) if costs else None
    if metric == SELECTION:
        return _selection(runs, seeds, doubt)
    results = [result for run in runs if (result := run.record.result(metric)) is not None]
    if len(results) < len(runs):
        return None
    values = [result.value for result in results]
    better = results[0].higher_is_better
    if not all(map(isfinite, values)):
        return Aggregate(float("nan"), None, seeds, None, better, doubt or "its value is not a number")
    if len(results) == 1:
        return Aggregate(values[0], _known(results[0]), seeds, None, better, doubt)
    return Aggregate(fmean(values), _of_seeds(results), seeds, stdev(values), better, doubt)


def _selection(runs: Sequence[FoundRun], seeds: tuple[int, ...], doubt: str) -> Aggregate | None:
    """The mean over seeds on the selection split, without an interval; None where a run selected nothing."""
    trained = [run.record.train for run in runs]
    values = [train.selection for train in trained if train is not None and train.selection is not None]
    if len(values) < len(runs):
        return None
    main = runs[0].record.result(runs[0].record.task.main_metric)
    spread = stdev(values) if len(values) > 1 else None
    return Aggregate(fmean(values), None, seeds, spread, main is None or main.higher_is_better, doubt)


def pareto(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The Pareto front of (cost, worth) pairs: those that no other pair beats in both; by cost, each once."""
    front: list[tuple[float, float]] = []
    for cost, worth in sorted(points, key=lambda point: (point[0], -point[1])):
        if not front or worth > front[-1][1]:
            front.append((cost, worth))
    return front


def doubt(record: RunRecord, version: str, task_versions: Mapping[str, int]) -> str:
    """Why a record's values do not count; empty if they do. version: of this vlbench. task_versions: task -> version on
    its card, for known tasks.
    """
    task = record.task
    if record.status != "done":
        return f"{record.status}: {record.error}" if record.error else f"the run is {record.status}, not done"
    if task.n_scored != task.n_total:
        return f"limited: {task.n_scored:,} of {task.n_total:,} examples"
    if record.coverage and (lost := record.coverage.missing + record.coverage.errors):
        return f"{lost:,} of {record.coverage.expected:,} examples without an answer"
    if task.version != task_versions.get(task.name, task.version):
        return f"outdated: task version {task.version}, now {task_versions[task.name]}"
    if record.tool.version != version:
        return f"outdated: made by vlbench {record.tool.version}, this is {version}"
    if not record.results:
        return "no scores: the answers of its split are not public"
    return ""


def _known(result: Result) -> tuple[float, float] | None:
    return result.ci95 if result.ci95 and all(map(isfinite, result.ci95)) else None


def _of_seeds(results: Sequence[Result]) -> tuple[float, float]:
    """The interval of the mean over seeds: Student's t over the seeds, plus test sampling, as independent."""
    from scipy.special import stdtrit

    mean, count = fmean(result.value for result in results), len(results)
    seeds = float(stdtrit(count - 1, 0.975)) * stdev(result.value for result in results) / sqrt(count)
    sides = [(result.value - ends[0], ends[1] - result.value) for result in results if (ends := _known(result))]
    below, above = (sum(side) / count for side in zip(*sides, strict=True)) if sides else (0.0, 0.0)
    return mean - sqrt(seeds**2 + below**2), mean + sqrt(seeds**2 + above**2)


def _cost(record: RunRecord, name: str) -> float | None:
    efficiency = record.efficiency
    if name == "parameters":
        return record.model.parameters / 1e6
    if efficiency is None:
        return None
    if name == "latency":
        return efficiency.latency_ms.get("p50")
    return efficiency.peak_memory_mib if name == "memory" else efficiency.examples_per_second
