"""Verdicts of the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from vlbench.core.errors import ExitCode
from vlbench.records.collect import FoundRun
from vlbench.report.gate.baseline import Subject

Kind = Literal["pass", "regression", "improvement", "inconclusive", "missing"]
Layer = Literal["frozen", "trained", "speed"]
LAYERS: tuple[Layer, ...] = ("frozen", "trained")
"""Layers of the baseline; speed is not in it, since it is judged within one job."""
SAME = 1e-6
"""Rounding error of a value whose terms are added in another order."""


@dataclass(frozen=True)
class Verdict:
    """Verdict on one subject in one layer. drop, low, high, detectable: of the main metric, in its unit, with the 95 %
    interval; None if not estimated. flips: ids whose answers differ from the baseline. near_ties: those of them that
    are near ties.
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


def exit_code(verdicts: Sequence[Verdict]) -> ExitCode:
    """3 (regression) if there is one, else 4 (inconclusive) if anything is inconclusive or missing, else 0."""
    kinds = {verdict.kind for verdict in verdicts}
    if "regression" in kinds:
        return ExitCode.REGRESSION
    return ExitCode.INCONCLUSIVE if not kinds or kinds & {"inconclusive", "missing"} else ExitCode.OK


def absent(group: Sequence[FoundRun]) -> str:
    """Why a subject of the baseline cannot be judged by these runs; empty if it can."""
    if not group:
        return "in the baseline, but there is no such run"
    unfinished = next((run.record for run in group if run.record.status != "done"), None)
    if unfinished is not None:
        return f"its run is {unfinished.status}{f': {unfinished.error}' if unfinished.error else ''}"
    failed = max(run.record.unanswered for run in group)
    return f"{failed:,} examples of its run could not be answered" if failed else ""
