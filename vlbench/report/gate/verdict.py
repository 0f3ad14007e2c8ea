"""What the gate says of one subject."""

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
"""Those of the baseline; speed has none, for it is judged within one job."""
SAME = 1e-6
"""What sums in another order may add to a figure."""


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


def exit_code(verdicts: Sequence[Verdict]) -> ExitCode:
    """3 where there is a regression, else 4 where something is unknown, else 0."""
    kinds = {verdict.kind for verdict in verdicts}
    if "regression" in kinds:
        return ExitCode.REGRESSION
    return ExitCode.INCONCLUSIVE if not kinds or kinds & {"inconclusive", "missing"} else ExitCode.OK


def absent(group: Sequence[FoundRun]) -> str:
    """Why a subject of the baseline cannot be judged by these runs; empty where it can."""
    if not group:
        return "in the baseline, but there is no such run"
    unfinished = next((run.record for run in group if run.record.status != "done"), None)
    if unfinished is None:
        return ""
    return f"its run is {unfinished.status}{f': {unfinished.error}' if unfinished.error else ''}"
