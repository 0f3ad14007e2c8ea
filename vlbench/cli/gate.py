"""`vlbench gate`: whether runs are as good as a baseline; its exit code is the answer."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Layers(StrEnum):
    """Which layers are judged."""

    all = "all"
    frozen = "frozen"
    trained = "trained"


def gate(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs in or below.")],
    baseline: Annotated[Path, typer.Option(help="The baseline file.")],
    layer: Annotated[Layers, typer.Option(help="frozen, trained or all.")] = Layers.all,
    max_drop: Annotated[float, typer.Option(min=0, help="Drop of the main metric that is allowed, in its unit.")] = 0.5,
    max_slowdown: Annotated[
        str, typer.Option(help="E.g. 10%; judged only against --speed-reference. Left out: not judged.")
    ] = "",
    speed_reference: Annotated[
        list[Path] | None, typer.Option(help="Runs of the code before, measured in the same job.")
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write the verdicts as JUnit XML.")] = None,
    summary: Annotated[Path | None, typer.Option(help="Append the table to this file.")] = None,
    update_baseline: Annotated[
        bool, typer.Option("--update-baseline", help="Write a new baseline; no verdict.")
    ] = False,
    reason: Annotated[str, typer.Option(help="Why the baseline changes; stays in it.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Judge runs by a baseline: exit 0 as good, 3 regression, 4 not known.

    \b
    Examples:
      vlbench gate runs --baseline baseline.json --update-baseline --reason "first scoreboard"
      vlbench gate runs --baseline baseline.json --layer frozen --junit gate.xml --summary "$GITHUB_STEP_SUMMARY"
      vlbench gate runs --baseline baseline.json --max-slowdown 10% --speed-reference runs_of_main
    """
    from vlbench import __version__
    from vlbench.core.errors import DataError, VlbenchError
    from vlbench.data.cache.folder import atomic_write
    from vlbench.records.collect import collect
    from vlbench.report.gate.baseline import read_baseline, updated, write_baseline
    from vlbench.report.gate.judge import Limits, judge
    from vlbench.report.gate.text import gate_json, gate_table, update_text
    from vlbench.report.gate.text import junit as junit_xml
    from vlbench.report.gate.verdict import LAYERS, exit_code

    found = collect(runs)
    for fault in found.faults:
        typer.echo(f"left out: {fault}", err=True)
    if update_baseline:
        verdict = (
            ("--json", as_json),
            ("--junit", junit),
            ("--summary", summary),
            ("--layer", layer is not Layers.all),
        )
        if idle := [name for name, given in verdict if given]:
            raise VlbenchError(f"--update-baseline gives no verdict, and {idle[0]} is of one: leave it out")
        if not found.runs:
            raise DataError(f"{baseline} is left as it is: none of the runs can be read")
        old = read_baseline(baseline) if baseline.exists() else None
        new = updated(old, found.runs, reason, __version__)
        write_baseline(baseline, new)
        typer.echo(f"{baseline} written: {update_text(old, new)}")
        return
    if reason:
        raise VlbenchError("--reason is for --update-baseline: give both or neither")
    limits = Limits(max_drop, _share(max_slowdown, speed_reference))
    reference = collect(speed_reference).runs if speed_reference else ()
    layers = [one for one in LAYERS if layer.value in ("all", one)]
    verdicts = judge(read_baseline(baseline), found.runs, limits, layers, reference)
    code = exit_code(verdicts)
    text = gate_table(verdicts)
    if junit:
        atomic_write(junit, junit_xml(verdicts))
    if summary:
        before = summary.read_text(encoding="utf-8") if summary.is_file() else ""
        atomic_write(summary, f"{before}{text}\n")
    typer.echo(json.dumps(gate_json(verdicts, code)) if as_json else text)
    raise typer.Exit(int(code))


def _share(given: str, reference: list[Path] | None) -> float | None:
    """`10%` or `0.1` as 0.1; None where no speed is judged."""
    from vlbench.core.errors import VlbenchError

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
        raise VlbenchError(f"--max-slowdown {given!r} is no share: give one such as 10% or 0.1")
    return share
