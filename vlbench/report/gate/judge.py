"""The regression gate: whether runs are as good as a baseline says, never passing what could not have been seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from vlbench.records.collect import FoundRun
from vlbench.report.gate.baseline import Baseline, Subject, by_subject
from vlbench.report.gate.frozen import judge_frozen
from vlbench.report.gate.trained import judge_trained
from vlbench.report.gate.verdict import LAYERS, Layer, Verdict
from vlbench.report.tables.protocol import trains


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
        verdicts += [judge_frozen(entry, found) for entry in baseline.frozen]
    if "trained" in layers:
        verdicts += judge_trained(baseline.trained, found, limits.max_drop)
    known = {entry.subject for entry in baseline.frozen} | {entry.subject for entry in baseline.trained}
    for of, group in found.items():
        layer: Layer = "trained" if trains(group[0].record) else "frozen"
        if of not in known and layer in layers:
            verdicts.append(Verdict(of, layer, "missing", "not in the baseline: add it with --update-baseline"))
    if limits.max_slowdown is not None:
        verdicts += _speed(found, by_subject(reference), limits.max_slowdown)
    return verdicts


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
