"""`vlbench gate`: whether runs are as good as a baseline; the exit code is the result."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vlbench.cli.options import AsJson
from vlbench.core.errors import DataError, VlbenchError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vlbench.records.collect import FoundRun
    from vlbench.report.gate.verdict import Verdict


class Layers(StrEnum):
    """Layers to judge."""

    all = "all"
    frozen = "frozen"
    trained = "trained"


MaxDrop = Annotated[float, typer.Option(min=0, help="Largest allowed drop of the main metric, in its unit.")]
MaxSlowdown = Annotated[str, typer.Option(help="E.g. 10%; needs --speed-reference. Left out: speed is not judged.")]
SpeedReference = Annotated[list[Path] | None, typer.Option(help="Runs of the previous code, measured in the same job.")]
UpdateBaseline = Annotated[bool, typer.Option("--update-baseline", help="Write a new baseline; gives no verdict.")]


def gate(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs in or below.")],
    baseline: Annotated[Path, typer.Option(help="The baseline file.")],
    layer: Annotated[Layers, typer.Option(help="frozen, trained or all.")] = Layers.all,
    max_drop: MaxDrop = 0.5,
    max_slowdown: MaxSlowdown = "",
    speed_reference: SpeedReference = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append the table to this file.")] = None,
    update_baseline: UpdateBaseline = False,
    reason: Annotated[str, typer.Option(help="Why the baseline changes; written into it.")] = "",
    as_json: AsJson = False,
) -> None:
    """Compare runs with a baseline: exit code 0 pass, 3 regression, 4 inconclusive.

    \b
    Examples:
      vlbench gate runs --baseline baseline.json --update-baseline --reason "first scoreboard"
      vlbench gate runs --baseline baseline.json --layer frozen --junit gate.xml --summary "$GITHUB_STEP_SUMMARY"
      vlbench gate runs --baseline baseline.json --max-slowdown 10% --speed-reference runs_of_main
    """
    from vlbench.records.collect import collect
    from vlbench.report.gate.baseline import read_baseline
    from vlbench.report.gate.judge import Limits, judge
    from vlbench.report.gate.verdict import LAYERS, exit_code

    collected = collect(runs)
    for fault in collected.faults:
        typer.echo(f"left out: {fault}", err=True)
    if update_baseline:
        verdict_flags = {"--json": as_json, "--junit": junit, "--summary": summary, "--layer": layer is not Layers.all}
        if given := [name for name, value in verdict_flags.items() if value]:
            raise VlbenchError(f"--update-baseline gives no verdict, and {given[0]} is for one: leave it out")
        _check(collected.runs)
        _update(baseline, collected.runs, reason)
        return
    if reason:
        raise VlbenchError("--reason is for --update-baseline: give both or neither")
    share = _share(max_slowdown, speed_reference)
    reference = collect(speed_reference).runs if speed_reference else ()
    _check(collected.runs)
    layers = [name for name in LAYERS if layer.value in ("all", name)]
    verdicts = judge(read_baseline(baseline), collected.runs, Limits(max_drop, share), layers, reference)
    code = int(exit_code(verdicts))
    _write(verdicts, code, junit, summary, as_json)
    raise typer.Exit(code)


def _check(runs: Sequence[FoundRun]) -> None:
    """Raise DataError if the samples of a run do not give the scores of its record."""
    from vlbench.engine.verify import verify

    for run in runs:
        checked = verify(run)
        if checked.state == "broken":
            raise DataError(f"{checked.path} is broken ({checked.why}): rerun it with --no-resume")


def _update(baseline: Path, runs: Sequence[FoundRun], reason: str) -> None:
    """Write the baseline anew from the runs; raises DataError if there is none."""
    from vlbench import __version__
    from vlbench.data.cache.lock import only_editor
    from vlbench.report.gate.baseline import read_baseline, updated, write_baseline
    from vlbench.report.gate.text import update_text

    if not runs:
        raise DataError(f"{baseline} is left as it is: none of the runs can be read")
    with only_editor(baseline):
        old = read_baseline(baseline) if baseline.exists() else None
        new = updated(old, runs, reason, __version__)
        write_baseline(baseline, new)
    typer.echo(f"{baseline} written: {update_text(old, new)}")


def _write(verdicts: list[Verdict], code: int, junit: Path | None, summary: Path | None, as_json: bool) -> None:
    """Write the verdicts to stdout and into the files that are asked for."""
    from vlbench.data.cache.folder import atomic_write
    from vlbench.data.cache.lock import only_editor
    from vlbench.report.gate.text import gate_json, gate_table
    from vlbench.report.gate.text import junit as junit_xml

    text = gate_table(verdicts)
    if junit:
        atomic_write(junit, junit_xml(verdicts))
    if summary:
        with only_editor(summary):
            before = summary.read_text(encoding="utf-8") if summary.is_file() else ""
            atomic_write(summary, f"{before}{text}\n")
    typer.echo(json.dumps(gate_json(verdicts, code)) if as_json else text)


def _share(given: str, reference: list[Path] | None) -> float | None:
    """`10%` or `0.1` as 0.1; None if speed is not judged. Raises VlbenchError without both flags or for no fraction."""
    if bool(given) != bool(reference):
        raise VlbenchError(
            "--max-slowdown and --speed-reference go together: speed is judged only against runs of the same job"
        )
    if not given:
        return None
    try:
        share = float(given.removesuffix("%")) / (100 if given.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 < share < float("inf"):
        raise VlbenchError(f"--max-slowdown {given!r} is not a fraction above 0: give for example 10% or 0.1")
    return share
