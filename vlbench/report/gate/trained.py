"""Trained layer of the gate: several seeds compared with several seeds, with an interval over seeds and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain

from vlbench.core.errors import VlbenchError
from vlbench.metrics.significance import Difference, Seeds, holm, seeded
from vlbench.records.collect import FoundRun
from vlbench.report.compare.comparison import scaled
from vlbench.report.gate.baseline import Subject, TrainedEntry, side_of
from vlbench.report.gate.verdict import SAME, Kind, Verdict, absent
from vlbench.report.tables.protocol import settings
from vlbench.report.tables.system_names import SETTINGS

MIN_SEEDS = 3
MIN_GROUPS = 50
"""Groups of examples below which the interval of the test set is unreliable."""
_LEVEL = 0.025
"""Of the one-sided test, so that the two-sided 95 % interval lies beyond the limit."""


def judge_trained(
    entries: Sequence[TrainedEntry], groups: Mapping[Subject, list[FoundRun]], max_drop: float
) -> list[Verdict]:
    """Verdicts; a regression is a drop beyond the limit after Holm's correction over all tested subjects."""
    outcomes = [_drop(entry, groups.get(entry.subject, [])) for entry in entries]
    ps = iter(holm([outcome.beyond(max_drop) for outcome in outcomes if isinstance(outcome, Difference)]))
    verdicts = []
    for entry, outcome in zip(entries, outcomes, strict=True):
        if isinstance(outcome, Difference):
            kind, reason = _conclusion(outcome, next(ps), max_drop)
            reason += _changed_settings(entry, groups[entry.subject][0])
            estimate = (outcome.effect, outcome.low, outcome.high, outcome.detectable)
            outcome = Verdict(entry.subject, "trained", kind, reason, *estimate)
        verdicts.append(outcome)
    return verdicts


def _drop(entry: TrainedEntry, group: list[FoundRun]) -> Difference | Verdict:
    """How much lower the runs' value is than the baseline's, or a verdict that says why that is unknown."""
    verdict = partial(Verdict, entry.subject, "trained")
    if why := absent(group):
        return verdict("missing", why)
    if group[0].record.task.version != entry.task_version:
        return verdict("inconclusive", "the task has another version: make the baseline again")
    try:
        units, side = side_of(group)
    except VlbenchError as error:
        return verdict("missing", error.message)
    if units[0].data != entry.data or side.mean.keys() != entry.units.keys():
        return verdict("inconclusive", "other examples than the baseline's: make it again")
    if (groups := len({*units[0].groups.values()})) < MIN_GROUPS:
        return verdict("inconclusive", f"{groups} groups of examples: {MIN_GROUPS} or more are needed")
    if _repeated(entry, side):
        reason = f"every seed and every example scores as before{_changed_settings(entry, group[0])}"
        return verdict("pass", reason, 0.0)
    if min(len(group), len(entry.seeds)) < MIN_SEEDS:
        sides = f"seeds here: {len(group)}, in the baseline: {len(entry.seeds)}"
        return verdict("inconclusive", f"{sides}; {MIN_SEEDS} on each side are needed")
    worse, better = (side, entry.side) if entry.higher_is_better else (entry.side, side)
    return scaled(seeded(worse, better, units[0].groups), entry.scale)


def _repeated(entry: TrainedEntry, side: Seeds) -> bool:
    """Whether nothing changed at all: a pass, however few seeds there are."""
    pairs = zip(entry.seeds.values(), side.figures, strict=False)
    units = ((value, side.mean[unit]) for unit, value in entry.units.items())
    return len(entry.seeds) == len(side.figures) and all(abs(a - b) <= SAME for a, b in chain(pairs, units))


def _changed_settings(entry: TrainedEntry, run: FoundRun) -> str:
    """The settings that differ from the baseline's, its version aside; empty if none do."""
    now = settings(run.record)
    names = [name for name in entry.settings if name != "vlbench" and now.get(name) != entry.settings[name]]
    changed = [f"{name} {now.get(name, 'none')} for {entry.settings[name]}" for name in names[:SETTINGS]]
    return f"; settings that differ from the baseline's: {', '.join(changed)}" if changed else ""


def _conclusion(drop: Difference, p: float, max_drop: float) -> tuple[Kind, str]:
    power = f"a drop of {drop.detectable:.2f} or more would have been detected"
    if p < _LEVEL:
        return "regression", f"its value dropped by more than {max_drop:g}"
    if drop.high < 0:
        return "improvement", "its value rose"
    if drop.detectable > max_drop:
        return "inconclusive", f"only {power}, and {max_drop:g} is the limit: take more seeds or examples"
    if drop.high > max_drop:
        return "inconclusive", f"the drop may or may not exceed {max_drop:g}: take more seeds or examples"
    return "pass", power
