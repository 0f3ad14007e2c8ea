"""`vlbench verify`: check that records are as their runs wrote them."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vlbench.cli.options import AsJson
from vlbench.core.errors import ExitCode, printable


def verify(
    runs: Annotated[list[Path], typer.Argument(help="Folders with runs in or below, or run.json files.")],
    as_json: AsJson = False,
) -> None:
    """Check the seals of records and compute their scores again from their samples; exit 5 if one is broken.

    A seal is a hash over a finished record and the files beside it. It detects edits and damage, not forgery: whoever
    edits a record can also seal it again. Scores that are computed again are those of the samples, whoever made them.

    \b
    Per record:
      recomputed  its samples give its scores again, with intervals and slices
      sealed      no samples beside it: only the seal is checked
      unsealed    it has no seal (made by an older vlbench, or removed)
      unfinished  its run has not ended
      broken      edited or damaged

    \b
    Examples:
      vlbench verify runs
      vlbench verify leaderboards/world/records --json
    """
    from vlbench.engine.verify import verify as verify_run
    from vlbench.records.collect import collect

    collected = collect(runs)
    broken = [{"path": "", "state": "broken", "why": fault} for fault in collected.faults]
    checked = [*broken, *(asdict(verify_run(run)) for run in collected.runs)]
    counts = Counter(entry["state"] for entry in checked)
    if as_json:
        typer.echo(json.dumps({"records": checked, "counts": counts}, ensure_ascii=False))
    else:
        for entry in checked:
            place = f" {entry['path']}" if entry["path"] else ""
            why = f" ({entry['why']})" if entry["why"] else ""
            typer.echo(printable(f"{entry['state']}{place}{why}"))
        typer.echo(f"{len(checked)} records: {', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}")
    if counts["broken"]:
        raise typer.Exit(int(ExitCode.DATA))
