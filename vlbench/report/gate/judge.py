"""The regression gate: whether runs are as good as the baseline; a test without enough power is never a pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from statistics import median

from vlbench.records.collect import FoundRun
from vlbench.report.gate.baseline import Baseline, Subject, by_subject
from vlbench.report.gate.frozen import judge_frozen
from vlbench.report.gate.trained import judge_trained
from vlbench.report.gate.verdict import LAYERS, Layer, Verdict
from vlbench.report.tables.protocol import trains


@dataclass(frozen=True)
class Limits:
    """Limits of a pass. max_drop: in the unit of the metric. max_slowdown: a fraction; None: speed is not judged."""

    max_drop: float = 0.5
    max_slowdown: float | None = None


def judge(
    baseline: Baseline,
    runs: Sequence[FoundRun],
    limits: Limits,
    layers: Sequence[Layer] = LAYERS,
    reference: Sequence[FoundRun] = (),
) -> list[Verdict]:
    """A verdict for each subject of the baseline and each run, layer by layer. reference: runs measured in the same
    job; speed is judged against these only.
    """
    groups = by_subject(runs)
    verdicts: list[Verdict] = []
    if "frozen" in layers:
        verdicts += [judge_frozen(entry, groups) for entry in baseline.frozen]
    if "trained" in layers:
        verdicts += judge_trained(baseline.trained, groups, limits.max_drop)
    known = {entry.subject for entry in baseline.frozen} | {entry.subject for entry in baseline.trained}
    for subject, group in groups.items():
        layer: Layer = "trained" if trains(group[0].record) else "frozen"
        if subject not in known and layer in layers:
            verdicts.append(Verdict(subject, layer, "missing", "not in the baseline: add it with --update-baseline"))
    if limits.max_slowdown is not None:
        known_speeds = by_subject(reference)
        verdicts += [
            _paced(subject, group, known_speeds.get(subject, []), limits.max_slowdown)
            for subject, group in groups.items()
        ]
    return verdicts


def _paced(subject: Subject, group: list[FoundRun], reference: list[FoundRun], max_slowdown: float) -> Verdict:
    """Examples per second compared with the reference on the same machine; the median if there are several runs."""
    own, theirs = ([run.record.efficiency for run in runs if run.record.efficiency] for runs in (group, reference))
    if not own or not theirs:
        return Verdict(subject, "speed", "missing", "no speed of the run, or of a reference in the same job")
    machine_of = attrgetter("cpu", "gpu", "device", "threads", "world_size", "trials_at_once")
    if len({machine_of(run.record.environment) for run in (*group, *reference)}) > 1:
        reason = "measured on another machine, with other threads or beside other trials than its reference"
        return Verdict(subject, "speed", "inconclusive", reason)
    now, then = (median(efficiency.examples_per_second for efficiency in side) for side in (own, theirs))
    if not now > 0 < then:
        return Verdict(subject, "speed", "missing", "no examples were timed")
    slowdown = then / now - 1
    reason = f"{now:,.1f} examples/s, the reference {then:,.1f}"
    if slowdown > max_slowdown:
        return Verdict(subject, "speed", "regression", f"{reason}: slower by {100 * slowdown:.0f} %")
    return Verdict(subject, "speed", "improvement" if slowdown < -max_slowdown else "pass", reason)
