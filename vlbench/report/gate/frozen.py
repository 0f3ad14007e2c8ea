"""Frozen layer of the gate: fixed weights must give the same answers as in the baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from vlbench.core.errors import DataError
from vlbench.metrics.direction import worth
from vlbench.records.collect import FoundRun
from vlbench.report.gate.answers import read_answers
from vlbench.report.gate.baseline import FrozenEntry, Subject
from vlbench.report.gate.near_tie_bound import largest_change
from vlbench.report.gate.verdict import SAME, Kind, Verdict, absent


def judge_frozen(entry: FrozenEntry, groups: Mapping[Subject, list[FoundRun]]) -> Verdict:
    """Whether the answers equal those of the baseline, except near ties."""
    group = groups.get(entry.subject, [])
    verdict = partial(Verdict, entry.subject, "frozen")
    if why := absent(group):
        return verdict("missing", why)
    if len(group) > 1:
        folders = " and ".join(str(run.path.parent) for run in group[:2])
        return verdict("inconclusive", f"{len(group)} such runs, {folders}: give one")
    record = group[0].record
    if record.task.version != entry.task_version:
        reason = f"task version {record.task.version}, the baseline's is {entry.task_version}: make it again"
        return verdict("inconclusive", reason)
    try:
        now = read_answers(group[0].folder, 0.0)
    except DataError as error:
        return verdict("missing", error.message)
    if now.said.keys() != entry.answers.keys():
        odd = len(now.said.keys() ^ entry.answers.keys())
        return verdict("inconclusive", f"{odd:,} answers are on one side only: make the baseline again")
    if now.data != entry.data:
        reason = "its questions or references differ from the baseline's: make it again"
        return verdict("inconclusive", reason)
    return _answered(entry, now.said, group[0])


def _answered(entry: FrozenEntry, answers: Mapping[str, str], run: FoundRun) -> Verdict:
    """The verdict on answers to the same units."""
    flips = tuple(name for name, answer in sorted(entry.answers.items()) if answers[name] != answer)
    near = tuple(name for name in flips if answers[name] in entry.near_ties.get(name, ()))
    result = run.record.result(entry.metric)
    drop = worth(entry.value - result.value, result.higher_is_better) if result else None
    kind: Kind
    if len(flips) > len(near):
        kind, reason = "regression", f"{len(flips) - len(near):,} of {len(answers):,} answers changed"
    else:
        kind, reason = _explained(entry, run, near)
    if run.record.model.weights_sha256 != entry.weights_sha256:
        reason += "; its weights differ from the baseline's"
    return Verdict(entry.subject, "frozen", kind, reason, drop, flips=flips, near_ties=near)


def _explained(entry: FrozenEntry, run: FoundRun, near: Sequence[str]) -> tuple[Kind, str]:
    """Whether the value changed no more than the changed near ties can explain."""
    summary = (
        f"{len(near):,} near ties changed, nothing else" if near else f"all {len(entry.answers):,} answers as before"
    )
    result = run.record.result(entry.metric)
    if result is None:
        return "regression", f"{summary}, but its {entry.metric} is gone: the metric changed"
    moved = abs(entry.value - result.value)
    if moved <= SAME:
        return "pass", summary
    if not near:
        return "regression", f"{summary}, but not their {entry.metric}: the metric changed"
    reach = largest_change(run.folder, result, near)
    if reach is None:
        unknown = f"how far they can move its {entry.metric} is unknown"
        return "inconclusive", f"{summary}; {unknown}: make the baseline again"
    if moved <= reach + SAME:
        return "pass", summary
    moves = f"moved by {moved:.2f}, of which they explain {reach:.2f} at most"
    return "regression", f"{summary}, but its {entry.metric} {moves}"
