"""The regression gate: whether runs are as good as a baseline says, never passing what could not have been seen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import median
from typing import Literal

from vlbench.core.errors import DataError, ExitCode, VlbenchError
from vlbench.metrics.significance import Difference, Seeds, holm, seeded
from vlbench.records.collect import FoundRun
from vlbench.report.answers import read_answers
from vlbench.report.baseline import (
    Baseline,
    FrozenEntry,
    Subject,
    TrainedEntry,
    by_subject,
    is_trained,
    side_of,
)
from vlbench.report.compare import scaled
from vlbench.report.protocol import SETTINGS, settings
from vlbench.report.swing import most

Kind = Literal["pass", "regression", "improvement", "inconclusive", "missing"]
Layer = Literal["frozen", "trained", "speed"]
LAYERS: tuple[Layer, ...] = ("frozen", "trained")
"""Those of the baseline; speed has none, for it is judged within one job."""
MIN_SEEDS = 3
MIN_GROUPS = 50
"""Groups of examples below which an interval of the test set is not to be trusted."""
_SAME = 1e-6
"""What sums in another order may add to a figure."""
_SURE = 0.025
"""One-sided, so that the two-sided 95 % interval lies beyond the limit."""


@dataclass(frozen=True)
class Verdict:
    """One subject judged in one layer.

    drop, low, high, detectable: of the main metric, in its unit, with the 95 % interval; None where nothing was
    estimated. flips: ids that answer otherwise than in the baseline, and near_ties: those of them that may.
    """

    subject: Subject
    layer: Layer
    kind: Kind
    reason: str
    drop: float | None = None
    low: float | None = None
    high: float | None = None
    detectable: float | None = None
    flips: tuple[str, ...] = ()
    near_ties: tuple[str, ...] = ()


@dataclass(frozen=True)
class Limits:
    """What may happen. max_drop: in the unit of the metric. max_slowdown: a share; None judges no speed."""

    max_drop: float = 0.5
    max_slowdown: float | None = None


def judge(
    baseline: Baseline,
    runs: Sequence[FoundRun],
    limits: Limits,
    layers: Sequence[Layer] = LAYERS,
    reference: Sequence[FoundRun] = (),
) -> list[Verdict]:
    """A verdict for each subject of the baseline and each run, layer by layer.

    reference: runs measured in the same job, which alone speed is judged against.
    """
    found = by_subject(runs)
    verdicts: list[Verdict] = []
    if "frozen" in layers:
        verdicts += [_frozen(entry, found) for entry in baseline.frozen]
    if "trained" in layers:
        verdicts += _trained(baseline.trained, found, limits.max_drop)
    known = {entry.subject for entry in baseline.frozen} | {entry.subject for entry in baseline.trained}
    for of, group in found.items():
        layer: Layer = "trained" if is_trained(group[0].record) else "frozen"
        if of not in known and layer in layers:
            verdicts.append(Verdict(of, layer, "missing", "not in the baseline: add it with --update-baseline"))
    if limits.max_slowdown is not None:
        verdicts += _speed(found, by_subject(reference), limits.max_slowdown)
    return verdicts


def exit_code(verdicts: Sequence[Verdict]) -> ExitCode:
    """3 where there is a regression, else 4 where something is unknown, else 0."""
    kinds = {verdict.kind for verdict in verdicts}
    if "regression" in kinds:
        return ExitCode.REGRESSION
    return ExitCode.INCONCLUSIVE if not kinds or kinds & {"inconclusive", "missing"} else ExitCode.OK


def _absent(group: Sequence[FoundRun]) -> str:
    """Why a subject of the baseline cannot be judged by these runs; empty where it can."""
    if not group:
        return "in the baseline, but there is no such run"
    unfinished = next((run.record for run in group if run.record.status != "done"), None)
    if unfinished is None:
        return ""
    return f"its run is {unfinished.status}{f': {unfinished.error}' if unfinished.error else ''}"


def _frozen(entry: FrozenEntry, found: Mapping[Subject, list[FoundRun]]) -> Verdict:
    of, group = entry.subject, found.get(entry.subject, [])
    if why := _absent(group):
        return Verdict(of, "frozen", "missing", why)
    if len(group) > 1:
        folders = " and ".join(str(run.path.parent) for run in group[:2])
        return Verdict(of, "frozen", "inconclusive", f"{len(group)} such runs, {folders}: give one")
    record = group[0].record
    if record.task.version != entry.task_version:
        reason = f"task version {record.task.version}, the baseline's is {entry.task_version}: make it again"
        return Verdict(of, "frozen", "inconclusive", reason)
    try:
        now = read_answers(group[0].folder, 0.0)
    except DataError as error:
        return Verdict(of, "frozen", "missing", error.message)
    if now.said.keys() != entry.answers.keys():
        odd = len(now.said.keys() ^ entry.answers.keys())
        return Verdict(of, "frozen", "inconclusive", f"{odd:,} answers are on one side only: make the baseline again")
    if now.data != entry.data:
        reason = "its examples or what is right of them are others than the baseline's: make it again"
        return Verdict(of, "frozen", "inconclusive", reason)
    return _answered(entry, now.said, group[0])


def _answered(entry: FrozenEntry, said: Mapping[str, str], run: FoundRun) -> Verdict:
    """The verdict on the same units asked again."""
    flips = tuple(name for name, answer in sorted(entry.answers.items()) if said[name] != answer)
    near = tuple(name for name in flips if said[name] in entry.near_ties.get(name, ()))
    result = run.record.result(entry.metric)
    drop = entry.value - result.value if result else None
    kind: Kind
    if len(flips) > len(near):
        kind, reason = "regression", f"{len(flips) - len(near):,} of {len(said):,} answers changed"
    else:
        kind, reason = _explained(entry, run, near)
    if run.record.model.weights_sha256 != entry.weights_sha256:
        reason += "; its weights are others than the baseline's"
    return Verdict(entry.subject, "frozen", kind, reason, drop, flips=flips, near_ties=near)


def _explained(entry: FrozenEntry, run: FoundRun, near: Sequence[str]) -> tuple[Kind, str]:
    """Whether the figure moved no further than the near ties that changed can have moved it."""
    said = f"{len(near):,} near ties changed, nothing else" if near else f"all {len(entry.answers):,} answers as before"
    result = run.record.result(entry.metric)
    if result is None:
        return "regression", f"{said}, but its {entry.metric} is gone: the metric changed"
    moved = abs(entry.value - result.value)
    if moved <= _SAME:
        return "pass", said
    if not near:
        return "regression", f"{said}, but not their {entry.metric}: the metric changed"
    reach = most(run.folder, result, near)
    if reach is None:
        return "inconclusive", f"{said}; how far they can move its {entry.metric} is not known: make the baseline again"
    if moved <= reach + _SAME:
        return "pass", said
    return (
        "regression",
        f"{said}, but its {entry.metric} moved by {moved:.2f}, of which they explain {reach:.2f} at most",
    )


def _trained(
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
    if why := _absent(group):
        return Verdict(of, "trained", "missing", why)
    if min(len(group), len(entry.seeds)) < MIN_SEEDS:
        sides = f"seeds here: {len(group)}, in the baseline: {len(entry.seeds)}"
        return Verdict(of, "trained", "inconclusive", f"{sides}; {MIN_SEEDS} on each side are needed")
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
        return Verdict(of, "trained", "pass", "every seed and every example scores as before", 0.0)
    worse, better = (side, entry.side) if entry.higher_is_better else (entry.side, side)
    return scaled(seeded(worse, better, units[0].groups), entry.scale)


def _repeated(entry: TrainedEntry, side: Seeds) -> bool:
    """Whether nothing changed at all, which no drop can hide in, however few seeds or examples there are."""
    pairs = zip(entry.seeds.values(), side.figures, strict=False)
    units = ((value, side.mean[unit]) for unit, value in entry.units.items())
    return len(entry.seeds) == len(side.figures) and all(abs(a - b) <= _SAME for a, b in chain(pairs, units))


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


def _speed(
    found: dict[Subject, list[FoundRun]], reference: dict[Subject, list[FoundRun]], max_slowdown: float
) -> list[Verdict]:
    return [_paced(of, group, reference.get(of, []), max_slowdown) for of, group in found.items()]


def _paced(of: Subject, group: list[FoundRun], reference: list[FoundRun], max_slowdown: float) -> Verdict:
    """Examples per second against a reference's, on the same machine only; of several runs the median."""
    own, theirs = ([run.record.efficiency for run in runs if run.record.efficiency] for runs in (group, reference))
    if not own or not theirs:
        return Verdict(of, "speed", "missing", "no speed of the run, or of a reference in the same job")
    machines = {
        (of.cpu, of.gpu, of.device, of.threads, of.world_size)
        for of in (run.record.environment for run in (*group, *reference))
    }
    if len(machines) > 1:
        return Verdict(
            of, "speed", "inconclusive", "measured on another machine or with other threads than its reference"
        )
    now, then = (median(one.examples_per_second for one in side) for side in (own, theirs))
    if not now > 0 < then:
        return Verdict(of, "speed", "missing", "no examples were timed")
    slowdown = then / now - 1
    reason = f"{now:,.1f} examples/s, the reference {then:,.1f}"
    if slowdown > max_slowdown:
        return Verdict(of, "speed", "regression", f"{reason}: slower by {100 * slowdown:.0f} %")
    return Verdict(of, "speed", "improvement" if slowdown < -max_slowdown else "pass", reason)
