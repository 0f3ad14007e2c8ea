"""The trained layer: several seeds against several seeds, by an interval over seeds and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
"""Groups of examples below which an interval of the test set is not to be trusted."""
_SURE = 0.025
"""One-sided, so that the two-sided 95 % interval lies beyond the limit."""


def judge_trained(
    entries: Sequence[TrainedEntry], found: Mapping[Subject, list[FoundRun]], max_drop: float
) -> list[Verdict]:
    """Regressions are those whose drop is beyond the limit after Holm's correction over all that were tested."""
    outcomes = [_drop(entry, found.get(entry.subject, [])) for entry in entries]
    ps = iter(holm([one.beyond(max_drop) for one in outcomes if isinstance(one, Difference)]))
    return [
        one
        if isinstance(one, Verdict)
        else _concluded(entry.subject, one, next(ps), max_drop, _told_otherwise(entry, found[entry.subject][0]))
        for entry, one in zip(entries, outcomes, strict=True)
    ]


def _drop(entry: TrainedEntry, group: list[FoundRun]) -> Difference | Verdict:
    """How much lower the runs' figure is than the baseline's, or why that is not known."""
    of = entry.subject
    if why := absent(group):
        return Verdict(of, "trained", "missing", why)
    if group[0].record.task.version != entry.task_version:
        return Verdict(of, "trained", "inconclusive", "the task has another version: make the baseline again")
    try:
        units, side = side_of(group)
    except VlbenchError as error:
        return Verdict(of, "trained", "missing", error.message)
    if units[0].data != entry.data or side.mean.keys() != entry.units.keys():
        return Verdict(of, "trained", "inconclusive", "other examples than the baseline's: make it again")
    if (groups := len({*units[0].groups.values()})) < MIN_GROUPS:
        return Verdict(of, "trained", "inconclusive", f"{groups} groups of examples: {MIN_GROUPS} or more are needed")
    if _repeated(entry, side):
        reason = f"every seed and every example scores as before{_told_otherwise(entry, group[0])}"
        return Verdict(of, "trained", "pass", reason, 0.0)
    if min(len(group), len(entry.seeds)) < MIN_SEEDS:
        sides = f"seeds here: {len(group)}, in the baseline: {len(entry.seeds)}"
        return Verdict(of, "trained", "inconclusive", f"{sides}; {MIN_SEEDS} on each side are needed")
    worse, better = (side, entry.side) if entry.higher_is_better else (entry.side, side)
    return scaled(seeded(worse, better, units[0].groups), entry.scale)


def _repeated(entry: TrainedEntry, side: Seeds) -> bool:
    """Whether nothing changed at all, which no drop can hide in, however few seeds there are."""
    pairs = zip(entry.seeds.values(), side.figures, strict=False)
    units = ((value, side.mean[unit]) for unit, value in entry.units.items())
    return len(entry.seeds) == len(side.figures) and all(abs(a - b) <= SAME for a, b in chain(pairs, units))


def _told_otherwise(entry: TrainedEntry, run: FoundRun) -> str:
    """Which settings are others than the baseline's; its version says nothing of what was asked."""
    now = settings(run.record)
    names = [name for name in entry.settings if name != "vlbench" and now.get(name) != entry.settings[name]]
    told = [f"{name} {now.get(name, 'none')} for {entry.settings[name]}" for name in names[:SETTINGS]]
    return f"; it was told otherwise than the baseline's: {', '.join(told)}" if told else ""


def _concluded(of: Subject, drop: Difference, p: float, max_drop: float, otherwise: str) -> Verdict:
    kind, reason = _said(drop, p, max_drop)
    reason += otherwise
    return Verdict(of, "trained", kind, reason, drop.effect, drop.low, drop.high, drop.detectable)


def _said(drop: Difference, p: float, max_drop: float) -> tuple[Kind, str]:
    seen = f"a drop of {drop.detectable:.2f} or more would have been seen"
    if p < _SURE:
        return "regression", f"its figure dropped by more than {max_drop:g}"
    if drop.high < 0:
        return "improvement", "its figure rose"
    if drop.detectable > max_drop:
        return "inconclusive", f"only {seen}, and {max_drop:g} is the limit: take more seeds or examples"
    if drop.high > max_drop:
        return "inconclusive", f"the drop may be beyond {max_drop:g} or not: take more seeds or examples"
    return "pass", seen
